"""What the report says and draws of diagnostics, beside the numbers that it is made from."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from reports import DIVERGING, WAES, Finished, small
from scipy.ndimage import median_filter

from models.diagnostics.request import Requested
from models.diagnostics.table import MEDIAN_FILTER, Examination
from sweeps.diagnoses import Diagnosis, denoising_sentence, diagnoses, generation_sentence
from sweeps.evidence import member_of
from sweeps.figures import svg
from sweeps.figures.heat import HeatRow, heat_map
from sweeps.pictures import Picture, Trained
from sweeps.pictures.diagnostics import diagnostic_pictures
from sweeps.report import write_report
from sweeps.results import Results
from sweeps.review import review
from sweeps.sweep import Sweep

ASKED = "diagnostics: {denoising: {images: 40, sites: 2}, generation: {images: 60}}"
VAE = "vae normal kl"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Trained]:
    """Train three cells, of which one fails, and return them with what pictures are made from."""
    changes = ("seeds: 11", f"seeds: 3\n{ASKED}"), (WAES, ""), (DIVERGING, "")
    folder = tmp_path_factory.mktemp("study")
    done = small(folder, *changes, ("  - {objective: ae}\n", "  - {objective: [ae, wae, vae]}\n"))
    made = review(Sweep(done.study, done.dataset, tuple(done.runs), folder))
    material = Trained(done.study, folder, made.results, made.baselines, done.dataset)
    return done, material


@pytest.fixture(scope="module")
def pictures(reviewed: tuple[Finished, Trained]) -> dict[str, Picture]:
    return {one.name: one for one in diagnostic_pictures(reviewed[1])}


def test_there_is_a_picture_of_what_is_asked_and_of_the_covariates(
    reviewed: tuple[Finished, Trained], pictures: dict[str, Picture]
) -> None:
    assert list(pictures) == ["denoising", "generated", "physics"]
    study = replace(reviewed[0].study, diagnostics=Requested())
    plain = replace(reviewed[1], study=study)
    assert [one.name for one in diagnostic_pictures(plain)] == ["physics"]
    elsewhere = replace(plain, folder=Path("nowhere"))
    assert list(diagnostic_pictures(elsewhere)) == []
    lost = replace(reviewed[1], folder=Path("nowhere"))
    notes = {one.name: (one.figure, one.note) for one in diagnostic_pictures(lost)}
    assert notes == {
        "denoising": (
            None,
            "There is nothing to show: the weights of no scored run can be read.",
        ),
        "generated": (None, "There are no samples: the weights of no scored run can be read."),
    }


def pixels(rows: list[dict[str, Any]]) -> Any:
    return np.array([[row[f"pixel_{n}"] for n in range(64)] for row in rows])


def test_hot_pixels_are_shown_with_what_is_made_of_them(
    reviewed: tuple[Finished, Trained], pictures: dict[str, Picture]
) -> None:
    done, material = reviewed
    rows = pictures["denoising"].table
    by_cell = {row["cell"]: [r for r in rows if r["cell"] == row["cell"]] for row in rows}
    noisy, clean = by_cell["with hot pixels"], by_cell["image"]
    assert np.sum(pixels(noisy) != pixels(clean), axis=1).tolist() == [2] * 8
    runs = {run["run_id"]: run for run in material.results.runs.to_pylist()}
    for cell in (done.study.cells[0], done.study.cells[2]):
        own = by_cell[cell.label]
        seed = int(re.search(r"seed (\d+)", own[0]["note"])[1])  # type: ignore[index]
        (run,) = [r for r in runs.values() if (r["cell"], r["seed"]) == (cell.label, seed)]
        member = member_of(done.folder, run, cell.spec, done.dataset.images.shape[1:])
        assert member is not None
        made = member.decode(member.encode(pixels(noisy).astype(np.float32)))
        assert pixels(own) == pytest.approx(made, abs=1e-4)
        gone = f"{run['hot_suppression']:.2f} gone, error {run['elsewhere_error']:.2f}"
        assert own[0]["note"] == f"seed {seed}: {gone}"
    filtered = median_filter(pixels(noisy).reshape(-1, 8, 8), size=(1, 3, 3), mode="nearest")
    assert pixels(by_cell[MEDIAN_FILTER]) == pytest.approx(filtered.reshape(8, 64), abs=1e-5)


def test_samples_are_shown_with_the_shares_of_their_classes(
    reviewed: tuple[Finished, Trained], pictures: dict[str, Picture]
) -> None:
    done, material = reviewed
    rows = pictures["generated"].table
    shares = [row for row in rows if row["note"] == "share of a class"]
    drawn = {(row["cell"], row["source"]) for row in shares}
    assert drawn == {("images", None), ("ae", "expost"), (VAE, "prior"), (VAE, "expost")}
    runs = material.results.runs.to_pylist()
    own = {row["class"]: row["share"] for row in shares if row["cell"] == "images"}
    for cell, source in drawn - {("images", None)}:
        found = [row for row in shares if (row["cell"], row["source"]) == (cell, source)]
        assert sum(row["share"] for row in found) == pytest.approx(1, abs=1e-5)
        (run,) = [r for r in runs if (r["cell"], r["seed"]) == (cell, found[0]["seed"])]
        gap = sum(abs(row["share"] - own[row["class"]]) for row in found) / 2
        assert run[f"{source}_class_gap"] == pytest.approx(gap, abs=1e-5)
    sheets = {row["note"] for row in rows if row["note"] != "share of a class"}
    assert len(sheets) == 4
    exam = Examination(done.dataset.images, done.dataset.labels, "", None, done.study.diagnostics)
    right = exam.likeness.reference
    assert right is not None
    assert f"right for {100 * right.accuracy:.0f} % of the images" in pictures["generated"].note


def test_the_heat_map_has_medians_over_seeds(
    reviewed: tuple[Finished, Trained], pictures: dict[str, Picture]
) -> None:
    runs = reviewed[1].results.runs.to_pylist()
    table = pictures["physics"].table
    assert {row["class"] for row in table} == {None, "1", "8"}
    for cell in ("ae", VAE):
        values = [run["spearman_slant"] for run in runs if run["cell"] == cell]
        (row,) = [
            r for r in table if (r["cell"], r["covariate"], r["class"]) == (cell, "slant", None)
        ]
        names = ("first_quartile", "median", "third_quartile")
        found = [row[f"spearman_{name}"] for name in names]
        assert found == pytest.approx(np.percentile(values, (25, 50, 75)))
        assert row["seeds"] == 3
    drawn = svg.svg(pictures["physics"].figure)  # type: ignore[arg-type]
    assert f">{row['spearman_median']:.2f}<" in drawn


@pytest.mark.parametrize(("many", "groups"), [(2, 3), (4, 3), (14, 3), (20, 2)])
def test_no_number_of_a_heat_map_meets_its_neighbour(many: int, groups: int) -> None:
    """Groups that have no room side by side stand one under the other."""
    heads = [f"ellipticity {place}" for place in range(many)] * groups
    names = [f"class {group}" for group in range(groups) for _ in range(many)]
    rows = [HeatRow(f"a cell of a long name, number {row}", [0.88] * len(heads)) for row in (1, 2)]
    figure = heat_map(rows, heads, names, "x")
    FigureCanvasAgg(figure).draw()
    numbers = [text for text in figure.texts if text.get_text() == "0.88"]
    assert len(numbers) == 2 * len(heads)
    boxes = [text.get_window_extent() for text in numbers]
    met = [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert met == []
    titles = [text for text in figure.texts if text.get_text() in set(names)]
    assert len(titles) == groups
    inside = [text.get_window_extent() for text in figure.texts if text.get_text() in set(heads)]
    assert len(inside) == len(heads), "a head that is too long stands aslant, in one piece"
    assert max(box.x1 for box in inside) <= figure.bbox.x1
    assert all(not title.get_window_extent().overlaps(one) for title in titles for one in inside)


def test_a_heat_map_without_a_number_has_a_dash() -> None:
    figure = heat_map([HeatRow("x", [None, 1.0])], ["a", "b"], ["all", "all"], "x")
    drawn = svg.svg(figure)
    assert drawn.count(">–<") == 1
    assert drawn.count(">1.00<") == 1


def table_of(rows: list[dict[str, Any]], runs: list[dict[str, Any]] | None = None) -> Results:
    return Results(pa.Table.from_pylist(runs or [{"x": 1}]), pa.Table.from_pylist(rows))


def against(hot: float, error: float) -> str | None:
    rows = [
        {"cell": "a", "hot_suppression_median": 0.7, "elsewhere_error_median": 0.1},
        {"cell": "b", "hot_suppression_median": 0.9, "elsewhere_error_median": 0.2},
        {"cell": "c", "hot_suppression_median": None, "elsewhere_error_median": None},
    ]
    usual = {MEDIAN_FILTER: {"hot_suppression": hot, "elsewhere_error": error}}
    return denoising_sentence(table_of(rows), usual)


def test_it_is_said_which_is_better_against_hot_pixels() -> None:
    text = (
        "Of a hot pixel's excess b, which is best at it, takes away 90.0 % (median of its seeds' "
        "medians), the 3x3 median filter 95.0 %; elsewhere the errors are 0.200 and "
    )
    assert against(0.95, 0.05) == f"{text}0.050: the median filter is better in both."
    assert against(0.95, 0.2) == f"{text}0.200: the median filter is better."
    assert against(0.95, 0.3) == f"{text}0.300: neither is better in both."
    won = against(0.5, 0.3)
    assert won is not None
    assert won.endswith("0.200 and 0.300: the autoencoder is better in both.")
    assert denoising_sentence(table_of([{"cell": "a"}]), {}) is None


def test_the_autoencoder_is_compared_with_the_vae_on_one_ruler(
    reviewed: tuple[Finished, Trained],
) -> None:
    study = reviewed[0].study

    def said(ae: list[float], vae: list[float]) -> str | None:
        runs = [
            {"cell_id": cell, "status": "ok", "seed": seed, "expost_coverage": value}
            for cell, values in (("1", ae), ("2", vae))
            for seed, value in enumerate(values)
        ]
        rows = [
            {"cell": label, "cell_id": cell, "expost_coverage_mean": float(np.mean(values))}
            | {"expost_two_sample_auc_mean": 0.98, "prior_coverage_mean": own}
            for label, cell, values, own in (("ae", "1", ae, None), (VAE, "2", vae, 0.25))
        ]
        return generation_sentence(study, table_of(rows, runs))

    start = (
        f"On one ruler, samples of a density fitted to the codes afterwards, ae covers 50.0 % of "
        f"the images and {VAE} 30.0 % (25.0 % from its own prior); a classifier tells samples from "
        "images with an AUC of 0.980 and 0.980"
    )
    better = said([0.5, 0.51, 0.49], [0.3, 0.32, 0.28])
    assert better == (
        f"{start}. The autoencoder covers more, by 20.0 points "
        "(95 % interval 17.5 to 22.5, 3 pairs of seeds)."
    )
    worse = said([0.3, 0.32, 0.28], [0.5, 0.51, 0.49])
    assert worse is not None
    assert ". The VAE covers more, by 20.0 points (95 % interval 17" in worse
    open_ = said([0.5, 0.2, 0.8], [0.5, 0.6, 0.4])
    assert open_ is not None
    assert "These seeds do not tell which covers more: +0.0 points (95 % interval -" in open_
    assert said([0.5], [0.3]) == f"{start}. One pair of seeds says nothing of a difference."
    without = replace(study, cells=study.cells[:1])
    rows = [{"cell": "ae", "cell_id": "1", "expost_coverage_mean": 0.5}]
    assert generation_sentence(without, table_of(rows)) is None


def test_tables_hold_medians_and_ranges_and_no_empty_columns(
    reviewed: tuple[Finished, Trained],
) -> None:
    done, material = reviewed
    found: dict[str, Diagnosis] = {
        one.group: one for one in diagnoses(done.study, material.results, material.baselines)
    }
    assert list(found) == ["code", "denoising", "generation"]
    runs = material.results.runs.to_pylist()
    place = found["code"].columns.index(("code", "spread"))
    for cell, numbers in found["code"].rows:
        values = [r["code_spread"] for r in runs if r["cell"] == cell and r["status"] != "failed"]
        if not values:
            assert {number.text for number in numbers} == {"–"}
            continue
        assert numbers[place].text == f"{np.median(values):.3f}"
        assert numbers[place].small == f"{min(values):.2f}–{max(values):.2f}"
    ((name, texts),) = found["denoising"].foot
    usual = material.baselines[MEDIAN_FILTER].values()
    assert (name, texts) == (MEDIAN_FILTER, [f"{value:.3f}" for value in usual])
    assert ("ex post", "coverage") in found["generation"].columns
    for one in found.values():
        assert {len(numbers) for _, numbers in one.rows} == {len(one.columns)}
        assert all(words for _, words in one.meanings)
    plain = replace(done.study, diagnostics=Requested())
    alone = diagnoses(plain, material.results, material.baselines)
    assert [one.group for one in alone] == ["code"]
    blank = material.results.summary.set_column(
        material.results.summary.schema.get_field_index("prior_distance_median"),
        "prior_distance_median",
        pa.nulls(3, pa.float64()),
    )
    (code,) = diagnoses(plain, Results(material.results.runs, blank), {})
    assert ("prior", "distance") not in code.columns


def test_the_page_has_them(reviewed: tuple[Finished, Trained], tmp_path: Path) -> None:
    done, material = reviewed
    write_report(done.study, done.dataset, tmp_path, material.results, material.baselines)
    page = (tmp_path / "report.html").read_text()
    assert 'href="#diagnostics"' in page
    assert "Of a hot pixel&#39;s excess" in page
    assert "On one ruler" in page
    assert "what the columns mean" in page
    assert "There is nothing to show: the weights of no scored run can be read." in page
