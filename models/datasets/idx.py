"""Images in the IDX format of MNIST and its relatives (LeCun, Cortes and Burges), gzip or not."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import BadData, rows_at_a_time
from models.datasets.classes import Labels
from models.datasets.source import (
    MOST_AT_ONCE,
    DataFile,
    Source,
    by,
    check_expansion,
    check_shape,
    exactly,
    fingerprint,
    reading,
)

GZIP = b"\x1f\x8b"
TYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEEPEST = 4


@final
class Idx(DataFile):
    """IDX files, gzip or not: images N x H x W or N x C x H x W, and N `labels` in another file.

    Unsigned bytes are divided by 255, other numbers are taken as they are.
    """

    form: ClassVar[str] = "idx"
    labels: str | None = None

    def source(self) -> Source:
        """Return what the file holds."""
        path = Path(self.path)
        header = _header(path, "path")
        if len(header.shape) not in (3, 4):
            text = f"{path}: holds {by(header.shape)} numbers, not N x H x W"
            fix = "; are these the labels?" if len(header.shape) == 1 else ""
            raise BadData("path", f"{text} or N x C x H x W{fix}")
        shape = check_shape(header.shape[1:], str(path))

        def blocks() -> Iterator[NDArray[Any]]:
            return _blocks(path, header, shape)

        labels, files = None, [path]
        if self.labels is not None:
            files.append(Path(self.labels))
            labels = Labels(_labels(files[1]), None, "labels", str(files[1]))
        with reading(path, "IDX"):
            facts = fingerprint(*files)
        what = f"{header.shape[0]:,} images of the IDX file {path.name}"
        return Source(path, what, header.shape[0], blocks, facts, labels)


@dataclass(frozen=True)
class Header:
    """What a file says that it holds, and how many bytes precede it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        """Return the bytes of the header."""
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Return the bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def looks_like_idx(path: Path) -> bool:
    """Return whether a file starts as IDX does: two zeros, a type, a number of axes."""
    with _open(path) as file:
        start = file.read(4)
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in TYPES and start[3] > 0  # noqa: PLR2004


def _open(path: Path) -> Any:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path) if packed else path.open("rb")


def _header(path: Path, setting: str) -> Header:
    with reading(path, "IDX", setting), _open(path) as file:
        start = file.read(4)
        if not start:
            raise BadData(setting, f"{path}: the file is empty")
        if len(start) != 4 or start[:2] != b"\0\0" or start[2] not in TYPES:  # noqa: PLR2004
            text = f"{path}: starts with 0x{start.hex()}, which is not the magic number of IDX"
            raise BadData(setting, f"{text}, such as 0x00000803 for images of bytes")
        if not 1 <= start[3] <= DEEPEST:
            raise BadData(setting, f"{path}: {start[3]} axes, where 1 to {DEEPEST} make sense")
        sides = np.frombuffer(exactly(file, 4 * start[3], path, setting), ">u4")
        header = Header(np.dtype(TYPES[start[2]]), tuple(int(side) for side in sides))
    on_disk, expected = path.stat().st_size, header.length + header.size
    if isinstance(file, gzip.GzipFile):
        check_expansion(path, on_disk, expected, setting)
    elif on_disk != expected:
        text = f"{path}: {on_disk:,} bytes, where its header ({by(header.shape)}) says {expected:,}"
        fix = "; is it a part of a download?" if on_disk < expected else ""
        raise BadData(setting, f"{text}{fix}")
    return header


def _blocks(path: Path, header: Header, shape: tuple[int, int, int]) -> Iterator[NDArray[Any]]:
    count = header.shape[0]
    row = header.size // max(1, count)
    step = rows_at_a_time(4 * row // header.dtype.itemsize)
    with reading(path, "IDX"), _open(path) as file:
        exactly(file, header.length, path)
        for start in range(0, count, step):
            rows = min(step, count - start)
            data = np.frombuffer(exactly(file, rows * row, path), header.dtype)
            yield data.reshape(rows, *shape)
        _at_end(file, path, "path")


def _labels(path: Path) -> NDArray[Any]:
    header = _header(path, "labels")
    if len(header.shape) != 1:
        raise BadData("labels", f"{path}: expected one number an image, got {by(header.shape)}")
    if header.size > MOST_AT_ONCE:
        raise BadData("labels", f"{path}: {header.size:,} bytes of labels are too many")
    with reading(path, "IDX", "labels"), _open(path) as file:
        exactly(file, header.length, path, "labels")
        data = np.frombuffer(exactly(file, header.size, path, "labels"), header.dtype)
        _at_end(file, path, "labels")
    return data


def _at_end(file: Any, path: Path, setting: str) -> None:
    if file.read(1):
        raise BadData(setting, f"{path}: goes on after the end that its header says")
