"""What must hold of a study after its faults, compared with one that had none.

Records and sidecars are read with pyarrow and safetensors alone, not by the code under test.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.numpy import load_file
from tracked import known, level, numbers, shown

from sweeps.folder.storage import TEMPORARY
from sweeps.results import NOT_DETERMINISTIC, NUMBERS

CIRCUMSTANCES = {*NOT_DETERMINISTIC, "study"}  # the study's name is a campaign's own
CURVES = ("loss", "reconstruction", "divergence")


class Lost(AssertionError):  # noqa: N818 - what happened
    """Something that was promised does not hold; the lines say what."""

    def __init__(self, lines: list[str]) -> None:
        """Take the lines."""
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Reference:
    """All that is promised of a study, by run_id: rows of results.parquet, and digests."""

    rows: dict[str, dict[str, Any]]
    statuses: dict[str, list[str]]  # in records/, of all parts
    codes: dict[str, set[str]]
    members: dict[str, set[str]]
    curves: dict[str, set[str]]


def reference_of(folder: Path) -> Reference:
    """Read a study folder."""
    rows = _rows_of(folder / "results.parquet")
    statuses: dict[str, list[str]] = {}
    for record in _rows(folder / "records"):
        statuses.setdefault(record["run_id"], []).append(record["status"])
    codes: dict[str, set[str]] = {}
    for row in _rows(folder / "codes"):
        content = repr((row["seed"], row["units"], [value.hex() for value in row["code"]]))
        codes.setdefault(row["run_id"], set()).add(_digest(content.encode()))
    members: dict[str, set[str]] = {}
    for path in sorted((folder / "members").glob("*.safetensors")):
        by_run: dict[str, bytes] = {}
        for name, tensor in sorted(load_file(path).items()):
            run_id, _, part = name.partition("/")
            content = f"{part} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes()
            by_run[run_id] = by_run.get(run_id, b"") + content
        for run_id, content in by_run.items():
            members.setdefault(run_id, set()).add(_digest(content))
    return Reference(
        {row["run_id"]: _exact(row) for row in rows}, statuses, codes, members, _curves(folder)
    )


def compare(reference: Reference, found: Reference, folder: Path, name: str) -> None:
    """Raise Lost where a study differs from the undisturbed one, or has left something behind."""
    wrong = [
        f"results.parquet: run {run_id}: {_difference(reference.rows.get(run_id), row)}"
        for run_id, row in found.rows.items()
        if row != reference.rows.get(run_id)
    ]
    wrong += [
        f"lost in results.parquet: {one}" for one in reference.rows.keys() - found.rows.keys()
    ]
    for run_id, [status] in reference.statuses.items():
        there = found.statuses.get(run_id, [])
        if there != [status]:
            what = "lost" if not there else "doubled" if len(there) > 1 else "changed"
            wrong.append(f"{what} in records/: {run_id}: {there}, expected {status} once")
    wrong += [f"not planned, in records/: {one}" for one in found.statuses.keys() - reference.rows]
    for what in ("codes", "members", "curves"):
        theirs, ours = getattr(reference, what), getattr(found, what)
        different = [one for one in theirs.keys() | ours.keys() if theirs.get(one) != ours.get(one)]
        wrong += [
            f"{what}: run {one} has {len(ours.get(one, ()))} contents, or another one"
            for one in different
        ]
    names = set(pq.read_table(folder / "results.parquet", columns=["study"])["study"].to_pylist())
    if names != {name}:
        wrong.append(f"results.parquet is of {names}")
    wrong += [f"left behind: {path}" for path in _left(folder)]
    if wrong:
        raise Lost(wrong)


def view_of(address: str, name: str, folder: Path) -> None:
    """Raise Lost where MLflow does not show each run once, ended, with the table's numbers."""
    runs = shown(address, name)
    own = Counter(
        (tags["seedsweep.level"], tags[f"seedsweep.{_ID[tags['seedsweep.level']]}"])
        for tags in (run.data.tags for run in runs)
    )
    wrong = [f"doubled in MLflow: {key}: {count}" for key, count in own.items() if count > 1]
    wrong += [
        f"left {run.info.status} in MLflow: {run.info.run_name}"
        for run in runs
        if run.info.status != "FINISHED"
    ]
    if wrong:
        raise Lost(wrong)
    rows = {row["run_id"]: row for row in _rows_of(folder / "results.parquet")}
    cells = {row["cell_id"]: row for row in _rows_of(folder / "summary.parquet")}
    metrics = tuple(f"{name}_" for name in (*NUMBERS, "spearman"))
    columns = [name for name in next(iter(cells.values())) if name.startswith(("n_", *metrics))]
    if len(level(runs, "study")) != 1:
        raise Lost(["MLflow shows no study run"])
    further = [name for name in next(iter(rows.values())) if name.startswith("spearman_")]
    wrong = _other_numbers(level(runs, "seed"), rows, [*NUMBERS, *further, "seconds"])
    wrong += _other_numbers(level(runs, "cell"), cells, columns)
    client = MlflowClient(address)
    for run in level(runs, "seed").values():
        for part in CURVES:
            points = client.get_metric_history(run.info.run_id, f"curve/{part}")
            steps = [point.step for point in points]
            if len(set(steps)) != len(steps):
                wrong.append(f"a curve's points are doubled: {run.info.run_name}: {steps}")
    if wrong:
        raise Lost(wrong)


def _other_numbers(
    runs: dict[str, Run], rows: dict[str, dict[str, Any]], columns: list[str]
) -> list[str]:
    """Say where a level of MLflow's runs differs from a table."""
    wrong = [f"not in MLflow: {one}" for one in rows.keys() - runs.keys()]
    wrong += [f"in no table, but in MLflow: {one}" for one in runs.keys() - rows.keys()]
    return wrong + [
        f"other numbers in MLflow: {runs[one].info.run_name}"
        for one in rows.keys() & runs.keys()
        if numbers(runs[one]) != known(rows[one], columns)
    ]


def _rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


_ID = {"study": "study", "cell": "cell_id", "seed": "run_id"}


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.parquet")):
        yield from pq.read_table(path).to_pylist()


def _curves(folder: Path) -> dict[str, set[str]]:
    """Digest each run's learning curve, without where it was picked up again."""
    found: dict[str, set[str]] = {}
    for path in sorted((folder / "history").glob("*.parquet")):
        by_run: dict[str, list[Any]] = {}
        for row in pq.read_table(path).to_pylist():
            point = {key: value for key, value in row.items() if key != "attempt"}
            by_run.setdefault(row["run_id"], []).append(sorted(_exact(point).items()))
        for run_id, points in by_run.items():
            found.setdefault(run_id, set()).add(_digest(repr(points).encode()))
    return found


def _exact(row: dict[str, Any]) -> dict[str, Any]:
    """Return the deterministic columns, floats as their bits."""
    return {
        name: _bits(value) if isinstance(value, float) else value
        for name, value in row.items()
        if name not in CIRCUMSTANCES
    }


def _bits(value: float) -> str:
    return "nan" if math.isnan(value) else value.hex()


def _difference(expected: dict[str, Any] | None, found: dict[str, Any]) -> str:
    if expected is None:
        return "is in no plan"
    return ", ".join(
        f"{name} is {value!r} and not {expected.get(name)!r}"
        for name, value in found.items()
        if value != expected.get(name)
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _left(folder: Path) -> list[Path]:
    """Return checkpoints and temporary files; what was damaged is kept on purpose."""
    temporary = [
        path
        for path in folder.rglob(".*")
        if TEMPORARY.fullmatch(path.name) and "damaged" not in path.relative_to(folder).parts
    ]
    checkpoints = [path for path in (folder / "checkpoints").rglob("*") if path.is_file()]
    return [*temporary, *checkpoints, *folder.glob(".token*")]
