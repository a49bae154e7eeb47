"""Two foreign MCP clients over `mcpist connect`, in both eras of the protocol. What went over the bridge is kept."""

import json
import os
import pathlib
import subprocess

from fastmcp import Client
from fastmcp.client.transports import StdioTransport

from processes import PATIENCE

RECORDED = pathlib.Path(__file__).with_name("recorded")
SCHEMA, CALL = "get_module_schema", "call_module_tool"


class Bridge:
    """The command with which a client starts the bridge, and the lines of both directions."""

    def __init__(self, appliance, who, name):
        self.prefix = appliance.folder / f"bridge-{name}"
        self.command = [str(part) for part in (RECORDED, appliance.program, appliance.socket(who), self.prefix)]

    def _lines(self, direction):
        text = pathlib.Path(f"{self.prefix}.{direction}").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def opening(self):
        """The method and the protocol version of the first request, and the result that answered it."""
        first = next(line for line in self._lines("sent") if "id" in line)
        params = first.get("params", {})
        version = params.get("protocolVersion") or params.get("_meta", {}).get(
            "io.modelcontextprotocol/protocolVersion")
        answer = next(line for line in self._lines("received") if line.get("id") == first["id"])
        return first["method"], version, answer.get("result", {})

    def versions(self):
        """The protocol versions that the requests after the first one carry in `_meta`."""
        requests = [line for line in self._lines("sent") if "id" in line][1:]
        name = "io.modelcontextprotocol/protocolVersion"
        return {line.get("params", {}).get("_meta", {}).get(name) for line in requests}


class Inspector:
    """The official Inspector's command line: one process and one connection for each request."""

    def __init__(self, npm, appliance, bridge):
        self._node = npm / "node/bin/node"
        self._program = npm / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
        self._home, self._bridge = appliance.folder / "inspector", bridge
        self._home.mkdir()

    def _run(self, *arguments):
        command = [self._node, self._program, "--cli", *self._bridge.command, *arguments]
        # A home of its own: it would write a catalogue into the caller's.
        environment = {**os.environ, "HOME": str(self._home)}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self._home,
                              env=environment, timeout=PATIENCE, check=False)
        with open(self._home / "transcript", "a") as transcript:
            transcript.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise RuntimeError(f"Inspector ended with {done.returncode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def list_tools(self, *options):
        """The names of the tools."""
        return [tool["name"] for tool in self._run("--method", "tools/list", *options)["tools"]]

    def call(self, tool, **arguments):
        """The result of a call."""
        pairs = [f"{name}={value if isinstance(value, str) else json.dumps(value)}"
                 for name, value in arguments.items()]
        return self._run("--method", "tools/call", "--tool-name", tool, "--tool-arg", *pairs)


async def with_fastmcp(bridge, work, mode="auto"):
    """Runs `work(client)` on one connection of fastmcp's client; it tries the newest revision first in mode `auto`."""
    transport = StdioTransport(command=bridge.command[0], args=bridge.command[1:], keep_alive=False)
    async with Client(transport, timeout=PATIENCE, mode=mode) as client:
        return await work(client)
