"""Scores against formulas written out, collapse at its limits, and the cheap baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from models.baselines import BASELINES
from models.datasets import Digits
from models.diagnostics import LEAST_SHARE, collapse
from models.priors import Bimodal, Mixture, Normal
from models.scores import METRICS, Scorer

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
DIGITS = Digits(classes=(1, 8)).load()


def scorer(labels: Labels, covariate: Floats | None = None, digest: str | None = None) -> Scorer:
    own = hashlib.sha256(labels.tobytes()).hexdigest()
    return Scorer(labels, digest or own, covariate)


def separated(count: int, seed: int, gap: float = 1.0) -> tuple[Labels, Floats]:
    """Return labels, a third of them positive, and a code whose classes lie `gap` apart."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(count, dtype=np.int64)
    labels[: count // 3] = 1
    generator.shuffle(labels)
    return labels, generator.normal(size=count) + gap * (labels - 0.5)


def auc(labels: Labels, code: Floats) -> float:
    """Count the pairs in order, ties half."""
    above = code[labels == 1][:, None] - code[labels == 0][None]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def average_precision(labels: Labels, code: Floats) -> float:
    """Average, over the positives, the share of positives among what ranks as high."""
    ranked = labels[np.argsort(-code)]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked == 1].mean())


def balanced_accuracy(labels: Labels, code: Floats) -> float:
    return float((np.mean(code[labels == 1] > 0) + np.mean(code[labels == 0] <= 0)) / 2)


def by_halves(one: Scorer, code: Floats, metric: Callable[[Labels, Floats], float]) -> float:
    """Orient each half by the other."""
    halves, labels = one._halves, one.labels
    assert labels is not None
    values = []
    for half in (0, 1):
        here, there = halves == half, halves != half
        sign = 1 if auc(labels[there], code[there]) > 0.5 else -1
        values.append(metric(labels[here], sign * code[here]))
    return sum(values) / 2


@pytest.mark.parametrize("gap", [1.0, -1.0, 0.05, -3.0])
def test_scores_are_their_formulas_by_hand(gap: float) -> None:
    labels, code = separated(151, seed=1, gap=gap)
    one = scorer(labels)
    expected = {
        "auc_oracle": max(auc(labels, code), auc(labels, -code)),
        "auc_split": by_halves(one, code, auc),
        "average_precision": by_halves(one, code, average_precision),
        "balanced_accuracy": by_halves(one, code - 0.2, balanced_accuracy),
    }
    scores = one.scores(code, 0.2)
    assert {metric: scores[metric] for metric in expected} == pytest.approx(expected, rel=1e-12)
    assert set(METRICS) == set(scores) == {*expected, "auc_covariate"}


def test_auc_counts_ties_as_half() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    code = np.array([0.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    assert scorer(labels).scores(code, None)["auc_oracle"] == pytest.approx(8 / 9)


def test_halves_are_stratified_and_drawn_by_the_label_digest() -> None:
    labels, _ = separated(151, seed=2)
    one = scorer(labels)
    for label in (0, 1):
        here = one._halves[labels == label]
        assert abs(np.sum(here == 0) - np.sum(here == 1)) <= 1
    assert np.array_equal(one._halves, scorer(labels)._halves)
    assert not np.array_equal(one._halves, scorer(labels, digest="f" * 64)._halves)


def test_auc_split_is_unbiased_under_chance_and_auc_oracle_is_not() -> None:
    """100 + 100 objects: the oracle's mean is 1/2 + sqrt(2 / pi) * sd(AUC) = .533."""
    labels = np.repeat([0, 1], 100)
    one, generator = scorer(labels), np.random.default_rng(5)
    scores = [one.scores(generator.normal(size=200), None) for _ in range(120)]
    for metric, expected in (("auc_split", 0.5), ("auc_oracle", 0.533)):
        values = np.array([row[metric] for row in scores], dtype=np.float64)
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 3 * error, metric
        assert error < 0.005  # so that the two expectations are told apart


def test_the_codes_sign_changes_no_score_that_orients_itself() -> None:
    labels, code = separated(200, seed=3, gap=0.3)
    plus, minus = (scorer(labels).scores(sign * code, 0.0) for sign in (1, -1))
    for metric in ("auc_oracle", "auc_split", "average_precision", "balanced_accuracy"):
        assert minus[metric] == pytest.approx(plus[metric], rel=1e-12)


def test_images_in_another_order_change_only_what_the_halves_change() -> None:
    """The oracle and the covariate's score see no order; the split moves within its noise."""
    labels, code = separated(300, seed=4)
    order = np.random.default_rng(0).permutation(300)
    covariate = code + labels
    before = scorer(labels, covariate).scores(code, 0.0)
    after = scorer(labels[order], covariate[order]).scores(code[order], 0.0)
    for metric in ("auc_oracle", "auc_covariate"):
        assert after[metric] == before[metric]
    for metric in ("auc_split", "average_precision", "balanced_accuracy"):
        # Halves of 50 + 100 with the same orientation: their mean is the whole's up to .02.
        assert after[metric] == pytest.approx(before[metric], abs=0.03)


@pytest.mark.parametrize(("sign", "expected"), [(1.0, "auc"), (-1.0, "one minus auc")])
def test_auc_covariate_takes_the_sign_of_the_correlation(sign: float, expected: str) -> None:
    """Whatever the labels say: a covariate that points the wrong way gives a score under 1/2."""
    labels, code = separated(200, seed=6)
    covariate = sign * (2 * code + 1)
    value = scorer(labels, covariate).scores(code, None)["auc_covariate"]
    right = auc(labels, code)
    assert value == pytest.approx(right if expected == "auc" else 1 - right)
    flipped = scorer(labels, covariate).scores(-code, None)["auc_covariate"]
    assert flipped == pytest.approx(value)


def test_auc_covariate_is_none_without_a_correlation() -> None:
    labels, code = separated(60, seed=7)
    constant = np.full(60, 3.0)
    assert scorer(labels).scores(code, None)["auc_covariate"] is None
    assert scorer(labels, constant).scores(code, None)["auc_covariate"] is None
    assert scorer(labels, code).scores(constant, None)["auc_covariate"] is None


@pytest.mark.parametrize("labels", [None, [0] * 30, [1] * 30, [0, 1, 2] * 10])
def test_labels_that_are_not_two_classes_give_no_score(labels: list[int] | None) -> None:
    one = Scorer(None if labels is None else np.array(labels), "0" * 64, np.arange(30.0))
    assert one.scores(np.arange(30.0), 0.0) == dict.fromkeys(METRICS, None)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1], [1, 1, 0]])
def test_a_class_of_one_image_has_no_score_by_halves(labels: list[int]) -> None:
    scores = scorer(np.array(labels)).scores(np.arange(float(len(labels))), 0.5)
    assert scores["auc_oracle"] == 1
    assert {scores[m] for m in METRICS[1:]} == {None}
    assert scorer(np.array([0, 0, 1, 1])).scores(np.arange(4.0), 1.5)["auc_split"] == 1


def test_balanced_accuracy_needs_a_midpoint() -> None:
    labels, code = separated(60, seed=8)
    assert scorer(labels).scores(code, None)["balanced_accuracy"] is None
    assert scorer(labels).scores(code, 0.0)["balanced_accuracy"] is not None


def test_identity_changes_with_label_digest_and_covariate_alone() -> None:
    labels, code = separated(60, seed=9)
    touched = code.copy()
    touched[5] = np.nextafter(touched[5], 2.0)
    scorers = [
        scorer(labels),
        scorer(labels, digest="f" * 64),
        scorer(labels, code),
        scorer(labels, touched),
    ]
    assert len({one.identity() for one in scorers}) == len(scorers)
    assert scorer(labels.copy(), code.copy()).identity() == scorers[2].identity()


def spread(variance: float) -> NDArray[np.float32]:
    """Return a code (100, 1) of mean 0 and this variance, half of it on either side."""
    return np.repeat([[-1.0], [1.0]], 50, axis=0).astype(np.float32) * np.float32(variance**0.5)


@pytest.mark.parametrize(("variance", "collapsed"), [(0.0, True), (0.0099, True), (0.0101, False)])
@pytest.mark.parametrize("prior", [None, Normal().mixture(), Bimodal().mixture()])
def test_a_code_is_active_above_a_variance_of_a_hundredth(
    variance: float, collapsed: bool, prior: Mixture | None
) -> None:
    reason = collapse(spread(variance), prior)
    assert (reason is not None) == collapsed
    if reason is not None:
        assert reason == f"no active unit: the code's largest variance is {variance:.2g}"


def test_one_active_unit_of_several_is_enough() -> None:
    """The sides of a prior are looked for in the first unit, which is the one that varies here."""
    still = spread(0.0)
    assert collapse(np.hstack([spread(1.0), still]), Bimodal().mixture()) is None
    assert collapse(np.hstack([still, still]), None) is not None


@pytest.mark.parametrize(("above", "collapsed"), [(4, True), (5, False), (95, False), (96, True)])
def test_one_side_of_a_two_peaked_prior_must_hold_a_twentieth(above: int, collapsed: bool) -> None:
    code = np.where(np.arange(100) < above, 1.0, -1.0).astype(np.float32)[:, None]
    reason = collapse(code, Bimodal().mixture())
    expected = "4.0% of the codes lie on the smaller side of a two-peaked prior"
    assert reason == (expected if collapsed else None)
    assert LEAST_SHARE == 0.05
    for one_peak in (None, Normal().mixture(), Bimodal(m=1.0, s=1.0).mixture()):
        assert collapse(code, one_peak) is None


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_gives_each_image_the_same_value_again_and_no_miracle(name: str) -> None:
    """1 against 8 is hard without labels: the cheap ones stay under .7, so 0.8 means something."""
    pixels = DIGITS.pixels.astype(np.float64)
    value, few = BASELINES[name](pixels), pixels[:80]
    assert value.shape == (len(pixels),)
    assert np.isfinite(value).all()
    assert np.array_equal(BASELINES[name](few), BASELINES[name](few.copy()))
    assert DIGITS.labels is not None
    score = scorer(DIGITS.labels).scores(value, 0.0)["auc_split"]
    assert score is not None
    assert 0.4 < score < 0.7
