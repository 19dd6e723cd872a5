"""One `run` at a time on a study folder in object storage: a lock that lapses with its holder.

There is no kernel to release it, so its holder writes it anew every few seconds, each time only if
nobody else has (a conditional put of the store's own client). One that was not written for a minute
by the store's clock is anyone's; who takes it does so by the same condition, so one of many wins.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sweeps.folder.conditional import Conditional, Seen, conditional
from sweeps.folder.holder import NAME, Holder
from sweeps.folder.objects import ObjectPath
from sweeps.mistakes import Refused

RENEWED_EVERY = 15.0  # seconds
LAPSES = 60.0
REFUSALS = 5  # renewals that may fail in a row, as while the store restarts


@contextlib.contextmanager
def lease(folder: ObjectPath, command: str) -> Iterator[None]:
    """Hold a study folder while inside; Refused where another holds it.

    Who loses it, since the store was away for so long that another took it, is interrupted as by
    Ctrl-C: what is finished is kept.
    """
    ours = _Lease(conditional(folder / NAME), command)
    try:
        other = ours.take()
    except Exception as failure:  # noqa: BLE001 - the clients' own, as where a key may only read
        reason = " ".join(str(failure).split())[:200]
        text = f"{folder}: the lock cannot be written: {reason}"
        raise Refused(
            [f"{text}; give a key that may write there, or choose another --out"]
        ) from None
    if other is not None:
        raise Refused([_refusal(folder, other)])
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(ours, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join(timeout=2 * RENEWED_EVERY)
        ours.leave()


def lessee(folder: ObjectPath) -> Holder | None:
    """Return who holds a study folder, None where nobody does."""
    seen = conditional(folder / NAME).read()
    return None if seen is None or _lapsed(seen) else _holder(seen)


class _Lease:
    """Ours, as far as the store agrees."""

    def __init__(self, there: Conditional, command: str) -> None:
        self._there = there
        self._version: str | None = None
        self._id = secrets.token_hex(8)
        self._content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "id": self._id,
        }

    def take(self) -> Holder | None:
        """Take it where nobody holds it; return who does."""
        seen = self._there.read()
        if seen is None or _lapsed(seen):
            self._version = None if seen is None else seen.version
            if self.renew():
                return None
            seen = self._there.read()
        return Holder() if seen is None else _holder(seen)

    def renew(self) -> bool:
        """Write it anew; False where it is somebody else's by now. Raises what the client does."""
        # S3's version is a digest of the content: without this, every renewal would have the same.
        data = json.dumps({**self._content, "renewed": secrets.token_hex(8)}).encode()
        version = self._there.put(data, self._version)
        if version is None:
            seen = self._there.read()
            version = seen.version if seen and self._wrote(seen) else None
        self._version = version
        return version is not None

    def leave(self) -> None:
        """Delete it where it is still ours; what fails lapses by itself."""
        with contextlib.suppress(Exception):
            seen = self._there.read()
            if seen and self._wrote(seen):
                self._there.delete()

    def _wrote(self, seen: Seen) -> bool:
        return _said(seen).get("id") == self._id


def _renew(ours: _Lease, stop: threading.Event) -> None:
    failures = 0
    while not stop.wait(RENEWED_EVERY):
        try:
            held = ours.renew()
            failures = 0
        except Exception:  # noqa: BLE001 - whatever the store's trouble is, it may pass
            held = True
            failures += 1
        if not held or failures > REFUSALS:
            _thread.interrupt_main()
            return


def _lapsed(seen: Seen) -> bool:
    """Return whether its holder has gone without a word."""
    return seen.age > timedelta(seconds=LAPSES)


def _said(seen: Seen) -> dict[str, object]:
    with contextlib.suppress(ValueError):
        said = json.loads(seen.data)
        if isinstance(said, dict):
            return said
    return {}


def _holder(seen: Seen) -> Holder:
    said = _said(seen)
    try:
        since = datetime.fromisoformat(str(said["since"]))
        return Holder(str(said["host"]), int(str(said["pid"])), since, str(said["command"]))
    except (ValueError, KeyError):
        return Holder()


def _refusal(folder: ObjectPath, other: Holder) -> str:
    text = f"{folder}: held by {other.words}; wait for it, or end it there"
    return f"{text}; a holder that has died lets go after {LAPSES:g} s"
