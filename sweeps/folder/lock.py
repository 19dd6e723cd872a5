"""One `run` at a time on a study folder: a lock that dies with its holder.

The kernel holds it (flock, on Linux and macOS), so that a holder that was killed leaves none; the
file's content says only who it is. The descriptor is closed in every child: by the kernel where
one starts a program, by us where Python forks. A fork in C code (none that we start does) could
keep it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import shlex
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.folder import timeline
from sweeps.folder.holder import NAME, Holder
from sweeps.folder.objects import ObjectPath
from sweeps.folder.packfiles import CHECKPOINTS, RECORDS, SIDECARS
from sweeps.mistakes import Refused

FOLDERS = (RECORDS, *SIDECARS, CHECKPOINTS, timeline.FOLDER, "damaged", "figures", "tune")
PATIENCE = 1.0  # seconds: `holder` takes the lock for an instant to see whether it is free
PAUSE = 0.02
CANNOT = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # no locks there at all
# Where flock may stay on one machine, as of mount options that are not seen from here.
NOT_TRUSTED = re.compile(
    r"nfs\d?|cifs|smb\w*|fuse(\..+)?|lustre|9p|afs|ncpfs|vboxsf|virtiofs|prl_fs|pvfs2|orangefs"
)
MOUNTS = Path("/proc/self/mountinfo")

NOT_SAID = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)

_held: set[int] = set()  # descriptors


@contextlib.contextmanager
def hold(folder: Path, command: str) -> Iterator[str | None]:
    """Hold a study folder, which is made where there is none; no other process or thread can.

    Yields what to tell the user where the lock may not reach other machines, or the folder is
    somebody else's, else None. Raises Refused where another holds it, where the folder cannot be
    written, and where it holds links, which would have us write and move files elsewhere.
    """
    if isinstance(folder, ObjectPath):
        from sweeps.folder.lease import lease  # noqa: PLC0415 - the store's own client

        with lease(folder, command):
            yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_links(folder)
        # Never inherited by programs that are started (PEP 446).
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as failure:
        raise _cannot_be_written(folder, failure) from None
    _held.add(descriptor)
    try:
        warning = _take(folder, descriptor)
        try:
            _introduce(descriptor, command)
        except OSError as failure:
            raise _cannot_be_written(folder, failure) from None
        yield "; ".join(filter(None, (warning, _of_another(folder)))) or None
    finally:
        if descriptor in _held:  # else this is a forked child, which has let go of it
            _held.remove(descriptor)
            with contextlib.suppress(OSError):  # released below at the latest
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # even where a child kept the descriptor
            os.close(descriptor)


def holder(folder: Path) -> Holder | None:
    """Return who holds a study folder, None where nobody does; disturbs no `run` that starts.

    Raises OSError where the lock's file is there and may not be read.
    """
    if isinstance(folder, ObjectPath):
        from sweeps.folder.lease import lessee  # noqa: PLC0415 - the store's own client

        return lessee(folder)
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _introduced(descriptor)
    except OSError as failure:
        if failure.errno not in CANNOT:
            raise
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def untrusted(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the folder's file system where a lock may not reach other machines.

    None where it does, and where that cannot be known (macOS). `mounts` is a table as of Linux'
    proc(5), mountinfo.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, kind, longest = folder.resolve(), "", -1
    for line in lines:
        own, _, mounted = line.partition(" - ")
        fields, types = own.split(" "), mounted.split(" ")
        if len(fields) > 4:  # noqa: PLR2004 - the fifth is the mount point
            point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]))
            depth = len(point.parts)
            # Of two at one place the later one hides the other.
            if depth >= longest and place.is_relative_to(point):
                kind, longest = types[0], depth
    return kind if NOT_TRUSTED.fullmatch(kind) else None


def _refuse_links(folder: Path) -> None:
    """Refuse a study folder made so that what is written, moved or removed in it lies elsewhere.

    A link in a file's place is harmless: files are replaced, never written through.
    """
    links = [folder / name for name in (NAME, *FOLDERS) if (folder / name).is_symlink()]
    if links:
        text = "a link, and a study folder holds its files itself"
        fix = "put there what it leads to, or choose another folder with --out"
        raise Refused([f"{link}: {text}; {fix}" for link in links])


def _of_another(folder: Path) -> str | None:
    """Say whose folder it is, where it is neither ours nor the machine's."""
    owner = folder.stat().st_uid
    if owner in (os.geteuid(), 0):
        return None
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"user {owner}"
    return f"{folder}: belongs to {name}, who can change every number in it"


def _take(folder: Path, descriptor: int) -> str | None:
    """Lock the descriptor, or raise Refused; return what to tell the user."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Refused([_refusal(folder, _introduced(descriptor))]) from None
            time.sleep(PAUSE)
        except OSError as failure:
            if failure.errno not in CANNOT:
                raise _cannot_be_written(folder, failure) from None
            text = f"{folder}: cannot be locked here: {failure.strerror}"
            return f"{text}; see to it that no second run works on it"
        else:
            break
    kind = untrusted(folder)
    if kind is None:
        return None
    text = f"{folder}: its lock may not be seen from other machines, since it lies on {kind}"
    return f"{text}; see to it that no second run works on it elsewhere"


def _refusal(folder: Path, who: Holder) -> str:
    """Return who holds the folder, and what to do."""
    text = f"{folder}: held by {who.words}; wait for it, or"
    if who.pid is None:
        return f"{text} find it with: lsof {shlex.quote(str(folder / NAME))}"
    there = "" if who.host == socket.gethostname() else f" on {who.host}"
    return f"{text} end it{there} with: kill -INT {who.pid}"


def _introduce(descriptor: int, command: str) -> None:
    """Write who holds the lock; a reader meanwhile finds nobody's name, and looks again."""
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode() + b"\n", 0)


def _introduced(descriptor: int) -> Holder:
    """Return whom the lock's file names; its content decides nothing, so it may be anything."""
    with contextlib.suppress(*NOT_SAID):
        content: dict[str, Any] = json.loads(os.pread(descriptor, 2**16, 0))
        since, pid = datetime.fromisoformat(content["since"]), content["pid"]
        if type(pid) is int and pid > 1 and since.tzinfo:
            return Holder(str(content["host"]), pid, since, str(content["command"]))
    return Holder()


def _cannot_be_written(folder: Path, failure: OSError) -> Refused:
    text = f"{folder}: the study folder cannot be written: {failure.strerror or failure}"
    return Refused([f"{text}; choose another with --out"])


def _let_go() -> None:
    """Close the lock in a child that Python forked: the parent still holds it."""
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
