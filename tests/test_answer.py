"""The answer's sentence, for each verdict, on small tables whose truth is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import tiny, write

from models.datasets import Dataset
from sweeps import plan, results
from sweeps.answer import Answer, answer
from sweeps.comparison import compare, holm, seeds_to_settle
from sweeps.report import as_json
from sweeps.results import Results
from sweeps.study import Study, load_study

BASELINES = {"k-means": {"auc_split": 0.61}, "odd one": {"auc_split": None}}
Values = Mapping[str, Sequence[Any]]  # a score, ("collapsed", score), a status, None: no record


@functools.cache
def loaded(folder: Path, cells: int) -> tuple[Study, Dataset]:
    rates = [round(0.001 * (place + 1), 3) for place in range(cells)]
    study = tiny(cells=[{"objective": "ae", "training": {"learning_rate": rates}}])
    return load_study(write(folder, study))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


def tables(folder: Path, values: Values, baselines: Any) -> tuple[Study, Results]:
    """Return a study of cells with these labels, and its tables as `gather` makes them."""
    study, dataset = loaded(folder, len(values))
    cells = tuple(replace(c, label=label) for c, label in zip(study.cells, values, strict=True))
    count = max(map(len, values.values()))
    study = replace(study, cells=cells, seeds=tuple(range(count)))
    records = {}
    for run in plan.all_runs(study, dataset):
        given = values[run.cell.label]
        found = given[run.seed] if run.seed < len(given) else None
        if found is None:
            continue
        status, score = found if isinstance(found, tuple) else ("ok", found)
        if isinstance(found, str):
            status, score = found, None
        records[run.run_id] = {
            **dict.fromkeys(results.RECORD.names),
            "run_id": run.run_id,
            "cell_id": run.cell_id,
            "seed": run.seed,
            "status": status,
            "auc_split": score,
            "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    runs = plan.all_runs(study, dataset)
    return study, results.gather(study, runs, records, baselines, {})


def told(folder: Path, values: Values, baselines: Any = BASELINES) -> Answer:
    study, found = tables(folder, values, baselines)
    return answer(study, found, baselines)


def spread(mean: float, sd: float, n: int, seed: int) -> list[float]:
    """Return n values with exactly this mean and sd."""
    values = np.random.default_rng(seed).normal(size=n)
    exact = (values - values.mean()) / values.std(ddof=1)
    return [float(value) for value in mean + sd * exact]


def test_a_clear_winner(place: Path) -> None:
    best = spread(0.9, 0.01, 12, 0)
    found = told(place, {"low": spread(0.7, 0.01, 12, 1), "a": best, "b": spread(0.8, 0.01, 12, 2)})
    assert found.verdict == "winner"
    one = compare(dict(enumerate(best)), dict(enumerate(spread(0.8, 0.01, 12, 2))))
    assert found.sentence == (
        "Best is a: its mean auc_split of 0.900 is 0.100 above the next, b (95 % interval "
        f"{one.ci_low:.3f} to {one.ci_high:.3f}, 12 pairs of seeds, Holm p < 0.001), and above the "
        "best baseline, k-means (0.610)."
    )


def test_without_baselines_nothing_is_said_of_them(place: Path) -> None:
    values = {"a": spread(0.9, 0.01, 7, 0), "b": spread(0.8, 0.01, 7, 1)}
    found = told(place, values, {})
    assert found.verdict == "winner"
    assert found.sentence.endswith("7 pairs of seeds, Holm p 0.016).")  # 2 / 2^7


def test_a_tie_that_more_seeds_would_settle(place: Path) -> None:
    a = spread(0.80, 0.03, 12, 0)
    gaps = spread(0.010, 0.02, 12, 1)
    found = told(place, {"a": a, "b": [x - gap for x, gap in zip(a, gaps, strict=True)]})
    assert found.verdict == "tie"
    more = seeds_to_settle(0.010, 0.02, 12)
    assert more == 22
    row = found.comparisons[0]
    assert found.sentence == (
        "No single best: a (0.800) and b (0.790) cannot be told apart by mean auc_split (12 pairs "
        f"of seeds: difference 0.010, 95 % interval {row['ci_low']:.3f} to {row['ci_high']:.3f}); "
        "about 22 more seeds would settle it."
    )


def test_a_tie_that_no_seeds_will_settle(place: Path) -> None:
    found = told(place, {"a": spread(0.80, 0.03, 12, 0), "b": spread(0.7999, 0.03, 12, 1)})
    assert found.verdict == "tie"
    assert found.sentence.endswith("); more seeds will hardly settle it.")


def test_a_tie_of_many_names_two_and_counts_the_others(place: Path) -> None:
    values = {name: spread(0.8 - k / 500, 0.05, 12, k) for k, name in enumerate("abcdef")}
    found = told(place, {**values, "z": spread(0.5, 0.01, 12, 9)})
    assert found.verdict == "tie"
    assert found.sentence.startswith(
        "No single best: a (0.800) cannot be told by mean auc_split from b (0.798), c (0.796) and "
        "3 others (12 pairs of seeds); "
    )


def test_a_best_cell_that_a_baseline_reaches_is_no_winner(place: Path) -> None:
    values = {"a": spread(0.9, 0.05, 12, 0), "b": spread(0.6, 0.05, 12, 1)}
    found = told(place, values, {"PCA": {"auc_split": 0.88}})
    assert found.verdict == "tie"
    more = seeds_to_settle(0.02, 0.05, 12)
    start, _, end = found.sentence.partition(", but ")
    assert start.startswith("Best among the cells is a: its mean auc_split of 0.900 is 0.300 above")
    level = "it cannot be told from the baseline PCA (0.880)"
    assert end == f"{level}; about {more} more seeds would settle it."
    # Its mean lies below the baseline, its interval around it: no seeds would show it above.
    found = told(place, values, {"PCA": {"auc_split": 0.91}})
    assert found.verdict == "tie"
    assert found.sentence.endswith("PCA (0.910); more seeds will hardly settle it.")


def test_a_tie_says_that_a_baseline_is_near(place: Path) -> None:
    values = {"a": spread(0.80, 0.03, 12, 0), "b": spread(0.7999, 0.03, 12, 1)}
    found = told(place, values, {"PCA": {"auc_split": 0.79}})
    assert "; nor is it clearly above the baseline PCA (0.790)); more seeds" in found.sentence


def test_too_few_seeds(place: Path) -> None:
    found = told(place, {"a": [0.9, 0.91, 0.92], "b": [0.1, 0.11, 0.12]}, {})
    assert found.verdict == "too few seeds"
    assert found.sentence == (
        "Too few seeds to tell: a has the highest mean auc_split (0.910), but only 3 pairs of "
        "seeds with b (0.110); evidence needs at least 6."
    )
    assert (found.comparisons[0]["p"], found.comparisons[0]["p_holm"]) == (None, None)


def test_six_pairs_are_too_few_for_nine_comparisons(place: Path) -> None:
    values = {name: spread(0.9 - k / 20, 0.001, 6, k) for k, name in enumerate("abcdefghij")}
    found = told(place, values, {})
    assert found.verdict == "too few seeds"
    assert found.sentence.endswith("evidence needs at least 9 for 9 comparisons.")
    enough = {name: spread(0.9 - k / 20, 0.001, 9, k) for k, name in enumerate("abcdefghij")}
    assert told(place, enough, {}).verdict == "winner"


def test_only_seeds_that_both_cells_scored_are_pairs(place: Path) -> None:
    a, b = spread(0.9, 0.01, 12, 0), spread(0.8, 0.01, 12, 1)
    found = told(place, {"a": ["diverged", "failed", *a[2:]], "b": [*b[:11], None]})
    assert found.verdict == "winner"
    assert "9 pairs of seeds" in found.sentence
    assert found.comparisons[0]["n"] == 9
    apart = told(place, {"a": [*a, *["failed"] * 12], "b": [*["failed"] * 12, *b]})
    assert apart.verdict == "too few seeds"
    assert "but only 0 pairs of seeds with b (0.800)" in apart.sentence


def test_a_best_mean_that_is_behind_on_common_seeds_is_no_winner(place: Path) -> None:
    """a lost its hard seeds, and is worse on each that both have."""
    b = [0.2] * 12 + [float(x) for x in np.linspace(0.80, 0.85, 12)]
    a = ["diverged"] * 12 + [value - 0.05 for value in b[12:]]
    found = told(place, {"a": a, "b": b}, {})
    assert found.verdict == "tie"
    assert "on the seeds that both have, b is ahead); more seeds will hardly" in found.sentence


def test_equal_means_are_a_tie(place: Path) -> None:
    values = spread(0.8, 0.02, 12, 0)
    found = told(place, {"a": values, "b": values}, {})
    assert found.verdict == "tie"
    assert found.sentence == (
        "No single best: a (0.800) and b (0.800) cannot be told apart by mean auc_split (12 pairs "
        "of seeds: difference 0.000, 95 % interval 0.000 to 0.000); more seeds will hardly settle "
        "it."
    )


def test_all_collapsed(place: Path) -> None:
    flat = [("collapsed", 0.5), ("collapsed", 0.51), "diverged"]
    found = told(place, {"a": flat, "b": flat})
    assert found.verdict == "all collapsed"
    assert found.sentence == "All 4 scored runs collapsed, so there is nothing to compare."
    assert found.comparisons == ()
    one = told(place, {"a": [("collapsed", 0.5)]})
    assert one.sentence == "The only scored run collapsed, so there is nothing to compare."


def test_nothing_scored(place: Path) -> None:
    found = told(place, {"a": ["diverged", None, None], "b": ["failed", None, None]})
    sentence = "Nothing is scored: not one of 6 runs has a value of auc_split."
    assert found == Answer("nothing scored", sentence)
    study, made = tables(place, {"a": [0.5, 0.6]}, {})
    found = answer(replace(study, metric="auc_covariate"), made, {})
    assert found == Answer(
        "nothing scored", "Nothing is scored: not one of 2 runs has a value of auc_covariate."
    )


def test_baselines_win(place: Path) -> None:
    values = {"a": spread(0.9, 0.01, 5, 0), "b": spread(0.8, 0.01, 5, 1)}
    found = told(place, values, {"PCA": {"auc_split": 0.95}, "k-means": {"auc_split": 0.5}})
    assert found.verdict == "baselines win"
    assert found.sentence == (
        "No cell beats the baseline PCA (0.950): the best, a, has a mean auc_split of 0.900 "
        "(95 % interval 0.888–0.912, 5 seeds)."
    )
    assert len(found.comparisons) == 1


def test_one_cell(place: Path) -> None:
    values = spread(0.8, 0.01, 5, 0)
    found = told(place, {"a": values})
    assert found.verdict == "one cell"
    assert found.sentence == (
        "a has a mean auc_split of 0.800 (95 % interval 0.788–0.812, 5 seeds); its worst seed has "
        f"{min(values):.3f}, and it is above the best baseline, k-means (0.610)."
    )
    near = told(place, {"a": values}, {"PCA": {"auc_split": 0.795}})
    assert near.sentence.endswith(", and it cannot be told from the best baseline, PCA (0.795).")
    lone = told(place, {"a": [0.8]}, {})
    assert lone.sentence == (
        "a has a single seed, with auc_split 0.800; that says nothing of other seeds."
    )
    assert lone.comparisons == ()


def test_one_cell_that_has_scores(place: Path) -> None:
    found = told(place, {"a": ["failed", "diverged"], "b": [0.7, 0.8]}, {})
    assert found.verdict == "one cell"
    assert found.sentence.startswith("Only b has scores: a mean auc_split of 0.750 (")


def test_the_steadier_cell_is_named_with_its_evidence(place: Path) -> None:
    values = {"a": spread(0.9, 0.05, 12, 0), "b": spread(0.7, 0.002, 12, 1)}
    found = told(place, values)
    assert found.verdict == "winner"
    assert " Steadier is b (sd 0.002 against 0.050, Brown-Forsythe Holm p " in found.sentence
    assert found.sentence.endswith("), at a mean of 0.700.")
    # A code that collapsed in every seed is steady, and nothing to be glad of.
    flat = [("collapsed", score) for score in values["b"]]
    assert "Steadier" not in told(place, {"a": values["a"], "b": flat}).sentence
    # Some difference of spreads is chance.
    near = {"a": spread(0.9, 0.05, 12, 0), "b": spread(0.7, 0.045, 12, 1)}
    assert "Steadier" not in told(place, near).sentence


def test_comparisons_are_the_best_against_each_other(place: Path) -> None:
    values = {name: spread(0.9 - k / 50, 0.02, 12, k) for k, name in enumerate("abcd")}
    found = told(place, values)
    assert [(row["best"], row["other"]) for row in found.comparisons] == [
        *(("a", "b"), ("a", "c"), ("a", "d"))
    ]
    for row in found.comparisons:
        one = compare(dict(enumerate(values["a"])), dict(enumerate(values[row["other"]])))
        for name in ("n", "difference", "ci_low", "ci_high", "p", "ln_ratio", "p_spread"):
            assert row[name] == getattr(one, name), name
        assert (row["greater"], row["greater_low"]) == (one.greater, one.greater_low)
    for name in ("p", "p_spread"):
        corrected = [row[f"{name}_holm"] for row in found.comparisons]
        assert corrected == holm([row[name] for row in found.comparisons])


def test_the_json_holds_the_answer(place: Path) -> None:
    study, made = tables(place, {"a": [0.5, 0.6], "b": [0.6, 0.5]}, {})
    told_ = answer(study, made, {})
    found = json.loads(json.dumps(as_json(study, made, {}), allow_nan=False))["answer"]
    assert found["verdict"] == told_.verdict == "too few seeds"
    assert found["sentence"] == told_.sentence
    assert found["comparisons"] == list(told_.comparisons)
