"""The same numbers wherever they are shown: tables, JSON, terminal, page and MLflow, twice."""

from __future__ import annotations

import io
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from studies import tiny, write
from tracked import Finished, assert_equal_to_tables, content, dump

from sweeps import plan, results
from sweeps.baselines import score_baselines
from sweeps.cli import main
from sweeps.results import NUMBERS, OUTCOMES, SCORED
from sweeps.study import load_study
from sweeps.sweep import open_sweep
from sweeps.terminal import print_table

CELLS = [
    {"objective": "ae"},
    {"objective": "wae", "prior": ["normal", "bimodal"]},
    {"objective": "vae", "training": {"learning_rate": 10}},  # diverges: a cell without numbers
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Run a study as a user does, inline."""
    folder = tmp_path_factory.mktemp("ran")
    path = write(folder, tiny(name="small", cells=CELLS, seeds=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["run", str(path), "--launcher", "inline", "--json"]) == 1
    study, dataset = load_study(path)
    return Finished(study, dataset, plan.all_runs(study, dataset), folder / "runs" / "small")


class Words(HTMLParser):
    """The text of a page, without pictures, styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.words = 0, [""]

    def handle_starttag(self, tag: str, _: object) -> None:
        self.hidden += tag in ("svg", "style", "script")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("svg", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words.append(data)


def page_numbers(page: str, labels: list[str]) -> dict[str, set[str]]:
    """Return the numbers that follow each cell's label before another cell's."""
    words = Words()
    words.feed(page)
    text = " ".join(" ".join(words.words).split())
    pattern = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    _, *parts = re.split(f"({pattern})", text)
    found: dict[str, set[str]] = {label: set() for label in labels}
    for label, after in zip(parts[::2], parts[1::2], strict=True):
        found[label] |= set(re.findall(r"\d+\.\d+", after[:400]))
    return found


def test_every_number_is_the_same_everywhere(
    ran: Finished, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capfd.readouterr()
    tables = results.read(ran.folder)
    runs, summary = tables.runs.to_pylist(), tables.summary.to_pylist()
    by_hand_equal(runs, summary)

    assert main(["report", str(ran.folder), "--json"]) == 1
    report = json.loads(capfd.readouterr().out)
    json_equal(report, summary)
    terminal_equal(ran, summary)
    page_equal((ran.folder / "report.html").read_text(), summary)

    first = f"sqlite:///{ran.folder.parents[1]}/mlflow.db"
    assert_equal_to_tables(first, ran)
    second = f"sqlite:///{folder}/second.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
    assert main(["track", str(ran.folder), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "study": "small",
        "runs": 16,
        "rescored": 0,
        "out": str(ran.folder),
        "tracking_uri": second,
        "tracking": "written",
    }
    assert_equal_to_tables(second, ran)
    assert content(second) == content(first)
    before = dump(second)
    assert main(["track", str(ran.folder)]) == 0
    assert capfd.readouterr().out == f"MLflow: {second} shows 16 runs in 4 cells of small\n"
    assert dump(second) == before, "a second call writes nothing"


def by_hand_equal(runs: list[dict[str, Any]], summary: list[dict[str, Any]]) -> None:
    """Compare the summary with Python's own statistics of the runs' rows."""
    assert len(runs) == 16
    assert [row["n_scored"] for row in summary] == [4, 4, 4, 0]
    for row in summary:
        members = [run for run in runs if run["cell"] == row["cell"] and run["status"] in SCORED]
        for metric in OUTCOMES:
            values = [run[metric] for run in members if run[metric] is not None]
            shown = (row[f"{metric}_mean"], row[f"{metric}_variance"], row[f"{metric}_min"])
            if not values:
                assert shown == (None, None, None)
                continue
            expected = (statistics.fmean(values), statistics.variance(values), min(values))
            assert shown == pytest.approx(expected, rel=1e-9, abs=1e-12)


def json_equal(report: dict[str, Any], summary: list[dict[str, Any]]) -> None:
    """Compare `report --json` with the summary, to the last bit."""
    assert [cell["cell"] for cell in report["cells"]] == [row["cell"] for row in summary]
    for cell, row in zip(report["cells"], summary, strict=True):
        for name in (name for name in row if name.startswith("n_")):
            assert cell[name] == row[name]
        flat = {
            f"{metric}_{name}": value
            for metric, found in cell["metrics"].items()
            for name, value in found.items()
        }
        metrics = tuple(f"{name}_" for name in (*NUMBERS, "spearman"))
        assert flat == {name: row[name] for name in row if name.startswith(metrics)}
        assert all(value is None or math.isfinite(value) for value in flat.values())


def terminal_equal(ran: Finished, summary: list[dict[str, Any]]) -> None:
    """Compare the terminal's table with the summary, to its three digits."""
    text = io.StringIO()
    baselines = score_baselines(open_sweep(ran.study, ran.dataset, ran.folder))
    print_table(
        ran.study, results.read(ran.folder), baselines, console=Console(file=text, width=120)
    )
    for row in summary:
        (line,) = (line for line in text.getvalue().splitlines() if line.startswith(row["cell"]))
        numbers = line.removeprefix(row["cell"]).split()
        assert numbers[0] == f"{row['n_scored']}/{row['n_planned']}"
        if row["n_scored"]:
            low, high = (f"{row[f'auc_split_{name}']:.3f}" for name in ("ci_low", "ci_high"))
            assert numbers[1:3] == [f"{row['auc_split_mean']:.3f}", f"{low}–{high}"]
            assert numbers[3] == f"{row['auc_split_sd']:.3f}"
            assert numbers[5] == f"{row['auc_split_min']:.3f}"


def page_equal(page: str, summary: list[dict[str, Any]]) -> None:
    """Find the summary's numbers in the page, with as many digits as it prints."""
    found = page_numbers(page, [row["cell"] for row in summary])
    for row in summary:
        for name in ("mean", "ci_low", "ci_high", "min", "worst_quarter"):
            value = row[f"auc_split_{name}"]
            if value is not None:
                assert found[row["cell"]] & {f"{value:.3f}", f"{value:.4f}"}, (row["cell"], name)


def test_a_store_that_cannot_be_reached_is_pending(
    ran: Finished, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capfd.readouterr()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:1")
    assert main(["track", str(ran.folder), "--json"]) == 1
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert (told["tracking"], told["tracking_uri"]) == ("pending", "http://127.0.0.1:1")
    assert err == (
        "MLflow: MLflow at http://127.0.0.1:1 does not answer: start it, or correct "
        f"MLFLOW_TRACKING_URI; then: sweeps track {ran.folder}\n"
    )


def test_nothing_recorded_is_nothing_to_track(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(folder, tiny())
    assert main(["track", "x.yaml"]) == 2
    assert capfd.readouterr() == ("", "runs/tiny: no records; first: sweeps run x.yaml\n")
    assert not (folder / "mlflow.db").exists()
