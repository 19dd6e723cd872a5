"""The command: what it prints where, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from studies import tiny, write

from sweeps.cli import main


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def json_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = call(capfd, *arguments, "--json")
    assert out.count("\n") == 1, "one JSON object, nothing else"
    content: dict[str, Any] = json.loads(out)
    return code, content


def test_plan_counts_and_trains_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, tiny())
    code, plan = json_of(capfd, "plan", "x.yaml", "--seeds", "4")
    assert code == 0
    assert {k: plan[k] for k in ("study", "cells", "seeds", "runs", "done", "missing")} == {
        "study": "tiny",
        "cells": 5,
        "seeds": 4,
        "runs": 20,
        "done": 0,
        "missing": 20,
    }
    assert plan["packs"] >= 5
    assert plan["estimate_seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_plan_and_table_say_when_a_prior_has_one_mode(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prior = {"kind": "bimodal", "m": 1, "s": 1}
    write(tmp_path, tiny(cells=[{"objective": "wae", "prior": prior}], seeds=2))
    _, plan = json_of(capfd, "plan", "x.yaml")
    (warning,) = plan["warnings"]
    assert "one mode" in warning
    assert "one mode" in call(capfd, "plan", "x.yaml")[1]
    _, out, _ = call(capfd, "run", "x.yaml", "--launcher", "inline")
    assert "one mode" in " ".join(out.split())


def test_a_second_study_with_a_shared_cell_keeps_its_own_mlflow_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shared = {"cells": [{"objective": "ae"}], "seeds": 2}
    write(tmp_path, tiny(**shared), "a.yaml")
    write(tmp_path, tiny(**shared, name="other"), "b.yaml")
    for name in ("a.yaml", "b.yaml"):
        assert json_of(capfd, "run", name, "--launcher", "inline")[1]["trained"] == 2
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    ids: list[set[str]] = []
    for name in ("tiny", "other"):
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        assert len(found) == 4
        tags = (run.data.tags for run in found)
        ids.append({t["seedsweep.run_id"] for t in tags if t["seedsweep.level"] == "seed"})
    assert ids[0] == ids[1]


def test_a_diverged_run_is_counted_and_exits_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wild = {"objective": "vae", "training": {"learning_rate": 10, "steps": 60}}
    write(tmp_path, tiny(cells=[{"objective": "ae"}, wild], seeds=2))
    code, ran = json_of(capfd, "run", "x.yaml", "--launcher", "inline")
    assert (code, ran["diverged"], ran["failed"]) == (1, 2, 0)
    assert ran["ok"] + ran["collapsed"] == 2
    code, report = json_of(capfd, "report", "x.yaml")
    assert (code, [cell["n_diverged"] for cell in report["cells"]]) == (1, [0, 2])
    assert report["cells"][1]["metrics"]["auc_split"]["mean"] is None


SHIPPED = ", ".join(sorted(path.stem for path in Path("sweeps/studies").glob("*.yaml")))
BAD: dict[str, tuple[list[str], str]] = {
    "unknown study": (
        ["plan", "nosuch"],
        f"nosuch: no such file, and no study of that name; known: {SHIPPED}",
    ),
    "no records": (
        ["report", "x.yaml"],
        "runs/tiny: no records; first: sweeps run x.yaml",
    ),
    "seeds": (
        ["plan", "x.yaml", "--seeds", "0"],
        "--seeds: expected 1 to 100000 seeds, got 0",
    ),
    "width": (
        ["run", "x.yaml", "--pack-width", "0"],
        "--pack-width: expected at least 1, got 0",
    ),
    "launcher": (
        ["run", "x.yaml", "--launcher", "inlin"],
        "--launcher: unknown launcher 'inlin'; did you mean 'inline'? known: inline, local; "
        "or a running Ray cluster: auto, or its HOST:PORT",
    ),
    "folder": (
        ["report", "."],
        f".: a folder without a study.yaml, and no study of that name; known: {SHIPPED}",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_2(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, tiny())
    arguments, sentence = BAD[case]
    code, out, err = call(capfd, *arguments)
    assert (code, out, err) == (2, "", sentence + "\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_every_mistake_of_a_study_is_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, tiny(metric="auc", low=2, seeds="x"))
    code, out, err = call(capfd, "run", "x.yaml")
    assert (code, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == ["seeds", "metric", "low"]


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["run", "--help"]])
def test_help_exits_0(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "usage: sweeps" in capfd.readouterr().out


def test_an_unknown_command_exits_2(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plann"])
    assert left.value.code == 2
    assert "plann" in capfd.readouterr().err
