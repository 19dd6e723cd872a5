"""What is made once and kept: images too large for memory, mapped from disk; simulated data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import BadData

DAMAGE = (OSError, ValueError, LookupError, EOFError, RuntimeError, MemoryError)
DAMAGE_OF_ZIP = (zipfile.BadZipFile, zlib.error, struct.error)
LARGEST_IN_MEMORY = 512 * 2**20  # bytes of float32 images
SPARE = 64 * 2**20  # bytes of disk that are left to others

Array = NDArray[np.float32]
Ink = NDArray[np.float64]


def cache_folder() -> Path:
    """Return $SEEDSWEEP_CACHE, else seedsweep in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("SEEDSWEEP_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seedsweep"


def key_of(*parts: str) -> str:
    """Return the name of what was made from all this: source, settings, version."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def kept(key: str) -> tuple[Array, Ink] | None:
    """Return images and ink that were made before; None where there are none, or damaged ones.

    The images are mapped copy-on-write: writing to them changes no file.
    """
    folder = cache_folder() / key
    try:
        images: Array = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
        total: Ink = np.load(folder / "ink.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images, total


def make(key: str, shape: tuple[int, ...], parts: Iterator[Array], total: Ink) -> tuple[Array, Ink]:
    """Write images (`shape`) part by part, whole or not at all; return them mapped into memory.

    `total` is written after the last part, which may still fill it. Raises BadData where the folder
    has no room or cannot be written.
    """
    top = cache_folder()
    temporary = top / f".{key}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        _check_room(top, shape)
        with (temporary / "images.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype="<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        np.save(temporary / "ink.npy", total)
        _rename(temporary, top / key)
    except OSError as failure:
        text = f"{top}: the cache for large images cannot be written: {failure.strerror or failure}"
        raise BadData("path", f"{text}; choose another with SEEDSWEEP_CACHE") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    made = kept(key)
    if made is None:
        text = f"{top / key}: the cache was damaged while it was written; remove it and try again"
        raise BadData("path", text)
    return made


def _check_room(top: Path, shape: tuple[int, ...]) -> None:
    need, free = 4 * int(np.prod(shape, dtype=object)), shutil.disk_usage(top).free - SPARE
    if need > free:
        text = f"the images need {need / 2**30:,.1f} GiB in {top}, where {free / 2**30:,.1f} are"
        raise BadData("path", f"{text} free; choose another folder with SEEDSWEEP_CACHE")


def _rename(temporary: Path, folder: Path) -> None:
    """Put the finished folder in its place; another process may have been faster."""
    if kept(folder.name) is not None:
        return
    with contextlib.suppress(FileNotFoundError):  # a damaged one, or none
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if kept(folder.name) is None:
            raise


def _archive(key: str) -> Path:
    return cache_folder() / f"{key}.npz"


def remembers(key: str) -> bool:
    """Return whether arrays were kept under this key; whether they are whole, reading them says."""
    return _archive(key).is_file()


def remembered(
    key: str, names: frozenset[str], make: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return arrays, some of these names, that were made before, else make and keep them.

    What is damaged (an archive has a checksum of each array) or has other names is made anew. Where
    nothing can be written it is made every time.
    """
    path = _archive(key)
    # Opened here: of a damaged archive NumPy itself would leave the file open.
    with contextlib.suppress(*DAMAGE, *DAMAGE_OF_ZIP), path.open("rb") as source:
        file = np.lib.npyio.NpzFile(source, allow_pickle=False)
        if file.files and names.issuperset(file.files):
            return {name: file[name] for name in file.files}
    made = dict(make())
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as target:
                np.savez(target, allow_pickle=False, **made)
                target.flush()
                os.fsync(target.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return made
