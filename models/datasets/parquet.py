"""Images in a column of a Parquet file, read a few rows at a time, never as a whole."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from models.datasets.base import BadData, rows_at_a_time
from models.datasets.classes import Labels
from models.datasets.footer import count_values
from models.datasets.source import (
    MOST_NUMBERS,
    DataFile,
    Source,
    by,
    check_shape,
    fingerprint,
    reading,
)
from models.settings import did_you_mean, mistakes_of

BUFFER = 2**20  # bytes of a column that are read from disk at a time
ROWS = 65_536  # labels and covariates at a time
Side = Annotated[int, Field(ge=1)]


@final
class Parquet(DataFile):
    """A Parquet file with a column of images and, if named, columns of labels and `covariates`.

    An image is nested lists (H x W, or C x H x W), a flat list with `shape: [H, W]` or `[C, H, W]`,
    or a fixed-shape tensor. Bytes (uint8) are divided by 255, other numbers are taken as they are.
    """

    form: ClassVar[str] = "parquet"
    image: str = "image"
    label: str | None = None
    covariates: Annotated[tuple[str, ...], Field(strict=False)] = ()
    shape: Annotated[tuple[Side, ...], Field(strict=False, min_length=2, max_length=3)] | None = (
        None
    )

    @model_validator(mode="after")
    def _no_column_twice(self) -> Self:
        twice = sorted({name for name in self.covariates if self.covariates.count(name) > 1})
        if twice:
            raise mistakes_of([("covariates", f"column '{twice[0]}' is named twice")])
        return self

    def source(self) -> Source:
        """Return what the file holds."""
        path = Path(self.path)
        with _reading(path):
            return _source(path, self)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    with reading(path, "Parquet"):
        try:
            yield
        except pa.ArrowException as failure:  # some are no ValueError
            raise ValueError(str(failure).partition("\n")[0]) from None


def _open(path: Path) -> pq.ParquetFile:
    """Open without reading ahead: memory holds what is asked for and little more."""
    return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


def _source(path: Path, settings: Parquet) -> Source:
    if path.stat().st_size == 0:
        raise BadData("path", f"{path}: the file is empty")
    with _open(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        _check_column(schema, settings.image, "image")
        _check_image_type(schema.field(settings.image).type, settings)
        if settings.label is not None:
            _check_column(schema, settings.label, "label")
        for place, name in enumerate(settings.covariates):
            _check_column(schema, name, f"covariates[{place}]")
        _check_sizes(path, count, settings.image)
        labels = None
        if settings.label is not None:
            what = f"column '{settings.label}'"
            labels = Labels(_label_values(file, settings.label), None, "label", what)
        covariates = {
            name: _numbers(file, name, f"covariates[{place}]")
            for place, name in enumerate(settings.covariates)
        }

    def blocks() -> Iterator[NDArray[Any]]:
        return _blocks(path, settings)

    what = f"{count:,} images of the Parquet file {path.name}"
    return Source(path, what, count, blocks, fingerprint(path), labels, covariates)


def _check_column(schema: Any, name: str, setting: str) -> None:
    if schema.names.count(name) != 1:
        text = "several columns of this name" if name in schema.names else "no column"
        known = ", ".join(schema.names) if name in schema.names else ""
        raise BadData(setting, f"{text} '{name}'{known or did_you_mean(name, schema.names)}")


def _leaf(kind: Any) -> tuple[Any, int]:
    """Return the type of the numbers in a column of lists, and how deep they lie."""
    depth = 0
    if isinstance(kind, pa.FixedShapeTensorType):
        return kind.value_type, len(kind.shape)
    while (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        kind, depth = kind.value_type, depth + 1
    return kind, depth


def _check_image_type(kind: Any, settings: Parquet) -> None:
    leaf, depth = _leaf(kind)
    where = f"column '{settings.image}'"
    numbers = pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)
    if not depth or not numbers:
        text = f"{where} is of type {str(kind)[:60]}; expected lists of numbers, or a tensor"
        raise BadData("image", text)
    if depth == 1 and settings.shape is None:
        text = f"{where} holds flat lists; say how they are laid out, such as"
        raise BadData("image", f"{text} shape: [28, 28] (height, width)")
    if depth > 1 and settings.shape is not None:
        text = f"{where} has a shape of its own; remove this, which is for flat lists"
        raise BadData("shape", text)


def _check_sizes(path: Path, rows: int, name: str) -> None:
    """Refuse, from what the footer says alone, images that are too large or of unequal size."""
    values = count_values(path, name)
    if rows and values // rows > MOST_NUMBERS:
        text = f"{path}: {values // rows:,} numbers an image are too many"
        raise BadData("path", f"{text}: at most {MOST_NUMBERS:,}; cut or bin the images first")
    if rows and values % rows:
        text = f"column '{name}' holds {values:,} numbers for {rows:,} images"
        raise BadData("image", f"{text}: some are missing, or of another size than others")


def _batches(file: pq.ParquetFile, name: str, rows: int) -> Iterator[Any]:
    for batch in file.iter_batches(batch_size=rows, columns=[name], use_threads=False):
        if batch.num_rows:
            yield batch.column(0)


def _blocks(path: Path, settings: Parquet) -> Iterator[NDArray[Any]]:
    name, start, shape = settings.image, 0, None
    with _reading(path), _open(path) as file:
        first = next(_batches(file, name, 1), None)
    if first is None:
        return
    shape = _array(first, settings, 0).shape[1:]
    fitting = check_shape(settings.shape or shape, str(path))
    with _reading(path), _open(path) as file:
        for column in _batches(file, name, rows_at_a_time(4 * math.prod(shape))):
            block = _array(column, settings, start)
            if block.shape[1:] != shape:
                text = f"column '{name}': image {start} (counted from 0) or a later one has"
                reason = f"{by(block.shape[1:])} pixels, the first {by(shape)}"
                raise BadData("image", f"{text} {reason}")
            yield block.reshape(len(block), *fitting)
            start += len(block)


def _array(column: Any, settings: Parquet, start: int) -> NDArray[Any]:
    """Return a batch of cells as (n, ...); `start` is the number of its first image."""
    where, count, shape = f"column '{settings.image}'", len(column), [len(column)]
    if column.null_count:
        number = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadData("image", f"{where}: image {number} (counted from 0) is null")
    if isinstance(column.type, pa.FixedShapeTensorType):
        _no_null_pixel(column.storage.flatten(), where, start)
        tensors: NDArray[Any] = column.to_numpy_ndarray()
        return tensors
    while not (pa.types.is_primitive(column.type)):
        _no_null_pixel(column, where, start)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and (lengths != lengths[0]).any():
            inner = len(lengths) // count
            number = start + int(np.flatnonzero(lengths != lengths[0])[0]) // inner
            text = f"{where}: image {number} (counted from 0) has lists of another length than the"
            raise BadData("image", f"{text} images before it")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        column = column.flatten()
    _no_null_pixel(column, where, start)
    values = column.to_numpy(zero_copy_only=False)
    if settings.shape is not None and shape[1] != math.prod(settings.shape):
        text = f"{where} holds {shape[1]:,} numbers an image, not {by(settings.shape)}"
        raise BadData("shape", text)
    result: NDArray[Any] = values.reshape(shape)
    return result


def _no_null_pixel(values: Any, where: str, start: int) -> None:
    if values.null_count:
        text = f"{where}: image {start} (counted from 0) or one soon after has null pixels"
        raise BadData("image", text)


def _label_values(file: pq.ParquetFile, name: str) -> NDArray[Any]:
    kind = file.schema_arrow.field(name).type
    parts = []
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        found = f"column '{name}': expected whole numbers or text, got {str(kind)[:60]}"
        raise BadData("label", f"{found}; save them as integers")
    for part in _batches(file, name, ROWS):
        _no_null(part, name, "label")
        column = part.dictionary_decode() if pa.types.is_dictionary(part.type) else part
        values = column.to_numpy(zero_copy_only=False)
        parts.append(values.astype(str) if text else values)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _numbers(file: pq.ParquetFile, name: str, setting: str) -> NDArray[np.float64]:
    kind = file.schema_arrow.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        text = f"column '{name}': expected numbers, got {str(kind)[:60]}"
        raise BadData(setting, text)
    parts = []
    for part in _batches(file, name, ROWS):
        _no_null(part, name, setting)
        parts.append(part.to_numpy(zero_copy_only=False).astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)


def _no_null(values: Any, name: str, setting: str) -> None:
    if values.null_count:
        text = f"column '{name}': {values.null_count:,} cells or more are null"
        raise BadData(setting, f"{text}; fill them, or leave these rows out")
