"""What every run should show: from a study's outline, its records and its summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sweeps.folder.seal import Damaged
from sweeps.folder.storage import read_parquet
from sweeps.markdown import literal
from sweeps.tracking.outline import Group, Input, Member, Outline

CURVES = ("loss", "reconstruction", "divergence")
CURVE_POINTS = 20
MOST_TAG_TEXT = 8000  # characters, MLflow's limit
SHOWN = ("seed", "status", "error", "log", "host", "device", "cpu_capability")
VERSIONS = ("torch_version", "trainer_version", "dataset_digest", "score_id", "finished_at")

Row = Mapping[str, Any]  # of a table: a run's record or a cell's summary
Point = tuple[str, float, int]  # name, value, step


@dataclass(frozen=True)
class Wanted:
    """One MLflow run as it should be; start and end in milliseconds since 1970."""

    level: str
    own_id: str
    name: str
    tags: dict[str, Any]
    metrics: dict[str, Any]
    params: dict[str, str] = field(default_factory=dict)
    status: str = "FINISHED"
    start: int | None = None
    end: int | None = None
    data: Input | None = None  # None: the study's dataset


def study_run(
    outline: Outline, records: Sequence[Row], summary: Sequence[Row], table: str, status: str
) -> Wanted:
    """Return the study's run: counts over all cells, and the table as its description."""
    counts = [name for name in (summary[0] if summary else ()) if name.startswith("n_")]
    metrics = {name: sum(row[name] for row in summary) for name in counts}
    metrics |= {"n_cells": len(outline.cells), "n_seeds": len(outline.seeds)}
    note = {"mlflow.note.content": _note(f"{literal(outline.question)}\n\n{table}".strip())}
    start, end = _span(records)
    tags = _study_tags(outline) | note
    return Wanted(
        "study", outline.study, outline.study, tags, metrics, {}, status, start, _ended(end, status)
    )


def running_study(outline: Outline) -> Wanted:
    """Return the study's run while it trains: its numbers and description come at the end."""
    return Wanted("study", outline.study, outline.study, _study_tags(outline), {}, {}, "RUNNING")


def cell_run(cell: Group, row: Row, records: Sequence[Row], parent: str, status: str) -> Wanted:
    """Return a cell's run: its statistics over all its seeds."""
    start, end = _span(records)
    metrics = {name: value for name, value in row.items() if name not in cell.axes}
    tags, end = _cell_tags(cell, parent), _ended(end, status)
    return Wanted("cell", cell.cell_id, cell.label, tags, metrics, cell.params, status, start, end)


def running_cell(cell: Group, parent: str) -> Wanted:
    """Return a cell's run while it trains: statistics over some of its seeds would mislead."""
    tags = _cell_tags(cell, parent)
    return Wanted("cell", cell.cell_id, cell.label, tags, {}, cell.params, "RUNNING")


def seed_run(outline: Outline, run: Member, cell: Group, record: Row, parent: str) -> Wanted:
    """Return a seed's run: its record."""
    start, end = _span([record])
    return Wanted(
        "seed",
        run.run_id,
        f"seed {run.seed} · {cell.label}",  # lists cut a name off at its end
        _cell_tags(cell, parent)
        # On seeds alone, so that the UI's own groups by them hold nothing but seeds.
        | {"cell": cell.label, "cell_id": cell.cell_id}
        | {name: record.get(name) for name in (*SHOWN, *VERSIONS)}
        | {"mlflow.source.git.commit": record.get("git_commit")},
        {name: record.get(name) for name in (*outline.outcomes, "seconds")},
        {**cell.params, "seed": str(run.seed)},
        "FAILED" if record["status"] == "failed" else "FINISHED",
        start,
        end,
        run.data,
    )


def history(folder: Path, pack: str) -> pa.Table | None:
    """Return the learning curves of a pack, None where there are none."""
    try:
        return read_parquet(folder / "history" / f"{pack}.parquet")
    except (OSError, Damaged):  # a pack that failed has none
        return None


def curve(histories: Callable[[str], pa.Table | None], record: Row) -> list[Point]:
    """Return a run's learning curve, thinned evenly, first and last point kept."""
    table = histories(record["pack"])
    if table is None:
        return []
    rows = table.filter(pc.field("run_id") == record["run_id"]).to_pylist()
    places = np.linspace(0, max(len(rows) - 1, 0), min(len(rows), CURVE_POINTS)).round()
    return [
        (f"curve/{part}", row[part], row["step"])
        for row in (rows[int(place)] for place in places)
        for part in CURVES
        if finite(row[part])
    ]


def finite(value: Any) -> bool:
    """Tell a number that MLflow can show."""
    return isinstance(value, int | float) and math.isfinite(value)


def _study_tags(outline: Outline) -> dict[str, Any]:
    return {
        "metric": outline.metric,
        "low": outline.low,
        "seeds": _seeds(outline.seeds),
        "dataset_digest": outline.data.digest,
        "vary": outline.redraws,
    }


def _cell_tags(cell: Group, parent: str) -> dict[str, Any]:
    axes = {f"axis.{name}": value for name, value in cell.axes.items()}
    return {"mlflow.parentRunId": parent, **axes}


def _ended(end: int | None, status: str) -> int | None:
    return None if status == "RUNNING" else end


def _milliseconds(record: Row) -> int:
    """Return when a run was finished, since 1970."""
    finished: datetime = record["finished_at"]
    return round(finished.timestamp() * 1000)


def _span(records: Sequence[Row]) -> tuple[int | None, int | None]:
    """Return the first start and the last end."""
    starts = [_milliseconds(record) - round((record["seconds"] or 0) * 1000) for record in records]
    return min(starts, default=None), max(map(_milliseconds, records), default=None)


def _seeds(seeds: Sequence[int]) -> str:
    whole = len(seeds) == seeds[-1] - seeds[0] + 1
    return f"{seeds[0]}-{seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _note(text: str) -> str:
    """Cut a description at a line's end where MLflow would cut it anywhere."""
    if len(text) <= MOST_TAG_TEXT:
        return text
    end = "\n\nThe rest does not fit here: see report.html."
    return text[: MOST_TAG_TEXT - len(end)].rpartition("\n")[0] + end
