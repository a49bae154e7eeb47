"""One appliance, from nothing to the first grant, by the commands that an operator types.

The holders' identities are made by `age-keygen`, and one share is opened by `age` itself, so that the files which
`mcpist init` writes are read by the program that their holders have.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess

from processes import PATIENCE, children, end_of, started, wait_until

WORKSPACE = pathlib.Path(__file__).resolve().parents[2]
SITE, NAMESPACE, VAULT, CREDENTIAL, BINDING = "peers", "peers", "main", "prometheus", "prometheus"
HOLDERS = ("one", "two", "three")


def build():
    """Builds the workspace's programs as the tests do; name → path."""
    command = ["cargo", "build", "--workspace", "--bins", "--locked", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command, cwd=WORKSPACE, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit("the programs do not build")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


class Failed(Exception):
    """A command that ended without success: its code and its text."""

    def __init__(self, command, code, message):
        super().__init__(f"{' '.join(map(str, command))}: {code}: {message}")
        self.code, self.message = code, message


class Appliance:
    """A daemon in `folder`. What every command said is kept in `folder/transcript`."""

    def __init__(self, folder, programs):
        self.folder, self.program = folder, programs["mcpist"]
        self._daemon = programs["mcpistd"]
        # What the command line keeps for its user stays in the folder too.
        self._environment = {**os.environ, "XDG_STATE_HOME": str(folder / "user")}
        self._transcript = folder / "transcript"

    def socket(self, name):
        return self.folder / "run" / f"{name}.sock"

    def log(self):
        return (self.folder / "log").read_text()

    def command(self, *arguments, secret=None):
        """Runs `mcpist`; `secret` goes through its standard input. Gives the data of its JSON."""
        done = self.plain("--output", "json", *arguments, secret=secret)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            raise Failed(arguments, done.returncode, done.stdout + done.stderr) from None
        if done.returncode != 0:
            raise Failed(arguments, answer["error"]["code"], answer["error"]["message"])
        return answer["data"]

    def plain(self, *arguments, secret=None):
        """`mcpist` as an operator runs it: the finished process. `secret` goes through its standard input."""
        command = [self.program, "--run", self.folder / "run", *arguments]
        done = subprocess.run(command, input="" if secret is None else secret, capture_output=True, text=True,
                              cwd=self.folder, env=self._environment, timeout=PATIENCE, check=False)
        with open(self._transcript, "a") as transcript:
            transcript.write(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done

    @contextlib.contextmanager
    def running(self):
        """The daemon; its runner must end with it."""
        for name in ("state", "run"):
            (self.folder / name).mkdir(exist_ok=True)
        listeners = "".join(
            f'[[listener]]\npath = "{self.socket(who)}"\nprincipal = "{who}"\n' for who in ("ada", "bob"))
        config = self.folder / "mcpist.toml"
        config.write_text(f'state = "{self.folder}/state"\nrun = "{self.folder}/run"\n{listeners}')
        runners = []
        try:
            with started([self._daemon, "--dev", "--config", config], self.folder / "log") as process:

                def ready():
                    if process.poll() is not None:
                        raise RuntimeError("mcpistd ended: " + self.log()[-2000:])
                    with socket.socket(socket.AF_UNIX) as probe:
                        probe.connect(str(self.socket("admin")))
                    return True

                wait_until(ready, "the admin socket")
                try:
                    yield process
                finally:
                    runners = children(process.pid)
        finally:
            end_of(runners)

    def set_up(self, module, service, user, password):
        """Makes the store, 2 of 3, and brings `module` so far that ada may call it. Gives what unsealing said."""
        root = self.make_store()
        opened = self._unseal()
        self.command("vault", "create", VAULT)
        self.put_password(user, password)
        registry = self._import(module, root)
        self.bind("--url", service.url("/api/v1"), "--ca", service.ca)
        self._decide("join", "put", "--registry", registry, "--module", module.name, "--slot", "server",
                     "--binding", BINDING)
        self._decide("registry", "activate", registry)
        for who in ("ada", "bob"):
            self._decide("principal", "put", who)
        self._decide("grant", "put", "ada", "--principal", "ada", "--module", module.name, "--access", "read")
        return opened

    def make_store(self):
        """Init of 2 of 3, with the holders' identities and a trust root, whose file it gives."""
        keys = {name: self.command("bundle", "keygen", self.folder / f"{name}.key", "--throwaway")["public"]
                for name in ("first", "second", "officer")}
        publishers = [part for name in ("first", "second") for part in ("--publisher", keys[name])]
        root = self.folder / "root.json"
        self.command("bundle", "root", root, "--site", SITE, "--namespace", NAMESPACE, *publishers,
                     "--publisher-threshold", "2", "--root-key", keys["first"], "--revoke-key", keys["second"])
        self._init(root, keys["officer"])
        return root

    def put_password(self, user, password):
        """Stores the service's password as a new version."""
        return self.command("credential", "put", VAULT, CREDENTIAL, "--kind", "basic", "--user", user,
                            "--host", "127.0.0.1", secret=password)

    def bind(self, *where):
        """Creates or replaces the binding."""
        self._decide("binding", "put", BINDING, "--vault", VAULT, "--credential", CREDENTIAL, "--method", "GET",
                     "--inject", "basic", "--allow-local", *where)

    def call_unrecorded(self, who, module, tool, arguments):
        """The result of a call whose arguments no file and no command line may hold."""
        name = "io.modelcontextprotocol/"
        meta = {name + "protocolVersion": "2026-07-28", name + "clientCapabilities": {},
                name + "clientInfo": {"name": "peers", "version": "1"}}
        params = {"name": "call_module_tool", "_meta": meta,
                  "arguments": {"module": module, "tool_name": tool, "arguments": arguments}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        with socket.socket(socket.AF_UNIX) as stream, stream.makefile("rw", encoding="utf-8") as lines:
            stream.settimeout(PATIENCE)
            stream.connect(str(self.socket(who)))
            lines.write(json.dumps(request) + "\n")
            lines.flush()
            return json.loads(lines.readline())["result"]

    def _init(self, root, officer):
        holders = []
        for name in HOLDERS:
            identity = self.folder / f"{name}.identity"
            subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
            os.chmod(identity, 0o600)
            holders += ["--holder", f"{name}={self.recipient(name)}"]
        self.command("init", "--dev", "--yes", "--threshold", "2", *holders, "--officer", f"officer={officer}",
                     "--root", root, "--token-file", self.folder / "state/init-token", "--out", self.folder / "shares")

    def recipient(self, holder):
        """The age recipient of a holder's identity."""
        command = ["age-keygen", "-y", self.folder / f"{holder}.identity"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _unseal(self):
        """One share by `age`, one by mcpist."""
        one = subprocess.run(["age", "-d", "-i", self.folder / "one.identity", self.folder / "shares/share-1-one.age"],
                             check=True, capture_output=True, text=True)
        self.command("unseal", secret=one.stdout)
        return self.command("unseal", "--share-file", self.folder / "shares/share-3-three.age",
                            "--identity", self.folder / "three.identity")

    def _import(self, module, root):
        bundle = self.folder / "module.bundle"
        self.command("bundle", "build", module, "--namespace", NAMESPACE, "--name", "monitoring", "--sequence", "1",
                     "--site", SITE, "--out", bundle)
        for name in ("first", "second"):
            self.command("bundle", "sign", bundle, "--key", self.folder / f"{name}.key")
        self.command("bundle", "verify", bundle, "--root", root)
        return self.command("bundle", "import", bundle)["registry"]["id"]

    def _decide(self, *arguments):
        data = self.command(*arguments, "--key", self.folder / "officer.key")
        if "stored" not in data["outcome"]:
            raise Failed(arguments, "pending", json.dumps(data))
        return data

    def audit_verdict(self):
        """What `audit verify` says of the log, from the ceremony's key to the head that the daemon names."""
        head = self.command("audit", "head")["head"]
        return self.command("audit", "verify", self.folder / "state/audit", "--record",
                            self.folder / "shares/ceremony.bin", "--expect", head)
