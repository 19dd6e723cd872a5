"""The page and the JSON say what the tables hold, whatever the study is called."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib.image
import pyarrow as pa
import pytest
from reports import (
    BASELINES,
    DIVERGES,
    DIVERGING,
    SCRIPT,
    WAES,
    Finished,
    Page,
    finish,
    gathered,
    page_of,
    relabelled,
    small,
    write,
)

from sweeps import __version__, freshness, report
from sweeps.answer import Answer
from sweeps.comparison import Comparison
from sweeps.figures.svg import VARIABLES
from sweeps.page import _ranges
from sweeps.results import OUTCOMES, Results
from sweeps.wording import DASH, ranked


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    done = finish(tmp_path_factory.mktemp("study"))
    write(done)
    return done


@pytest.fixture(scope="module")
def page(done: Finished) -> Page:
    return Page(source(done))


def ids(page: Page) -> list[str]:
    return [value for name, value in page.attributes if name == "id"]


def test_the_example_has_every_outcome(done: Finished) -> None:
    states = set(done.results.runs["status"].to_pylist())
    assert {"ok", "diverged", "failed"} <= states


def test_the_pages_tables_hold_the_summarys_numbers(done: Finished, page: Page) -> None:
    rows = done.results.summary.to_pylist()
    defined = [n for n in OUTCOMES if any(row[f"{n}_mean"] is not None for row in rows)]
    metrics = sorted(defined, key=lambda name: (name != "auc_split", OUTCOMES.index(name)))
    assert len(metrics) == len(OUTCOMES) - 2  # no covariate; agreement is not given
    heads = re.findall(r'<input type="radio" name="metric" id="of-(\w+)"', source(done))
    assert heads == metrics
    for metric, table in zip(metrics, page.tables, strict=False):
        check_table(done, table, metric)


def check_table(done: Finished, table: list[list[str]], metric: str) -> None:
    loss = metric in {"reconstruction", "divergence_value"}
    sign, shares = (1, 0) if loss else (-1, 2)
    assert table[1][7] == f"{'lowest' if loss else 'worst'} quarter"
    body = table[2:]
    expected = sorted(
        done.results.summary.to_pylist(),
        key=lambda row: (row[f"{metric}_mean"] is None, sign * (row[f"{metric}_mean"] or 0)),
    )
    assert [line[0] for line in body[: len(expected)]] == [row["cell"] for row in expected]
    for line, row in zip(body, expected, strict=False):
        start = f"{metric}_"
        own = {name[len(start) :]: v for name, v in row.items() if name.startswith(start)}
        counts = [
            row[f"n_{name}"] for name in ("planned", "scored", "collapsed", "diverged", "failed")
        ]
        assert [int(text) for text in line[8 + shares :]] == counts
        if own["mean"] is None:
            assert set(line[1 : 8 + shares]) == {DASH}
            continue
        mean, *bounds = line[1].split()
        huge = abs(own["mean"]) > 1e5
        assert mean == (f"{own['mean']:.3e}" if huge else f"{own['mean']:.4f}")
        if row["n_scored"] == 1:
            assert bounds == []
            assert line[2:4] == [DASH, DASH]
            continue
        method = "t" if row["n_scored"] < 10 else "BCa"
        assert bounds == [f"{own['ci_low']:.4f}{DASH}{own['ci_high']:.4f}", method]
        assert float(line[2]) == pytest.approx(own["variance"], abs=5e-5, rel=0.05)
        plain = ("sd", "median", "iqm", "min", "worst_quarter")
        assert line[3:8] == [f"{own[name]:.4f}" for name in plain]
        if not loss:
            check_shares(line[8:10], own)
    foot = [line[:2] for line in body[len(expected) :]]
    known = {
        "auc_split": ["0.6100", "0.5500"],
        "auc_oracle": ["0.6200", "0.5600"],
    }.get(metric, [])
    names = ("baseline: k-means", "baseline: first principal component")
    assert foot == [list(pair) for pair in zip(names, known, strict=False)]


def check_shares(texts: list[str], own: dict[str, Any]) -> None:
    share, *wilson = texts[0].split(" ", 2)
    assert float(share) == pytest.approx(100 * own["low_basin_share"], abs=0.5)
    low, high = (100 * own[f"low_basin_{end}"] for end in ("low", "high"))
    assert wilson[-1] == f"{low:.0f}{DASH}{high:.0f} %"
    if own["beats_baseline_share"] is None:
        assert texts[1] == DASH
    else:
        beats = float(texts[1].split()[0])
        assert beats == pytest.approx(100 * own["beats_baseline_share"], abs=0.5)


def test_what_the_script_sorts_by_is_the_summarys_number(done: Finished) -> None:
    table = source(done).split('<table class="numbers sortable"')[1].split("</tbody>")[0]
    for row in ranked(done.study, done.results):
        line = table.split(f'scope="row">{row["cell"]}</th>')[1].split("</tr>")[0]
        keys = re.findall(r'<td[^>]*?(?: data-key="([^"]*)")?>', line)
        names = ("mean", "variance", "sd", "median", "iqm", "min", "worst_quarter")
        names = (*names, "low_basin_share", "beats_baseline_share")
        assert len(keys) == len(names) + 5
        for name, key in zip(names, keys, strict=False):
            value = row[f"auc_split_{name}"]
            assert (key == "") == (value is None)
            assert value is None or float(key) == pytest.approx(value, rel=1e-10)


def source(done: Finished) -> str:
    return (done.folder / "report.html").read_text(encoding="utf-8")


def test_the_answer_leads_and_the_counts_follow(done: Finished, tmp_path: Path) -> None:
    empty = asdict(Comparison(11, difference=0.1, p_holm=0.0001))
    rows = ({"best": "wae", "other": "ae & co", **empty},)
    page = page_of(copied(done, tmp_path), found=Answer("tie", f"It is {SCRIPT}.", rows))
    text = " ".join(page.text.split())
    assert text.index(f"It is {SCRIPT}.") < text.index("Of 44 planned runs")
    (table,) = (table for table in page.tables if table[0][1:2] == ["pairs"])
    assert table[0][4:6] == ["p (Holm)", "ln variance ratio"]
    assert table[1] == ["ae & co", "11", "+0.100", DASH, "<0.001", *[DASH] * 4]
    assert 'href="#comparisons"' in source(replace(done, folder=tmp_path))


def test_without_comparisons_there_is_no_section(done: Finished, tmp_path: Path) -> None:
    page = page_of(copied(done, tmp_path), found=Answer("one cell", "There is one cell."))
    assert "Comparisons" not in page.text


def copied(done: Finished, folder: Path) -> Finished:
    """Return the study in a folder that has nothing but its tables."""
    return replace(done, folder=folder)


def test_the_json_holds_the_summarys_numbers(done: Finished) -> None:
    found = report.as_json(done.study, done.results, BASELINES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"study", "metric", "answer", "cells", "baselines", "diagnoses"}
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


def test_the_page_loads_nothing_and_runs_one_script(done: Finished, page: Page) -> None:
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("script") == 1
    links = {v for name, v in page.attributes if name in {"src", "href", "xlink:href", "action"}}
    for link in links:
        assert re.match(r"#|figures/[\w-]+\.(svg|png|csv)$|data:image/png;base64,", link), link
        if link.startswith("figures/"):
            assert (done.folder / link).stat().st_size > 0
        if re.match(r"#[a-z]+$", link):
            assert link[1:] in ids(page)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    text = source(done)
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#")
    assert set(_addresses(text)) <= {"http://www.w3.org/2000/svg"}
    assert len(set(ids(page))) == len(ids(page))


def test_no_script_but_the_pages_own_may_run(done: Finished) -> None:
    text = source(done)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def _addresses(text: str) -> list[str]:
    parts = text.replace("https://", "http://").split("http://")[1:]
    return ["http://" + part.split('"')[0] for part in parts]


def test_words_of_users_stay_words(done: Finished, tmp_path: Path) -> None:
    for name in ("history", "codes", "members"):
        (tmp_path / name).symlink_to(done.folder / name)
    odd = relabelled(done, 0, f"{SCRIPT} $x$ & {{{{ 7 * 7 }}}} \x07")
    study = replace(odd.study, name=SCRIPT, question=f'{SCRIPT} "quoted"')
    dataset = replace(odd.dataset, class_names=(f"one {SCRIPT}", "$8$ <b>&amp;"))
    odd = replace(odd, study=study, dataset=dataset, folder=tmp_path)
    path = report.write_report(study, dataset, tmp_path, odd.results, {SCRIPT: {"auc_split": 0.6}})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.count("<script") == 1
    assert "<b" not in re.sub("<(body|br)>", "", text)
    assert page.text.count(SCRIPT) > 5  # name, question, labels, baseline, the failure's message
    assert "{{ 7 * 7 }}" in page.text
    assert "$x$" in page.text
    assert f"one {SCRIPT}" in page.text
    assert "$8$ <b>&amp;" in page.text
    pictures = sorted((tmp_path / "figures").glob("*.svg"))
    assert [path.stem for path in pictures] == FIGURES
    for picture in pictures:
        ET.fromstring(picture.read_text())  # noqa: S314 - our own


FIGURES = sorted(
    [
        *("codes", "curves", "reconstructions", "roc", "samples", "spread"),
        *(f"seeds-{name}" for name in OUTCOMES if name not in ("auc_covariate", "agreement")),
    ]
)


def test_every_figure_is_there_as_svg_png_and_csv(done: Finished, page: Page) -> None:
    assert page.tags.count("figure") == len(FIGURES)
    assert "the median reconstruction error chose" not in page.text
    files = sorted(path.name for path in (done.folder / "figures").glob("[!.]*"))
    assert files == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("csv", "png", "svg"))
    for path in (done.folder / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        image = matplotlib.image.imread(path)
        assert image[0, 0, :3].tolist() == [1, 1, 1]
    assert len(source(done)) < 1_000_000


def test_figures_have_no_ink_of_their_own_and_no_name_twice(done: Finished, page: Page) -> None:
    assert len(set(ids(page))) == len(ids(page)) > 0
    for path in (done.folder / "figures").glob("*.svg"):
        text = path.read_text()
        assert "#000000" not in text
        assert "currentColor" in text
        assert "metadata" not in text
        drawn = text.partition("</style>")[2]
        assert all(
            f"var({name},{light})" in text or light not in drawn
            for light, name in VARIABLES.items()
        )


def test_a_report_written_twice_is_equal(tmp_path: Path) -> None:
    done = small(tmp_path, ("seeds: 11", "seeds: 2"), (WAES, ""), (DIVERGING, ""))
    write(done)
    first = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    text = source(done)
    (tmp_path / freshness.MARK).unlink()  # else nothing would be written
    write(done)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert text == source(done)


def test_what_has_not_changed_is_not_drawn_again(tmp_path: Path) -> None:
    done = small(tmp_path, ("seeds: 11", "seeds: 2"), (WAES, ""), (DIVERGING, ""))

    def times() -> dict[str, int]:
        files = [tmp_path / "report.html", *(tmp_path / "figures").iterdir()]
        return {path.name: path.stat().st_mtime_ns for path in files}

    write(done)
    first = times()
    foreign = tmp_path / "figures" / "mine.svg"
    foreign.write_text("a reader's own")
    write(done)
    assert times() | {"mine.svg": 0} == first | {"mine.svg": 0}, "nothing was written"
    (tmp_path / "figures" / "roc.png").unlink()
    write(done)
    second = times()
    assert second["roc.png"] > first["roc.png"]
    assert second["report.html"] > first["report.html"]
    shutil.rmtree(tmp_path / "codes")
    write(done)
    assert times()["report.html"] > second["report.html"]
    assert not (tmp_path / "figures" / "roc.svg").exists(), "a figure that is no longer made"
    assert foreign.exists()
    before = times()
    renamed = replace(done, study=replace(done.study, question="Another?"))
    write(renamed)
    assert times()["report.html"] > before["report.html"]
    assert "Another?" in source(done)


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


SAD = {
    "one seed": [("seeds: 11", "seeds: 1"), (WAES, "")],
    "one cell": [("seeds: 11", "seeds: 2"), (WAES, ""), ("  - {objective: ae}\n", "")],
    "all diverged": [("seeds: 11", "seeds: 3"), (WAES, ""), ("{objective: ae}", DIVERGES)],
    "all collapsed": [
        ("seeds: 11", "seeds: 2"),
        (WAES, ""),
        (DIVERGING, ""),
        ("{objective: ae}", "{objective: vae, divergence: {kind: kl, weight: 1000}}"),
    ],
}


@pytest.mark.parametrize("changes", SAD.values(), ids=SAD.keys())
def test_small_and_sad_studies_work(changes: list[tuple[str, str]], tmp_path: Path) -> None:
    done = small(tmp_path, *changes)
    page = page_of(done)
    assert not {"nan", "inf", "None"} & set(page.text.replace(DASH, " ").split())
    json.dumps(report.as_json(done.study, done.results, BASELINES), allow_nan=False)
    text = " ".join(page.text.split())
    if changes == SAD["all diverged"]:
        assert "0 are scored, none of them collapsed; 3 diverged and 3 failed" in text
        assert "No run kept its code, so there is nothing to draw." in text
        assert "There are no ROC curves: no run kept a code of one unit." in text
    if changes == SAD["all collapsed"]:
        assert done.results.runs["status"].to_pylist() == ["collapsed", "collapsed"]
        assert "2 are scored, 2 of them collapsed" in text
        assert (tmp_path / "figures" / "codes.svg").is_file()
    if changes == SAD["one seed"]:
        assert "No cell has two scored seeds, so none has a spread." in text


def test_images_without_labels_get_a_page(tmp_path: Path) -> None:
    done = small(tmp_path, ("seeds: 11", "seeds: 2"), (DIVERGING, ""), labelled=False)
    page = page_of(done)
    assert "There are no ROC curves: they need labels of two classes." in page.text
    assert "the median reconstruction error chose" in page.text
    figures = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"codes", "reconstructions", "samples", "seeds-reconstruction"} <= figures
    assert not {"roc", "spread", "seeds-auc_oracle"} & figures
    assert "1" not in (tmp_path / "figures" / "reconstructions.csv").read_text().split("class")[0]


def test_nothing_trained_yet(done: Finished, tmp_path: Path) -> None:
    empty = gathered(done.study, done.runs, tmp_path)
    page = page_of(replace(done, folder=tmp_path, results=empty))
    assert "44 are not trained yet" in page.text
    assert "No learning curves were kept" in page.text
    assert not (tmp_path / "figures" / "curves.svg").exists()


def test_ranges() -> None:
    assert _ranges([9, 0, 1, 2, 5, 4]) == f"0{DASH}2, 4{DASH}5, 9"
    assert _ranges([]) == ""
