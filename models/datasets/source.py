"""From what a file holds to a `Dataset`: the same for every form of file, a few rows at a time."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.datasets import cache
from models.datasets.base import BadData, Dataset, ink
from models.datasets.classes import Chosen, Classes, Labels, choose
from models.datasets.preprocess import through
from models.datasets.steps import Block, Blocks, Shift, Step, Steps
from models.settings import Settings

SOURCE_VERSION = 1  # raised whenever the same file gives other pixels: the cache is made anew
FEWEST = 4  # two halves of two classes
MOST_SIDE = 4096
MOST_NUMBERS = 4 * MOST_SIDE * MOST_SIDE  # in all channels of an image
MOST_AT_ONCE = 512 * 2**20  # bytes of what cannot be read in parts, such as labels
BYTE = 255.0
# A packed file may hold a thousand times its size; what is small unpacked does no harm.
MOST_RATIO, HARMLESS = 200, 256 * 2**20


class DataFile(Settings):
    """What every form of file can set. `classes`: which, in this order; the last is positive."""

    form: ClassVar[str]

    path: Annotated[str, Field(min_length=1)]
    classes: Classes | None = None
    preprocess: Steps = ()

    @abstractmethod
    def source(self) -> Source:
        """Return what the file holds; raises BadData where it is not what it should be."""

    def load(self) -> Dataset:
        """Return the dataset; raises BadData where the file is not what it should be."""
        return assemble(self.source(), self)


@dataclass(frozen=True)
class Source:
    """What a reader found in a file.

    `blocks` reads all images (n, C, H, W), any numeric dtype, in the file's order, as often as it
    is called. `fingerprint` changes when the file does. `names` are those of files with one image.
    """

    path: Path
    description: str
    count: int
    blocks: Callable[[], Iterator[NDArray[Any]]]
    fingerprint: str
    labels: Labels | None = None
    covariates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def assemble(source: Source, settings: DataFile) -> Dataset:
    """Choose classes, check and preprocess images, and give them covariates.

    Images above `cache.LARGEST_IN_MEMORY` lie in a file that is mapped into memory. Raises BadData.
    """
    if source.count < FEWEST:
        text = f"{source.path}: expected at least {FEWEST} images, got {source.count}"
        raise BadData("path", text)
    for name, values in source.covariates.items():
        _check_covariate(source, name, values)
    chosen = choose(source.count, source.labels, settings.classes)
    if len(chosen.rows) < FEWEST:
        text = f"expected at least {FEWEST} images of these classes, got {len(chosen.rows)}"
        raise BadData("classes", text)
    key = cache.key_of(str(SOURCE_VERSION), source.fingerprint, settings.model_dump_json())
    images, total = cache.kept(key) or _read(source, chosen, settings.preprocess, key)
    covariates = {name: values[chosen.rows] for name, values in source.covariates.items()}
    return Dataset(
        name=source.path.name.partition(".")[0] or "data",
        images=images,
        labels=chosen.labels,
        class_names=chosen.names,
        covariates=covariates or {"ink": total},
        description=source.description,
    )


def _read(
    source: Source, chosen: Chosen, steps: Sequence[Step], key: str
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return images as preprocessed, and the ink of the raw ones."""
    total = np.zeros(len(chosen.rows))
    blocks = through(steps, _raw(source, chosen, total))
    first = next(blocks(), None)
    shape = (len(chosen.rows), *(first[1].shape[1:] if first else (1, 1, 1)))
    parts = (images for _, images in blocks())
    if 4 * int(np.prod(shape, dtype=object)) > cache.LARGEST_IN_MEMORY:
        return cache.make(key, shape, parts, total)
    images = np.empty(shape, dtype=np.float32)
    start = 0
    for part in parts:
        images[start : start + len(part)] = part
        start += len(part)
    return images, total


def all_of(source: Source, steps: Sequence[Step | Shift]) -> NDArray[np.float32]:
    """Return every image (N, C, H, W) as it comes out of the steps, whatever its class.

    Raises BadData, also where there are none.
    """
    if not source.count:
        raise BadData("path", f"{source.path}: holds no images")
    everything = Chosen(np.arange(source.count), None, ())
    blocks = through(steps, _raw(source, everything, np.zeros(source.count)))
    return np.concatenate([images for _, images in blocks()])


def _raw(source: Source, chosen: Chosen, total: NDArray[np.float64]) -> Blocks:
    """Return the chosen images as float32, with their numbers; `total` takes their ink.

    Bytes are divided by 255, other numbers are taken as they are.
    """

    def run() -> Iterator[Block]:
        start = end = place = wrong = first = 0
        for images in source.blocks():
            end = start + len(images)
            if end > source.count:
                break
            a, b = np.searchsorted(chosen.rows, (start, end))
            numbers = chosen.rows[a:b]
            block = as_float(images[numbers - start])
            start = end
            unusable = ~np.isfinite(block).all((1, 2, 3))
            if unusable.any() and not wrong:
                first = int(numbers[unusable.argmax()])
            wrong += int(unusable.sum())
            if len(block) and not wrong:
                total[place : place + len(block)] = ink(block)
                place += len(block)
                yield numbers, block
        if start != source.count or end != source.count:
            text = f"{source.path}: damaged: it holds other than the {source.count} images it says"
            raise BadData("path", text)
        if wrong:
            text = (
                f"{wrong:,} of {len(chosen.rows):,} images hold NaN or infinite pixels, the first"
            )
            fix = "repair or remove them"
            raise BadData("path", f"{text} is image {first} (counted from 0); {fix}")

    return run


def as_float(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32: bytes from 0 to 1, other numbers as they are."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(BYTE)
    with np.errstate(over="ignore"):
        return images.astype(np.float32)


def check_shape(shape: Sequence[int], where: str) -> tuple[int, int, int]:
    """Return one image's (C, H, W) from (H, W) or (C, H, W); BadData where it is too large."""
    if len(shape) not in (2, 3):
        text = f"{where}: expected images of H x W or C x H x W, got {by(shape)}"
        raise BadData("path", text)
    channels, height, width = (1, *shape) if len(shape) == 2 else shape  # noqa: PLR2004
    if width in (1, 3, 4) and channels > 4:  # noqa: PLR2004 - grey, colour, with transparency
        text = f"{where}: images of {by(shape)} look as if channels came last; expected C x H x W"
        raise BadData("path", f"{text}: numpy.moveaxis(images, -1, 1)")
    if min(channels, height, width) < 1:
        raise BadData("path", f"{where}: images of {by(shape)} have no pixels")
    if max(height, width) > MOST_SIDE or channels * height * width > MOST_NUMBERS:
        text = f"{where}: images of {by(shape)} are too large: at most {MOST_SIDE:,} each way and"
        raise BadData("path", f"{text} {MOST_NUMBERS:,} numbers; cut or bin them first")
    return channels, height, width


def by(shape: Sequence[int]) -> str:
    """Return `28 x 28`."""
    return " x ".join(str(side) for side in shape) or "a single number"


def check_expansion(path: Path, packed: int, unpacked: int, setting: str = "path") -> None:
    """Raise BadData where a few packed bytes promise to become very many."""
    if unpacked > HARMLESS and unpacked > MOST_RATIO * max(1, packed):
        text = f"{path}: {packed:,} bytes that unpack to {unpacked:,}, more than {MOST_RATIO} times"
        raise BadData(setting, f"{text} as many: refused; save it without compression")


def fingerprint(*paths: Path) -> str:
    """Return what changes when a file does: path, size and time of change."""
    facts = [(str(path), path.stat()) for path in paths]
    return "\n".join(f"{name}|{fact.st_size}|{fact.st_mtime_ns}" for name, fact in facts)


@contextlib.contextmanager
def reading(path: Path, what: str, setting: str = "path") -> Iterator[None]:
    """Turn what goes wrong with a damaged file into BadData."""
    try:
        yield
    except FileNotFoundError:
        raise BadData(setting, f"no such file: {path}") from None
    except (
        OSError,  # also gzip.BadGzipFile
        EOFError,
        ValueError,  # also UnicodeError
        RuntimeError,  # also NotImplementedError: another compression, encryption
        LookupError,
        OverflowError,
        MemoryError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as failure:
        reason = getattr(failure, "strerror", None) or str(failure).partition("\n")[0]
        text = f"{path}: cannot be read as {what}: {reason or type(failure).__name__}"
        raise BadData(setting, text) from None


def _check_covariate(source: Source, name: str, values: NDArray[Any]) -> None:
    where = f"{source.path}: covariate '{name}'"
    if values.shape != (source.count,):
        text = f"{where}: expected one number for each of {source.count:,} images"
        raise BadData("path", f"{text}, got the shape {values.shape}")
    wrong = ~np.isfinite(values)
    if wrong.any():
        text = f"{where}: {wrong.sum():,} values are missing, NaN or infinite"
        raise BadData("path", f"{text}, the first is that of image {wrong.argmax()} (from 0)")


def exactly(file: Any, size: int, path: Path, setting: str = "path") -> bytes:
    """Read so many bytes; BadData where the file ends before."""
    data: bytes = file.read(size)
    if len(data) != size:
        raise BadData(setting, f"{path}: ends before its header says; is it a part of a download?")
    return data


def absolute(folder: Path, name: str) -> str:
    """Return a name as a path below the folder, unless it has one of its own."""
    return os.path.abspath(folder / name)  # noqa: PTH100 - links stay as they are
