"""Twelve mistakes of operators, each made with OpenBao and with MCPist by real commands, and what each of them says.

What comes of it is the page docs/MISTAKES.md: without `--write` it is compared with what was said now, and a difference
fails. What is lost is counted: the right shares are given afterwards until the store serves its secret again.
"""

import argparse
import base64
import difflib
import os
import pathlib
import re
import secrets
import shutil
import tempfile
import traceback

import bech32m
from appliance import HOLDERS, WORKSPACE, build
from openbao import OpenBao
from ours import Ours
from processes import die_properly, undisturbed

PAGE = WORKSPACE / "docs/MISTAKES.md"
MARK = "<!-- what follows is written by tests/peers/run ceremonies --write -->"
NOTHING = "nothing"
# Ids, digests, addresses, times, and how often a store was written to.
VARYING = (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", r"\b[0-9a-f]{16,64}\b", r"127\.0\.0\.1:\d+",
           r"\d{4}-\d\d-\d\d[T ][0-9:.]+Z?", r"\b\d+ (s|min|hours)\b", r"(?<=is at generation )\d+",
           r"(?<=receipt shows )\d+")


class Lab:
    """One store of one side, and another where a mistake needs it."""

    def __init__(self, make, folder):
        self._make, self._folder, self._open = make, folder, []

    def __enter__(self):
        self.side = self.another()
        return self

    def __exit__(self, *_):
        while self._open:
            self._open.pop()[1].__exit__(None, None, None)

    def another(self):
        side = self._make(self._folder / f"site-{len(self._open) + 1}")
        self._open.append((side, None))
        self.start(side)
        return side

    def start(self, side):
        running = side.running()
        running.__enter__()
        self._open = [(each, running if each is side else old) for each, old in self._open]

    def stop(self, side):
        running = dict(self._open)[side]
        running.__exit__(None, None, None)


def lost(side, right, without):
    """What is gone, where `without` shares of `right` would have opened the store had nothing happened."""
    took = side.give_until_open(right)
    if took is None:
        return "the store: no share that anybody holds opens it"
    return NOTHING if took == without else "the share that was given before"


def bad_share(spoil):
    """A mistake at unseal: one right share is in, then comes a bad one."""

    def make(lab):
        side = lab.side
        shares = side.set_up()
        side.seal()
        side.give(shares[0])
        said = side.give(spoil(lab, shares))
        return said, lost(side, [shares[1], shares[0]], 1)

    return make


def made_up(lab, shares):
    if lab.side.name == "OpenBao":
        return base64.b64encode(secrets.token_bytes(33)).decode()
    # The most careful forgery: all of a real share but the value.
    payload = bech32m.decode(shares[1])
    return bech32m.encode("mcpist-share", payload[:24] + secrets.token_bytes(32))


def of_another_store(lab, _shares):
    return lab.another().set_up()[1]


def mistyped(_lab, shares):
    text = shares[1]
    at = len(text) // 2
    return text[:at] + ("q" if text[at] != "q" else "p") + text[at + 1:]


def restart_half_way(lab):
    side = lab.side
    shares = side.set_up()
    side.seal()
    side.give(shares[0])
    lab.stop(side)
    lab.start(side)
    return side.status(), lost(side, [shares[1], shares[0]], 1)


def share_to_the_wrong_ceremony(lab):
    side = lab.side
    shares = side.set_up()
    side.begin_rekey()
    said = side.give(shares[0])
    side.consent(shares[0])
    side.consent(shares[1])
    return said, NOTHING if side.new_shares() else "the ceremony"


def new_shares_lost(lab):
    side = lab.side
    shares = side.set_up()
    side.begin_rekey()
    side.consent(shares[0])
    said = side.consent(shares[1], shown=False)
    lab.stop(side)
    lab.start(side)
    return said, lost(side, shares, 2)


def sealed_while_open(lab):
    side = lab.side
    shares = side.set_up()
    side.begin_rekey()
    side.consent(shares[0])
    side.seal()
    what = lost(side, shares, 2)
    return side.rekey_status(), "the open ceremony, with the share given to it" if what == NOTHING else what


def abandoned(lab):
    side = lab.side
    shares = side.set_up()
    side.begin_rekey()
    side.consent(shares[0])
    said = side.begin_rekey()
    side.seal()
    return said, lost(side, shares, 2)


def superseded_share(lab):
    side = lab.side
    old = side.set_up()
    new = side.rekey(old)
    side.seal()
    side.give(new[0])
    said = side.give(old[1])
    return said, lost(side, [new[1], new[0]], 1)


def copied(lab):
    """A copy of all that the stopped store has on its disk."""
    lab.stop(lab.side)
    shutil.copytree(lab.side.data, lab.side.folder / "copy")


def put_back(lab):
    """The store as it was when it was copied; it is stopped."""
    shutil.rmtree(lab.side.data)
    (lab.side.folder / "copy").rename(lab.side.data)
    lab.start(lab.side)


def threshold_edited(lab):
    side = lab.side
    shares = side.set_up()
    copied(lab)
    side.edit_threshold()
    lab.start(side)
    said = side.give(shares[0])
    if side.is_open():
        return said, "the quorum: one share opened the store"
    lab.stop(side)
    put_back(lab)
    return said, lost(side, shares, 2)


def older_copy(lab):
    side = lab.side
    shares = side.set_up()
    copied(lab)
    lab.start(side)
    side.give_until_open(shares)
    side.put("second")
    side.seal()
    lab.stop(side)
    put_back(lab)
    side.give(shares[0])
    said = side.give(shares[1])
    if not side.is_open():
        return said, NOTHING
    side.ready()
    return said, f"the password that was put since; the {side.value()} one is served again, without a word"


MISTAKES = [
    ("A share that somebody made up", bad_share(made_up)),
    ("A share of another store", bad_share(of_another_store)),
    ("The same share twice", bad_share(lambda _lab, shares: shares[0])),
    ("One letter of a share is wrong", bad_share(mistyped)),
    ("The host restarts between two shares", restart_half_way),
    ("A share for new shares is given to unseal", share_to_the_wrong_ceremony),
    ("The new shares are lost on their way, then the host restarts", new_shares_lost),
    ("The store is sealed while new shares are being made", sealed_while_open),
    ("Making new shares is abandoned; somebody else begins it again", abandoned),
    ("A share of before, given after new ones were made", superseded_share),
    ("Whoever has the disk lets one share be enough", threshold_edited),
    ("The whole disk is put back from an older copy", older_copy),
]


def settled(text, side):
    """The text without what differs each time."""
    for pattern in (re.escape(str(side.folder)), *VARYING):
        text = re.sub(pattern, "…", text)
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.replace("|", "\\|").splitlines())
    return "<br>".join(line for line in lines if line)


def page(rows):
    """One mistake after the other, and a count before them."""
    losses = {}
    for _, outcomes in rows:
        for name, _, what in outcomes:
            losses[name] = losses.get(name, 0) + (what != NOTHING)
    counts = ", ".join(f"with {name} in {count}" for name, count in losses.items())
    lines = [f"\nOf {len(rows)} mistakes, something is lost {counts}."]
    for number, (title, outcomes) in enumerate(rows, 1):
        lines += [f"\n### {number}. {title}\n", "| | says | lost |", "|---|---|---|"]
        lines += [f"| {name} | {said} | {what} |" for name, said, what in outcomes]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bao", type=pathlib.Path, required=True, help="OpenBao's program")
    parser.add_argument("--write", action="store_true", help="write the page instead of comparing it")
    parser.add_argument("--only", type=int, action="append", help="this mistake alone, printed, not compared")
    options = parser.parse_args()
    die_properly()
    # Everything is loopback.
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    programs = build()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mcpist-ceremonies-"))
    sides = {"OpenBao": lambda place: OpenBao(place, options.bao), "MCPist": lambda place: Ours(place, programs)}
    rows, failed = [], 0
    try:
        for number, (title, mistake) in enumerate(MISTAKES, 1):
            if options.only and number not in options.only:
                continue
            outcomes = []
            for name, make in sides.items():
                try:
                    with Lab(make, folder / f"{number}-{name}") as lab:
                        said, what = mistake(lab)
                        outcomes.append((name, settled(said, lab.side), what))
                except Exception:
                    failed += 1
                    print(f"FAIL  {number}. {title}: {name}\n{traceback.format_exc()}", flush=True)
            rows.append((title, outcomes))
            print(page([(title, outcomes)]) if options.only else f"ok    {title}", flush=True)
    finally:
        undisturbed()
        if failed:
            print(f"what was left is in {folder}")
        else:
            shutil.rmtree(folder)
    if options.only or failed:
        return 1 if failed else 0
    return conclude(page(rows), options.write)


def conclude(found, write):
    before, _, kept = PAGE.read_text().partition(MARK + "\n")
    if write:
        PAGE.write_text(f"{before}{MARK}\n{found}")
        print(f"{PAGE} is written")
        return 0
    difference = list(difflib.unified_diff(kept.splitlines(), found.splitlines(), str(PAGE), "this run", lineterm=""))
    print("\n".join(difference) or f"{len(MISTAKES)} mistakes, as {PAGE.name} has them")
    return 1 if difference else 0


if __name__ == "__main__":
    raise SystemExit(main())
