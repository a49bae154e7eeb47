"""MCPist under the names that `openbao.OpenBao` has, so that one script makes the same mistake with both."""

import contextlib
import re
import secrets
import shutil
import sqlite3
import subprocess

from appliance import HOLDERS, VAULT, Appliance

# Where the seal config has the shares needed (FORMATS.md), behind magic, version, store, set and generation.
NEEDED_AT = 8 + 2 + 16 + 16 + 4


class Ours(Appliance):
    """An appliance whose shares are texts, as holders have them who opened their age files."""

    name = "MCPist"

    def __init__(self, folder, programs):
        folder.mkdir(parents=True)
        super().__init__(folder, programs)
        self.data = folder / "state"

    def said(self, *arguments, secret=None):
        """What an operator reads: the result, or the error with the next command; not the plan that is shown before."""
        done = self.plain(*arguments, secret=secret)
        text = done.stdout if done.returncode == 0 else done.stderr[done.stderr.find("error["):]
        return "\n".join(line for line in text.splitlines() if not line.startswith("  ")) or "nothing"

    def set_up(self):
        """Makes the store, opens it and puts the secret. Gives the three shares."""
        self.make_store()
        shares = self.shares(self.folder / "shares")
        if self.give_until_open(shares) is None:
            raise RuntimeError("the new store does not open")
        self.command("vault", "create", VAULT)
        self.put("first")
        return shares

    def shares(self, folder):
        """The shares' texts from the age files in `folder`."""
        texts = []
        for index, holder in enumerate(HOLDERS, 1):
            # Those of a rekey say their generation as well.
            (share,) = folder.glob(f"share-{index}-{holder}*.age")
            command = ["age", "-d", "-i", self.folder / f"{holder}.identity", share]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            texts.append(done.stdout.strip())
        return texts

    def put(self, value):
        self.put_password("service", f"{value}-password")

    def value(self):
        """Which password is stored, by its version, since none is ever shown."""
        listed = self.plain("--output", "json", "credential", "list", VAULT).stdout
        return {"1": "first", "2": "second"}[re.search(r'"version": ?(\d+)', listed)[1]]

    def seal(self):
        return self.said("seal")

    def status(self):
        return self.plain("status").stdout.partition("\n")[0]

    def give(self, share):
        """What the giver of a share is told."""
        return self.said("unseal", secret=share)

    def is_open(self):
        return self.plain("status").returncode == 0

    def ready(self):
        """Whether it serves: it does from the moment in which it is open."""
        return self.is_open()

    def give_until_open(self, shares):
        """How many of the shares it took, in order, until the store was open; None where it never was."""
        for count, share in enumerate(shares, 1):
            self.give(share)
            if self.is_open():
                return count
        return None

    def edit_threshold(self):
        """Whoever has the disk of the stopped host lets one share be enough."""
        with contextlib.closing(sqlite3.connect(self.data / "store/control.db")) as file, file:
            [config] = file.execute("SELECT value FROM config WHERE key = CAST('config' AS BLOB)").fetchone()
            edited = config[:NEEDED_AT] + b"\x01" + config[NEEDED_AT + 1:]
            file.execute("UPDATE config SET value = ? WHERE key = CAST('config' AS BLOB)", [edited])

    def begin_rekey(self):
        holders = [part for name in HOLDERS for part in ("--holder", f"{name}={self.recipient(name)}")]
        return self.said("rekey", "--threshold", "2", *holders, "--yes")

    def rekey_status(self):
        return self.said("ceremony")

    def consent(self, share, shown=True):
        """A share for new ones; the last one writes the new shares, which are kept or lost."""
        self._new = self.folder / f"new-{secrets.token_hex(4)}"
        self._new.mkdir()
        said = self.said("ceremony", "give", "--out", self._new, secret=share)
        if not shown:
            shutil.rmtree(self._new)
        return said

    def new_shares(self):
        return self.shares(self._new) if any(self._new.iterdir()) else []

    def rekey(self, old):
        """New shares, made whole: two of their holders show that they have them."""
        self.begin_rekey()
        for share in old[:2]:
            self.consent(share)
        new = self.new_shares()
        for share in new[:2]:
            self.said("ceremony", "give", "--out", self.folder, secret=share)
        return new
