"""The command in a process session of its own: what runs there, and where it listens."""

from __future__ import annotations

import contextlib
import subprocess
import sys
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
