"""Files of a study folder: written whole or not at all, sealed, and read only if whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sweeps.folder import seal
from sweeps.folder.objects import ObjectPath
from sweeps.folder.seal import Damaged

# What a writer that was killed leaves: see write_whole.
ENDINGS = "parquet|safetensors|json|yaml|html|csv|svg|png|made-from"
TEMPORARY = re.compile(rf"\..*\.({ENDINGS})\.[0-9a-f]{{8}}")
PARQUET_END = b"PAR1"
# File systems that have nothing to do for a folder answer so.
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or the one before: temporary name, then rename.

    On return it outlives a power cut. Raises OSError where that fails, and leaves nothing behind.
    In object storage it is one put.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the failure itself is what is said
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: a rename alone may be lost with the power."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        if failure.errno not in NO_FOLDER_SYNC:
            raise


def read_whole(path: Path) -> bytes:
    """Return a file's bytes, its seal checked.

    Raises Damaged, and OSError where it is not there or may not be read.
    """
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        msg = "it is a folder"
        raise Damaged(msg) from None
    except OSError as failure:
        if failure.errno != errno.EIO:
            raise
        msg = f"it cannot be read: {failure.strerror}"  # the disk's own word for damage
        raise Damaged(msg) from None
    seal.check(data)
    return data


def to_parquet(table: pa.Table) -> bytes:
    """Serialise in memory, sealed, so that a file is written in one piece."""
    sink = io.BytesIO()
    table = _without_seal(table)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({seal.KEY: seal.PLACEHOLDER.decode()})
    return seal.stamp(sink.getvalue())


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a table, or those of the columns that it has, verified before anything is parsed.

    Raises Damaged, and OSError where the file is not there or may not be read.
    """
    data = read_whole(path)
    if not data.endswith(PARQUET_END):
        msg = "it is cut off, or no Parquet at all"
        raise Damaged(msg)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        known = file.schema_arrow.names
        table = file.read(columns if columns is None else [n for n in columns if n in known])
        table.validate(full=True)  # an older file has no seal: text that is none would raise later
    except (OSError, ValueError, pa.ArrowException) as failure:
        msg = f"it cannot be read as Parquet: {_first_line(failure)}"
        raise Damaged(msg) from None
    return _without_seal(table)


def _without_seal(table: pa.Table) -> pa.Table:
    """Return the table without the seal of the file that it was read from."""
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k != seal.KEY.encode()}
    return table.replace_schema_metadata(kept or None)


def to_safetensors(tensors: Mapping[str, NDArray[Any]], notes: Mapping[str, str]) -> bytes:
    """Serialise arrays by name, with notes, sealed."""
    return seal.stamp(save(dict(tensors), {**notes, seal.KEY: seal.PLACEHOLDER.decode()}))


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return a file's arrays by name, verified before anything is parsed.

    Raises Damaged, and OSError where the file is not there or may not be read.
    """
    data = read_whole(path)
    try:
        tensors: dict[str, NDArray[Any]] = load(data)
    except (SafetensorError, ValueError, KeyError) as failure:
        msg = f"it cannot be read as safetensors: {_first_line(failure)}"
        raise Damaged(msg) from None
    return tensors


def _first_line(failure: Exception) -> str:
    return str(failure).partition("\n")[0]
