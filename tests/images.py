"""Small images in every form of file that a study can name, of known content."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from models.datasets import Dataset, DatasetSettings

COUNT, HEIGHT, WIDTH = 12, 6, 5
LABELS = np.arange(COUNT) % 3  # three classes: 0, 1, 2


def pixels(count: int = COUNT) -> NDArray[np.uint8]:
    """Return images (N, H, W), each another, none without ink."""
    return np.random.default_rng(5).integers(1, 256, (count, HEIGHT, WIDTH), dtype=np.uint8)


def load(**settings: Any) -> Dataset:
    """Return what a study with these settings of `dataset` gets."""
    return TypeAdapter(DatasetSettings).validate_python(settings).load()


def npz(folder: Path, name: str = "my.npz", **arrays: Any) -> Path:
    path = folder / name
    np.savez(path, **({"images": pixels(), "labels": LABELS} | arrays))
    return path


def nested(array: NDArray[Any]) -> pa.Array[Any]:
    """Return images as lists of lists."""
    return pa.array(array.tolist(), kind_of(array))


def kind_of(array: NDArray[Any]) -> pa.DataType:
    kind: Any = pa.from_numpy_dtype(array.dtype)
    for _ in array.shape[1:]:
        kind = pa.list_(kind)
    return kind


def parquet(
    folder: Path, name: str = "my.parquet", rows: int | None = None, **columns: Any
) -> Path:
    path = folder / name
    table = pa.table({"image": nested(pixels()), "class": pa.array(LABELS)} | columns)
    pq.write_table(table, path, row_group_size=rows)
    return path


def idx_bytes(array: NDArray[Any]) -> bytes:
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx(folder: Path, *, packed: bool = True) -> tuple[Path, Path]:
    """Return the files of images and of labels."""
    paths = []
    for name, array in {"t-images-idx3-ubyte": pixels(), "t-labels-idx1-ubyte": LABELS}.items():
        data = idx_bytes(array.astype(np.uint8))
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        paths.append(path)
    return paths[0], paths[1]


def png_folder(folder: Path, name: str = "pictures", *, classes: bool = True) -> Path:
    """Write images of class 0, then 1, then 2: the order in which they will be read."""
    top = folder / name
    for number, (image, label) in enumerate(zip(pixels(), LABELS, strict=True)):
        place = top / "abc"[label] if classes else top
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02}.png")
    return top
