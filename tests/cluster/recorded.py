"""The study that every test of the folder runs, and how its results are compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.numpy import load_file
from studies import tiny

from sweeps.results import NOT_DETERMINISTIC, read

STEPS, RUNS, PACKS = 10_000, 8, 4
STUDY = tiny(
    name="cluster",
    seeds=4,
    spec={"network": {"hidden": [16]}, "training": {"steps": STEPS, "batch_size": 32}},
    cells=[{"objective": "ae"}, {"objective": "wae", "prior": "bimodal"}],
)


@dataclass(frozen=True)
class Reference:
    """A study folder that no fault has seen."""

    folder: Path

    def assert_equal(self, folder: Path) -> None:
        """Compare every deterministic column, and the weights to the bit."""
        assert rows(folder) == rows(self.folder)
        assert weights(folder) == weights(self.folder)
        assert len(weights(folder)) == RUNS


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the deterministic columns of results.parquet, by run."""
    table = read(folder).runs.drop_columns(list(NOT_DETERMINISTIC)).to_pylist()
    return sorted(table, key=lambda row: str(row["run_id"]))


def weights(folder: Path) -> dict[str, str]:
    """Return the digest of every run's tensors."""
    digests: dict[str, Any] = {}
    for path in (folder / "members").iterdir():
        for name, tensor in sorted(load_file(path).items()):
            run_id, _, block = name.partition("/")
            digests.setdefault(run_id, hashlib.sha256()).update(block.encode() + tensor.tobytes())
    return {run_id: digest.hexdigest() for run_id, digest in digests.items()}


def running(folder: Path) -> list[dict[str, Any]]:
    """Return the packs that are said to run now."""
    try:
        found: list[dict[str, Any]] = json.loads((folder / "progress.json").read_text())["running"]
    except FileNotFoundError:
        return []
    return found


def kept(folder: Path) -> dict[str, int]:
    """Return the steps that checkpoints hold, by run."""
    from sweeps.folder.kept import index  # noqa: PLC0415

    return {run_id: one.step for run_id, one in index(folder).items()}


def attempts(folder: Path) -> dict[str, list[tuple[int, int]]]:
    """Return (step, attempt) of every point of the learning curves, by run."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in pq.read_table(folder / "history").to_pylist():
        found.setdefault(row["run_id"], []).append((row["step"], row["attempt"]))
    return {run_id: sorted(points) for run_id, points in found.items()}


def records(folder: Path) -> list[dict[str, Any]]:
    """Return results.parquet's rows."""
    found: list[dict[str, Any]] = read(folder).runs.to_pylist()
    return found
