"""Study folders in object storage: paths of `s3://` and `gs://`, through pyarrow's file systems.

An object is put whole or not at all, so writing needs no second name; there are no folders, so
making one does nothing. Credentials come from where the store's own tools take them
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS ...).
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import stat as modes
from collections.abc import Generator
from datetime import timedelta
from pathlib import PosixPath
from typing import Any, ClassVar

from pyarrow import fs

from sweeps.mistakes import Refused

REGION = "us-east-1"  # what stores of one's own expect
RETRIED = timedelta(seconds=60)  # pyarrow's own for Google is a quarter of an hour
DENIED = (
    *("ACCESS_DENIED", "SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "FORBIDDEN"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED"),
)
SILENT = ("NETWORK_CONNECTION", "UNAVAILABLE")
VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"),
}


class ObjectPath(PosixPath):
    """A path in a store, `/BUCKET/KEY`, that reads and writes there as a path does on a disk."""

    scheme: ClassVar[str]

    @property
    def key(self) -> str:
        """Return BUCKET/KEY, as file systems of pyarrow name an object."""
        return "/".join(self.parts[1:])

    @property
    def files(self) -> fs.FileSystem:
        """Return the store."""
        return _store(self.scheme)

    def __str__(self) -> str:
        """Return it as users write it; without the scheme where it is relative."""
        return f"{self.scheme}://{self.key}" if self.is_absolute() else super().__str__()

    def __fspath__(self) -> str:
        """Refuse: no call of the operating system reaches it."""
        msg = f"{self} is in object storage, not on this machine's disks"
        raise TypeError(msg)

    def as_posix(self) -> str:
        """Return it as text."""
        return str(self)

    def __reduce__(self) -> tuple[type[ObjectPath], tuple[str]]:
        """Travel as text."""
        return type(self), (super().__str__(),)

    def resolve(self, strict: bool = False) -> ObjectPath:  # noqa: FBT001, FBT002 - as pathlib's
        """Return itself: there are no links."""
        del strict
        return self

    def read_bytes(self) -> bytes:
        """Return an object whole. Raises FileNotFoundError, and OSError where the store fails."""
        with self.files.open_input_file(self.key) as source:
            data: bytes = source.readall()
        return data

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return an object as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Open an object to read parts of it, as bytes."""
        if mode != "rb":
            msg = f"{self}: an object is read as bytes and written whole"
            raise ValueError(msg)
        return self.files.open_input_file(self.key)

    def write_bytes(self, data: Any) -> int:
        """Put an object; a reader sees all of it or the one before."""
        with self.files.open_output_stream(self.key) as sink:
            sink.write(data)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as pathlib's
        """Delete an object."""
        if not self.is_file():
            if missing_ok:
                return
            raise FileNotFoundError(str(self))
        self.files.delete_file(self.key)

    def rename(self, target: Any) -> Any:
        """Copy and delete, which is what stores have for it: a reader may see both for a moment."""
        self.files.move(self.key, type(self)(target).key)
        return target

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Do nothing: a folder is there with its first object."""

    def rmdir(self) -> None:
        """Delete what a store keeps of a folder that has become empty. Raises OSError."""
        if next(self.iterdir(), None) is not None:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(self))
        if self.is_dir():
            self.files.delete_dir(self.key)

    def exists(self, **_: Any) -> bool:
        """Return whether there is an object, or one below."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Return whether it is an object."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Return whether objects are below."""
        return bool(self._info().type == fs.FileType.Directory)

    def is_symlink(self) -> bool:
        """Return False."""
        return False

    def stat(self, **_: Any) -> os.stat_result:
        """Return size and time of an object. Raises FileNotFoundError."""
        info = self._info()
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(str(self))
        mode = modes.S_IFREG if info.type == fs.FileType.File else modes.S_IFDIR
        when = (info.mtime_ns or 0) / 1e9
        return os.stat_result((mode | 0o644, 0, 0, 1, 0, 0, info.size or 0, when, when, when))

    def iterdir(self) -> Generator[ObjectPath, None, None]:
        """Yield what is directly below."""
        selector = fs.FileSelector(self.key, allow_not_found=True)
        for info in sorted(self.files.get_file_info(selector), key=lambda one: one.path):
            yield self / info.base_name

    def glob(self, pattern: str) -> Generator[ObjectPath, None, None]:
        """Yield what matches, a pattern a level."""
        first, _, rest = pattern.partition("/")
        if rest and not set(first) & set("*?["):  # a folder may be in no list
            yield from (self / first).glob(rest)
            return
        for one in self.iterdir():
            if fnmatch.fnmatchcase(one.name, first):
                yield from one.glob(rest) if rest else (one,)

    def _info(self) -> fs.FileInfo:
        info: fs.FileInfo = self.files.get_file_info(self.key)
        return info


class S3Path(ObjectPath):
    """In S3, or in a store that speaks its language."""

    scheme = "s3"


class GcsPath(ObjectPath):
    """In Google's storage."""

    scheme = "gs"


CLASSES: dict[str, type[ObjectPath]] = {one.scheme: one for one in (S3Path, GcsPath)}


def object_at(scheme: str, key: str) -> ObjectPath:
    """Return the path of BUCKET/KEY in a store; Refused where the bucket cannot be used."""
    _check(scheme, key.partition("/")[0])
    return CLASSES[scheme](f"/{key}")


@functools.cache
def _check(scheme: str, bucket: str) -> None:
    """Look at a bucket once in a process; Refused where it cannot be used, and why."""
    text = f"{scheme}://{bucket}"
    own = endpoint() if scheme == "s3" else emulator()
    where = f" at {own}" if own else ""
    key, address = VARIABLES[scheme]
    try:
        if _store(scheme).get_file_info(bucket).type == fs.FileType.NotFound:
            raise Refused([f"{text}: no such bucket{where}; make it first, or correct its name"])
    except OSError as failure:
        said = str(failure)
        if any(word in said for word in DENIED):
            fix = f"set {key} to a key that may use it"
            raise Refused([f"{text}: the store{where} refuses these credentials; {fix}"]) from None
        if any(word in said for word in SILENT):
            fix = f"correct {address}, or start the store"
            raise Refused([f"{text}: nothing answers{where}; {fix}"]) from None
        raise Refused([f"{text}: cannot be used{where}: {said[:200]}"]) from None


@functools.cache
def _store(scheme: str) -> fs.FileSystem:
    if scheme == "gs":
        host = emulator()
        if host is None:
            return fs.GcsFileSystem(retry_time_limit=RETRIED)
        kind, _, where = host.partition("://")
        return fs.GcsFileSystem(
            anonymous=True, scheme=kind, endpoint_override=where, retry_time_limit=RETRIED
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
    return fs.S3FileSystem(
        endpoint_override=endpoint(),
        region=region,
        connect_timeout=10,
        request_timeout=60,
        allow_delayed_open=True,  # type: ignore[call-arg,unused-ignore] # one put for what is not large
    )


def emulator() -> str | None:
    """Return the address of what stands in for Google's storage, None for that itself."""
    return os.environ.get("STORAGE_EMULATOR_HOST") or None


def endpoint() -> str | None:
    """Return the address of a store of one's own, None for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
