"""What the report's figures show of a study folder beyond its tables, a cell at a time.

Codes, learning curves and weights are read for the runs that a figure needs, and no others. What is
missing or damaged is left out: a report is written for whatever is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from models.clusters import evidence
from models.restore import Restored, restored
from models.spec import Spec
from sweeps.folder.storage import read_parquet, read_safetensors
from sweeps.mistakes import Refused
from sweeps.results import SCORED, read_codes

Row = dict[str, Any]
Array = NDArray[np.float64]
Floats = NDArray[np.float32]

UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)  # seal.Damaged is a ValueError


@dataclass(frozen=True)
class Prior:
    """A prior over the class units, as functions of arrays."""

    density: Callable[[Array], Array]  # points (M, C) to (M,)
    sample: Callable[[int], Array]  # a count to points (count, C), the same ones every time
    quantile: Callable[[Array], Array] | None  # shares (K,) to values (K,); with one unit only


def prior_of(spec: Spec, run: Row | None = None) -> Prior | None:
    """Return the prior of a specification, of a run of it the one that it may have learned.

    Nothing else of the report asks what a prior can do.
    """
    prior = spec.prior_of(None if run is None else run["learned_prior"])
    if prior is None:
        return None

    def density(points: Array) -> Array:
        found: Array = prior.log_prob(torch.from_numpy(points)).exp().numpy()
        return found

    def sample(count: int) -> Array:
        drawn = prior.sample((count,), torch.Generator().manual_seed(0))
        return drawn.numpy().astype(np.float64)

    return Prior(density, sample, prior.quantile if prior.units == 1 else None)


def median_run(runs: Sequence[Row], metric: str) -> Row | None:
    """Return the scored run whose metric is the median, the lower of two; None without any.

    Where no run has the metric (images without labels), the reconstruction error decides.
    """
    for name in (metric, "reconstruction"):
        known = [run for run in runs if run["status"] in SCORED and run[name] is not None]
        if known:
            ordered = sorted(known, key=lambda run: (run[name], run["seed"]))
            return ordered[(len(ordered) - 1) // 2]
    return None


def codes_of(folder: Path, runs: Sequence[Row]) -> dict[str, Floats]:
    """Return the codes (N, units) of the runs that kept them, by run_id."""
    kept: dict[str, Floats] = {}
    for pack in sorted({run["pack"] for run in runs if run["pack"]}):
        with contextlib.suppress(Refused):
            kept |= read_codes(folder, pack)
    return {run["run_id"]: kept[run["run_id"]] for run in runs if run["run_id"] in kept}


def curves_of(folder: Path, runs: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return the lists `step` and `loss` of the runs that kept them, by run_id."""
    found: dict[str, dict[str, Any]] = {}
    for table in _parts(folder / "history", runs, ["run_id", "step", "loss"]):
        for point in table.to_pylist():
            curve = found.setdefault(point["run_id"], {"step": [], "loss": []})
            curve["step"].append(point["step"])
            curve["loss"].append(point["loss"])
    return found


def _parts(folder: Path, runs: Sequence[Row], columns: list[str] | None = None) -> list[pa.Table]:
    """Return the rows that belong to the runs, a table a pack that can be read."""
    tables = []
    for pack in sorted({run["pack"] for run in runs if run["pack"]}):
        wanted = pa.array([run["run_id"] for run in runs if run["pack"] == pack])
        try:
            table = read_parquet(folder / f"{pack}.parquet", columns)
            tables.append(table.filter(pc.is_in(table["run_id"], wanted)))
        except UNREADABLE:
            continue
    return tables


def member_of(folder: Path, run: Row, spec: Spec, shape: Sequence[int]) -> Restored | None:
    """Return a run's trained member from its weights, None where they cannot be read."""
    try:
        return read_member(folder, run, spec, shape)
    except UNREADABLE:
        return None


def read_member(folder: Path, run: Row, spec: Spec, shape: Sequence[int]) -> Restored:
    """Return a run's trained member from its weights.

    Raises OSError or ValueError where they are missing, damaged or another's.
    """
    path, prefix = folder / "members" / f"{run['pack']}.safetensors", f"{run['run_id']}/"
    kept = read_safetensors(path)
    own = {name.removeprefix(prefix): kept[name] for name in kept if name.startswith(prefix)}
    return restored(spec, own, shape)


def evenly(labels: NDArray[np.int64] | None, count: int, wanted: int) -> list[int]:
    """Return up to `wanted` image numbers, evenly spaced, class after class as evenly shared."""
    groups = (
        [np.arange(count)]
        if labels is None
        else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    )
    found: list[int] = []
    for place, group in enumerate(groups):
        share = wanted // len(groups) + (place < wanted % len(groups))
        spots = (np.arange(share) + 0.5) / max(share, 1) * len(group)
        found += sorted({int(group[int(spot)]) for spot in spots})
    return found


def scored(runs: Sequence[Row], cell_id: str) -> list[Row]:
    """Return a cell's scored runs in the order of their seeds."""
    chosen = [run for run in runs if run["cell_id"] == cell_id and run["status"] in SCORED]
    return sorted(chosen, key=lambda run: run["seed"])


def class_value(code: Floats, spec: Spec, run: Row) -> Array | None:
    """Return the order of the images (N,) that two classes are scored by; None without one."""
    units = code[:, : spec.code.class_units].astype(np.float64)
    return evidence(units, spec.prior_of(run["learned_prior"]), 2).order
