"""Images in a NumPy archive, as `numpy.savez` writes it. Nothing in it is ever unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, final
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import BadData, rows_at_a_time
from models.datasets.classes import Labels
from models.datasets.npy import Header, read_header
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
from models.settings import did_you_mean

COVARIATE = "cov_"
LABELS, NAMES = "labels", "class_names"


@final
class Npz(DataFile):
    """A NumPy archive: `images` (N, H, W) or (N, C, H, W) and, if it has them, its labels.

    Bytes (uint8) are divided by 255, other numbers are taken as they are. `labels` (N,) are whole
    numbers or text; with `class_names` they number these. Each `cov_NAME` (N,) is a covariate.
    """

    form: ClassVar[str] = "npz"

    def source(self) -> Source:
        """Return what the file holds."""
        path = Path(self.path)
        with reading(path, "a NumPy archive"), ZipFile(path) as archive:
            return _source(path, archive)


def _source(path: Path, archive: ZipFile) -> Source:
    headers = _headers(path, archive)
    header = headers["images"]
    if header.dtype.kind not in "iufb":
        raise BadData("path", f"{path}: images are of type {header.dtype}, not numbers")
    if len(header.shape) not in (3, 4):
        text = f"{path}: images: expected N x H x W or N x C x H x W, got {by(header.shape)}"
        raise BadData("path", text)
    shape = check_shape(header.shape[1:], str(path))
    count = header.shape[0]

    def blocks() -> Iterator[NDArray[Any]]:
        return _blocks(path, header, shape)

    def small(name: str) -> NDArray[Any]:
        return _whole(path, archive, name, headers[name])

    labels = None
    if LABELS in headers:
        names = None
        if NAMES in headers:
            names = tuple(str(name) for name in _text(path, small(NAMES)))
        labels = Labels(small(LABELS), names, "path", f"{path}: labels")
    covariates = {}
    for name in sorted(headers):
        if name.startswith(COVARIATE) and name != COVARIATE:
            if headers[name].dtype.kind not in "iufb":
                raise BadData("path", f"{path}: {name}: expected numbers, got text")
            covariates[name.removeprefix(COVARIATE)] = small(name).astype(np.float64)
    what = f"{count:,} images of the NumPy archive {path.name}"
    return Source(path, what, count, blocks, fingerprint(path), labels, covariates)


def _headers(path: Path, archive: ZipFile) -> dict[str, Header]:
    """Return the headers of the arrays that concern us; what they promise is checked first."""
    headers = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or not _concerns(name):
            continue
        check_expansion(path, info.compress_size, info.file_size)
        with archive.open(info) as file:
            header = read_header(file, path, name)
        if header.length + header.size != info.file_size:
            text = f"{path}: {name} has other than the {header.size:,} bytes that its shape needs"
            raise BadData("path", text)
        headers[name] = header
    if "images" not in headers:
        others = [info.filename.removesuffix(".npy") for info in archive.infolist()[:20]]
        known = did_you_mean("images", others) if others else ""
        raise BadData("path", f"{path}: holds no array 'images'{known}")
    return headers


def _concerns(name: str) -> bool:
    return name in ("images", LABELS, NAMES) or name.startswith(COVARIATE)


def _blocks(path: Path, header: Header, shape: tuple[int, int, int]) -> Iterator[NDArray[Any]]:
    if header.fortran:
        yield _column_major(path, header).reshape(-1, *shape)
        return
    count = header.shape[0]
    row = header.size // max(1, count)
    step = rows_at_a_time(4 * row // header.dtype.itemsize)
    with (
        reading(path, "a NumPy archive"),
        ZipFile(path) as archive,
        archive.open("images.npy") as file,
    ):
        exactly(file, header.length, path)
        for start in range(0, count, step):
            rows = min(step, count - start)
            data = np.frombuffer(exactly(file, rows * row, path), header.dtype)
            yield data.reshape(rows, *shape)
        file.read(1)  # at its end the archive compares the checksum


def _column_major(path: Path, header: Header) -> NDArray[Any]:
    """Return all images of an array that cannot be read by rows."""
    if header.size > MOST_AT_ONCE:
        text = f"{path}: images are stored column by column, and too large to turn round"
        raise BadData("path", f"{text}; save numpy.ascontiguousarray(images)")
    with reading(path, "a NumPy archive"), ZipFile(path) as archive:
        return _whole(path, archive, "images", header)


def _whole(path: Path, archive: ZipFile, name: str, header: Header) -> NDArray[Any]:
    if header.size > MOST_AT_ONCE:
        raise BadData("path", f"{path}: {name}: {header.size:,} bytes are too many")
    with archive.open(f"{name}.npy") as file:
        exactly(file, header.length, path)
        data = np.frombuffer(exactly(file, header.size, path), header.dtype)
        file.read(1)
    return data.reshape(header.shape, order="F" if header.fortran else "C")


def _text(path: Path, names: NDArray[Any]) -> NDArray[Any]:
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise BadData("path", f"{path}: class_names: expected a list of text, got {names.dtype}")
    return names
