"""The page, the JSON and the figures say what the tables hold, whatever the study is called."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from models.scores import Scorer
from sweeps import __version__, plan, report, results, trial
from sweeps.figures import learning_curves, strip_plot, svg
from sweeps.results import Results
from sweeps.study import Study, load_study
from sweeps.wording import DASH

# One cell trains well, one has a failed pack, one diverges at once, one has a prior of one mode.
STUDY = """
name: example
question: Which one is steady?
dataset: {name: digits, classes: [1, 8]}
seeds: 11
spec:
  network: {hidden: [16]}
  training: {steps: 60, batch_size: 32, learning_rate: 0.01}
cells:
  - {objective: ae}
  - {objective: wae, prior: [bimodal, {kind: bimodal, m: 1, s: 1}]}
  - {objective: vae, training: {learning_rate: 10}}
"""
DIVERGES = "{objective: vae, activation: leaky_relu, training: {learning_rate: 10}}"
BASELINES = {
    "k-means": {"auc_split": 0.61, "auc_oracle": 0.62, "auc_covariate": None},
    "first principal component": {"auc_split": 0.55, "auc_oracle": 0.56, "auc_covariate": None},
}
SCRIPT = "<script>alert('x')</script>"
VOID = {"meta", "br", "link", "img", "hr", "input"}


@dataclass(frozen=True)
class Finished:
    """A study that was trained, with its folder."""

    study: Study
    runs: Sequence[plan.Run]
    folder: Path
    results: Results


def finish(folder: Path, text: str = STUDY) -> Finished:
    """Train a study in this process; the last pack of the second cell fails."""
    (folder / "study.yaml").write_text(text)
    study, dataset = load_study(folder / "study.yaml")
    data = trial.Data(dataset.pixels, dataset.image_digest, Scorer(dataset.labels, "0" * 64))
    runs = plan.all_runs(study, dataset)

    def fail(_: int) -> None:
        message = f"no room for {SCRIPT}"
        raise MemoryError(message)

    for pack in plan.packs_of(runs, 1, 9):
        members = pack.runs
        job = trial.Job(
            folder=str(folder),
            pack_id=pack.pack_id,
            cell_id=members[0].cell_id,
            spec=pack.cell.spec,
            seeds=tuple(run.seed for run in members),
            run_ids=tuple(run.run_id for run in members),
            device="cpu",
            git_commit=None,
        )
        last = (
            members[-1].seed == study.seeds[-1] and pack.cell is study.cells[1 % len(study.cells)]
        )
        trial.run_pack(job, data, fail if last and len(study.cells) > 1 else None)
    return Finished(study, runs, folder, gathered(study, runs, folder))


def gathered(study: Study, runs: Sequence[plan.Run], folder: Path) -> Results:
    return results.gather(study, runs, results.read_records(folder), BASELINES, {})


def relabelled(done: Finished, place: int, label: str) -> Finished:
    """Give one cell another label, in the study and in its tables."""
    cells = list(done.study.cells)
    old = cells[place].label
    cells[place] = replace(cells[place], label=label)

    def renamed(table: pa.Table) -> pa.Table:
        column = pa.array([label if name == old else name for name in table["cell"].to_pylist()])
        return table.set_column(table.schema.get_field_index("cell"), "cell", column)

    tables = Results(renamed(done.results.runs), renamed(done.results.summary))
    return replace(done, study=replace(done.study, cells=tuple(cells)), results=tables)


def small(folder: Path, *changes: tuple[str, str]) -> Finished:
    """Train a variant of the study."""
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return finish(folder, text)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("study"))


class Page(HTMLParser):
    """A page's tables, links and balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag in {"br", "small"}:
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def page_of(done: Finished) -> Page:
    path = report.write_report(done.study, done.runs, done.folder, done.results, BASELINES)
    assert path == done.folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(done: Finished) -> Page:
    return page_of(done)


def ids(page: Page) -> list[str]:
    return [value for name, value in page.attributes if name == "id"]


def test_the_example_has_every_outcome(done: Finished) -> None:
    states = set(done.results.runs["status"].to_pylist())
    assert {"ok", "diverged", "failed"} <= states


def test_the_pages_table_holds_the_summarys_numbers(done: Finished, page: Page) -> None:
    body = page.tables[0][2:]
    expected = sorted(
        done.results.summary.to_pylist(), key=lambda row: -(row["auc_split_mean"] or -math.inf)
    )
    assert [line[0] for line in body[: len(expected)]] == [row["cell"] for row in expected]
    for line, row in zip(body, expected, strict=False):
        own = {name[len("auc_split_") :]: v for name, v in row.items() if "auc_split_" in name}
        counts = [
            row[f"n_{name}"] for name in ("planned", "scored", "collapsed", "diverged", "failed")
        ]
        assert [int(text) for text in line[10:]] == counts
        if own["mean"] is None:
            assert set(line[1:10]) == {DASH}
            continue
        mean, *bounds = line[1].split()
        assert mean == f"{own['mean']:.4f}"
        if row["n_scored"] == 1:
            assert bounds == []
            assert line[2:4] == [DASH, DASH]
            continue
        method = "t" if row["n_scored"] < 10 else "BCa"
        assert bounds == [f"{own['ci_low']:.4f}{DASH}{own['ci_high']:.4f}", method]
        assert float(line[2]) == pytest.approx(own["variance"], abs=5e-5, rel=0.05)
        plain = ("sd", "median", "iqm", "min", "worst_quarter")
        assert line[3:8] == [f"{own[name]:.4f}" for name in plain]
        share, *wilson = line[8].split(" ", 2)
        assert float(share) == pytest.approx(100 * own["low_basin_share"], abs=0.5)
        low, high = (100 * own[f"low_basin_{end}"] for end in ("low", "high"))
        assert wilson[-1] == f"{low:.0f}{DASH}{high:.0f} %"
        assert float(line[9].split()[0]) == pytest.approx(
            100 * own["beats_baseline_share"], abs=0.5
        )
    foot = body[len(expected) :]
    assert [line[:2] for line in foot] == [
        ["baseline: k-means", "0.6100"],
        ["baseline: first principal component", "0.5500"],
    ]


def test_the_json_holds_the_summarys_numbers(done: Finished) -> None:
    found = report.as_json(done.study, done.results, BASELINES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"study", "metric", "cells", "baselines"}
    assert found["baselines"] == BASELINES
    rows = done.results.summary.to_pylist()
    for cell, row, source in zip(found["cells"], rows, done.study.cells, strict=True):
        assert cell["axes"] == source.axes
        metrics = cell.pop("metrics")
        assert cell == {name: row[name] for name in cell if name != "axes"} | {"axes": source.axes}
        for metric, numbers in metrics.items():
            assert len(numbers) == 13
            assert numbers == {name: row[f"{metric}_{name}"] for name in numbers}


def test_no_number_is_nan_in_the_json(done: Finished) -> None:
    column = pa.array([math.nan] * done.results.summary.num_rows)
    place = done.results.summary.schema.get_field_index("auc_split_mean")
    summary = done.results.summary.set_column(place, "auc_split_mean", column)
    found = report.as_json(
        done.study, Results(done.results.runs, summary), {"odd": {"auc_split": math.inf}}
    )
    assert found["cells"][0]["metrics"]["auc_split"]["mean"] is None
    assert found["baselines"] == {"odd": {"auc_split": None}}


def test_the_page_loads_and_runs_nothing(done: Finished, page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    links = [v for name, v in page.attributes if name in {"src", "href", "xlink:href", "action"}]
    assert all(link.startswith("#") for link in links)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    text = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#")
    assert set(_addresses(text)) <= {"http://www.w3.org/2000/svg"}
    assert len(set(ids(page))) == len(ids(page))


def _addresses(text: str) -> list[str]:
    parts = text.replace("https://", "http://").split("http://")[1:]
    return ["http://" + part.split('"')[0] for part in parts]


def test_words_of_users_stay_words(done: Finished, tmp_path: Path) -> None:
    (tmp_path / "history").symlink_to(done.folder / "history")
    odd = relabelled(done, 0, f"{SCRIPT} $x$ & {{{{ 7 * 7 }}}} \x07")
    study = replace(odd.study, name=SCRIPT, question=f'{SCRIPT} "quoted"')
    path = report.write_report(study, odd.runs, tmp_path, odd.results, {SCRIPT: {"auc_split": 0.6}})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "<script" not in text
    assert page.text.count(SCRIPT) > 5  # name, question, labels, baseline, the failure's message
    assert "{{ 7 * 7 }}" in page.text
    assert "$x$" in page.text
    pictures = [path.read_text() for path in (tmp_path / "figures").glob("*.svg")]
    assert len(pictures) == 2
    for picture in pictures:
        ET.fromstring(picture)  # noqa: S314 - our own


def test_failures_show_their_message_and_traceback(page: Page) -> None:
    rows = page.tables[-1][1:]
    assert [row[1] for row in rows] == sorted(
        (row[1] for row in rows), key=["failed", "diverged", "collapsed"].index
    )
    assert rows[0][1:3] == ["failed", f"6{DASH}10"]
    assert rows[0][3].startswith(f"MemoryError: no room for {SCRIPT}")
    assert "Traceback (most recent call last)" in rows[0][3]
    diverged = [row for row in rows if row[1] == "diverged"]
    assert all("the loss was not finite" in row[3] for row in diverged)


def test_the_summary_counts_and_names_no_winner(done: Finished, page: Page) -> None:
    text = " ".join(page.text.split())
    counts = dict.fromkeys(("scored", "diverged", "failed"), 0)
    for row in done.results.summary.to_pylist():
        counts = {name: number + row[f"n_{name}"] for name, number in counts.items()}
    assert f"Of 44 planned runs (4 cells) {counts['scored']} are scored" in text
    assert f"{counts['diverged']} diverged and {counts['failed']} failed." in text
    assert not {"winner", "best cell", "significant"} & set(text.split())


def test_provenance(done: Finished, page: Page) -> None:
    text = page.text
    for fact in (
        "name: digits, classes: [1, 8]",
        done.results.runs["dataset_digest"][0].as_py(),
        done.results.runs["torch_version"][0].as_py(),
        f"0{DASH}10 (11)",
        __version__,
    ):
        assert fact in text


def test_figures_are_equal_when_made_twice_and_apart_on_one_page(
    done: Finished, tmp_path: Path
) -> None:
    def pictures(folder: Path) -> list[str]:
        report.write_report(done.study, done.runs, folder, done.results, BASELINES)
        return [path.read_text() for path in sorted((folder / "figures").glob("*.svg"))]

    (tmp_path / "history").symlink_to(done.folder / "history")
    first, second = pictures(done.folder), pictures(tmp_path)
    assert len(first) == 2
    assert first == second
    names = [{e.get("id") for e in ET.fromstring(text).iter()} - {None} for text in first]  # noqa: S314
    assert min(map(len, names)) > 0
    assert not names[0] & names[1]
    for text in first:
        assert "#000000" not in text
        assert "currentColor" in text
        assert "metadata" not in text


def test_every_scored_run_is_a_dot_and_every_curve_a_line(done: Finished) -> None:
    runs, rows = done.results.runs.to_pylist(), report.ranked(done.study, done.results)
    figure = strip_plot(rows, runs, "auc_split", 0.8, [("k-means", 0.61), ("none", None)])
    axes = figure.axes[0]
    dots = [np.asarray(one.get_offsets(), dtype=float) for one in axes.collections]
    drawn = sorted(np.concatenate(dots)[:, 0].tolist())
    scored = sorted(run["auc_split"] for run in runs if run["auc_split"] is not None)
    assert drawn == pytest.approx(scored)
    assert [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()] == [
        row["cell"] for row in rows
    ]
    filled = [len(np.asarray(one.get_facecolor())) > 0 for one in axes.collections]
    hollow = sum(len(one) for one, full in zip(dots, filled, strict=True) if not full)
    assert hollow == [run["status"] for run in runs].count("collapsed")


def test_a_diverged_run_counts_as_the_worst_in_the_median_curve() -> None:
    steps = [1, 2, 3]
    runs = [
        {"status": "ok", "step": steps, "loss": [4.0, 3.0, 2.0]},
        {"status": "ok", "step": steps, "loss": [5.0, 2.0, 1.0]},
        {"status": "diverged", "step": [1, 2], "loss": [1.0, None]},
    ]
    (axes,) = learning_curves([("a", runs)]).axes
    assert np.asarray(axes.lines[-1].get_ydata()).tolist() == [4.0, 3.0, 2.0]
    (axes,) = learning_curves([("a", [*runs, runs[-1]])]).axes
    median = np.asarray(axes.lines[-1].get_ydata(), dtype=float)
    assert median[0] == 2.5
    assert np.isnan(median[1:]).all()


@pytest.mark.parametrize("count", [1, 3, 30])
def test_names_above_the_seeds_never_overlap(count: int) -> None:
    row: dict[str, Any] = {"cell": "a", "cell_id": "a", "m_mean": None}
    row |= {"m_ci_low": None, "m_ci_high": None}
    baselines = [(f"baseline number {place}", 0.5 + place / 97) for place in range(count)]
    figure = strip_plot([row], [], "m", 0.8, baselines)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    boxes = [box for box in boxes if box.y1 > figure.axes[0].get_window_extent().y1]
    assert len(boxes) == count + 1
    for place, box in enumerate(boxes):
        assert box.y1 < figure.bbox.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


WAES = "  - {objective: wae, prior: [bimodal, {kind: bimodal, m: 1, s: 1}]}\n"
SAD = {
    "one seed": [("seeds: 11", "seeds: 1"), (WAES, "")],
    "one cell": [("seeds: 11", "seeds: 2"), (WAES, ""), ("  - {objective: ae}\n", "")],
    "all diverged": [("seeds: 11", "seeds: 3"), (WAES, ""), ("{objective: ae}", DIVERGES)],
}


@pytest.mark.parametrize("changes", SAD.values(), ids=SAD.keys())
def test_small_and_sad_studies_work(changes: list[tuple[str, str]], tmp_path: Path) -> None:
    done = small(tmp_path, *changes)
    page = page_of(done)
    assert not {"nan", "inf", "None"} & set(page.text.replace(DASH, " ").split())
    json.dumps(report.as_json(done.study, done.results, BASELINES), allow_nan=False)
    if changes == SAD["all diverged"]:
        assert "0 are scored, none of them collapsed; 3 diverged and 3 failed" in page.text


def test_nothing_trained_yet(done: Finished, tmp_path: Path) -> None:
    empty = gathered(done.study, done.runs, tmp_path)
    page = page_of(replace(done, folder=tmp_path, results=empty))
    assert "44 are not trained yet" in page.text
    assert "No learning curves were kept" in page.text
    assert not (tmp_path / "figures" / "curves.svg").exists()


def test_ranges() -> None:
    assert report._ranges([9, 0, 1, 2, 5, 4]) == f"0{DASH}2, 4{DASH}5, 9"
    assert report._ranges([]) == ""


def test_a_figure_without_anything() -> None:
    ET.fromstring(svg(Figure()))  # noqa: S314 - our own
    assert learning_curves([]).axes == []
    (axes,) = learning_curves([("a", [])]).axes
    assert axes.texts[0].get_text() == "no curve"
