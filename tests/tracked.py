"""A study that was trained and tracked, and what an MLflow store shows of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run as Shown
from studies import tiny, write

from models.datasets import Dataset
from models.scores import Scorer
from sweeps import plan, results, trial
from sweeps.results import NUMBERS, Record, Results, correlations, summarised
from sweeps.study import Study, load_study
from sweeps.tracking import Tracked, track
from sweeps.tracking.view import quiet

TABLE = "| cell | auc |\n|---|---|\n| ae | 0.9 ± 0.1 |"
CELLS = [
    {"objective": "ae"},
    {"objective": "wae", "prior": "bimodal"},
    {"objective": "vae", "training": {"learning_rate": 10}},  # diverges
]
STEPS = 40


@dataclass(frozen=True)
class Finished:
    """A study that was trained, and its folder."""

    study: Study
    dataset: Dataset
    runs: list[plan.Run]
    folder: Path

    @property
    def results(self) -> Results:
        """Return the tables as the records are now, with one baseline."""
        baselines = {"first principal component": {"auc_split": 0.7, "auc_oracle": 0.7}}
        records = results.read_records(self.folder)
        return results.gather(self.study, self.runs, records, baselines, {})

    def track(self, uri: str | None, *, running: bool = False) -> Tracked:
        """Write the tables and track them."""
        results.write_tables(self.folder, self.results)
        what = (self.study, self.dataset, self.runs, self.folder, self.results, TABLE)
        return track(*what, uri=uri, running=running)

    def with_seeds(self, count: int) -> Finished:
        """Return the same study planned with fewer seeds."""
        runs = [run for run in self.runs if run.seed < count]
        return Finished(self.study.with_seeds(count), self.dataset, runs, self.folder)

    def change(self, run_id: str, change: Callable[[Record], Record]) -> None:
        """Rewrite one record in its part file."""
        for path in (self.folder / "records").glob("*.parquet"):
            records = pq.read_table(path).to_pylist()
            if any(record["run_id"] == run_id for record in records):
                changed = [change(one) if one["run_id"] == run_id else one for one in records]
                results.write_part(self.folder, path.stem, changed)


def planned(folder: Path, **changes: Any) -> Finished:
    """Load a small study."""
    settings = {"network": {"hidden": [16]}, "training": {"steps": STEPS, "batch_size": 32}}
    content = tiny(name="small", question="Which?", spec=settings, cells=CELLS) | changes
    folder.mkdir(parents=True, exist_ok=True)
    study, dataset = load_study(write(folder, content))
    return Finished(study, dataset, plan.all_runs(study, dataset), folder)


def train(folder: Path, **changes: Any) -> Finished:
    """Train a small study inline, in packs of two and one."""
    done = planned(folder, **changes)
    dataset = done.dataset
    assert dataset.label_digest is not None
    scorer = Scorer(dataset.labels, dataset.label_digest)
    data = trial.Data(dataset.images, dataset.image_digest, scorer)
    for pack in plan.packs_of(done.runs, slots=1, width=2):
        seeds, ids = zip(*((run.seed, run.run_id) for run in pack.runs), strict=True)
        cell_id, spec = pack.runs[0].cell_id, pack.cell.spec
        job = trial.Job(str(folder), pack.pack_id, cell_id, spec, seeds, ids, "cpu", "abc123")
        trial.run_pack(job, data)
    return done


def shown(uri: str, study: str = "small") -> list[Shown]:
    """Return all runs of an experiment."""
    with quiet():
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(study)
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], max_results=1000))


def level(runs: list[Shown], name: str) -> dict[str, Shown]:
    """Return the runs of one level by our own id."""
    tag = {"study": "study", "cell": "cell_id", "seed": "run_id"}[name]
    found = [run for run in runs if run.data.tags["seedsweep.level"] == name]
    by_id = {run.data.tags[f"seedsweep.{tag}"]: run for run in found}
    assert len(by_id) == len(found), "a run is there twice"
    return by_id


def dump(uri: str) -> list[str]:
    """Return everything that a SQLite store holds."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        return list(connection.iterdump())


def numbers(run: Shown) -> dict[str, float]:
    """Return a run's metrics without its learning curve."""
    return {name: x for name, x in run.data.metrics.items() if not name.startswith("curve/")}


def known(row: dict[str, Any], names: list[str]) -> dict[str, float]:
    """Return the numbers of a table's row that there are."""
    return {name: row[name] for name in names if row[name] is not None}


def assert_equal_to_tables(uri: str, done: Finished) -> None:
    """Compare every number of a store's cell and seed runs with the study's tables."""
    runs, tables = shown(uri), results.read(done.folder)
    rows = {row["run_id"]: row for row in tables.runs.to_pylist()}
    seeds, cells = level(runs, "seed"), level(runs, "cell")
    current = {
        key: run for key, run in seeds.items() if run.data.tags["seedsweep.current"] == "true"
    }
    assert current.keys() == rows.keys()
    for run_id, row in rows.items():
        columns = [*NUMBERS, *correlations(tables), "seconds"]
        assert numbers(seeds[run_id]) == known(row, columns)
    for row in tables.summary.to_pylist():
        counts = [name for name in row if name.startswith("n_")]
        metrics = (*summarised(done.study), *correlations(tables))
        names = [n for n in row if n.startswith(tuple(f"{metric}_" for metric in metrics))]
        assert len(counts) == 6
        assert len(names) == 13 * len(metrics)
        assert numbers(cells[row["cell_id"]]) == known(row, [*counts, *names])


def content(uri: str, study: str = "small") -> dict[str, Any]:
    """Return what an experiment shows, without the ids that each store draws."""
    runs = shown(uri, study)
    own = {run.info.run_id: run.info.run_name for run in runs}
    shown_as = {}
    for run in runs:
        tags = run.data.tags
        parent = own.get(tags.pop("mlflow.parentRunId", ""))
        inputs = [one.to_dictionary() for one in run.inputs.dataset_inputs]
        info = (run.info.status, run.info.start_time, run.info.end_time)
        shown_as[run.info.run_name] = (
            parent,
            tags,
            run.data.params,
            run.data.metrics,
            info,
            inputs,
        )
    return shown_as
