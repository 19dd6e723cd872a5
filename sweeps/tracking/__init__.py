"""Step 9: MLflow as a view of the records, which can be rebuilt from them at any time.

Each call says what every run should show, reads what the store shows, and writes the difference:
study run > cell runs > seed runs. So a second call writes nothing, and a call that was cut short is
completed by the next one.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.datasets import Dataset
from sweeps.cells import Cell
from sweeps.plan import Run
from sweeps.results import OUTCOMES, Record, Results
from sweeps.seal import Damaged
from sweeps.storage import read_parquet
from sweeps.study import Study
from sweeps.tracking.problems import sentence, without_credentials
from sweeps.tracking.saved import saved_views
from sweeps.tracking.view import (
    MOST_TAG_TEXT,
    Input,
    Point,
    View,
    Wanted,
    as_text,
    experiment_of,
    finite,
    quiet,
)

ARTIFACTS = ("results.parquet", "summary.parquet", "report.html", "figures/*.svg", "figures/*.png")
CURVES = ("loss", "reconstruction", "divergence")
CURVE_POINTS = 20


@dataclass(frozen=True)
class Tracked:
    """Where a study's view lies, and whether it is there yet."""

    uri: str  # without credentials
    state: str  # written | pending
    problem: str | None  # one sentence when pending


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI where it is set, else a SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd().as_posix()}/mlflow.db"


def experiment_id(uri: str, study: str) -> str | None:
    """Return MLflow's id of a study's experiment, None where there is none.

    Raises what MLflow raises where the store cannot be read.
    """
    with quiet():
        return experiment_of(uri, study)


def track(
    study: Study,
    dataset: Dataset,
    runs: Sequence[Run],
    folder: Path,
    results: Results,
    table: str,
    *,
    uri: str | None = None,
) -> Tracked:
    """Bring the study's experiment in line with its results; `table` describes the study run.

    Raises nothing: whatever MLflow does, the records are written and the view can wait.
    """
    uri = uri or tracking_uri()
    try:
        with quiet():
            view = View(uri, study.name, _input(study, dataset))
            _write(view, _study_run(study, dataset, results, table), runs, folder, results)
            view.save(saved_views(study))
    except Exception as failure:  # noqa: BLE001 - the view must not change how a sweep ends
        later = f"then: sweeps track {shlex.quote(str(folder))}"
        return Tracked(without_credentials(uri), "pending", f"{sentence(uri, failure)}; {later}")
    return Tracked(without_credentials(uri), "written", None)


def _input(study: Study, dataset: Dataset) -> Input:
    """Return what the UI shows as a run's dataset; MLflow is given no image and computes nothing.

    Its own digest would read the first 10,000 values only.
    """
    size = {"num_rows": len(dataset.images), "num_elements": int(dataset.images.size)}
    settings = study.dataset.model_dump(mode="json")
    return Input(dataset.name, dataset.image_digest, json.dumps(settings), json.dumps(size))


def _write(view: View, top: Wanted, runs: Sequence[Run], folder: Path, results: Results) -> None:
    records: dict[str, Record] = {row["run_id"]: row for row in results.runs.to_pylist()}
    cells = {run.cell_id: run.cell for run in runs}
    study = view.put(top)
    parents = {
        row["cell_id"]: view.put(_cell_run(row, cells[row["cell_id"]], records, study))
        for row in results.summary.to_pylist()
    }
    history = lru_cache(maxsize=4)(partial(_history, folder))
    for run in runs:
        if record := records.get(run.run_id):
            wanted = _seed_run(run, record, parents[run.cell_id])
            view.put(wanted, partial(_curve, history, record))
    files = (path for pattern in ARTIFACTS for path in sorted(folder.glob(pattern)))
    view.attach(study, {path.relative_to(folder).as_posix(): path for path in files})
    view.retire_the_rest()


def _study_run(study: Study, dataset: Dataset, results: Results, table: str) -> Wanted:
    counts = [name for name in results.summary.column_names if name.startswith("n_")]
    metrics = {name: pc.sum(results.summary[name]).as_py() for name in counts}
    metrics |= {"n_cells": len(study.cells), "n_seeds": len(study.seeds)}
    tags = {
        "mlflow.note.content": _note(f"{study.question}\n\n{table}".strip()),
        "metric": study.metric,
        "low": study.low,
        "seeds": _seeds(study.seeds),
        "dataset_digest": dataset.image_digest,
    }
    start, end = _span(results.runs.to_pylist())
    return Wanted("study", study.name, study.name, tags, metrics, start=start, end=end)


def _cell_run(row: dict[str, Any], cell: Cell, records: dict[str, Record], parent: str) -> Wanted:
    members = [record for record in records.values() if record["cell_id"] == row["cell_id"]]
    start, end = _span(members)
    return Wanted(
        "cell",
        row["cell_id"],
        cell.label,
        _cell_tags(cell, parent),
        {name: value for name, value in row.items() if name not in cell.axes},
        _flat(cell.spec.model_dump(mode="json")),
        start=start,
        end=end,
    )


def _seed_run(run: Run, record: Record, parent: str) -> Wanted:
    start, end = _span([record])
    shown = ("seed", "status", "error", "host", "device", "cpu_capability")
    versions = ("torch_version", "trainer_version", "dataset_digest", "score_id", "finished_at")
    return Wanted(
        "seed",
        run.run_id,
        f"seed {run.seed} · {run.cell.label}",  # lists cut a name off at its end
        _cell_tags(run.cell, parent)
        # On seeds alone, so that the UI's own groups by them hold nothing but seeds.
        | {"cell": run.cell.label, "cell_id": run.cell_id}
        | {name: record[name] for name in (*shown, *versions)}
        | {"mlflow.source.git.commit": record["git_commit"]},
        {name: record[name] for name in (*OUTCOMES, "seconds")},
        {**_flat(run.cell.spec.model_dump(mode="json")), "seed": str(run.seed)},
        "FAILED" if record["status"] == "failed" else "FINISHED",
        start,
        end,
    )


def _cell_tags(cell: Cell, parent: str) -> dict[str, Any]:
    axes = {f"axis.{name}": value for name, value in cell.axes.items()}
    return {"mlflow.parentRunId": parent, **axes}


def _milliseconds(record: Record) -> int:
    """Return when a run was finished, since 1970."""
    finished: datetime = record["finished_at"]
    return round(finished.timestamp() * 1000)


def _span(records: Sequence[Record]) -> tuple[int | None, int | None]:
    """Return the first start and the last end."""
    starts = [_milliseconds(record) - round((record["seconds"] or 0) * 1000) for record in records]
    return min(starts, default=None), max(map(_milliseconds, records), default=None)


def _history(folder: Path, pack: str) -> pa.Table | None:
    try:
        return read_parquet(folder / "history" / f"{pack}.parquet")
    except (OSError, Damaged):  # a pack that failed has none
        return None


def _curve(history: Callable[[str], pa.Table | None], record: Record) -> list[Point]:
    """Return a run's learning curve, thinned evenly, first and last point kept."""
    table = history(record["pack"])
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


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, str]:
    """Return nested settings as texts by dotted path."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{path}{name}.") if inner else {f"{path}{name}": as_text(value)}
    return found


def _seeds(seeds: Sequence[int]) -> str:
    whole = len(seeds) == seeds[-1] - seeds[0] + 1
    return f"{seeds[0]}-{seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _note(text: str) -> str:
    """Cut a description at a line's end where MLflow would cut it anywhere."""
    if len(text) <= MOST_TAG_TEXT:
        return text
    end = "\n\nThe rest does not fit here: see report.html."
    return text[: MOST_TAG_TEXT - len(end)].rpartition("\n")[0] + end
