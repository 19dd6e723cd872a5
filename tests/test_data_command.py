"""`sweeps data`: what there is, what one holds, and one as a file; every mistake exits with 2."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import images as made
import numpy as np
import pytest
from images import COUNT, HEIGHT, LABELS, WIDTH, load
from PIL import Image
from studies import tiny, write

from models.datasets import FORMS
from sweeps.cli import main


@pytest.fixture(autouse=True)
def work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "cache"))


Capture = pytest.CaptureFixture[str]


def call(capfd: Capture, *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def as_json(capfd: Capture, *arguments: str) -> dict[str, Any]:
    code, out, _ = call(capfd, *arguments, "--json")
    assert code == 0
    assert out.count("\n") == 1, "one JSON object, nothing else"
    content: dict[str, Any] = json.loads(out)
    return content


def test_list_names_every_dataset_form_and_key(capfd: Capture) -> None:
    content = as_json(capfd, "list")
    assert [entry["name"] for entry in content["datasets"]] == ["digits", "stargalaxy", "ising"]
    assert {entry["form"]: entry["keys"] for entry in content["forms"]} == {
        form.form: list(form.model_fields) for form in FORMS
    }
    code, out, _ = call(capfd, "list")
    assert code == 0
    words = set(out.replace(",", " ").split())
    for entry in content["forms"]:
        assert {entry["form"], *entry["keys"]} - {"path"} <= words
    assert all(len(line) <= 80 for line in out.splitlines())


def test_describe_says_what_there_is(tmp_path: Path, capfd: Capture) -> None:
    names, size = np.array(["ring", "spiral", "lens"]), np.linspace(1, 3, COUNT)
    path = made.npz(tmp_path, class_names=names, cov_size=size)
    dataset = load(path=str(path))
    scaled = made.pixels() / 255
    found = as_json(capfd, "describe", path.name)
    shares = [{"name": str(name), "images": 4, "share": 1 / 3} for name in names]
    assert found["low"] == pytest.approx(scaled.min())
    assert found["high"] == pytest.approx(scaled.max())
    assert found["mean"] == pytest.approx(scaled.mean(), rel=1e-6)
    assert {key: found[key] for key in found if key not in ("low", "high", "mean")} == {
        "name": "my",
        "what": "12 images of the NumPy archive my.npz",
        "images": COUNT,
        "shape": [1, HEIGHT, WIDTH],
        "dtype": "float32",
        "image_digest": dataset.image_digest,
        "label_digest": dataset.label_digest,
        "classes": shares,
        "covariates": {"size": {"low": 1.0, "high": 3.0, "mean": 2.0}},
        "scalar": None,
        "defective": None,
        "bytes": COUNT * HEIGHT * WIDTH * 4,
        "on_disk": False,
    }
    _, out, _ = call(capfd, "describe", path.name)
    for words in (
        "12 of 1 x 6 x 5 (channels, height, width), float32",
        "spiral: 4, 33.3 %",
        "size: 1 to 3, mean 2",
        dataset.image_digest,
    ):
        assert words in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_what_is_a_name_a_path_or_a_study(tmp_path: Path, capfd: Capture) -> None:
    assert as_json(capfd, "describe", "digits")["images"] == 1797
    smoke = as_json(capfd, "describe", "smoke")
    assert [entry["name"] for entry in smoke["classes"]] == ["1", "8"]
    images, _ = made.idx(tmp_path)
    unlabelled = as_json(capfd, "describe", images.name)
    assert (unlabelled["classes"], unlabelled["label_digest"]) == ([], None)
    assert "no labels" in call(capfd, "describe", images.name)[1]
    inside = tmp_path / "inside"
    inside.mkdir()
    made.npz(inside)
    study = tiny(dataset={"path": "my.npz", "classes": [2, 0], "preprocess": ["asinh"]})
    write(inside, study, "study.yaml")
    by_file = as_json(capfd, "describe", "inside/study.yaml")
    assert [entry["name"] for entry in by_file["classes"]] == ["2", "0"]
    assert as_json(capfd, "describe", "inside") == by_file
    assert as_json(capfd, "describe", str(made.png_folder(tmp_path)))["images"] == COUNT


@pytest.mark.parametrize("labelled", [True, False])
def test_export_is_read_back_the_same(labelled: bool, tmp_path: Path, capfd: Capture) -> None:
    images, labels = made.idx(tmp_path)
    dataset: dict[str, Any] = {"path": images.name, "preprocess": ["centre", "standardise"]}
    if labelled:
        dataset |= {"labels": labels.name, "classes": [2, 0]}
    write(tmp_path, tiny(dataset=dataset))
    exported = as_json(capfd, "export", "x.yaml", "--out", "out/here")
    archive, sheet = (tmp_path / name for name in exported["files"])
    assert (archive.name, sheet.name) == ("t-images-idx3-ubyte.npz", "contact-sheet.png")
    again = as_json(capfd, "describe", str(archive))
    for key in ("image_digest", "label_digest", "classes", "covariates", "shape"):
        assert again[key] == exported[key]
    with np.load(archive, allow_pickle=False) as plain:  # NumPy can read it, too
        assert plain["images"].shape[0] == exported["images"]
    assert sorted(path.name for path in archive.parent.iterdir()) == [sheet.name, archive.name]
    first = archive.read_bytes(), sheet.read_bytes()
    as_json(capfd, "export", "x.yaml", "--out", "out/here")
    assert (archive.read_bytes(), sheet.read_bytes()) == first


def test_the_contact_sheet_has_a_row_a_class(tmp_path: Path, capfd: Capture) -> None:
    """Class 0 is black but for one white corner, class 1 the other way round; names are odd."""
    pictures = np.zeros((COUNT, 8, 8))
    pictures[LABELS == 1] = 1
    pictures[:, 0, 0] = 1 - pictures[:, 0, 0]
    names = np.array(["$x^2_{$ <b>", "ring\x07 星", "lens " * 20])
    made.npz(tmp_path, images=pictures, class_names=names)
    exported = as_json(capfd, "export", "my.npz", "--out", "out")
    sheet = np.asarray(Image.open(tmp_path / exported["files"][1]).convert("L"))
    height = sheet.shape[0] / 3
    middles = [sheet[int((row + 0.5) * height), 170:470] for row in range(3)]
    dark = [float((middle < 50).mean()) for middle in middles]
    assert dark[0] > 0.8
    assert dark[1] < 0.2, dark
    assert dark[2] > 0.8


def test_mistakes_exit_with_2_and_a_sentence(tmp_path: Path, capfd: Capture) -> None:
    made.npz(tmp_path, labels=LABELS[:5])
    write(tmp_path, tiny(dataset={"path": "my.npz", "clases": [1]}), "key.yaml")
    write(tmp_path, tiny(dataset={"path": "my.npz"}), "labels.yaml")
    write(tmp_path, tiny(dataset=None), "none.yaml")
    short = f"{tmp_path}/my.npz: labels: expected one label for each of 12 images, got 5 labels"
    for arguments, sentence in {
        ("describe",): "data describe: name a dataset, a file or a study; see: data list",
        ("export", "digits"): "data export: export needs --out DIR",
        ("list", "--out", "x"): "data list: --out is for export",
        ("describe", "digit"): (
            "digit: no such file, and no dataset or study of that name; did you mean 'digits'? "
            "known: digits, ising, stargalaxy; see: sweeps data list"
        ),
        ("describe", "my.npz"): f"my.npz: {short}",
        ("describe", "labels.yaml"): f"labels.yaml: dataset.path: {short}",
        ("describe", "key.yaml"): (
            "key.yaml: dataset: unknown key 'clases'; did you mean 'classes'? "
            "known: classes, path, preprocess"
        ),
        (
            "describe",
            "none.yaml",
        ): "none.yaml: dataset is missing; one of: digits, ising, stargalaxy",
        ("export", "digits", "--out", "my.npz/x"): (
            "my.npz/x: cannot be written: Not a directory; choose another with --out"
        ),
    }.items():
        code, out, err = call(capfd, *arguments)
        assert (code, out, err) == (2, "", f"{sentence}\n"), arguments


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sweeps.cli import main\n"
        "try:\n    main(['data', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'pyarrow', 'PIL', 'matplotlib', 'rich'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 10
