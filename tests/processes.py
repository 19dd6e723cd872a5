"""Processes that tests start: what runs in a session or a family of them, and where it listens."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).parent / "sweeps"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def started(folder: Path) -> subprocess.Popen[str]:
    """Start the study of x.yaml in a process session of its own."""
    return subprocess.Popen(
        [COMMAND, "run", "x.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(session: int) -> list[str]:
    """Return what still runs in a process session."""
    lines = subprocess.run(
        ["ps", "-eo", "sid=,pid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in lines if line.split()[0] == str(session)]


def listening(session: int) -> set[str]:
    """Return the addresses, as the kernel writes them, on which a session's processes listen."""
    sockets = set()
    for line in processes_of(session):
        for entry in Path(f"/proc/{line.split()[1]}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed meanwhile
                sockets.add(str(entry.readlink()))
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listens = "0A"
    return {
        row[1].partition(":")[0]
        for row in rows
        if row[3] == listens and f"socket:[{row[9]}]" in sockets
    }


@dataclass(frozen=True)
class Process:
    """A process that runs; with `began`, in ticks since the machine's start, never another one."""

    pid: int
    began: int
    parent: int
    command: str


def running() -> dict[int, Process]:
    """Return every process of the machine that is not a zombie, by its id."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            words = (place / "cmdline").read_bytes().replace(b"\0", b" ")
            if fields[0] not in "ZX":
                pid, command = int(place.name), words.decode(errors="replace").strip()
                found[pid] = Process(pid, int(fields[19]), int(fields[1]), command)
    return found


class Family:
    """What was started with a mark in its environment, and all that this has started since."""

    def __init__(self, mark: str) -> None:
        """Take NAME=VALUE, which nobody else has."""
        self._mark = mark.encode()
        self._known: dict[tuple[int, int], bool] = {}  # by id and start: whether it is ours

    def living(self) -> list[Process]:
        """Return those that run now; who was one of them once stays one when its parent has gone.

        To be called now and then: a grandchild is told by its parent where it hides its own mark.
        """
        there = running()
        return [one for one in there.values() if self._ours(one, there)]

    def _ours(self, one: Process, there: dict[int, Process]) -> bool:
        key = (one.pid, one.began)
        if not self._known.get(key):
            parent = there.get(one.parent)
            # A parent that is younger has taken over the id of one that is gone.
            older = parent is not None and parent.began <= one.began
            self._known[key] = self._marked(one.pid) or (older and self._ours(parent, there))
        return self._known[key]

    def _marked(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
