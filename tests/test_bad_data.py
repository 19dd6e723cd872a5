"""Data that cannot be used are refused with a sentence, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import images as made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import COUNT, LABELS, load
from PIL import Image
from studies import tiny, write

from models.datasets import BadData, Dataset, cache
from models.datasets.footer import count_values
from sweeps.mistakes import Refused
from sweeps.study import load_study

Case = tuple[Callable[[Path], dict[str, Any]], str]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def npz(**arrays: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"path": str(made.npz(folder, **arrays))}


def without(array: str) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        arrays = {"image": made.pixels(), "labels": LABELS}
        np.savez(folder / "my.npz", **{k: v for k, v in arrays.items() if k != array})
        return {"path": str(folder / "my.npz")}

    return make


def asking(classes: list[Any], **arrays: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"path": str(made.npz(folder, **arrays)), "classes": classes}


def written(name: str, data: bytes, **more: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        (folder / name).write_bytes(data)
        return {"path": str(folder / name), **more}

    return make


def cut(folder: Path) -> dict[str, Any]:
    path = made.npz(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return {"path": str(path)}


def flipped(folder: Path) -> dict[str, Any]:
    """Damage one pixel: only the archive's checksum knows."""
    path = made.npz(folder)
    data = bytearray(path.read_bytes())
    data[data.index(made.pixels().tobytes()) + 7] ^= 1
    path.write_bytes(data)
    return {"path": str(path)}


def zip_of(header: str, size: int, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive whose `images` has this header and so many zero bytes."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", method, compresslevel=1) as archive,
        archive.open("images.npy", "w") as entry,
    ):
        text = header.encode()
        entry.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for start in range(0, size, 2**20):
            entry.write(bytes(min(2**20, size - start)))
    return file.getvalue()


def no_array(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "my.npz", "w") as archive:
        archive.writestr("images.npy", "not an array")
    return {"path": str(folder / "my.npz")}


def header(shape: str, descr: str = "|u1") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n"


def bad_idx(data: bytes, *, labels: bytes | None = None) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        found = written("x-ubyte", data)(folder)
        if labels is not None:
            (folder / "y-ubyte").write_bytes(labels)
            found["labels"] = str(folder / "y-ubyte")
        return found

    return make


IDX = made.idx_bytes(made.pixels())
IDX_LABELS = made.idx_bytes(LABELS.astype(np.uint8))


def gz_bomb() -> bytes:
    """Return 272 MiB of zeros, honest about it: one block, packed once, seventeen times."""
    head = gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 17, 4096, 4096))
    return head + gzip.compress(bytes(2**24)) * 17


def pictures(change: Callable[[Path], object], **more: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        top = made.png_folder(folder)
        change(top)
        return {"path": str(top), **more}

    return make


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def parquet(more: dict[str, Any] | None = None, **columns: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"path": str(made.parquet(folder, **columns)), **(more or {})}


def lists(values: list[Any]) -> Any:
    return pa.array(values, pa.list_(pa.list_(pa.float32())))


PLAIN = made.pixels().astype(float).tolist()
FLAT = pa.array([[1.0] * 30] * COUNT)
NAN = made.pixels().astype(float)
NAN[3, 0, 0], NAN[3, 1, 1], NAN[9, 0, 0] = np.nan, np.nan, np.inf
KNOWN = ".npz, .parquet, .pq, .idx, -ubyte, each also with .gz, a folder"
DOWNLOAD = "ends before its header says; is it a part of a download?"
N = "{N}"  # some number, which depends on the version of zlib
RATIO = "more than 200 times as many: refused; save it without compression"

# What is there, and the sentence after "x.yaml: dataset."; {at} is the folder.
RULES: dict[str, Case] = {
    "no file": (
        lambda folder: {"path": str(folder / "my.npz")},
        "path: no such file: {at}/my.npz",
    ),
    "no folder": (
        lambda folder: {"path": str(folder / "data/")},
        "path: no such file or folder: {at}/data",
    ),
    "form": (
        written("my.csv", b"1,2,3\n"),
        f"path: {{at}}/my.csv: its form is not known from its name; known: {KNOWN}",
    ),
    "form of an array": (
        written("my.npy", b"\x93NUMPY"),
        "path: {at}/my.npy: its form is not known from its name; save it with "
        f"numpy.savez(name, images=...); known: {KNOWN}",
    ),
    "npz empty": (
        written("my.npz", b""),
        "path: {at}/my.npz: cannot be read as a NumPy archive: File is not a zip file",
    ),
    "npz cut": (
        cut,
        "path: {at}/my.npz: cannot be read as a NumPy archive: File is not a zip file",
    ),
    "npz damaged": (
        flipped,
        "path: {at}/my.npz: cannot be read as a NumPy archive: Bad CRC-32 for file 'images.npy'",
    ),
    "no images": (
        without("nothing"),
        "path: {at}/my.npz: holds no array 'images'; did you mean 'image'? known: image, labels",
    ),
    "objects": (
        npz(images=np.array([[1], [2, 3]], dtype=object)),
        "path: {at}/my.npz: images holds pickled Python objects, which are never loaded; "
        "save one array of numbers (images of one size), or of text",
    ),
    "object labels": (
        npz(labels=np.array(["a"] * COUNT, dtype=object)),
        "path: {at}/my.npz: labels holds pickled Python objects, which are never loaded; "
        "save one array of numbers (images of one size), or of text",
    ),
    "images of text": (
        npz(images=np.array(["a"] * COUNT)),
        "path: {at}/my.npz: images are of type <U1, not numbers",
    ),
    "complex images": (
        npz(images=made.pixels().astype(complex)),
        "path: {at}/my.npz: images is of type <c16, not of numbers or text",
    ),
    "flat images": (
        npz(images=made.pixels().reshape(COUNT, -1)),
        "path: {at}/my.npz: images: expected N x H x W or N x C x H x W, got 12 x 30",
    ),
    "channels last": (
        npz(images=np.zeros((COUNT, 8, 8, 3))),
        "path: {at}/my.npz: images of 8 x 8 x 3 look as if channels came last; "
        "expected C x H x W: numpy.moveaxis(images, -1, 1)",
    ),
    "no pixels": (
        npz(images=np.zeros((COUNT, 0, 8))),
        "path: {at}/my.npz: images of 0 x 8 have no pixels",
    ),
    "no images at all": (
        npz(images=made.pixels()[:0], labels=LABELS[:0]),
        "path: {at}/my.npz: expected at least 4 images, got 0",
    ),
    "too few": (
        npz(images=made.pixels()[:3], labels=LABELS[:3]),
        "path: {at}/my.npz: expected at least 4 images, got 3",
    ),
    "too large": (
        written("my.npz", zip_of(header("(5, 5000, 5)"), 5 * 5000 * 5)),
        "path: {at}/my.npz: images of 5000 x 5 are too large: at most 4,096 each way and "
        "67,108,864 numbers; "
        "cut or bin them first",
    ),
    "not finite": (
        npz(images=NAN),
        "path: 2 of 12 images hold NaN or infinite pixels, the first is image 3 "
        "(counted from 0); repair or remove them",
    ),
    "too large for float32": (
        npz(images=made.pixels() * 1e300),
        "path: 12 of 12 images hold NaN or infinite pixels, the first is image 0 "
        "(counted from 0); repair or remove them",
    ),
    "zip bomb": (
        lambda folder: written(  # noqa: PLW0108 - made when it is needed
            "my.npz", zip_of(header("(260, 1024, 1024)"), 260 * 2**20, zipfile.ZIP_DEFLATED)
        )(folder),
        f"path: {{at}}/my.npz: {N} bytes that unpack to {N}, {RATIO}",
    ),
    "header and size": (
        written("my.npz", zip_of(header("(999999999, 8, 8)"), 100)),
        "path: {at}/my.npz: images has other than the 63,999,999,936 bytes that its shape needs",
    ),
    "header of code": (
        written("my.npz", zip_of("__import__('os').system('true')", 100)),
        "path: {at}/my.npz: images has a header that says no type and shape",
    ),
    "no array": (
        no_array,
        "path: {at}/my.npz: images is not a NumPy array",
    ),
    "labels too few": (
        npz(labels=LABELS[:9]),
        "path: {at}/my.npz: labels: expected one label for each of 12 images, got 9 labels",
    ),
    "labels in a matrix": (
        npz(labels=np.eye(COUNT, dtype=int)),
        "path: {at}/my.npz: labels: expected one label for each of 12 images, "
        "got the shape (12, 12)",
    ),
    "float labels": (
        npz(labels=LABELS.astype(float)),
        "path: {at}/my.npz: labels: expected whole numbers or text, got float64; "
        "save them as integers",
    ),
    "labels outside": (
        npz(class_names=np.array(["a", "b"])),
        "path: {at}/my.npz: labels: expected numbers from 0 to 1, one a name of class_names, "
        "got 0 to 2",
    ),
    "names of numbers": (
        npz(class_names=np.arange(3)),
        "path: {at}/my.npz: class_names: expected a list of text, got int64",
    ),
    "name twice": (
        npz(class_names=np.array(["a", "b", "a"])),
        "path: {at}/my.npz: labels: class_names holds 'a' twice",
    ),
    "a name that is not there": (
        npz(labels=np.array(["a", "b", "d"])[LABELS], class_names=np.array(["a", "b", "c"])),
        "path: {at}/my.npz: labels: 'd' is not in class_names",
    ),
    "identifiers": (
        npz(images=np.ones((1200, 2, 2)), labels=np.arange(1200)),
        "path: {at}/my.npz: labels: 1,200 different values, more than 1,000; are they classes?",
    ),
    "covariate too long": (
        npz(cov_size=np.ones(13)),
        "path: {at}/my.npz: covariate 'size': expected one number for each of 12 images, "
        "got the shape (13,)",
    ),
    "covariate of text": (
        npz(cov_size=np.array(["a"] * COUNT)),
        "path: {at}/my.npz: cov_size: expected numbers, got text",
    ),
    "covariate missing": (
        npz(cov_size=np.where(np.arange(COUNT) == 4, np.nan, 1)),
        "path: {at}/my.npz: covariate 'size': 1 values are missing, NaN or infinite, "
        "the first is that of image 4 (from 0)",
    ),
    "no such class": (
        asking(["spirals", "lens"], labels=np.array(["spiral", "lens", "ring"])[LABELS]),
        "classes[0]: no class 'spirals' in the labels; did you mean 'spiral'? "
        "known: lens, ring, spiral",
    ),
    "no such number": (
        asking([0, 7]),
        "classes[1]: no class '7' in the labels; known: 0, 1, 2",
    ),
    "classes without labels": (
        lambda folder: {"path": str(made.idx(folder)[0]), "classes": [0, 1]},
        "classes: the images have no labels to choose classes by",
    ),
    "too few of these": (
        asking([5, 6], labels=np.array([5, 6, 6, *range(7, 16)])),
        "classes: expected at least 4 images of these classes, got 3",
    ),
    "idx empty": (bad_idx(b""), "path: {at}/x-ubyte: the file is empty"),
    "idx magic": (
        bad_idx(b"\x89PNG" + IDX),
        "path: {at}/x-ubyte: starts with 0x89504e47, which is not the magic number of IDX, "
        "such as 0x00000803 for images of bytes",
    ),
    "idx axes": (
        bad_idx(b"\0\0\x08\x09" + bytes(100)),
        "path: {at}/x-ubyte: 9 axes, where 1 to 4 make sense",
    ),
    "idx short": (
        bad_idx(IDX[:-5]),
        "path: {at}/x-ubyte: 371 bytes, where its header (12 x 6 x 5) says 376; "
        "is it a part of a download?",
    ),
    "idx long": (
        bad_idx(IDX + b"more"),
        "path: {at}/x-ubyte: 380 bytes, where its header (12 x 6 x 5) says 376",
    ),
    "idx header cut": (bad_idx(IDX[:9]), f"path: {{at}}/x-ubyte: {DOWNLOAD}"),
    "labels as images": (
        bad_idx(IDX_LABELS),
        "path: {at}/x-ubyte: holds 12 numbers, not N x H x W or N x C x H x W; "
        "are these the labels?",
    ),
    "images as labels": (
        bad_idx(IDX, labels=IDX),
        "labels: {at}/y-ubyte: expected one number an image, got 12 x 6 x 5",
    ),
    "idx labels short": (
        bad_idx(IDX, labels=made.idx_bytes(LABELS[:9].astype(np.uint8))),
        "labels: {at}/y-ubyte: expected one label for each of 12 images, got 9 labels",
    ),
    "idx float labels": (
        bad_idx(IDX, labels=made.idx_bytes(LABELS.astype(np.float32))),
        "labels: {at}/y-ubyte: expected whole numbers or text, got >f4; save them as integers",
    ),
    "no label file": (
        lambda folder: {**bad_idx(IDX)(folder), "labels": "no-ubyte"},
        "labels: no such file: {at}/no-ubyte",
    ),
    "gz short": (
        bad_idx(gzip.compress(IDX[:-5])),
        f"path: {{at}}/x-ubyte: {DOWNLOAD}",
    ),
    "gz cut": (
        bad_idx(gzip.compress(IDX)[:-20]),
        "path: {at}/x-ubyte: cannot be read as IDX: Compressed file ended before the "
        "end-of-stream marker was reached",
    ),
    "gz long": (
        bad_idx(gzip.compress(IDX + b"more")),
        "path: {at}/x-ubyte: goes on after the end that its header says",
    ),
    "gz bomb": (
        lambda folder: bad_idx(gz_bomb())(folder),  # noqa: PLW0108 - made when it is needed
        f"path: {{at}}/x-ubyte: {N} bytes that unpack to 285,212,688, {RATIO}",
    ),
    "folder empty": (
        lambda folder: ((folder / "e").mkdir(), {"path": str(folder / "e")})[1],
        "path: {at}/e: no image files and no folders of them; known endings: .bmp, .gif, .jpeg, "
        ".jpg, .pgm, .png, .ppm, .tif, .tiff, .webp",
    ),
    "class folder empty": (
        pictures(lambda top: (top / "d").mkdir()),
        "path: {at}/pictures: the folder of class 'd' holds no image files",
    ),
    "images beside folders": (
        pictures(lambda top: Image.new("L", (5, 6)).save(top / "x.png")),
        "path: {at}/pictures: holds image files (x.png) beside folders (a); "
        "a folder a class, or images alone",
    ),
    "unequal size": (
        pictures(lambda top: Image.new("L", (5, 7)).save(top / "b" / "04.png")),
        "path: {at}/pictures/b/04.png has 7 x 5 pixels, where 00.png has 6 x 5 "
        "(height x width); give all one size",
    ),
    "unreadable image": (
        pictures(lambda top: (top / "b" / "04.png").write_bytes(b"no image")),
        "path: {at}/pictures/b/04.png: cannot be read as an image: "
        "cannot identify image file the file",
    ),
    "image cut": (
        pictures(lambda top: os.truncate(top / "b" / "04.png", 60)),
        "path: {at}/pictures/b/04.png: cannot be read as an image: image file is truncated",
    ),
    "broken link": (
        pictures(lambda top: (top / "c" / "z.png").symlink_to("nowhere.png")),
        "path: {at}/pictures/c/z.png: a link that leads nowhere; remove it",
    ),
    "image bomb": (
        pictures(lambda top: (top / "a" / "00.png").write_bytes(png_of_size(60000, 60000))),
        "path: {at}/pictures/a/00.png: too many pixels: at most 4,096 x 4,096; cut or bin "
        "them first",
    ),
    "parquet empty": (written("my.parquet", b""), "path: {at}/my.parquet: the file is empty"),
    "parquet of something else": (
        written("my.parquet", b"something else, long enough to look"),
        "path: {at}/my.parquet: cannot be read as Parquet: Parquet magic bytes not found in "
        "footer. Either the file is corrupted or this is not a parquet file.",
    ),
    "no column": (
        parquet({"image": "imag"}),
        "image: no column 'imag'; did you mean 'image'? known: class, image",
    ),
    "no label column": (
        parquet({"label": "klass"}),
        "label: no column 'klass'; did you mean 'class'? known: class, image",
    ),
    "no covariate column": (
        parquet({"covariates": ["class", "size"]}),
        "covariates[1]: no column 'size'; known: class, image",
    ),
    "column of numbers": (
        parquet({"image": "class"}),
        "image: column 'class' is of type int64; expected lists of numbers, or a tensor",
    ),
    "flat without a shape": (
        parquet(image=FLAT),
        "image: column 'image' holds flat lists; say how they are laid out, such as "
        "shape: [28, 28] (height, width)",
    ),
    "another shape": (
        parquet({"shape": [5, 5]}, image=FLAT),
        "shape: column 'image' holds 30 numbers an image, not 5 x 5",
    ),
    "shape twice": (
        parquet({"shape": [6, 5]}),
        "shape: column 'image' has a shape of its own; remove this, which is for flat lists",
    ),
    "null image": (
        parquet(image=lists([*PLAIN[:11], None])),
        "image: column 'image' holds 331 numbers for 12 images: some are missing, "
        "or of another size than others",
    ),
    "null image that a sum hides": (
        parquet(image=lists([*[[[1.0]]] * 11, None])),
        "image: column 'image': image 11 (counted from 0) is null",
    ),
    "null pixel": (
        parquet(image=lists([*PLAIN[:11], [[None] * 5] * 6])),
        "image: column 'image': image 0 (counted from 0) or one soon after has null pixels",
    ),
    "unequal lists": (
        parquet(image=lists([*PLAIN[:10], PLAIN[0][:5], [*PLAIN[0], PLAIN[0][0]]])),
        "image: column 'image': image 10 (counted from 0) has lists of another length than the "
        "images before it",
    ),
    "lists of text": (
        parquet(image=pa.array([["a"]] * COUNT)),
        "image: column 'image' is of type list<element: string>; expected lists of numbers, "
        "or a tensor",
    ),
    "parquet not finite": (
        parquet(image=lists(NAN.tolist())),
        "path: 2 of 12 images hold NaN or infinite pixels, the first is image 3 "
        "(counted from 0); repair or remove them",
    ),
    "parquet float labels": (
        parquet({"label": "size"}, size=pa.array(LABELS.astype(float))),
        "label: column 'size': expected whole numbers or text, got double; save them as integers",
    ),
    "parquet null labels": (
        parquet({"label": "size"}, size=pa.array([None, *LABELS[1:]], pa.int64())),
        "label: column 'size': 1 cells or more are null; fill them, or leave these rows out",
    ),
    "parquet covariate of text": (
        parquet({"covariates": ["size"]}, size=pa.array(["a"] * COUNT)),
        "covariates[0]: column 'size': expected numbers, got string",
    ),
    "parquet images too large": (
        parquet({"image": "wide"}, wide=pa.array([np.zeros((1, 5000))[0].tolist()] * COUNT)),
        "image: column 'wide' holds flat lists; say how they are laid out, such as "
        "shape: [28, 28] (height, width)",
    ),
    "parquet shape too large": (
        parquet({"shape": [1, 5000]}, image=pa.array([[0.0] * 5000] * COUNT)),
        "path: {at}/my.parquet: images of 1 x 5000 are too large: at most 4,096 each way and "
        "67,108,864 numbers; "
        "cut or bin them first",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_says_what_where_and_the_fix(rule: str, tmp_path: Path) -> None:
    make, sentence = RULES[rule]
    study = write(tmp_path, tiny(dataset=make(tmp_path)))
    start = time.monotonic()
    with pytest.raises(Refused) as refused:
        load_study(study)
    (mistake,) = refused.value.mistakes
    expected = re.escape("x.yaml: dataset." + sentence.replace("{at}", str(tmp_path)))
    assert re.fullmatch(expected.replace(re.escape(N), r"[\d,]+"), mistake), mistake
    assert time.monotonic() - start < 10
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("bomb", ["zip bomb", "gz bomb", "image bomb", "header and size"])
def test_bombs_cost_no_memory(bomb: str, tmp_path: Path) -> None:
    found = RULES[bomb][0](tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(BadData):
            load(**found)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_parquet_bomb_is_refused_from_its_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of one value take no space: a footer is read before any of them is written out."""
    many = 2**23
    path = tmp_path / "bomb.parquet"
    offsets = pa.array([0, 0, 0, 0, many], pa.int32())
    image = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(many, bool)))
    pq.write_table(pa.table({"image": image}), path)
    assert path.stat().st_size < 2**17
    monkeypatch.setattr("models.datasets.parquet.MOST_NUMBERS", 2**20)
    monkeypatch.delattr("models.datasets.parquet._batches")
    with pytest.raises(BadData) as bad:
        load(path=str(path), shape=[2048, 2048])
    assert bad.value.sentence == (
        f"{path}: 2,097,152 numbers an image are too many: at most 1,048,576; "
        "cut or bin the images first"
    )


@pytest.mark.parametrize("rows", [None, 5])
def test_the_footer_is_read_as_pyarrow_reads_it(rows: int | None, tmp_path: Path) -> None:
    names = {"é.x": pa.array([[1.0, 2.0]] * COUNT), "flag": pa.array([True, None] * 6)}
    path = made.parquet(tmp_path, rows=rows, **names)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    for place, name in enumerate(["image", "class", "é.x", "flag"]):
        assert count_values(path, name) == sum(g.column(place).num_values for g in groups) > 0


def test_a_full_disk_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGEST_IN_MEMORY", 100)
    monkeypatch.setattr(cache, "SPARE", 2**80)
    with pytest.raises(BadData, match=r"GiB in .*/cache, where -.* free; choose another folder"):
        load(path=str(made.npz(tmp_path)))
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(made.npz(tmp_path) / "below-a-file"))
    with pytest.raises(BadData) as bad:
        load(path=str(made.npz(tmp_path)))
    assert bad.value.sentence == (
        f"{tmp_path}/my.npz/below-a-file: the cache for large images cannot be written: "
        "Not a directory; choose another with SEEDSWEEP_CACHE"
    )


def test_a_data_mistake_stands_beside_the_others(tmp_path: Path) -> None:
    study = tiny(dataset={"path": "no.npz"}, low=3)
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, study))
    assert refused.value.mistakes == [
        "x.yaml: low: expected at most 1, got 3",
        f"x.yaml: dataset.path: no such file: {tmp_path}/no.npz",
    ]


# Fuzz: whatever the bytes, a dataset or a sentence.

FORMS = ("npz", "packed npz", "idx", "idx.gz", "parquet", "png")


def valid(form: str, folder: Path) -> Path:
    """Return one file in a form; for `png` the first of a folder."""
    if form == "npz":
        return made.npz(folder, class_names=np.array(["a", "b", "c"]), cov_size=np.ones(COUNT))
    if form == "packed npz":
        np.savez_compressed(folder / "p.npz", images=made.pixels(), labels=LABELS)
        return folder / "p.npz"
    if form.startswith("idx"):
        return made.idx(folder, packed=form.endswith("gz"))[0]
    if form == "parquet":
        return made.parquet(folder)
    return made.png_folder(folder, classes=False) / "03.png"


def outcome(form: str, path: Path) -> None:
    found: dict[str, Any] = {"path": str(path.parent if form == "png" else path)}
    if form == "parquet":
        found["label"] = "class"
    try:
        dataset = load(**found)
    except BadData as bad:
        sentence = bad.sentence
        dataset = None
    if dataset is None:
        assert sentence
        assert "\n" not in sentence
    else:
        assert isinstance(dataset, Dataset)
        assert np.isfinite(dataset.images).all()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes]]:
    found = {}
    for form in FORMS:
        path = valid(form, tmp_path_factory.mktemp("fuzz"))
        found[form] = (path, path.read_bytes())
    return found


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("form", FORMS)
@FUZZ
@given(data=st.binary(max_size=400))
def test_random_bytes(form: str, data: bytes, originals: dict[str, tuple[Path, bytes]]) -> None:
    path, whole = originals[form]
    try:
        path.write_bytes(data)
        outcome(form, path)
        path.write_bytes(whole[:4] + data)
        outcome(form, path)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("form", FORMS)
@FUZZ
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 8), cut=st.booleans())
def test_random_changes(
    form: str, seed: int, changes: int, originals: dict[str, tuple[Path, bytes]], *, cut: bool
) -> None:
    path, whole = originals[form]
    dice = random.Random(seed)  # noqa: S311 - no secret
    data = bytearray(whole)
    for _ in range(changes):
        data[dice.randrange(len(data))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    if cut:
        del data[dice.randrange(len(data)) :]
    try:
        path.write_bytes(data)
        outcome(form, path)
    finally:
        path.write_bytes(whole)
