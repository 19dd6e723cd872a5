"""Every form of file gives the same images; large ones stay on disk, with equal bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import images as made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import COUNT, HEIGHT, LABELS, WIDTH, load
from numpy.typing import NDArray
from PIL import Image
from studies import tiny, write

from models.datasets import cache
from models.datasets.base import Dataset, chunks
from models.spec import Spec
from models.train import train
from sweeps.cli import main
from sweeps.run import train_missing
from sweeps.study import load_study
from sweeps.sweep import open_sweep

SCALED = made.pixels()[:, None].astype(np.float32) / np.float32(255)
BY_CLASS = np.argsort(LABELS, kind="stable")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digest_in_one_go(dataset: Dataset) -> str:
    """Return the digest by its definition, without chunks."""
    head = f"<f4{dataset.images.shape}".encode()
    return hashlib.sha256(head + np.array(dataset.images, "<f4").tobytes()).hexdigest()


def test_every_form_gives_the_same_images_and_labels(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.mkdir()
    packed.mkdir()
    first, first_labels = made.idx(plain, packed=False)
    second, second_labels = made.idx(packed)
    found = {
        "npz": load(path=str(made.npz(tmp_path))),
        "parquet": load(path=str(made.parquet(tmp_path)), label="class"),
        "idx": load(path=str(first), labels=str(first_labels)),
        "idx.gz": load(path=str(second), labels=str(second_labels)),
    }
    for dataset in found.values():
        assert dataset.images.dtype == np.float32
        assert np.array_equal(dataset.images, SCALED)
        assert dataset.labels is not None
        assert dataset.labels.tolist() == LABELS.tolist()
        assert dataset.class_names == ("0", "1", "2")
        assert dataset.covariates["ink"] == pytest.approx(SCALED.sum((1, 2, 3)), rel=1e-6)
        assert dataset.image_digest == digest_in_one_go(dataset)
    assert len({dataset.image_digest for dataset in found.values()}) == 1
    folder = load(path=str(made.png_folder(tmp_path)))
    assert np.array_equal(folder.images, SCALED[BY_CLASS])
    assert folder.class_names == ("a", "b", "c")
    assert folder.labels is not None
    assert folder.labels.tolist() == sorted(LABELS)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float16", "float64", "bool", ">f4"])
def test_other_numbers_than_bytes_are_taken_as_they_are(dtype: str, tmp_path: Path) -> None:
    array = (made.pixels() > 100).astype(dtype) if dtype == "bool" else made.pixels().astype(dtype)
    dataset = load(path=str(made.npz(tmp_path, images=array)))
    assert np.array_equal(dataset.images[:, 0], array.astype(np.float32))


def test_channels_and_column_order_in_an_archive(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).normal(size=(COUNT, 3, HEIGHT, WIDTH)).astype(np.float32)
    for array in (colour, np.asfortranarray(colour)):
        assert np.array_equal(load(path=str(made.npz(tmp_path, images=array))).images, colour)


def test_an_archive_with_names_covariates_and_compression(tmp_path: Path) -> None:
    size = np.linspace(1, 2, COUNT)
    path = tmp_path / "my.data.npz"
    names = np.array(["ring", "spiral", "none"])
    np.savez_compressed(
        path, images=made.pixels(), labels=LABELS, class_names=names, cov_size=size, other=size
    )
    dataset = load(path=str(path), classes=["none", "ring"])
    keep = LABELS != 1
    assert dataset.name == "my"
    assert dataset.class_names == ("none", "ring")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0 if label == 2 else 1 for label in LABELS[keep]]
    assert list(dataset.covariates) == ["size"]
    assert dataset.covariates["size"].tolist() == size[keep].tolist()
    by_number = load(path=str(path), classes=[2, 0])
    assert by_number.label_digest == dataset.label_digest


def test_classes_are_names_before_they_are_numbers(tmp_path: Path) -> None:
    """An exported `digits` of ones and eights has labels 0 and 1, named 1 and 8."""
    names = np.array(["1", "8", "0"])
    dataset = load(path=str(made.npz(tmp_path, class_names=names)), classes=[8, 1])
    assert dataset.class_names == ("8", "1")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1 if label == 0 else 0 for label in LABELS[LABELS != 2]]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_as_text(kind: str, tmp_path: Path) -> None:
    words = np.array(["elliptical", "spiral", "lens"])[LABELS].astype(kind)
    dataset = load(path=str(made.npz(tmp_path, labels=words)), classes=["spiral", "lens"])
    assert dataset.class_names == ("spiral", "lens")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [int(label) - 1 for label in LABELS if label]


def columns() -> dict[str, tuple[Any, dict[str, Any]]]:
    raw = made.pixels()
    flat = [image.ravel().tolist() for image in raw]
    pixel = pa.uint8()
    fixed = pa.list_(pa.list_(pixel, WIDTH), HEIGHT)
    return {
        "lists": (made.nested(raw), {}),
        "large lists": (pa.array(raw.tolist(), pa.large_list(pa.large_list(pixel))), {}),
        "fixed lists": (pa.array(raw.tolist(), fixed), {}),
        "flat": (pa.array(flat, pa.list_(pixel)), {"shape": [HEIGHT, WIDTH]}),
        "flat with a channel": (pa.array(flat, pa.list_(pixel)), {"shape": [1, HEIGHT, WIDTH]}),
        "with a channel": (made.nested(raw[:, None]), {}),
        "tensors": (pa.FixedShapeTensorArray.from_numpy_ndarray(raw), {}),
    }


@pytest.mark.parametrize("layout", columns())
@pytest.mark.parametrize("rows", [None, 5])
def test_every_layout_of_a_parquet_column(layout: str, rows: int | None, tmp_path: Path) -> None:
    column, settings = columns()[layout]
    words = pa.array(np.array(["x", "y", "z"])[LABELS]).dictionary_encode()
    size = pa.array(np.arange(COUNT))
    path = made.parquet(tmp_path, rows=rows, cutout=column, word=words, size=size)
    settings = {"image": "cutout", "label": "word", "covariates": ["size"], **settings}
    dataset = load(path=str(path), classes=["z", "x"], **settings)
    keep = LABELS != 1
    assert np.array_equal(dataset.images, SCALED[keep])
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0 if label == 2 else 1 for label in LABELS[keep]]
    assert dataset.covariates["size"].tolist() == np.arange(COUNT)[keep].tolist()


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_types_of_idx(dtype: str, tmp_path: Path) -> None:
    array = (made.pixels().astype(int) - 128).astype(dtype)
    path = tmp_path / "numbers.bin"  # known by its magic number
    path.write_bytes(made.idx_bytes(array))
    dataset = load(path=str(path))
    assert np.array_equal(dataset.images[:, 0], array.astype(np.float32))
    assert (dataset.labels, dataset.class_names, dataset.label_digest) == (None, (), None)


def test_a_folder_of_images_without_classes_and_in_colour(tmp_path: Path) -> None:
    top = made.png_folder(tmp_path, classes=False)
    (top / "readme.txt").write_text("no image")
    (top / ".hidden.png").write_text("no image")
    dataset = load(path=f"{top}/")
    assert np.array_equal(dataset.images, SCALED)
    assert dataset.labels is None
    colour = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number in range(4):
        Image.fromarray(colour).save(top / f"c{number}.png")
    rgb = load(path=str(top), mode="rgb")
    assert rgb.images.shape == (COUNT + 4, 3, HEIGHT, WIDTH)
    expected = np.moveaxis(colour, -1, 0).astype(np.float32) / np.float32(255)
    assert np.array_equal(rgb.images[-1], expected)
    assert np.array_equal(rgb.images[0], np.repeat(SCALED[0], 3, 0))


def test_sixteen_bits_and_floats_in_a_folder(tmp_path: Path) -> None:
    deep = made.pixels().astype(np.uint16) * 257
    for number, image in enumerate(deep[:4]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    assert load(path=str(tmp_path)).images == pytest.approx(SCALED[:4])
    floats = tmp_path / "floats"
    floats.mkdir()
    for number, image in enumerate(SCALED[:4, 0] - 3):
        Image.fromarray(image).save(floats / f"{number}.tiff")
    assert np.array_equal(load(path=str(floats)).images, SCALED[:4] - 3)


def test_links_and_odd_names_are_harmless(tmp_path: Path) -> None:
    top = made.png_folder(tmp_path)
    (top / "a").rename(top / "$x_{<b>'\n;`é")
    (top / "b" / "01.png").rename(top / "b" / "é ;$(x)\n.png")
    (top / "loop").symlink_to(top)  # no images directly in it: an empty class
    with pytest.raises(Exception, match="the folder of class 'loop' holds no image files"):
        load(path=str(top))
    (top / "loop").unlink()
    elsewhere = tmp_path / "elsewhere.png"
    Image.fromarray(made.pixels()[0]).save(elsewhere)
    (top / "c" / "link.png").symlink_to(elsewhere)
    dataset = load(path=str(top))
    assert len(dataset.images) == COUNT + 1
    assert dataset.class_names == ("$x_{<b>'\n;`é", "b", "c")


def study_of(folder: Path, **settings: Any) -> Path:
    return write(folder, tiny(dataset=settings))


def test_paths_are_relative_to_the_study_and_absolute_once_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    images, labels = made.idx(inside)
    path = study_of(
        tmp_path, path=f"data/{images.name}", labels=f"data/{labels.name}", classes=[2, 0]
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study, dataset = load_study(path)
    resolved = study.resolved()["dataset"]
    assert (resolved["path"], resolved["labels"]) == (str(images), str(labels))
    again, same = load_study(write(tmp_path / "elsewhere", study.resolved(), "again.yaml"))
    assert again == study
    assert same.image_digest == dataset.image_digest
    assert same.label_digest == dataset.label_digest


def test_a_study_on_a_file_runs_and_is_reported_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    big = np.random.default_rng(0).random((64, 6, 5))
    path = made.npz(tmp_path, images=big, labels=np.arange(64) % 2)
    steps = ["standardise", {"kind": "crop", "size": 4}]
    cells = [{"objective": "ae"}]
    study, dataset = load_study(
        write(tmp_path, tiny(dataset={"path": path.name, "preprocess": steps}, cells=cells))
    )
    sweep = open_sweep(study, dataset, tmp_path / "out")
    silent = SimpleNamespace(steps=lambda *_: None, finished=lambda *_: None)
    train_missing(
        sweep, launcher="inline", width=None, display=lambda *_: contextlib.nullcontext(silent)
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["report", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["cells"][0]["n_scored"] == 3


def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything go to disk, some images at a time."""
    monkeypatch.setattr(cache, "LARGEST_IN_MEMORY", 100)
    monkeypatch.setattr("models.datasets.base.CHUNK_BYTES", 3 * HEIGHT * WIDTH * 4)


STEPS: list[Any] = ["centre", "clip", {"kind": "standardise", "over": "channel"}, "asinh"]


@pytest.mark.parametrize("form", ["npz", "parquet", "idx", "folder"])
def test_images_on_disk_have_the_bits_of_those_in_memory(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "npz": {"path": str(made.npz(tmp_path)), "classes": [2, 1]},
        "parquet": {
            "path": str(made.parquet(tmp_path, rows=4)),
            "label": "class",
            "classes": [2, 1],
        },
        "idx": dict(zip(("path", "labels"), map(str, made.idx(tmp_path)), strict=True)),
        "folder": {"path": str(made.png_folder(tmp_path))},
    }
    chosen = {**settings[form], "preprocess": STEPS}
    here = load(**chosen)
    assert not isinstance(here.images, np.memmap)
    assert not cache_folder.exists()
    with monkeypatch.context() as patch:
        spread(patch)
        there = load(**chosen)
        assert len(list(chunks(there.images))) > 1
        assert there.image_digest == here.image_digest
        again = load(**chosen)
        (entry,) = cache_folder.iterdir()
        assert sorted(path.name for path in entry.iterdir()) == ["images.npy", "ink.npy"]
    for dataset in (there, again):
        assert isinstance(dataset.images, np.memmap)
        assert dataset.images.flags.writeable, "torch takes no read-only array"
        assert np.array_equal(dataset.images, here.images)
        assert dataset.label_digest == here.label_digest
        assert dataset.covariates["ink"].tolist() == here.covariates["ink"].tolist()


def test_training_from_disk_gives_equal_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.npz(tmp_path, images=made.pixels(40), labels=np.arange(40) % 2)
    here = load(path=str(path))
    spread(monkeypatch)
    there = load(path=str(path))
    assert isinstance(there.pixels, np.memmap)
    spec = Spec.model_validate(
        {
            "objective": "wae",
            "network": {"hidden": [8]},
            "training": {"steps": 20, "batch_size": 16},
        }
    )
    for one, other in zip(
        train(spec, [3, 4], np.asarray(here.pixels)),
        train(spec, [3, 4], np.asarray(there.pixels)),
        strict=True,
    ):
        assert one.code is not None
        assert other.code is not None
        assert one.code.tobytes() == other.code.tobytes()
        for name, tensor in one.tensors.items():
            assert tensor.tobytes() == other.tensors[name].tobytes()


def test_the_cache_follows_the_file_and_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    spread(monkeypatch)
    path = made.npz(tmp_path)
    first = load(path=str(path)).image_digest
    assert load(path=str(path), preprocess=["asinh"]).image_digest != first
    made.npz(tmp_path, images=made.pixels()[::-1])
    os.utime(path, ns=(1, 1))
    assert load(path=str(path)).image_digest != first
    assert len(list(cache_folder.iterdir())) == 3
    for entry in cache_folder.iterdir():  # damage: made anew
        (entry / "images.npy").write_bytes(b"\x93NUMPY")
    made.npz(tmp_path)
    assert load(path=str(path)).image_digest == first
    os.utime(path, ns=(1, 1))
    assert load(path=str(path)).image_digest == first


def test_what_fails_half_way_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    spread(monkeypatch)
    array = made.pixels().astype(np.float32)
    array[-1, 0, 0] = np.nan
    with pytest.raises(Exception, match="1 of 12 images hold NaN"):
        load(path=str(made.npz(tmp_path, images=array)))
    assert list(cache_folder.iterdir()) == []


def test_the_cache_has_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SEEDSWEEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "seedsweep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "seedsweep"


# Not `ru_maxrss`, which a child inherits from its parent: the kernel's peak, started anew.
MEASURE = """
import sys, tracemalloc
from pathlib import Path
from images import load
from models.datasets import cache

def kilobytes(name):
    (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name)]
    return int(line.split()[1])

cache.LARGEST_IN_MEMORY = 4 * 2**20
load(path=sys.argv[1])  # everything imported and warm
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
dataset = load(path=sys.argv[2], preprocess=["standardise"])
grown = kilobytes("VmHWM") - before
tracemalloc.start()
dataset.image_digest
print(dataset.images.nbytes, grown * 1024, tracemalloc.get_traced_memory()[1])
"""


def big_parquet(path: Path, groups: int, rows: int) -> None:
    block: NDArray[np.float32] = np.random.default_rng(0).random((rows, 1024), dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), 32)
    table = pa.table({"image": pa.FixedSizeListArray.from_arrays(lists, 32)})
    kind = pa.list_(pa.list_(pa.float32(), 32), 32)
    schema = pa.schema({"image": kind})
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for _ in range(groups):
            writer.write_table(table.cast(schema), row_group_size=rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded_on_a_file_many_times_the_limit(
    tmp_path: Path, cache_folder: Path
) -> None:
    """128 MiB of images through a limit of 4 MiB; a row group alone is 64 MiB."""
    big_parquet(tmp_path / "small.parquet", 1, 1025)
    big_parquet(tmp_path / "big.parquet", 2, 16_384)
    call = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "small.parquet", tmp_path / "big.parquet"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    size, grown, digest = map(int, call.stdout.split())
    assert size == 128 * 2**20
    assert len(list(cache_folder.iterdir())) == 2
    assert grown < 64 * 2**20, f"reading took {grown / 2**20:.0f} MiB"
    assert digest < 24 * 2**20, f"the digest took {digest / 2**20:.0f} MiB"
