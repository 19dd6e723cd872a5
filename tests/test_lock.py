"""One run at a time on a study folder, with real processes: who holds it, and when it is free."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sweeps.folder import lock
from sweeps.folder.lock import Holder, hold, holder
from sweeps.mistakes import Refused

HERE = socket.gethostname()
HOLD = (
    "import subprocess, sys, time; from pathlib import Path; from sweeps.folder.lock import hold\n"
)
HOLD += "with hold(Path(sys.argv[1]), 'sweeps run x.yaml'):\n"
WAIT = "    print('held', flush=True); time.sleep(60)\n"


@contextmanager
def held(folder: Path, inside: str = WAIT) -> Iterator[subprocess.Popen[str]]:
    """Hold the folder in another process, killed at the end."""
    command = [sys.executable, "-c", HOLD + inside, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refused(folder: Path) -> str:
    with pytest.raises(Refused) as failure, hold(folder, "sweeps run x.yaml"):
        pass
    (sentence,) = failure.value.mistakes
    return sentence


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


def test_the_second_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with held(tmp_path) as process:
        found = holder(tmp_path)
        assert found is not None
        assert (found.host, found.pid, found.command) == (HERE, process.pid, "sweeps run x.yaml")
        assert found.since is not None
        assert abs((datetime.now(UTC) - found.since).total_seconds()) < 30
        start = time.monotonic()
        assert refused(tmp_path) == (
            f"{tmp_path}: held by 'sweeps run x.yaml', process {process.pid} on {HERE} since "
            f"{found.since:%Y-%m-%d %H:%M:%S} UTC; wait for it, or end it with: "
            f"kill -INT {process.pid}"
        )
        assert 0.9 < time.monotonic() - start < 10, "tried for about a second"
        process.send_signal(signal.SIGINT)
        process.wait()
        with hold(tmp_path, "another"):
            assert holder(tmp_path) is not None, "what it says to do, helps"
    assert holder(tmp_path) is None


def test_it_dies_with_its_holder(tmp_path: Path) -> None:
    """Even where what the holder started lives on: a program, and a process that Python forked."""
    inside = (
        "    import os\n"
        "    quiet = subprocess.DEVNULL\n"
        "    child = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=quiet)\n"
        "    other = os.fork()\n"
        "    if not other: os.close(1); time.sleep(60); os._exit(0)\n"
        "    print(child.pid, other, flush=True); time.sleep(60)\n"
    )
    with held(tmp_path, "    print('held', flush=True)\n" + inside) as process:
        assert process.stdout is not None
        children = [int(word) for word in process.stdout.readline().split()]
        try:
            assert holder(tmp_path) is not None
            process.kill()
            process.wait()
            for child in children:
                os.kill(child, 0)  # lives
            # Within its patience: a forked child lets go as soon as it is given its turn.
            with hold(tmp_path, "x") as warning:
                assert warning == note_of(tmp_path)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)


def note_of(folder: Path) -> str | None:
    """Return what is said on this machine's own file system; nothing on an ordinary one."""
    kind = lock.untrusted(folder)
    return kind and (
        f"{folder}: its lock may not be seen from other machines, since it lies on {kind}; "
        "see to it that no second run works on it elsewhere"
    )


def test_a_fork_inside_leaves_the_parents_lock_and_other_files_alone(tmp_path: Path) -> None:
    inside = (
        "    import os\n"
        "    child = os.fork()\n"
        "    if child: os.waitpid(child, 0); print('held', flush=True); time.sleep(60)\n"
        "    else: mine = os.open('/dev/null', os.O_RDONLY)\n"
        "os.fstat(mine)\n"
    )
    with held(tmp_path, inside):
        assert holder(tmp_path) is not None, "the child left the `with` block, the parent did not"


@pytest.mark.usefixtures("soon")
def test_two_threads_are_two(tmp_path: Path) -> None:
    said: list[str] = []
    with hold(tmp_path, "first"):
        thread = threading.Thread(target=lambda: said.append(refused(tmp_path)))
        thread.start()
        thread.join()
    assert said[0].startswith(f"{tmp_path}: held by 'first', process {os.getpid()} on {HERE} ")
    with hold(tmp_path, "second"):
        found = holder(tmp_path)
    assert found is not None
    assert found.command == "second"


def test_looking_disturbs_nobody_who_starts(tmp_path: Path) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            holder(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(50):
            with hold(tmp_path, "x"):
                pass
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"host": "a", "pid": 1',
        b'{"host": "a", "pid": "4", "since": "2026-11-22T20:55:01+00:00", "command": "x"}',
        b'{"host": "a", "pid": 4, "since": "now", "command": "x"}',
        b'{"host": "a", "pid": 4, "since": "2026-11-22T20:55:01", "command": "x"}',
        b'{"host": "a", "pid": -1, "since": "2026-11-22T20:55:01+00:00", "command": "x"}',
    ],
)
def test_content_that_says_nothing_is_no_lock_and_frees_none(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".lock").write_bytes(content)
    assert holder(tmp_path) is None
    with hold(tmp_path, "x"):
        (tmp_path / ".lock").write_bytes(content)
        assert holder(tmp_path) == Holder()
        assert refused(tmp_path) == (
            f"{tmp_path}: held by another process, of which nothing is known; wait for it, or "
            f"find it with: lsof {tmp_path}/.lock"
        )


@pytest.mark.usefixtures("soon")
def test_a_holder_on_another_machine_is_ended_there(tmp_path: Path) -> None:
    said = {"host": "node7", "pid": 4242, "since": "2026-11-22T21:55:01+01:00", "command": "x\n"}
    with hold(tmp_path, "x"):
        (tmp_path / ".lock").write_text(json.dumps(said))
        assert refused(tmp_path) == (
            f"{tmp_path}: held by 'x?', process 4242 on node7 since 2026-11-22 20:55:01 UTC; "
            "wait for it, or end it on node7 with: kill -INT 4242"
        )


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file") == (
        f"{tmp_path / 'file'}: the study folder cannot be written: File exists; "
        "choose another with --out"
    )
    assert holder(tmp_path / "file") is None
    assert holder(tmp_path / "nowhere") is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_a_folder_that_cannot_be_written_is_refused() -> None:
    """One where even root writes nothing."""
    sentence = refused(Path("/proc/self"))
    assert sentence.startswith("/proc/self: the study folder cannot be written: ")
    assert sentence.endswith("; choose another with --out")


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:40 / /home rw - nfs4 server:/home rw,vers=4.2
24 23 0:41 / /home/me/local rw shared:3 master:1 - xfs /dev/sdb rw
25 22 0:42 / /mnt/with\040space rw - fuse.sshfs me@there: rw
26 22 0:43 / /mnt/twice rw - cifs //server/share rw
27 22 0:44 / /mnt/twice rw - tmpfs tmpfs rw
28 22 0:45 / /mnt/lab rw - lustre 10.0.0.1@tcp:/lab rw
29 22 0:46 / /mnt/vm rw - 9p share rw
30 22 0:47 / /mnt/stick rw - fuseblk /dev/sdc1 rw
short line
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", None),
        ("/data/runs", None),
        ("/home/me/runs/x", "nfs4"),
        ("/homes", None),
        ("/home/me/local/runs", None),
        ("/home/me/local/../runs", "nfs4"),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/mnt/twice/x", None),
        ("/mnt/lab", "lustre"),
        ("/mnt/vm/x", "9p"),
        ("/mnt/stick/x", None),
    ],
)
def test_file_systems_whose_locks_may_stay_on_one_machine(
    folder: str, kind: str | None, tmp_path: Path
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert lock.untrusted(Path(folder), tmp_path / "mountinfo") == kind


def test_without_a_table_of_mounts_nothing_is_known(tmp_path: Path) -> None:
    assert lock.untrusted(tmp_path, tmp_path / "none") is None


def test_a_lock_that_cannot_be_trusted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(f"1 1 0:1 / {tmp_path} rw - nfs server:/x rw\n")
    monkeypatch.setattr(lock.untrusted, "__defaults__", (tmp_path / "mountinfo",))
    with hold(tmp_path / "x", "x") as warning:
        assert warning == (
            f"{tmp_path / 'x'}: its lock may not be seen from other machines, since it lies on "
            "nfs; see to it that no second run works on it elsewhere"
        )
