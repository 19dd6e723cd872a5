"""MLflow shows what the records say: real SQLite stores, and a real server on loopback."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Shown
from studies import tiny, write

from models.scores import Scorer
from sweeps import plan, results, trial
from sweeps.results import OUTCOMES, Record, Results
from sweeps.study import Study, load_study
from sweeps.tracking import CURVE_POINTS, Tracked, track, tracking_uri
from sweeps.tracking.problems import _scrubbed, without_credentials
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
    runs: list[plan.Run]
    folder: Path

    @property
    def results(self) -> Results:
        """Return the tables as the records are now, with one baseline."""
        baselines = {"first principal component": {"auc_split": 0.7, "auc_oracle": 0.7}}
        records = results.read_records(self.folder)
        return results.gather(self.study, self.runs, records, baselines, {})

    def track(self, uri: str) -> Tracked:
        """Write the tables and track them."""
        results.write_tables(self.folder, self.results)
        return track(self.study, self.runs, self.folder, self.results, TABLE, uri=uri)

    def with_seeds(self, count: int) -> Finished:
        """Return the same study planned with fewer seeds."""
        runs = [run for run in self.runs if run.seed < count]
        return Finished(self.study.with_seeds(count), runs, self.folder)

    def change(self, run_id: str, change: Callable[[Record], Record]) -> None:
        """Rewrite one record in its part file."""
        for path in (self.folder / "records").glob("*.parquet"):
            records = pq.read_table(path).to_pylist()
            if any(record["run_id"] == run_id for record in records):
                changed = [change(one) if one["run_id"] == run_id else one for one in records]
                results.write_part(self.folder, path.stem, changed)


def train(folder: Path, **changes: Any) -> Finished:
    """Train a small study inline, in packs of two and one."""
    settings = {"network": {"hidden": [16]}, "training": {"steps": STEPS, "batch_size": 32}}
    content = tiny(name="small", question="Which?", spec=settings, cells=CELLS) | changes
    folder.mkdir(parents=True, exist_ok=True)
    study, dataset = load_study(write(folder, content))
    runs = plan.all_runs(study, dataset)
    assert dataset.label_digest is not None
    scorer = Scorer(dataset.labels, dataset.label_digest)
    data = trial.Data(dataset.pixels, dataset.image_digest, scorer)
    for pack in plan.packs_of(runs, slots=1, width=2):
        seeds, ids = zip(*((run.seed, run.run_id) for run in pack.runs), strict=True)
        cell_id, spec = pack.runs[0].cell_id, pack.cell.spec
        job = trial.Job(str(folder), pack.pack_id, cell_id, spec, seeds, ids, "cpu", "abc123")
        trial.run_pack(job, data)
    return Finished(study, runs, folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return train(tmp_path_factory.mktemp("trained") / "small")


@pytest.fixture
def small(trained: Finished, tmp_path: Path) -> Finished:
    """Return a copy that a test may change."""
    shutil.copytree(trained.folder, tmp_path / "small")
    return dataclasses.replace(trained, folder=tmp_path / "small")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store once: its eighty migrations take two seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with quiet():
        MlflowClient(f"sqlite:///{path}").get_experiment_by_name("small")
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tracking_uri()


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
        assert numbers(seeds[run_id]) == known(row, [*OUTCOMES, "seconds"])
    for row in tables.summary.to_pylist():
        names = [name for name in row if name.startswith(("n_", *OUTCOMES))]
        assert len(names) == 6 + 13 * len(OUTCOMES)
        assert numbers(cells[row["cell_id"]]) == known(row, names)


def test_three_levels_with_every_number_of_the_tables(
    small: Finished, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (small.folder / "report.html").write_text("<p>")
    assert small.track(uri) == Tracked(f"sqlite:///{Path.cwd()}/mlflow.db", "written", None)
    assert capfd.readouterr() == ("", ""), "the command prints one JSON object, and nothing else"
    assert_equal_to_tables(uri, small)
    runs = shown(uri)
    (top,) = level(runs, "study").values()
    cells, seeds = level(runs, "cell"), level(runs, "seed")
    assert (len(runs), len(cells), len(seeds)) == (1 + 3 + 9, 3, 9)
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {top.info.run_id}
    for run in seeds.values():
        parent = cells[run.data.tags["cell_id"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}, "a diverged run is a result too"
    assert top.info.run_name == "small"
    assert top.data.tags["mlflow.note.content"] == f"Which?\n\n{TABLE}"
    assert (top.data.tags["seeds"], top.data.tags["metric"]) == ("0-2", "auc_split")
    counts = {"n_cells": 3, "n_seeds": 3, "n_planned": 9, "n_diverged": 3, "n_failed": 0}
    assert counts.items() <= top.data.metrics.items()
    files = {item.path for item in MlflowClient(uri).list_artifacts(top.info.run_id)}
    assert files == {"results.parquet", "summary.parquet", "report.html"}


def test_a_seed_run_says_what_it_is(small: Finished, uri: str) -> None:
    small.track(uri)
    run = small.runs[4]
    record = results.read_records(small.folder)[run.run_id]
    found = level(shown(uri), "seed")[run.run_id]
    assert found.info.run_name == "seed 1 · wae bimodal wasserstein learning_rate=0.002"
    expected = {
        "cell": run.cell.label,
        "cell_id": run.cell_id,
        "seed": "1",
        "status": record["status"],
        "axis.objective": "wae",
        "axis.prior": "bimodal",
        "axis.training.learning_rate": "0.002",
        "host": socket.gethostname(),
        "device": "cpu",
        "torch_version": record["torch_version"],
        "trainer_version": str(record["trainer_version"]),
        "dataset_digest": record["dataset_digest"],
        "mlflow.source.name": "seedsweep",
        "mlflow.source.git.commit": "abc123",
    }
    assert expected.items() <= found.data.tags.items()
    assert found.data.tags["mlflow.user"]
    params = {
        "seed": "1",
        "objective": "wae",
        "network.hidden": "[16]",
        "training.steps": str(STEPS),
        "prior.kind": "bimodal",
    }
    assert params.items() <= found.data.params.items()
    assert found.info.end_time == round(record["finished_at"].timestamp() * 1000)
    assert found.info.end_time - found.info.start_time == round(record["seconds"] * 1000)


def test_a_learning_curve_is_thinned_and_keeps_its_ends(small: Finished, uri: str) -> None:
    small.track(uri)
    run = small.runs[3]
    record = results.read_records(small.folder)[run.run_id]
    table = pq.read_table(small.folder / "history" / f"{record['pack']}.parquet").to_pylist()
    points = {row["step"]: row for row in table if row["run_id"] == run.run_id}
    mlflow_id = level(shown(uri), "seed")[run.run_id].info.run_id
    for part in ("loss", "reconstruction", "divergence"):
        history = MlflowClient(uri).get_metric_history(mlflow_id, f"curve/{part}")
        steps = sorted(point.step for point in history)
        assert len(steps) == min(CURVE_POINTS, len(points))
        assert (steps[0], steps[-1]) == (min(points), max(points))
        assert {p.step: p.value for p in history} == {step: points[step][part] for step in steps}


def artifacts(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file that MLflow stores here was written, and its content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_second_call_writes_nothing(
    small: Finished, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.view.PAGE", 5)  # of 13 runs
    report = small.folder / "report.html"
    report.write_text("<p>first")
    small.track(uri)
    before, files = dump(uri), artifacts(Path("mlruns"))
    assert len(before) > 300
    assert files.keys() == {"report.html", "results.parquet", "summary.parquet"}
    assert small.track(uri).state == "written"
    assert dump(uri) == before
    assert artifacts(Path("mlruns")) == files
    report.write_text("<p>second")
    small.track(uri)
    after = artifacts(Path("mlruns"))
    assert after.pop("report.html")[1] == b"<p>second"
    assert after.items() <= files.items()


def test_a_store_is_made_without_a_word(
    small: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """MLflow tells of its migrations and alembic of each; a folder may have any name."""
    folder = tmp_path / "a folder, 100% me@home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked = track(small.study, small.runs, small.folder, small.results, TABLE)
    assert tracked == Tracked(f"sqlite:///{folder}/mlflow.db", "written", None)
    assert capfd.readouterr() == ("", "")
    assert len(shown(f"sqlite:///{folder}/mlflow.db")) == 13


def test_seeds_added_and_taken_away(small: Finished, uri: str) -> None:
    """Two seeds, then three: only additions. Two again: the third stays, marked."""
    fewer = small.with_seeds(2)
    fewer.track(uri)
    before = shown(uri)
    assert len(level(before, "seed")) == 6
    assert_equal_to_tables(uri, fewer)
    small.track(uri)
    after = shown(uri)
    assert_equal_to_tables(uri, small)
    old, new = level(before, "seed"), level(after, "seed")
    assert len(new) == 9
    assert {key: new[key].to_dictionary() for key in old} == {
        key: run.to_dictionary() for key, run in old.items()
    }
    assert level(before, "cell").keys() == level(after, "cell").keys()
    fewer.track(uri)
    assert_equal_to_tables(uri, fewer)
    marks = [run.data.tags["seedsweep.current"] for run in level(shown(uri), "seed").values()]
    assert sorted(marks) == ["false"] * 3 + ["true"] * 6
    small.track(uri)
    assert_equal_to_tables(uri, small)
    assert len(shown(uri)) == 13


@pytest.mark.parametrize("shift", [0.01, -0.01], ids=["up", "down"])
def test_a_record_that_was_scored_again_updates_its_runs(
    small: Finished, uri: str, shift: float
) -> None:
    """MLflow shows the latest number of a kind, and of equal times the largest."""
    small.track(uri)
    before = level(shown(uri), "seed")
    run_id = small.runs[0].run_id
    small.change(run_id, lambda r: r | {"auc_split": r["auc_split"] + shift, "score_id": "new"})
    small.track(uri)
    assert_equal_to_tables(uri, small)
    after = level(shown(uri), "seed")
    changed = [
        key for key, run in after.items() if run.to_dictionary() != before[key].to_dictionary()
    ]
    assert changed == [run_id]
    mlflow_id = after[run_id].info.run_id
    assert mlflow_id == before[run_id].info.run_id
    history = MlflowClient(uri).get_metric_history(mlflow_id, "auc_split")
    assert len(history) == 2
    assert len(MlflowClient(uri).get_metric_history(mlflow_id, "auc_oracle")) == 1


def test_a_failed_run_that_succeeds_later(small: Finished, uri: str) -> None:
    run_id = small.runs[0].run_id
    good = results.read_records(small.folder)[run_id] | {"status": "ok", "error": None}
    nothing = dict.fromkeys(OUTCOMES)
    failure = {"status": "failed", "error": "OSError: no memory", "traceback": "…"} | nothing
    small.change(run_id, lambda record: record | failure)
    small.track(uri)
    failed = level(shown(uri), "seed")[run_id]
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "OSError: no memory")
    later = good["finished_at"] + timedelta(hours=1)
    small.change(run_id, lambda _: good | {"finished_at": later})
    small.track(uri)
    assert_equal_to_tables(uri, small)
    found = level(shown(uri), "seed")[run_id]
    assert (found.info.run_id, found.info.status) == (failed.info.run_id, "FINISHED")
    assert found.data.tags["status"] == "ok"
    assert "error" not in found.data.tags
    assert found.info.end_time == round(later.timestamp() * 1000)


def test_a_number_that_no_longer_holds_disappears(small: Finished, uri: str) -> None:
    """MLflow cannot delete one metric: the run is written anew, its children follow it."""
    small.change(small.runs[0].run_id, lambda record: record | {"auc_covariate": 0.75})
    small.track(uri)
    assert_equal_to_tables(uri, small)
    small.change(small.runs[0].run_id, lambda record: record | {"auc_covariate": None})
    small.track(uri)
    assert_equal_to_tables(uri, small)
    runs = shown(uri)
    assert len(runs) == 13
    cells = {run.info.run_id for run in level(runs, "cell").values()}
    assert {run.data.tags["mlflow.parentRunId"] for run in level(runs, "seed").values()} == cells


def test_readers_may_add_to_a_run(small: Finished, uri: str) -> None:
    small.track(uri)
    client = MlflowClient(uri)
    mlflow_id = level(shown(uri), "seed")[small.runs[0].run_id].info.run_id
    client.log_metric(mlflow_id, "beauty", 3.0)
    client.set_tag(mlflow_id, "verdict", "odd")
    before = dump(uri)
    small.track(uri)
    assert dump(uri) == before


def test_what_was_left_running_is_ended(small: Finished, uri: str) -> None:
    """As a driver leaves it that dies between creating a run and ending it."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("small")
    tags = {"seedsweep.study": "small", "seedsweep.level": "seed"}
    for run_id in (small.runs[0].run_id, small.runs[0].run_id, "of an older plan"):
        client.create_run(experiment, tags=tags | {"seedsweep.run_id": run_id})
    small.track(uri)
    runs = shown(uri)
    marks = {run.data.tags["seedsweep.current"] for run in runs if run.info.status == "KILLED"}
    assert marks == {"false"}
    assert [run.info.status for run in runs].count("KILLED") == 2
    assert [run.info.status for run in runs].count("FINISHED") == 13


def test_a_deleted_experiment_comes_back(small: Finished, uri: str) -> None:
    small.track(uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert small.track(uri).state == "written"
    assert_equal_to_tables(uri, small)
    assert len(shown(uri)) == 13


def test_two_studies_that_share_a_cell_stay_apart(
    small: Finished, uri: str, tmp_path: Path
) -> None:
    small.track(uri)
    before = [run.to_dictionary() for run in shown(uri)]
    other = train(tmp_path / "other", name="other", cells=CELLS[:1])
    assert {run.run_id for run in other.runs} <= {run.run_id for run in small.runs}
    other.track(uri)
    assert [run.to_dictionary() for run in shown(uri)] == before
    assert len(shown(uri, "other")) == 1 + 1 + 3


def test_learning_curves_may_be_missing(small: Finished, uri: str) -> None:
    histories = sorted((small.folder / "history").iterdir())
    histories[0].unlink()
    histories[1].write_bytes(b"torn")
    assert small.track(uri).state == "written"
    assert_equal_to_tables(uri, small)


def test_a_dead_server_is_pending_soon(
    small: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment, level_before = dict(os.environ), logging.getLogger("urllib3").level
    start = time.monotonic()
    tracked = small.track("http://me:s3cret@127.0.0.1:1")
    assert time.monotonic() - start < 20
    assert tracked == Tracked(
        "http://127.0.0.1:1",
        "pending",
        "MLflow at http://127.0.0.1:1 does not answer: start it, or correct MLFLOW_TRACKING_URI; "
        "it will be written by the next run or report",
    )
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment
    assert logging.getLogger("urllib3").level == level_before
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("uri", "where", "what"),
    [
        (
            "gopher://me:s3cret@host/x",
            "gopher://host/x",
            "is no address that MLflow knows: expected http(s)://, postgresql://, mysql:// or "
            "sqlite:///",
        ),
        (
            "./files",
            "./files",
            "is a folder of files, which MLflow no longer writes: use sqlite:///FILE",
        ),
        (
            "sqlite:///text.db",
            "sqlite:///text.db",
            "failed (DatabaseError: (sqlite3.DatabaseError) file is not a database)",
        ),
    ],
)
def test_addresses_that_cannot_work(
    small: Finished,
    uri: str,
    where: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.db").write_text("no database at all, " * 100)
    sentence = f"MLflow at {where} {what}; it will be written by the next run or report"
    assert small.track(uri) == Tracked(where, "pending", sentence)


class Refusing(BaseHTTPRequestHandler):
    """Answer as MLflow's basic-auth app does to a wrong password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated. Please see the documentation")

    def log_message(self, *_: object) -> None:
        pass


def test_a_refused_password(small: Finished) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    where = f"127.0.0.1:{server.server_address[1]}"
    tracked = small.track(f"http://me:s3cret@{where}")
    server.shutdown()
    thread.join()
    server.server_close()
    assert tracked.problem == (
        f"MLflow at http://{where} refused the user name or password: correct "
        "MLFLOW_TRACKING_USERNAME and _PASSWORD; it will be written by the next run or report"
    )
    assert tracked.uri == f"http://{where}"


@pytest.mark.parametrize(
    ("uri", "shown_as"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:s3cret@host:5000/mlflow", "https://host:5000/mlflow"),
        ("https://s3cret@host", "https://host"),
        ("http://me:p@s3cret@host", "http://host"),
        ("postgresql://me:s3cret@host:5432/db?sslmode=on", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db"),
        ("postgresql://host/db?password=x@s3cret", "postgresql://…"),
        ("postgresql://me:x/s3cret@host/db", "postgresql://…"),
        ("postgresql://me:x?s3cret@host/db", "postgresql://…"),
        ("postgresql://me:x#s3cret@host/db", "postgresql://host/db"),
        ("me:s3cret@host", "host"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_no_secret_of_an_address_is_shown(uri: str, shown_as: str) -> None:
    assert without_credentials(uri) == shown_as


@pytest.mark.parametrize(
    ("uri", "said", "told"),
    [
        ("http://me:s3cret@host", "to http://me:s3cret@host/x", "to http://host/x"),
        ("http://me:s3cret@host", "user me, word 's3cret'\nmore", "user me, word '***'"),
        ("http://me:s%2Fcret@host", "word 's/cret'", "word '***'"),
        ("postgresql://host/db?password=s3cret", "password=s3cret", "password=***"),
    ],
)
def test_no_secret_of_an_address_is_repeated(uri: str, said: str, told: str) -> None:
    assert _scrubbed(said, uri) == told


@pytest.mark.parametrize(
    "uri", ["gopher://{}@host", "mysql+none://{}@host/db", "mysql+none://host/db?password={}"]
)
@pytest.mark.parametrize("secret", ["me:s3cret", "me:x/s3cret", "me:x%2Fs3cret", "me:s3cret%"])
def test_no_secret_is_in_what_is_tracked(small: Finished, uri: str, secret: str) -> None:
    assert "s3cret" not in repr(small.track(uri.format(secret)))


def test_the_store_is_the_users_or_a_file_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri() == "http://mlflow:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def server(empty_store: Path, tmp_path: Path) -> Iterator[str]:
    """Start a real MLflow server on loopback, and end it."""
    shutil.copy(empty_store, tmp_path / "server.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "backend-store-uri": f"sqlite:///{tmp_path}/server.db",
        "artifacts-destination": str(tmp_path / "artifacts"),
        "host": "127.0.0.1",
        "port": str(port),
        "workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "server.log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server and its worker, all of them ours
        process.wait(20)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address once it answers."""
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 - loopback
                return address
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(log.read_text())


def content(uri: str) -> dict[str, Any]:
    """Return what an experiment shows, without the ids that each store draws."""
    runs = shown(uri)
    own = {run.info.run_id: run.info.run_name for run in runs}
    shown_as = {}
    for run in runs:
        tags = run.data.tags
        parent = own.get(tags.pop("mlflow.parentRunId", ""))
        info = (run.info.status, run.info.start_time, run.info.end_time)
        shown_as[run.info.run_name] = (parent, tags, run.data.params, run.data.metrics, info)
    return shown_as


def test_a_server_shows_the_same(
    small: Finished, uri: str, server: str, capfd: pytest.CaptureFixture[str]
) -> None:
    small.track(uri)
    assert small.track(server) == Tracked(server, "written", None)
    assert capfd.readouterr() == ("", ""), "MLflow would print a link for each run"
    assert content(server) == content(uri)
    assert_equal_to_tables(server, small)
    (top,) = level(shown(server), "study").values()
    assert len(MlflowClient(server).list_artifacts(top.info.run_id)) == 2
    file = f"sqlite:///{Path.cwd()}/server.db"
    before = dump(file)
    assert small.track(server).state == "written"
    assert dump(file) == before
