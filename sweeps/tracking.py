"""Step 9: MLflow as a view of the records, which can be rebuilt from them at any time.

Each call says what every run should show, reads what the store shows, and writes the difference:
study run > cell runs > seed runs. So a second call writes nothing, and a call that was cut short is
completed by the next one.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweeps.cells import Cell
from sweeps.plan import Run
from sweeps.results import OUTCOMES, Record, Results
from sweeps.study import Study

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it when it is imported

import mlflow.store.db.utils as database
from mlflow import MlflowClient, entities

ARTIFACTS = ("results.parquet", "summary.parquet", "report.html")
CURVES = ("loss", "reconstruction", "divergence")
CURVE_POINTS = 20
PAGE = 200  # runs in one answer: a thousand take a server longer than the timeout below
# MLflow's limits: a batch holds 1000 things, of params and tags 100 each; characters of a value.
NUMBERS, TEXTS = 800, 100
MOST_PARAM_TEXT, MOST_TAG_TEXT = 6000, 8000
# MLflow's own defaults wait for minutes (7 retries, 120 s each) and print links to stdout.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
TALKATIVE = ("mlflow", "alembic", "sqlalchemy", "urllib3")
# The tag by which a level's runs are found again.
OWN_ID = {"study": "seedsweep.study", "cell": "seedsweep.cell_id", "seed": "seedsweep.run_id"}
# What MLflow says (the first that fits), and what we say.
PROBLEMS = (
    (
        "unsupported URI",
        "is no address that MLflow knows: expected http(s)://, postgresql://, mysql:// or sqlite:///",
    ),
    ("maintenance mode", "is a folder of files, which MLflow no longer writes: use sqlite:///FILE"),
    ("Invalid Host header", "does not know its own name: start it with --allowed-hosts"),
    (
        "error code 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|password authentication|access denied",
        "refused the user name or password: correct MLFLOW_TRACKING_USERNAME and _PASSWORD",
    ),
    ("database is locked", "is locked by another program: wait for it, or end it"),
    ("database schema|locate revision", "is of another version: see 'mlflow db upgrade'"),
    ("too many 50[0-9] error", "answers every request with an error: its log tells which"),
    (
        "failed with exception|connection refused|could not connect|timed out",
        "does not answer: start it, or correct MLFLOW_TRACKING_URI",
    ),
)


@dataclass(frozen=True)
class Tracked:
    """Where a study's view lies, and whether it is there yet."""

    uri: str  # without credentials
    state: str  # written | pending
    problem: str | None  # one sentence when pending


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


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI where it is set, else a SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd().as_posix()}/mlflow.db"


def track(
    study: Study,
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
        with _quiet():
            view = View(MlflowClient(uri, uri), study.name)
            _write(view, _study_run(study, results, table), runs, folder, results)
    except Exception as failure:  # noqa: BLE001 - the view must not change how a sweep ends
        return Tracked(without_credentials(uri), "pending", _sentence(uri, failure))
    return Tracked(without_credentials(uri), "written", None)


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
    for name in ARTIFACTS:
        view.attach(study, folder / name)
    view.retire_the_rest()


class View:
    """One study's experiment: what it shows, and how its runs become what is wanted."""

    def __init__(self, client: MlflowClient, study: str) -> None:
        """Find, restore or create the experiment, and read its runs."""
        self.client, self.study = client, study
        self.experiment = self._experiment()
        self.shown: dict[tuple[str, str], entities.Run] = {}
        self.doubles: list[entities.Run] = []
        for run in sorted(self._runs(), key=lambda run: run.info.run_id):
            level = run.data.tags.get("seedsweep.level", "")
            key = (level, run.data.tags.get(OWN_ID.get(level, ""), ""))
            if self.shown.setdefault(key, run) is not run:
                self.doubles.append(run)  # two drivers created it at the same time

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.study)
        if found is None:
            return self.client.create_experiment(self.study)
        if found.lifecycle_stage == entities.LifecycleStage.DELETED:
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _runs(self) -> Iterator[entities.Run]:
        ours, token = f"tags.`seedsweep.study` = '{self.study}'", None
        while True:
            page = self.client.search_runs([self.experiment], ours, 1, PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def put(self, wanted: Wanted, curve: Callable[[], list[entities.Metric]] | None = None) -> str:
        """Create the run or write what differs; return MLflow's id of it."""
        run = self.shown.pop((wanted.level, wanted.own_id), None)
        metrics = {name: float(value) for name, value in wanted.metrics.items() if _finite(value)}
        if run is not None and any(_ours(name) for name in run.data.metrics.keys() - metrics):
            self.client.delete_run(run.info.run_id)  # a number cannot be taken back singly
            run = None
        tags = self._tags(wanted)
        if run is None:
            named = tags | {"mlflow.user": _user()}
            run = self.client.create_run(self.experiment, wanted.start, named, wanted.name)
        points = [
            entities.Metric(name, value, _moment(run, wanted), 0)
            for name, value in metrics.items()
            if run.data.metrics.get(name) != value
        ]
        # Once: the same run trained again has the same curve.
        if curve and not any(name.startswith("curve/") for name in run.data.metrics):
            points += curve()
        params = [
            entities.Param(name, value[:MOST_PARAM_TEXT])
            for name, value in wanted.params.items()
            if name not in run.data.params  # MLflow never changes one
        ]
        changed = [entities.RunTag(*item) for item in tags.items() - run.data.tags.items()]
        self._log(run.info.run_id, points, params, changed)
        self._settle(run, wanted, run.data.tags.keys() - tags)
        return str(run.info.run_id)

    def _tags(self, wanted: Wanted) -> dict[str, str]:
        tags = wanted.tags | {
            "seedsweep.study": self.study,
            "seedsweep.level": wanted.level,
            OWN_ID[wanted.level]: wanted.own_id,
            "seedsweep.current": "true",
            "mlflow.source.name": "seedsweep",
        }
        # Some stores keep no empty values: those would differ for ever.
        texts = {name: _text(value) for name, value in tags.items() if value not in (None, "")}
        return {name: text[:MOST_TAG_TEXT] for name, text in texts.items()}

    def _log(
        self,
        run_id: str,
        metrics: list[entities.Metric],
        params: list[entities.Param],
        tags: list[entities.RunTag],
    ) -> None:
        while metrics or params or tags:
            self.client.log_batch(run_id, metrics[:NUMBERS], params[:TEXTS], tags[:TEXTS])
            metrics, params, tags = metrics[NUMBERS:], params[TEXTS:], tags[TEXTS:]

    def _settle(self, run: entities.Run, wanted: Wanted, other_tags: Iterable[str]) -> None:
        """Take back what no longer holds, rename, and end the run."""
        for name in other_tags:
            if name == "error" or name.startswith("axis."):
                self.client.delete_tag(run.info.run_id, name)
        if run.info.run_name != wanted.name:
            self.client.update_run(run.info.run_id, name=wanted.name)
        if run.info.status != wanted.status or wanted.end not in (None, run.info.end_time):
            self.client.set_terminated(run.info.run_id, wanted.status, wanted.end)

    def attach(self, run_id: str, path: Path) -> None:
        """Store a file with a run, again when its content is another."""
        tags, name = self.client.get_run(run_id).data.tags, f"seedsweep.sha256.{path.name}"
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if digest and tags.get(name) != digest:
            self.client.log_artifact(run_id, str(path))
            self.client.set_tag(run_id, name, digest)

    def retire_the_rest(self) -> None:
        """Mark the runs that the plan no longer asks for; end those that were left running."""
        for run in [*self.shown.values(), *self.doubles]:
            if run.data.tags.get("seedsweep.current") != "false":
                self.client.set_tag(run.info.run_id, "seedsweep.current", "false")
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")


def _study_run(study: Study, results: Results, table: str) -> Wanted:
    counts = [name for name in results.summary.column_names if name.startswith("n_")]
    metrics = {name: pc.sum(results.summary[name]).as_py() for name in counts}
    metrics |= {"n_cells": len(study.cells), "n_seeds": len(study.seeds)}
    tags = {
        "mlflow.note.content": _note(f"{study.question}\n\n{table}".strip()),
        "metric": study.metric,
        "low": study.low,
        "seeds": _seeds(study.seeds),
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
        _cell_tags(cell, row["cell_id"], parent),
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
        f"{run.cell.label} · seed {run.seed}",
        _cell_tags(run.cell, run.cell_id, parent)
        | {name: record[name] for name in (*shown, *versions)}
        | {"mlflow.source.git.commit": record["git_commit"]},
        {name: record[name] for name in (*OUTCOMES, "seconds")},
        {**_flat(run.cell.spec.model_dump(mode="json")), "seed": str(run.seed)},
        "FAILED" if record["status"] == "failed" else "FINISHED",
        start,
        end,
    )


def _cell_tags(cell: Cell, cell_id: str, parent: str) -> dict[str, Any]:
    axes = {f"axis.{name}": value for name, value in cell.axes.items()}
    return {"mlflow.parentRunId": parent, "cell": cell.label, "cell_id": cell_id, **axes}


def _milliseconds(record: Record) -> int:
    """Return when a run was finished, since 1970."""
    finished: datetime = record["finished_at"]
    return round(finished.timestamp() * 1000)


def _span(records: Sequence[Record]) -> tuple[int | None, int | None]:
    """Return the first start and the last end."""
    starts = [_milliseconds(record) - round((record["seconds"] or 0) * 1000) for record in records]
    return min(starts, default=None), max(map(_milliseconds, records), default=None)


def _moment(run: entities.Run, wanted: Wanted) -> int:
    """Return the time of a run's numbers: its own at first, then now: MLflow shows the latest."""
    if not run.data.metrics and wanted.end:
        return wanted.end
    return max(round(time.time() * 1000), (run.info.end_time or 0) + 1, (wanted.end or 0) + 1)


def _history(folder: Path, pack: str) -> pa.Table | None:
    try:
        return pq.read_table(folder / "history" / f"{pack}.parquet")
    except (OSError, pa.ArrowInvalid):  # a pack that failed has none
        return None


def _curve(history: Callable[[str], pa.Table | None], record: Record) -> list[entities.Metric]:
    """Return a run's learning curve, thinned evenly, first and last point kept."""
    table = history(record["pack"])
    if table is None:
        return []
    rows = table.filter(pc.field("run_id") == record["run_id"]).to_pylist()
    places = np.linspace(0, max(len(rows) - 1, 0), min(len(rows), CURVE_POINTS)).round()
    end = _milliseconds(record)
    return [
        entities.Metric(f"curve/{part}", row[part], end, row["step"])
        for row in (rows[int(place)] for place in places)
        for part in CURVES
        if _finite(row[part])
    ]


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, str]:
    """Return nested settings as texts by dotted path."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{path}{name}.") if inner else {f"{path}{name}": _text(value)}
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _ours(metric: str) -> bool:
    """Tell our metrics from those that a reader has added to a run."""
    return metric.startswith((*OUTCOMES, "n_", "seconds"))


def _seeds(seeds: Sequence[int]) -> str:
    whole = len(seeds) == seeds[-1] - seeds[0] + 1
    return f"{seeds[0]}-{seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _note(text: str) -> str:
    """Cut a description at a line's end where MLflow would cut it anywhere."""
    if len(text) <= MOST_TAG_TEXT:
        return text
    end = "\n\nThe rest does not fit here: see report.html."
    return text[: MOST_TAG_TEXT - len(end)].rpartition("\n")[0] + end


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return "unknown"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow off the terminal and its retries short, where the user has not set them."""
    ours = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    attempts, database.MAX_RETRY_COUNT = database.MAX_RETRY_COUNT, 1  # else 100 s, and no setting
    os.environ.update(ours)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        database.MAX_RETRY_COUNT = attempts
        for name in ours:
            os.environ.pop(name, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def without_credentials(uri: str) -> str:
    """Return an address without user, password and query; `…` where it cannot be told apart."""
    scheme, mark, rest = uri.rpartition("://") if uri.count("://") == 1 else ("", "", uri)
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if authority and "@" in path + query:
        return f"{scheme}{mark}…"
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


def _sentence(uri: str, failure: Exception) -> str:
    """Say what happened, where, and what follows, without a secret."""
    said, where = str(failure), without_credentials(uri)
    known = (words for pattern, words in PROBLEMS if re.search(pattern, said, re.IGNORECASE))
    what = next(known, None) or f"failed ({type(failure).__name__}: {_scrubbed(said, uri)})"
    return f"MLflow at {where} {what}; it will be written by the next run or report"


def _scrubbed(text: str, uri: str) -> str:
    """Return the first line of a message, without what `without_credentials` hides."""
    text = text.replace(uri, without_credentials(uri))
    userinfo = uri.partition("://")[2].rpartition("@")[0]
    hidden = [userinfo, userinfo.partition(":")[2], *dict(parse_qsl(urlsplit(uri).query)).values()]
    for secret in sorted({*hidden, *map(unquote, hidden)} - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text.strip().partition("\n")[0][:200]
