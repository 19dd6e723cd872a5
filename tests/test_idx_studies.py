"""Studies on IDX files as MNIST's are: two classes, and three with a prior of three peaks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import idx_bytes
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from studies import write

from models.scores import OF_TWO_CLASSES
from sweeps import results
from sweeps.cli import main


def packed(array: NDArray[np.uint8]) -> bytes:
    return gzip.compress(idx_bytes(array), mtime=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write scikit-learn's digits as 28x28 bytes: each pixel three wide, two of margin."""
    folder, source = tmp_path_factory.mktemp("idx"), load_digits()
    wide = np.kron(source.images, np.ones((1, 3, 3))) * 255 / 16
    images = np.pad(wide, ((0, 0), (2, 2), (2, 2))).round().astype(np.uint8)
    (folder / "few-images-idx3-ubyte.gz").write_bytes(packed(images))
    (folder / "few-labels-idx1-ubyte.gz").write_bytes(packed(source.target.astype(np.uint8)))
    return folder


def study(classes: list[int], prior: Any) -> dict[str, Any]:
    names = {"path": "few-images-idx3-ubyte.gz", "labels": "few-labels-idx1-ubyte.gz"}
    settings = {"network": {"hidden": [32]}, "training": {"steps": 60, "batch_size": 64}}
    cells = [{"objective": "ae"}, {"objective": "wae", "prior": prior, "divergence": "mmd"}]
    dataset = {**names, "classes": classes}
    return {"name": "few", "dataset": dataset, "seeds": 2, "spec": settings, "cells": cells}


def ran(files: Path, out: Path, content: dict[str, Any], capsys: Any) -> list[dict[str, Any]]:
    path = write(files, content)
    assert main(["run", str(path), "--launcher", "inline", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["planned"] == 4
    assert main(["report", str(out)]) == 0
    table = capsys.readouterr().out
    assert "ae" in table
    assert "k-means" in table
    rows: list[dict[str, Any]] = results.read(out).runs.to_pylist()
    assert len(rows) == 4
    return rows


def test_two_classes(files: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ran(files, folder / "out", study([4, 9], "bimodal"), capsys)
    assert all(row["auc_split"] is not None and row["accuracy"] is not None for row in rows)


def test_three_classes(files: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What compares two classes is undefined; clusters are better than chance."""
    rows = ran(files, folder / "out", study([0, 1, 2], "mixture"), capsys)
    assert {row[metric] for row in rows for metric in OF_TWO_CLASSES} == {None}
    for row in rows:
        assert row["auc_matched"] > 0.6
        assert row["accuracy"] > 0.45  # a third by chance; noughts lie apart in the first steps
        assert 0 < row["nmi"] <= 1
