"""What is done and what is left: counted from plan and records, at once, without torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from studies import tiny, write

from models.datasets import Dataset
from sweeps import overview, plan, results, status
from sweeps.cli import main
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.study import Study, load_study

# tiny: ae, vae normal, vae bimodal, wae relu, wae leaky_relu; three seeds each
FINISHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def study(folder: Path) -> tuple[Study, Dataset]:
    return load_study(write(folder, tiny()))


@pytest.fixture
def part(folder: Path, study: tuple[Study, Dataset]) -> Path:
    """Leave what an interrupted sweep may: every state, and four runs without a record."""
    runs = plan.all_runs(*study)
    path = folder / "runs" / "tiny"
    write_whole(path / "plan.json", plan.as_json(*study, runs, []).encode())
    states = ["ok"] * 5 + ["collapsed"] * 2 + ["diverged"] + ["failed"] * 3
    for run, state in zip(runs, states, strict=False):
        row = {"run_id": run.run_id, "cell_id": run.cell_id, "seed": run.seed, "status": state}
        error = "OSError: no memory\nin line 3" if state == "failed" else None
        row |= {"error": error, "finished_at": FINISHED}
        results.write_part(path, run.run_id, [row])
    # Tried again: of the same run a failure that came later does not count.
    row = {"run_id": runs[0].run_id, "status": "failed", "error": "later"}
    row |= {"finished_at": datetime(2027, 1, 1, tzinfo=UTC)}
    results.write_part(path, "again", [row])
    return path


COUNTS = [(3, 0, 0, 0, 0), (2, 1, 0, 0, 0), (0, 1, 1, 1, 0), (0, 0, 0, 2, 1), (0, 0, 0, 0, 3)]
OBJECTIVES = ["ae", "vae", "vae", "wae", "wae"]
TOTAL = {"planned": 15, "ok": 5, "collapsed": 2, "diverged": 1, "failed": 3, "missing": 4}


def json_of(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["status", *words, "--json"])
    out, err = capfd.readouterr()
    assert (out.count("\n"), err) == (1, "")
    content: dict[str, Any] = json.loads(out)
    return code, content


def test_every_state_is_counted_per_cell_and_in_all(
    part: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, content = json_of(capfd, str(part))
    assert code == 1
    assert TOTAL.items() <= content.items()
    assert content["unscored"] == 1 + 3 + 4
    assert (content["study"], content["out"]) == ("tiny", str(part))
    assert content["last_record"] == "2026-01-02T03:04:05+00:00"
    names = ("ok", "collapsed", "diverged", "failed", "missing")
    found = [tuple(cell[name] for name in names) for cell in content["cells"]]
    assert found == COUNTS
    assert {cell["planned"] for cell in content["cells"]} == {3}
    (error,) = content["errors"]
    assert error["error"] == "OSError: no memory", "its first line"
    assert [run["seed"] for run in error["runs"]] == [2, 0, 1]


def test_a_study_file_is_counted_by_what_it_plans_now(
    part: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, by_folder = json_of(capfd, str(part))
    _, by_name = json_of(capfd, "x.yaml")
    assert by_name == by_folder | {"out": "runs/tiny"}
    write(Path(), tiny(seeds=4))
    code, more = json_of(capfd, "x.yaml")
    assert (code, more["planned"], more["missing"]) == (1, 20, 9)
    assert json_of(capfd, str(part))[1] == by_folder, "a folder by its last call's plan"


def test_all_scored_is_zero(part: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (part / "records").iterdir():
        rows = results.read_part(path)
        results.write_part(part, path.stem, [row | {"status": "collapsed"} for row in rows])
    content = status.read_plan(part)
    recorded = {record["run_id"] for record in results.read_records(part).values()}
    for cell in content["cells"]:
        cell["runs"] = {seed: run for seed, run in cell["runs"].items() if run in recorded}
    (part / "plan.json").write_text(json.dumps(content))
    code, found = json_of(capfd, str(part))
    assert (code, found["planned"], found["collapsed"], found["unscored"]) == (0, 11, 11, 0)
    assert (found["state"], found["next"]) == ("complete", {"train": 0, "resume": 0, "retry": 0})
    text = printed(part)
    assert text.startswith("tiny: 11 of 11 runs scored, complete\n")
    assert text.endswith("\nnext: nothing is left to train\n")


def results_of(part: Path, without: tuple[Path, ...]) -> list[dict[str, Any]]:
    files = (path for path in (part / "records").iterdir() if path not in without)
    return [row for path in files for row in results.read_part(path)]


def printed(part: Path) -> str:
    text = io.StringIO()
    content = status.status(part, status.read_plan(part))
    overview.print_status(content, Console(file=text, width=80), "sweeps run runs/tiny")
    return text.getvalue()


def test_the_table(part: Path) -> None:
    text = printed(part)
    lines = [line.split() for line in text.splitlines()]
    assert text.splitlines()[0] == "tiny: 7 of 15 runs scored, incomplete"
    assert lines[2] == ["cell", "planned", "ok", "collapsed", "diverged", "failed", "missing"]
    for objective, row, counts in zip(OBJECTIVES, lines[3:], COUNTS, strict=False):
        assert row[0] == objective
        assert row[-6:] == ["3", *(str(n) if n else "–" for n in counts)]
    words = " ".join(text.split())
    assert "failed, OSError: no memory: vae bimodal" in words
    assert words.endswith("next: sweeps run runs/tiny trains 7 runs (3 that failed)")
    assert max(map(len, text.splitlines())) <= 80


def test_without_a_study_all_are_listed(
    part: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = folder / "runs" / "another"
    other.mkdir()
    (other / "plan.json").write_text((part / "plan.json").read_text())
    (folder / "runs" / "no-study").mkdir()
    code, content = json_of(capfd)
    assert code == 1
    assert [one["out"] for one in content["studies"]] == ["runs/another", "runs/tiny"]
    assert TOTAL.items() <= content["studies"][1].items()
    assert content["studies"][0]["missing"] == 15
    assert main(["status"]) == 1
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    head = ["study", "state", "planned", "ok", "collapsed", "diverged", "failed", "missing"]
    assert rows[0] == head
    assert rows[1] == ["runs/another", "not", "run", "yet", "15", "–", "–", "–", "–", "15"]
    assert rows[2] == ["runs/tiny", "incomplete", "15", "5", "2", "1", "3", "4"]
    (folder / "runs" / "another" / "plan.json").write_text("{")
    assert main(["status", "--json"]) == 2
    said = capfd.readouterr()
    assert [one["out"] for one in json.loads(said.out)["studies"]] == ["runs/tiny"], "still"
    what = "cannot be read as a plan; run the study again, which writes it anew"
    assert said.err == f"runs/another/plan.json: {what}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no plan.json; first: sweeps run STUDY --out DIR"),
        ("{", "/plan.json: cannot be read as a plan; run the study again, which writes it anew"),
        ("[]", "/plan.json: cannot be read as a plan; run the study again, which writes it anew"),
    ],
)
def test_a_folder_without_a_plan(tmp_path: Path, content: str | None, said: str) -> None:
    if content:
        (tmp_path / "plan.json").write_text(content)
    with pytest.raises(Refused) as refused:
        status.read_plan(tmp_path)
    (sentence,) = refused.value.mistakes
    between = "" if content else ": "
    assert sentence == f"{tmp_path}{between}{said.replace('DIR', str(tmp_path))}"


def test_what_cannot_be_read_is_named(part: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = min((part / "records").iterdir())
    (row,) = [row["run_id"] for row in results.read_part(first)]
    first.write_bytes(first.read_bytes()[:-9])
    foreign = part / "records" / "zz.parquet"
    foreign.write_bytes(results.to_parquet(pa.table({"x": [1]})))
    code, content = json_of(capfd, str(part))
    reason = "its checksum differs"
    other = "it is a table of something else, without the column 'run_id'"
    assert content["damaged"] == [
        {"file": f"records/{first.name}", "reason": reason},
        {"file": "records/zz.parquet", "reason": other},
    ]
    known = {one["run_id"] for one in results_of(part, without=(first, foreign))}
    assert (code, row in known, content["missing"]) == (1, False, 5)
    lines = printed(part).splitlines()
    assert f"damaged: records/{first.name}: {reason}" in lines
    assert "the next sweeps run sets them aside and trains their runs again" in lines
    assert main(["status", "--out", "nowhere"]) == 2
    expected = "nowhere: no such folder; first: sweeps run STUDY, or name a study\n"
    assert capfd.readouterr().err == expected


def test_neither_torch_nor_mlflow_is_loaded(part: Path) -> None:
    code = "import sys; from sweeps.cli import main; main(sys.argv[1:])\n"
    code += "print(sorted({'torch', 'ray', 'mlflow', 'sklearn', 'scipy'} & set(sys.modules)))"
    command = [sys.executable, "-c", code, "status", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
