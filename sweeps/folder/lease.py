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
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from sweeps.folder.holder import NAME, Holder
from sweeps.folder.objects import REGION, ObjectPath, endpoint
from sweeps.mistakes import Refused

RENEWED_EVERY = 15.0  # seconds
LAPSES = 60.0
REFUSALS = 5  # renewals that may fail in a row, as while the store restarts


@dataclass(frozen=True)
class Found:
    """A lease as the store has it."""

    holder: Holder
    etag: str
    age: timedelta

    @property
    def lapsed(self) -> bool:
        """Return whether its holder has gone without a word."""
        return self.age > timedelta(seconds=LAPSES)


@contextlib.contextmanager
def lease(folder: ObjectPath, command: str) -> Iterator[None]:
    """Hold a study folder while inside; Refused where another holds it.

    Who loses it, since the store was away for so long that another took it, is interrupted as by
    Ctrl-C: what is finished is kept.
    """
    store = _Store(folder)
    content = _introduction(command)
    found = store.read()
    etag = None
    if found is None or found.lapsed:
        etag = store.put(content, None if found is None else found.etag)
    if etag is None:
        raise Refused([_refusal(folder, store.read() or found)])
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, content, etag, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join(timeout=2 * RENEWED_EVERY)
        store.remove(content)


def lessee(folder: ObjectPath) -> Holder | None:
    """Return who holds a study folder, None where nobody does."""
    found = _Store(folder).read()
    return None if found is None or found.lapsed else found.holder


def _renew(store: _Store, content: bytes, etag: str, stop: threading.Event) -> None:
    held: str | None = etag
    failures = 0
    while not stop.wait(RENEWED_EVERY):
        try:
            held = store.put(content, held)
            failures = 0
        except Exception:  # noqa: BLE001 - whatever the store's trouble is, it may pass
            failures += 1
        if held is None or failures > REFUSALS:
            _thread.interrupt_main()
            return


def _refusal(folder: ObjectPath, found: Found | None) -> str:
    who = found.holder if found else Holder()
    text = f"{folder}: held by {who.words}; wait for it, or end it there"
    return f"{text}; a holder that has died lets go after {LAPSES:g} s"


def _introduction(command: str) -> bytes:
    content = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }
    return json.dumps(content).encode()


class _Store:
    """The lease's object in S3, or in a store that speaks its language."""

    def __init__(self, folder: ObjectPath) -> None:
        if folder.scheme != "s3":
            text = f"{folder}: a lock is known for s3:// alone; put the study folder there"
            raise Refused([text])
        try:
            import boto3  # noqa: PLC0415 - an extra
            from botocore.config import Config  # noqa: PLC0415
        except ImportError:
            text = (
                f"{folder}: needs boto3 for its lock; install it with: pip install 'seedsweep[s3]'"
            )
            raise Refused([text]) from None
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
        limits = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 2})
        self._client: Any = boto3.client(
            "s3", endpoint_url=endpoint(), region_name=region, config=limits
        )
        bucket, _, key = (folder / NAME).key.partition("/")
        self._where = {"Bucket": bucket, "Key": key}

    def read(self) -> Found | None:
        """Return the lease, None where there is none."""
        try:
            answer = self._client.get_object(**self._where)
        except self._client.exceptions.NoSuchKey:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        holder = Holder()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(answer["Body"].read(2**16))
            since = datetime.fromisoformat(said["since"])
            holder = Holder(str(said["host"]), int(said["pid"]), since, str(said["command"]))
        return Found(holder, answer["ETag"], now - answer["LastModified"])

    def put(self, content: bytes, etag: str | None) -> str | None:
        """Write it where it is still as known, None: absent; return its mark, None where not."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        # The mark is that of the content: without this, every renewal would have the same.
        body = json.dumps({**json.loads(content), "renewed": os.urandom(8).hex()}).encode()
        try:
            answer = self._client.put_object(**self._where, Body=body, **condition)
        except ClientError as failure:
            if failure.response["Error"]["Code"] in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
                "NoSuchKey",
            ):
                return None
            raise
        mark: str = answer["ETag"]
        return mark

    def remove(self, content: bytes) -> None:
        """Delete it where it is still ours; what fails lapses by itself."""
        with contextlib.suppress(Exception):
            found, own = self.read(), json.loads(content)
            if found and (found.holder.host, found.holder.pid) == (own["host"], own["pid"]):
                self._client.delete_object(**self._where)
