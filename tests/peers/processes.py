"""Processes that the lane starts, and waiting for what they bring about.

Every process is ended by its id when its `with` block is left, on signals too (see `die_properly`).
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

# How long anything may take before the lane gives up. Nothing is judged by it.
PATIENCE = 60


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def die_properly():
    """Makes the usual signals leave all `with` blocks, as an exception does."""

    def leave(number, _frame):
        undisturbed()
        sys.exit(128 + number)

    for each in SIGNALS:
        signal.signal(each, leave)


def undisturbed():
    """From here on no signal cuts the cleaning up short."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def wait_until(look, what, patience=PATIENCE):
    """Looks until `look()` gives something true; errors of a connection count as "not yet"."""
    deadline = time.monotonic() + patience
    problem = None
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except OSError as error:
            problem = error
        time.sleep(0.02)
    raise TimeoutError(f"waited {patience} s for {what}; last problem: {problem}")


def free_port():
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(command, log: pathlib.Path):
    """A process whose output goes to `log`; ended with SIGTERM, then with SIGKILL."""
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def children(pid):
    """The ids of a process's children."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found += [int(each) for each in (task / "children").read_text().split()]
    return found


def end_of(pids):
    """Waits for processes that must end by themselves; what does not is killed, and that is an error."""

    def runs(pid):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in "ZX"

    try:
        wait_until(lambda: not any(map(runs, pids)), f"processes {pids} to end", 10)
    except TimeoutError:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)
        raise
