"""A Ray cluster of two nodes on this machine: addresses, names and mounts of their own.

What a test starts is ended by process id, also where it fails: everything carries a mark in its
environment, and `ray stop` is never called, since it ends every Ray process of the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
MARK = "SEEDSWEEP_TEST_CLUSTER"
# So that a node that dies is missed after seconds, as a test needs it (30 s is Ray's own).
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
SMALL = (
    *("--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats"),
    *("--min-worker-port=0", "--max-worker-port=0"),
)
# A host name and mounts of its own, also without being root where the kernel allows that.
APART = ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--uts", "--mount"]
ALONE = [*APART, "--pid", "--fork", "--kill-child", "--mount-proc"]
RENAME = (
    "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"
)


def free_port(host: str) -> int:
    """Return a port on which nothing listens now."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(what: str, true: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is true; fail by its name."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.1)


def children(parent: int) -> set[int]:
    """Return the processes that a process has started and that live."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            rest = path.read_text().rpartition(")")[2].split()
            if int(rest[1]) == parent and rest[0] != "Z":
                found.add(int(path.parent.name))
    return found


@dataclass
class Node:
    """A node: its raylet, and the file that says what `ray start` said."""

    address: str
    mark: str

    @property
    def raylet(self) -> int:
        """Return the process id of its raylet."""
        (found,) = (pid for pid, line in _marked(self.mark).items() if "/raylet/raylet" in line[0])
        return found

    @property
    def workers(self) -> set[int]:
        """Return its workers and agents."""
        return children(self.raylet)

    def end(self) -> None:
        """End all that it has started."""
        deadline = time.monotonic() + 20
        while found := _marked(self.mark):
            assert time.monotonic() < deadline, f"cannot be ended: {found}"
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def _marked(mark: str) -> dict[int, list[str]]:
    """Return what carries a mark in its environment, with its command line."""
    found, wanted = {}, f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                line = (path.parent / "cmdline").read_text(errors="replace").split("\0")
                if line != [""]:  # a process that has ended, and its parent has not noticed
                    found[int(path.parent.name)] = line
    return found


@dataclass
class Cluster:
    """A head, which trains one pack at a time, and nodes that join and leave."""

    folder: Path
    port: int
    dashboard: int
    client: int
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Return what --launcher takes."""
        return f"{HEAD}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what nodes, drivers and jobs run under."""
        return {
            **os.environ,
            **QUICK,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "SEEDSWEEP_CHECKPOINT_SECONDS": "0.5",
        }

    def start_head(self) -> Node:
        """Start the head."""
        client = f"--ray-client-server-port={self.client}"
        ports = [f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
        where = [f"--dashboard-host={HEAD}", f"--temp-dir={self.folder}", "--head"]
        return self._start(HEAD, [*where, *ports, client], [])

    def join(self, before: str = "true", *options: str) -> Node:
        """Start a second node; `before` is a shell's command that changes what it sees."""
        name = [sys.executable, "-c", RENAME, "second"]
        apart = [*APART, "sh", "-c", f'{before} && exec "$@"', "sh", *name]
        return self._start(SECOND, [f"--address={self.address}", *options], apart)

    def _start(self, address: str, options: Sequence[str], apart: Sequence[str]) -> Node:
        node = Node(address, secrets.token_hex(8))
        self.nodes.append(node)
        # Its usual port may be that of another cluster on this machine, and then no job is taken.
        agent = [f"--dashboard-agent-listen-port={free_port(address)}"]
        call = subprocess.run(
            [
                *apart,
                BIN / "ray",
                "start",
                f"--node-ip-address={address}",
                *SMALL,
                *agent,
                *options,
            ],
            env={**self.environment, MARK: node.mark},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            check=False,
            timeout=150,
        )
        assert call.returncode == 0, call.stdout
        return node

    def end(self) -> None:
        """End every node, the head last."""
        for node in reversed(self.nodes):
            node.end()


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Start a cluster with a head alone."""
    # A short path: those of sockets may have 107 letters.
    folder = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp"))
    cluster = Cluster(folder, free_port(HEAD), free_port(HEAD), free_port(HEAD))
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def mount_over(folder: Path, how: str) -> str:
    """Return the command that hides a folder, or makes it read-only, in a mount namespace."""
    place = shlex.quote(str(folder))
    hide = f"mount -t tmpfs none {place}"
    read_only = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    return {"hidden": hide, "read-only": read_only}[how]


@dataclass
class Driver:
    """A running `sweeps run`, and its study folder."""

    process: subprocess.Popen[str]
    folder: Path

    def finish(self, seconds: float = 600) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr when it has ended."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err
