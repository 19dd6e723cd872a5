"""An object that is written only if nobody else has: conditional puts by the stores' clients."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from sweeps.folder.objects import REGION, ObjectPath, endpoint
from sweeps.mistakes import Refused

LONGEST = 2**16  # bytes that are read


@dataclass(frozen=True)
class Seen:
    """An object as the store has it; its age is by the store's own clock."""

    data: bytes
    version: str
    age: timedelta


class Conditional(Protocol):
    """One object of a store."""

    def read(self) -> Seen | None:
        """Return it, None where there is none."""

    def put(self, data: bytes, version: str | None) -> str | None:
        """Write it where it is still of that version, None: absent; return the new one.

        None where it is not, also where that is our own doing: a client tries again by itself where
        an answer was lost.
        """

    def delete(self) -> None:
        """Delete it."""


def conditional(path: ObjectPath) -> Conditional:
    """Return an object by its path; Refused where the store's client is not installed."""
    try:
        return CLASSES[path.scheme](path)
    except ImportError:
        name = PACKAGES[path.scheme]
        text = f"{path.parent}: needs {name} for its lock; install it with: "
        raise Refused([f"{text}pip install 'seedsweep[{path.scheme}]'"]) from None


class OfS3:
    """In S3, or in a store that speaks its language: versions are entity tags."""

    ELSE = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")

    def __init__(self, path: ObjectPath) -> None:
        """Connect; raises ImportError."""
        import boto3  # noqa: PLC0415 - an extra
        from botocore.config import Config  # noqa: PLC0415

        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
        limits = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 2})
        self._client: Any = boto3.client(
            "s3", endpoint_url=endpoint(), region_name=region, config=limits
        )
        bucket, _, key = path.key.partition("/")
        self._where = {"Bucket": bucket, "Key": key}

    def read(self) -> Seen | None:
        """Return it, None where there is none."""
        try:
            answer = self._client.get_object(**self._where)
        except self._client.exceptions.NoSuchKey:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        data: bytes = answer["Body"].read(LONGEST)
        return Seen(data, str(answer["ETag"]), now - answer["LastModified"])

    def put(self, data: bytes, version: str | None) -> str | None:
        """Write it where it is still of that version."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            answer = self._client.put_object(**self._where, Body=data, **condition)
        except ClientError as failure:
            if failure.response["Error"]["Code"] in self.ELSE:
                return None
            raise
        return str(answer["ETag"])

    def delete(self) -> None:
        """Delete it."""
        self._client.delete_object(**self._where)


class OfGoogle:
    """In Google's storage: versions are generations."""

    def __init__(self, path: ObjectPath) -> None:
        """Connect; raises ImportError."""
        from google.cloud import storage  # type: ignore[import-untyped,unused-ignore] # noqa: PLC0415

        client: Any = storage.Client(project=None)
        bucket, _, key = path.key.partition("/")
        self._bucket, self._key = client.bucket(bucket), key

    def read(self) -> Seen | None:
        """Return it, None where there is none."""
        from google.api_core.exceptions import NotFound, PreconditionFailed  # noqa: PLC0415

        while (found := self._bucket.get_blob(self._key)) is not None:
            with contextlib.suppress(NotFound, PreconditionFailed):  # written anew in between
                data = found.download_as_bytes(if_generation_match=found.generation, end=LONGEST)
                return Seen(data, str(found.generation), self._now() - found.updated)
        return None

    def put(self, data: bytes, version: str | None) -> str | None:
        """Write it where it is still of that version."""
        from google.api_core.exceptions import PreconditionFailed  # noqa: PLC0415

        blob = self._bucket.blob(self._key)
        try:
            blob.upload_from_string(data, if_generation_match=int(version or 0))
        except PreconditionFailed:
            return None
        return str(blob.generation)

    def delete(self) -> None:
        """Delete it."""
        self._bucket.blob(self._key).delete()

    def _now(self) -> Any:
        """Return the store's time: that of an object which is written for it."""
        blob = self._bucket.blob(f"{self._key}-{secrets.token_hex(4)}")
        blob.upload_from_string(b"")
        blob.delete()
        return blob.updated


CLASSES: dict[str, Callable[[ObjectPath], Conditional]] = {"s3": OfS3, "gs": OfGoogle}
PACKAGES = {"s3": "boto3", "gs": "google-cloud-storage"}
