"""MLflow shows what the records say: real SQLite stores."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from studies import tiny, write
from tracked import (
    CELLS,
    STEPS,
    TABLE,
    Finished,
    assert_equal_to_tables,
    content,
    dump,
    level,
    numbers,
    shown,
    train,
)

from sweeps import results
from sweeps.results import OUTCOMES
from sweeps.study import load_study
from sweeps.tracking import Tracked, tracking_uri
from sweeps.tracking.saved import saved_views
from sweeps.tracking.view import quiet
from sweeps.tracking.wanted import CURVE_POINTS


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


def test_three_levels_with_every_number_of_the_tables(
    small: Finished, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (small.folder / "report.html").write_text("<p>")
    (small.folder / "figures").mkdir()
    (small.folder / "figures" / "seeds.svg").write_text("<svg/>")
    (small.folder / "figures" / "curves.png").write_bytes(b"png")
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
    assert files == {"results.parquet", "summary.parquet", "report.html", "figures"}
    figures = {item.path for item in MlflowClient(uri).list_artifacts(top.info.run_id, "figures")}
    assert figures == {"figures/seeds.svg", "figures/curves.png"}


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


def test_every_run_has_the_dataset_as_an_input_with_our_digest(small: Finished, uri: str) -> None:
    digest = small.dataset.image_digest
    expected = {
        "dataset": {
            "name": "digits",
            "digest": digest[:36],
            "source_type": "seedsweep",
            "source": '{"name": "digits", "classes": [1, 8], "preprocess": []}',
            "schema": None,
            "profile": f'{{"num_rows": 356, "num_elements": {356 * 64}}}',
        },
        "tags": {"mlflow.data.context": "training"},
    }
    small.track(uri)
    runs = shown(uri)
    assert len(runs) == 13
    for run in runs:
        (found,) = run.inputs.dataset_inputs
        assert found.to_dictionary() == expected
    (top,) = level(runs, "study").values()
    assert top.data.tags["dataset_digest"] == digest
    assert len(digest) == 64


def test_other_images_are_another_input(small: Finished, uri: str) -> None:
    """As where the file that a study names was changed; a reader's own input stays away."""
    small.track(uri)
    images = small.dataset.images + 1
    other = dataclasses.replace(small, dataset=dataclasses.replace(small.dataset, images=images))
    other.track(uri)
    digests = {one.dataset.digest for run in shown(uri) for one in run.inputs.dataset_inputs}
    assert digests == {other.dataset.image_digest[:36]}
    assert len(shown(uri)) == 13


def test_groups_by_cell_hold_nothing_but_its_seeds(small: Finished, uri: str) -> None:
    """The UI averages what it groups, and a NaN would spoil it: no level has one."""
    small.track(uri)
    runs = shown(uri)
    rows = small.results.summary.to_pylist()
    assert sum(row["n_diverged"] for row in rows) == 3, "a cell without a score"
    for row in rows:
        group = [run for run in runs if run.data.tags.get("cell") == row["cell"]]
        assert sorted(run.data.tags["seed"] for run in group) == ["0", "1", "2"]
        assert {run.data.tags["seedsweep.level"] for run in group} == {"seed"}
        scores = [run.data.metrics.get("auc_split") for run in group]
        known = [score for score in scores if score is not None]
        assert len(known) == row["n_scored"]
        mean = sum(known) / len(known) if known else None
        assert mean == pytest.approx(row["auc_split_mean"])
    values = [value for run in runs for value in run.data.metrics.values()]
    assert len(values) > 100
    assert all(math.isfinite(value) for value in values)


def test_saved_views_of_the_runs_table(small: Finished, uri: str) -> None:
    small.track(uri)
    client = MlflowClient(uri)

    def views() -> dict[str, dict[str, Any]]:
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        prefix = "mlflow.sharedViewState."
        tags = experiment.tags.items()
        found = {k.removeprefix(prefix): json.loads(v) for k, v in tags if k.startswith(prefix)}
        return {k: view | {"state": json.loads(view["state"])} for k, view in found.items()}

    saved = views()
    assert saved.keys() == {"cells", "seeds"}
    group = {"mode": "tag", "groupByData": "cell"}
    assert saved["seeds"]["state"]["groupBy"] == {
        "aggregateFunction": "average",
        "groupByKeys": [group],
    }
    found = client.search_runs(["1"], saved["cells"]["state"]["searchFilter"])
    assert {run.data.tags["seedsweep.level"] for run in found} == {"cell"}
    columns = [name[9:-1] for name in saved["cells"]["state"]["selectedColumns"]]
    assert "auc_split_mean" in columns
    scored = [run for run in found if run.data.metrics["n_scored"]]
    assert all(set(columns) <= run.data.metrics.keys() for run in scored)
    found = client.search_runs(["1"], saved["seeds"]["state"]["searchFilter"])
    assert [run.data.tags["seedsweep.level"] for run in found] == ["seed"] * 9
    theirs = json.dumps({"name": "cells", "updatedAt": 1, "state": "{}"})
    client.set_experiment_tag("1", "mlflow.sharedViewState.cells", theirs)
    small.track(uri)
    assert views()["cells"]["updatedAt"] == 1, "a reader has saved it anew"
    assert views()["seeds"] == saved["seeds"]


def test_a_view_of_many_long_labels_fits(folder: Path) -> None:
    cell = {"objective": "ae", "activation": ["relu", "leaky_relu"]}
    sizes = [[size] for size in range(10, 60)]
    content = tiny(cells=[cell | {"network": {"hidden": sizes}}])
    study, _ = load_study(write(folder, content))
    views = saved_views(study)
    assert len(study.cells) == 100
    assert max(map(len, views.values())) <= 5000


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


def test_a_damaged_learning_curve_is_not_shown(small: Finished, uri: str) -> None:
    for path in (small.folder / "history").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    assert small.track(uri).state == "written"
    for run in level(shown(uri), "seed").values():
        assert numbers(run) == run.data.metrics, "and every other number is there"


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
    (small.folder / "figures").mkdir()
    (small.folder / "figures" / "seeds.svg").write_text("<svg/>")
    small.track(uri)
    before, files = dump(uri), artifacts(Path("mlruns"))
    assert len(before) > 300
    assert files.keys() == {"report.html", "results.parquet", "summary.parquet", "seeds.svg"}
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
    tracked = small.track(None)
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


def test_what_an_older_version_wrote_is_brought_in_line(small: Finished, uri: str) -> None:
    """Cells had the tags that only seeds should have, a study run a tag a file."""
    small.track(uri)
    before, client = content(uri), MlflowClient(uri)
    runs = shown(uri)
    (top,) = level(runs, "study").values()
    client.set_tag(top.info.run_id, "seedsweep.sha256.report.html", "0" * 64)
    client.set_tag(top.info.run_id, "seedsweep.files", "{spoiled")
    for run in level(runs, "cell").values():
        client.set_tag(run.info.run_id, "cell", run.info.run_name)
        client.set_tag(run.info.run_id, "cell_id", "x")
    assert content(uri) != before
    small.track(uri)
    assert content(uri) == before


def test_what_was_left_running_is_ended(small: Finished, uri: str) -> None:
    """As a driver leaves it that dies between creating a run and ending it."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("small")
    tags = {"seedsweep.study": "small", "seedsweep.level": "seed"}
    for run_id in (small.runs[0].run_id, small.runs[0].run_id, "of an older plan"):
        client.create_run(experiment, tags=tags | {"seedsweep.run_id": run_id})
    small.track(uri)
    runs = shown(uri)
    (old,) = (run for run in runs if run.info.status == "KILLED")
    assert old.data.tags["seedsweep.current"] == "false"
    assert old.data.tags["seedsweep.run_id"] == "of an older plan"
    assert [run.info.status for run in runs].count("FINISHED") == 13
    assert len(runs) == 14, "a run that stands for the same as another is deleted"


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


def test_the_store_is_the_users_or_a_file_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri() == "http://mlflow:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
