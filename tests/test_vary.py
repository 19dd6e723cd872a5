"""`vary: [data, ...]`: every seed's own draw, its scores, baselines and pictures, and what is said.

What is compared is worked out here from the draws themselves, by their seeds.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from studies import tiny, write
from test_run import Silent
from tracked import shown

from models.datasets import Dataset, Ising
from models.datasets.split import training_rows
from sweeps import data, session, trial
from sweeps.baselines import baselines_by_seed, over_draws
from sweeps.draws import Draws
from sweeps.mistakes import Refused
from sweeps.plan import Run, packs_of
from sweeps.predict import kept_code, predict
from sweeps.results import gather, parts, read_codes, read_part, read_records, write_part
from sweeps.review import Review, review, write_page
from sweeps.run import Outcome, train_missing
from sweeps.study import load_study
from sweeps.sweep import Sweep, open_sweep
from sweeps.terminal import markdown_table, print_plan, print_table
from sweeps.vary import PARTS

SPINS: dict[str, Any] = {"name": "ising", "size": 8, "objects": 40, "seed": 3}
SEEDS, SPLIT = (0, 1, 2), 0.6
CELLS = [{"objective": "ae"}, {"objective": "vae", "prior": "bimodal"}]
SAID = "A seed redraws data, initialisation, batch order and noise."


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def raw(**changes: Any) -> dict[str, Any]:
    return tiny(**{"dataset": SPINS, "cells": CELLS, "vary": list(PARTS)} | changes)


def opened(folder: Path, content: dict[str, Any]) -> Sweep:
    folder.mkdir(parents=True, exist_ok=True)
    return open_sweep(*load_study(write(folder, content)), folder / "out")


def train(sweep: Sweep) -> Outcome:
    return train_missing(sweep, launcher="inline", width=None, display=lambda *_: Silent())


@dataclasses.dataclass(frozen=True)
class Ran:
    """A study whose seeds redraw the data, trained and reviewed, with its page."""

    sweep: Sweep
    done: Review
    page: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.done.results.runs.to_pylist())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    asked = {"denoising": {"images": 20}, "generation": {"images": 30}}
    content = raw(split=SPLIT, orient_by="m", diagnostics=asked)
    sweep = opened(tmp_path_factory.mktemp("varied"), content)
    assert train(sweep) == Outcome(trained=6, skipped=0, interrupted=False)
    done = review(sweep)
    assert done.rescored == 0, "workers score with the labels that a review scores with"
    return Ran(sweep, done, write_page(sweep, done).read_text())


def drawn(seed: int, **changes: Any) -> Dataset:
    return Ising(**{**SPINS, "seed": SPINS["seed"] + seed} | changes).load()


def held_out(dataset: Dataset) -> Any:
    return np.setdiff1d(np.arange(len(dataset.images)), training_rows(dataset, SPLIT))


def code_of(sweep: Sweep, row: dict[str, Any]) -> Any:
    return read_codes(sweep.folder, row["pack"])[row["run_id"]][:, 0]


def of_seed(runs: tuple[Run, ...], seed: int) -> set[str]:
    return {run.run_id for run in runs if run.seed == seed}


def test_every_seed_has_the_images_of_its_own_seed(ran: Ran) -> None:
    for seed in SEEDS:
        own = ran.sweep.draws.of(seed).dataset
        assert np.array_equal(own.images, drawn(seed).images)
    assert len({row["dataset_digest"] for row in ran.rows}) == len(SEEDS)
    for row in ran.rows:
        assert row["dataset_digest"] == drawn(row["seed"]).image_digest
        assert row["label_digest"] == drawn(row["seed"]).label_digest


def test_a_run_is_the_same_one_whether_or_not_others_redraw_their_data(tmp_path: Path) -> None:
    shared = opened(tmp_path, raw(vary=None))
    assert train(shared) == Outcome(6, 0, interrupted=False)
    varied = opened(tmp_path, raw())
    assert of_seed(varied.runs, 0) == of_seed(shared.runs, 0)
    assert not of_seed(varied.runs, 1) & of_seed(shared.runs, 1)
    assert train(varied) == Outcome(4, 2, interrupted=False)
    assert review(varied).rescored == 0, "what is outside the plan keeps its scores"
    assert train(varied) == Outcome(0, 6, interrupted=False)
    assert train(shared) == Outcome(0, 6, interrupted=False)
    alone = opened(tmp_path / "alone", raw(dataset={**SPINS, "seed": 5}, seeds=[2]))
    assert not of_seed(alone.runs, 2) & of_seed(varied.runs, 2), "seed 7's images"
    same = opened(tmp_path / "same", raw(dataset={**SPINS, "seed": 5}, seeds=[2], vary=None))
    assert same.runs[0].image_digest == varied.runs[2].image_digest
    assert of_seed(same.runs, 2) == of_seed(varied.runs, 2), "content, not how a study names it"


def test_scores_are_by_the_labels_of_the_seed_s_own_images(ran: Ran) -> None:
    others = 0
    for row in ran.rows:
        own, code = drawn(row["seed"]), code_of(ran.sweep, row)
        rows, wrong = held_out(own), drawn(0)
        assert own.labels is not None
        assert wrong.labels is not None
        area = roc_auc_score(own.labels[rows], code[rows])
        assert row["auc_oracle"] == pytest.approx(max(area, 1 - area), abs=1e-12)
        upright = np.corrcoef(code[rows], own.covariates["m"][rows])[0, 1] >= 0
        assert row["auc_covariate"] == pytest.approx(area if upright else 1 - area, abs=1e-12)
        area = roc_auc_score(wrong.labels[rows], code[rows])
        others += row["auc_oracle"] != pytest.approx(max(area, 1 - area), abs=1e-12)
    assert others == 4, "the labels of seed 0's images would be wrong for all other seeds"


def test_a_review_scores_and_measures_again_by_each_seed_s_own_data(ran: Ran) -> None:
    """After records were spoilt: scores, and numbers that need weights, images and labels."""
    folder = ran.sweep.folder
    before = read_records(folder)
    spoilt = {"auc_split": 0.5, "score_id": "old", "expost_class_gap": 9.0, "diagnostics_id": None}
    for path in parts(folder):
        write_part(folder, path.stem, [record | spoilt for record in read_part(path)])
    assert review(ran.sweep).rescored == 6
    assert read_records(folder) == before
    assert review(ran.sweep).rescored == 0


def test_baselines_are_of_each_draw_and_shown_as_their_mean(ran: Ran) -> None:
    by_seed = baselines_by_seed(ran.sweep)
    for seed in SEEDS:
        own = drawn(seed)
        rows = held_out(own)
        assert own.labels is not None
        area = roc_auc_score(own.labels[rows], own.pixels.sum(1, dtype=np.float64)[rows])
        found = by_seed[seed]["sum of pixels"]["auc_oracle"]
        assert found == pytest.approx(max(area, 1 - area), abs=1e-12)
    for name, scores in ran.done.baselines.items():
        values = [by_seed[seed][name].get("auc_oracle") for seed in SEEDS]
        if values != [None] * 3 and None not in values:
            assert scores["auc_oracle"] == pytest.approx(np.mean(values))  # type: ignore[arg-type]
            assert scores["auc_oracle_sd"] == pytest.approx(np.std(values, ddof=1))  # type: ignore[arg-type]
    shown_one = ran.done.baselines["sum of pixels"]
    mean, spread = shown_one["auc_split"], shown_one["auc_split_sd"]
    assert mean is not None
    assert spread is not None
    assert spread > 0
    table = markdown_table(ran.sweep.study, ran.done.results, ran.done.baselines)
    assert f"| *baseline: sum of pixels* |  | {mean:.3f} |  | {spread:.3f} |" in table
    assert f"<td>{mean:.4f} (sd {spread:.4f})</td>" in ran.page


def test_a_seed_beats_the_best_baseline_of_its_own_data(ran: Ran) -> None:
    by_seed = baselines_by_seed(ran.sweep)
    for row in ran.done.results.summary.to_pylist():
        own = [run for run in ran.rows if run["cell_id"] == row["cell_id"]]
        for metric in ("auc_split", "nmi", "balanced_accuracy"):
            known = [run for run in own if run[metric] is not None]
            above = [
                run[metric] > max(b[metric] for b in by_seed[run["seed"]].values() if metric in b)
                for run in known
            ]
            expected = statistics.mean(above) if above else None
            assert row[f"{metric}_beats_baseline_share"] == expected, metric
    easy: dict[int, Any] = {seed: {"x": {"auc_split": 1.0}} for seed in SEEDS}
    easy[1] = {"x": {"auc_split": 0.0}}
    records = read_records(ran.sweep.folder)
    arguments = (ran.sweep.study, ran.sweep.runs, records, over_draws(easy), {}, None)
    for row in gather(*arguments, easy).summary.to_pylist():
        assert row["auc_split_beats_baseline_share"] == pytest.approx(1 / 3)
    easy[1] = {"x": {"auc_split": None}}
    for row in gather(*arguments, easy).summary.to_pylist():
        assert row["auc_split_beats_baseline_share"] is None, "seed 1 is on neither side"


def test_no_mean_of_baselines_is_taken_over_holes() -> None:
    draws = {0: {"a": {"m": 1.0, "n": 1.0}}, 4: {"a": {"m": None, "n": 2.0}}}
    found = over_draws(draws)["a"]
    assert found == {"m": None, "m_sd": None, "n": 1.5, "n_sd": pytest.approx(0.5**0.5)}
    assert over_draws({4: draws[4]}) == draws[4]


def test_agreement_is_not_defined_and_the_report_says_what_was_redrawn(ran: Ran) -> None:
    assert all(row["agreement"] is None for row in ran.rows)
    console = Console(file=io.StringIO(), width=4000)
    print_table(ran.sweep.study, ran.done.results, ran.done.baselines, console=console)
    terminal = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    for said in (
        f"every run is trained on 0.6 of the images of its seed's draw and scored on the others. "
        f"{SAID}",
        "Each seed has a draw of the data of its own, the same in every cell; agreement is not "
        "defined: no two seeds of a cell have codes of the same images.",
        "Beats baseline: share of seeds above the best baseline of their own data; the baselines "
        "shown are means over the data of 3 seeds.",
    ):
        assert said in terminal
        assert said.replace("'", "&#39;") in ran.page
    assert "its runs mix" not in terminal
    assert "3 different ones, a seed each: dataset_digest in results.parquet" in ran.page


def table(ran: Ran, name: str) -> list[dict[str, str]]:
    with (ran.sweep.folder / "figures" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_pictures_show_the_images_of_the_seed_that_they_show(ran: Ran) -> None:
    found = [row for row in table(ran, "reconstructions") if row["cell"] == "original"]
    members = [row for row in table(ran, "reconstructions") if row["cell"] != "original"]
    assert {row["seed"] for row in found} == {row["seed"] for row in members}
    for row in found:
        image = drawn(int(row["seed"])).pixels[int(row["image"].removeprefix("image "))]
        assert [float(row[f"pixel_{n}"]) for n in range(64)] == pytest.approx(image.tolist())
    seeds = {row["note"] for row in table(ran, "denoising") if row["cell"] == "image"}
    assert seeds <= {f"of seed {seed}" for seed in SEEDS}
    assert ran.page.count("Images are those of the seed that is shown.") == 4
    assert "Each seed by the labels of its own images." in ran.page


def test_curves_and_densities_are_by_own_labels(ran: Ran) -> None:
    """A ROC curve's area is that of all images, by the trapezoids of its table."""
    for cell, seed in {(r["cell"], r["seed"]) for r in table(ran, "roc") if r["seed"].isdigit()}:
        curve = [r for r in table(ran, "roc") if (r["cell"], r["seed"]) == (cell, seed)]
        x, y = (np.array([float(row[n]) for row in curve]) for n in _RATES)
        (run,) = (r for r in ran.rows if (r["cell"], r["seed"]) == (cell, int(seed)))
        area = roc_auc_score(drawn(int(seed)).labels, code_of(ran.sweep, run))
        assert np.trapezoid(y, x) == pytest.approx(max(area, 1 - area), abs=0.02)
    for cell in {row["cell"] for row in table(ran, "codes")}:
        counted = [row for row in table(ran, "codes") if row["cell"] == cell and row["count"]]
        labels = drawn(int(counted[0]["seed"])).labels
        ordered = sum(int(row["count"]) for row in counted if row["series"] == "ordered")
        assert labels is not None
        assert ordered == labels.sum()


_RATES = ("false_positive_rate", "true_positive_rate")


def test_physics_is_by_the_covariates_of_own_images(ran: Ran) -> None:
    for row in ran.rows:
        own = drawn(row["seed"])
        rows, code = held_out(own), code_of(ran.sweep, row)
        expected = spearmanr(code[rows], own.covariates["energy"][rows]).statistic
        assert row["spearman_energy"] == pytest.approx(abs(expected), abs=1e-9)


def test_packs_have_one_member_and_the_plan_says_so(tmp_path: Path) -> None:
    sweep = opened(tmp_path, raw())
    packs = packs_of(sweep.missing({}), 1, 8)
    assert [(pack.cell.label, len(pack.runs), pack.runs[0].seed) for pack in packs] == [
        (label, 1, seed) for seed in SEEDS for label in ("ae", "vae bimodal kl")
    ]
    content = session.planned(sweep)
    assert (content["packs"], content["vary"]) == (6, list(PARTS))
    console = Console(file=io.StringIO(), width=100)
    print_plan(sweep.study, content, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a seed redraws  data, initialisation, batch order and noise\n" in said
    assert "6 in 6 packs of one member each, " in said
    with pytest.raises(Refused) as refused:
        session.run(sweep, launcher="inline", width=4, console=console)
    assert refused.value.mistakes == [
        "--pack-width: tiny draws the data of every seed anew, so a pack has one member; "
        "expected 1, got 4"
    ]


def test_drawing_is_announced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "empty"))
    path = write(tmp_path, raw(dataset={**SPINS, "seed": 70}))  # that no other test draws
    for expected in ("tiny: drawing the data of 2 seeds, once\n", ""):
        session.open_study(str(path), None, tmp_path / "out")
        assert capfd.readouterr() == ("", expected)


def test_a_study_folder_keeps_what_varies(ran: Ran, tmp_path: Path) -> None:
    resolved = ran.sweep.study.resolved()
    assert resolved["vary"] == list(PARTS)
    study, _ = load_study(write(tmp_path, resolved))
    assert study == ran.sweep.study
    usual, _ = load_study(write(tmp_path, raw(vary=None)))
    assert usual.resolved()["vary"] == ["init", "order", "noise"]
    turned, _ = load_study(write(tmp_path, raw(vary=["noise", "data", "order", "init"])))
    assert turned.vary == PARTS


def test_a_description_of_the_study_s_data_says_that_seeds_redraw_it(tmp_path: Path) -> None:
    path = str(write(tmp_path, raw()))
    assert data.redrawn(path) == SAID
    assert data.redrawn("ising") is None
    console = Console(file=io.StringIO(), width=100)
    data.print_description(data.describe(data.open_data(path)) | {"redraws": SAID}, console)
    assert SAID in console.file.getvalue()  # type: ignore[attr-defined]


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "data that stays": (
        {"dataset": "digits"},
        [
            "vary: data needs a simulated dataset, which each seed can draw anew: ising or "
            "stargalaxy; digits stays the same; remove data"
        ],
    ),
    "agreement": (
        {"metric": "agreement"},
        [
            "metric: agreement compares codes of the same images, and with vary: data every seed "
            "has its own; choose another metric, or remove data from vary"
        ],
    ),
    "text": (
        {"vary": "data"},
        ["vary: expected a list such as [data, init, order, noise], got 'data' (text)"],
    ),
    "data alone": (
        {"vary": ["data"]},
        [
            "vary: init, order and noise are missing: a seed always redraws init, order and noise; "
            "add them"
        ],
    ),
    "one missing": (
        {"vary": ["init", "noise"]},
        ["vary: order is missing: a seed always redraws init, order and noise; add it"],
    ),
    "unknown": (
        {"vary": ["init", "ordr", "noise"]},
        ["vary: unknown word 'ordr'; did you mean 'order'? known: data, init, noise, order"],
    ),
    "no word": ({"vary": [3]}, ["vary: got 3; known: data, init, order, noise"]),
    "twice": ({"vary": [*PARTS, "init"]}, ["vary: 'init' is listed twice"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_cannot_vary_is_refused(tmp_path: Path, case: str) -> None:
    changes, expected = MISTAKES[case]
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, raw(**changes)))
    assert refused.value.mistakes == [f"x.yaml: {sentence}" for sentence in expected]


DRAWS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the last seed": (
        {"dataset": {**SPINS, "seed": 2**32 - 2}},
        "dataset.seed: what seed 2 draws: expected at most 4294967295 with the seed of a training "
        "added, got 4294967294 + 2",
    ),
    "a class that is not scored": (
        {"split": 0.88, "seeds": 8, "dataset": {**SPINS, "seed": 0}},
        "dataset.objects: what seed 3 draws: the part that is scored lacks a class: 5 of 40 "
        "images; take more",
    ),
}


@pytest.mark.parametrize("case", DRAWS)
def test_a_draw_that_cannot_be_used_is_refused_with_its_seed(tmp_path: Path, case: str) -> None:
    changes, expected = DRAWS[case]
    with pytest.raises(Refused) as refused:
        opened(tmp_path, raw(**changes))
    assert refused.value.mistakes == [f"tiny: {expected}"]


def test_members_of_other_images_are_not_joined_and_each_takes_its_own_standard(
    tmp_path: Path,
) -> None:
    """A seed's raw images, standardised as they were, get the codes that were kept of them."""
    settings = {**SPINS, "preprocess": ["standardise"]}
    sweep = opened(tmp_path, raw(dataset=settings, cells=CELLS[:1]))
    train(sweep)
    images = drawn(2).images  # as they were before any step
    with pytest.raises(Refused) as refused:
        predict(sweep, images)
    assert refused.value.mistakes == [
        "the seeds of 'ae' cannot be joined: each was trained on a draw of the data of its own, so "
        "no codes of the same images align them; choose one with --seed"
    ]
    found = np.array(predict(sweep, images, seed=2).table["score"].to_pylist())
    assert found == pytest.approx(kept_code(sweep, None, 2)[:, 0], abs=1e-5)
    other = np.array(predict(sweep, images, seed=1).table["score"].to_pylist())
    assert np.abs(other - kept_code(sweep, None, 1)[:, 0]).max() > 1e-2


def test_a_worker_that_draws_other_images_fails_with_a_reason(tmp_path: Path) -> None:
    sweep = opened(tmp_path, raw())
    pack = packs_of(sweep.missing({}), 1)[2]
    recipe = sweep.draws.recipe(1)
    assert recipe is not None
    assert sweep.draws.recipe(0) is None, "the study's own, which all packs read"
    wrong = dataclasses.replace(recipe, image_digest="0" * 64)
    job = trial.Job.of(pack, sweep.folder, None, 15.0, sweep.study.diagnostics, wrong)
    (record,) = trial.run_pack(job, trial.Data.of(sweep.draws.own))
    assert (record["seed"], record["status"], record["dataset_digest"]) == (1, "failed", "0" * 64)
    assert record["error"] == (
        "RuntimeError: dataset ising, seed 4: this machine draws other images than the one that "
        "planned the runs; let all nodes have the same versions, or share the folder of "
        "SEEDSWEEP_CACHE"
    )
    right = dataclasses.replace(job, recipe=recipe)
    (record,) = trial.run_pack(right, trial.Data.of(sweep.draws.own))
    assert record["status"] in ("ok", "collapsed")


def test_no_more_than_one_draw_is_held_beside_the_study_s_own(ran: Ran) -> None:
    draws = Draws(ran.sweep.study, ran.sweep.dataset)
    first = draws.of(1)
    assert draws.of(1) is first
    assert draws.of(2) is not first
    assert draws.of(1) is not first, "it was let go"
    assert draws.of(0).dataset is ran.sweep.dataset


def test_mlflow_shows_each_seed_s_own_data(ran: Ran, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        assert session.show(ran.sweep, ran.done).state == "written"
        first = {run.info.run_id for run in shown(uri, "tiny")}
        assert session.show(ran.sweep, ran.done).state == "written"
    runs = shown(uri, "tiny")
    assert {run.info.run_id for run in runs} == first, "no run had to go for its input"
    for run in runs:
        (given,) = run.inputs.dataset_inputs
        level = run.data.tags["seedsweep.level"]
        seed = int(run.data.params["seed"]) if level == "seed" else 0
        assert given.dataset.digest == drawn(seed).image_digest[:36]
        assert f'"seed": {SPINS["seed"] + seed}' in given.dataset.source
        assert (run.data.tags.get("vary") == SAID) is (level == "study")
