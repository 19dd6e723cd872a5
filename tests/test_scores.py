"""Scores against formulas written out, collapse at its limits, and the cheap baselines."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.clusters import Evidence
from models.diagnostics.collapse import LEAST_SHARE, collapse
from models.distributions import Mixture
from models.priors import Bimodal, Normal, PeakMixture
from models.scores import METRICS, OF_TWO_CLASSES, Scorer, _halves, match

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def scorer(labels: Labels, covariate: Floats | None = None, digest: str | None = None) -> Scorer:
    own = hashlib.sha256(labels.tobytes()).hexdigest()
    return Scorer(labels, digest or own, covariate)


def said(code: Floats, threshold: float | None = None) -> Evidence:
    """Return what a code of one unit says of two classes, without clusters."""
    return Evidence(code, threshold, None)


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
    labels = one.labels
    assert labels is not None
    halves = _halves(labels, one.label_digest)
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
    scores = one.scores(said(code, 0.2))
    assert {metric: scores[metric] for metric in expected} == pytest.approx(expected, rel=1e-12)
    assert set(METRICS) == set(scores)
    assert set(OF_TWO_CLASSES) == {*expected, "auc_covariate"}
    assert {scores[metric] for metric in METRICS[5:]} == {None}


def test_auc_counts_ties_as_half() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    code = np.array([0.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    assert scorer(labels).scores(said(code, None))["auc_oracle"] == pytest.approx(8 / 9)


def test_halves_are_stratified_and_drawn_by_the_label_digest() -> None:
    labels, _ = separated(151, seed=2)
    halves = _halves(labels, "0" * 64)
    for label in (0, 1):
        here = halves[labels == label]
        assert abs(np.sum(here == 0) - np.sum(here == 1)) <= 1
    assert np.array_equal(halves, _halves(labels.copy(), "0" * 64))
    assert not np.array_equal(halves, _halves(labels, "f" * 64))


def test_auc_split_is_unbiased_under_chance_and_auc_oracle_is_not() -> None:
    """100 + 100 objects: the oracle's mean is 1/2 + sqrt(2 / pi) * sd(AUC) = .533."""
    labels = np.repeat([0, 1], 100)
    one, generator = scorer(labels), np.random.default_rng(5)
    scores = [one.scores(said(generator.normal(size=200), None)) for _ in range(120)]
    for metric, expected in (("auc_split", 0.5), ("auc_oracle", 0.533)):
        values = np.array([row[metric] for row in scores], dtype=np.float64)
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 3 * error, metric
        assert error < 0.005  # so that the two expectations are told apart


def test_the_codes_sign_changes_no_score_that_orients_itself() -> None:
    labels, code = separated(200, seed=3, gap=0.3)
    plus, minus = (scorer(labels).scores(said(sign * code, 0.0)) for sign in (1, -1))
    for metric in ("auc_oracle", "auc_split", "average_precision", "balanced_accuracy"):
        assert minus[metric] == pytest.approx(plus[metric], rel=1e-12)


def test_images_in_another_order_change_only_what_the_halves_change() -> None:
    """The oracle and the covariate's score see no order; the split moves within its noise."""
    labels, code = separated(300, seed=4)
    order = np.random.default_rng(0).permutation(300)
    covariate = code + labels
    before = scorer(labels, covariate).scores(said(code, 0.0))
    after = scorer(labels[order], covariate[order]).scores(said(code[order], 0.0))
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
    value = scorer(labels, covariate).scores(said(code, None))["auc_covariate"]
    right = auc(labels, code)
    assert value == pytest.approx(right if expected == "auc" else 1 - right)
    flipped = scorer(labels, covariate).scores(said(-code, None))["auc_covariate"]
    assert flipped == pytest.approx(value)


def test_auc_covariate_is_none_without_a_correlation() -> None:
    labels, code = separated(60, seed=7)
    constant = np.full(60, 3.0)
    assert scorer(labels).scores(said(code, None))["auc_covariate"] is None
    assert scorer(labels, constant).scores(said(code, None))["auc_covariate"] is None
    assert scorer(labels, code).scores(said(constant, None))["auc_covariate"] is None


@pytest.mark.parametrize("labels", [None, [0] * 30, [1] * 30])
def test_labels_that_are_not_two_classes_give_no_score(labels: list[int] | None) -> None:
    one = Scorer(None if labels is None else np.array(labels), "0" * 64, np.arange(30.0))
    assert one.scores(said(np.arange(30.0), 0.0)) == dict.fromkeys(METRICS, None)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1], [1, 1, 0]])
def test_a_class_of_one_image_has_no_score_by_halves(labels: list[int]) -> None:
    scores = scorer(np.array(labels)).scores(said(np.arange(float(len(labels))), 0.5))
    assert scores["auc_oracle"] == 1
    assert {scores[m] for m in METRICS[1:]} == {None}
    assert scorer(np.array([0, 0, 1, 1])).scores(said(np.arange(4.0), 1.5))["auc_split"] == 1


def test_balanced_accuracy_needs_a_midpoint() -> None:
    labels, code = separated(60, seed=8)
    assert scorer(labels).scores(said(code, None))["balanced_accuracy"] is None
    assert scorer(labels).scores(said(code, 0.0))["balanced_accuracy"] is not None


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
@pytest.mark.parametrize("prior", [None, Normal().distribution(), Bimodal().distribution()])
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
    assert collapse(np.hstack([spread(1.0), still]), Bimodal().distribution()) is None
    assert collapse(np.hstack([still, still]), None) is not None


@pytest.mark.parametrize(("above", "collapsed"), [(4, True), (5, False), (95, False), (96, True)])
def test_one_side_of_a_two_peaked_prior_must_hold_a_twentieth(above: int, collapsed: bool) -> None:
    code = np.where(np.arange(100) < above, 1.0, -1.0).astype(np.float32)[:, None]
    reason = collapse(code, Bimodal().distribution())
    expected = "4.0% of the codes lie on the smaller side of a two-peaked prior"
    assert reason == (expected if collapsed else None)
    assert LEAST_SHARE == 0.1  # of a half
    for one_peak in (None, Normal().distribution(), Bimodal(m=1.0, s=1.0).distribution()):
        assert collapse(code, one_peak) is None


THREE = PeakMixture(means=(-2.0, 0.0, 2.0), weights=(1.0, 2.0, 7.0)).distribution()


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((11, 21, 968), None),
        ((9, 20, 971), "0.9% of the codes lie on peak 1 of the prior's 3, whose share is 10.0%"),
        ((20, 19, 961), "1.9% of the codes lie on peak 2 of the prior's 3, whose share is 20.0%"),
        ((400, 531, 69), "6.9% of the codes lie on peak 3 of the prior's 3, whose share is 70.0%"),
        ((400, 530, 70), None),
    ],
)
def test_a_peak_must_hold_a_tenth_of_its_share(
    counts: tuple[int, int, int], sentence: str | None
) -> None:
    code = np.repeat([-2.0, 0.0, 2.0], counts).astype(np.float32)[:, None]
    assert collapse(code, THREE) == sentence


def test_uneven_weights_of_two_peaks_have_their_own_limits() -> None:
    """A peak of a tenth may hold a hundredth; its partner needs nine."""
    prior = PeakMixture(means=(-1.0, 1.0), weights=(1.0, 9.0)).distribution()
    for right, collapsed in ((995, True), (989, False), (91, False), (89, True)):
        code = np.where(np.arange(1000) < right, 1.0, -1.0).astype(np.float32)[:, None]
        assert (collapse(code, prior) is not None) == collapsed, right


def test_peaks_that_overlap_are_not_missed() -> None:
    """The light peak has nowhere the highest posterior, whatever the codes."""
    prior = PeakMixture(means=(-1.0, 1.0, 1.05), weights=(0.45, 0.45, 0.1)).distribution()
    assert (prior.modes, prior.peaks) == (2, 3)
    drawn = prior.sample((2_000,), torch.Generator().manual_seed(0))
    assert collapse(drawn.numpy(), prior) is None


def clustered(count: int, classes: int, clusters: int, seed: int) -> tuple[Labels, Floats]:
    """Return labels and memberships (N, K) that know something of them."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, count - classes)])
    memberships = generator.normal(size=(count, clusters))
    memberships[np.arange(count), (labels * 2 + 1) % clusters] += 1
    return labels, memberships


def best_pairing(labels: Labels, clusters: Labels, classes: int, count: int) -> float:
    """Try every way to give each class a cluster of its own, or none."""
    nobody = list(range(count, count + max(0, classes - count)))
    ways = itertools.permutations([*range(count), *nobody], classes)
    return max(float(np.mean(clusters == np.array(way)[labels])) for way in ways)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("classes", "count"), [(2, 2), (3, 3), (4, 4), (2, 4), (3, 5), (4, 3)])
def test_accuracy_is_that_of_the_best_pairing(classes: int, count: int, seed: int) -> None:
    """Also with more clusters than classes, and with fewer."""
    labels, memberships = clustered(80, classes, count, seed)
    clusters = memberships.argmax(1)
    scores = scorer(labels).scores(Evidence(None, None, memberships))
    assert scores["accuracy"] == best_pairing(labels, clusters, classes, count)
    named = match(labels, clusters, classes, count)
    assert len(set(named.values())) == len(named) == min(classes, count)


def entropy(*values: Labels) -> float:
    _, counts = np.unique(np.stack(values), axis=1, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize(("classes", "count"), [(2, 2), (3, 5), (4, 3)])
def test_ari_and_nmi_are_their_formulas_by_hand(classes: int, count: int) -> None:
    """Hubert and Arabie 1985, by all pairs of images; mutual information over the mean entropy."""
    labels, memberships = clustered(90, classes, count, 7)
    clusters = memberships.argmax(1)
    pairs = list(itertools.combinations(range(len(labels)), 2))
    same = np.array([[labels[i] == labels[j], clusters[i] == clusters[j]] for i, j in pairs])
    both, (a, b), total = float(same.all(1).sum()), same.sum(0), len(pairs)
    chance = a * b / total
    ari = (both - chance) / ((a + b) / 2 - chance)
    information = entropy(labels) + entropy(clusters) - entropy(labels, clusters)
    nmi = information / ((entropy(labels) + entropy(clusters)) / 2)
    scores = scorer(labels).scores(Evidence(None, None, memberships))
    assert scores["ari"] == pytest.approx(ari, rel=1e-12)
    assert scores["nmi"] == pytest.approx(nmi, rel=1e-12)


def test_auc_matched_counts_pairs_of_each_class_against_the_others() -> None:
    """A class without a cluster counts as chance."""
    for classes, count in ((2, 2), (3, 3), (4, 3)):
        labels, memberships = clustered(90, classes, count, 11)
        named = match(labels, memberships.argmax(1), classes, count)
        values = [
            auc((labels == label).astype(np.int64), memberships[:, named[label]])
            if label in named
            else 0.5
            for label in range(classes)
        ]
        scores = scorer(labels).scores(Evidence(None, None, memberships))
        assert scores["auc_matched"] == pytest.approx(np.mean(values), rel=1e-12)
        assert {scores[metric] for metric in OF_TWO_CLASSES} == {None}


def test_the_names_of_clusters_and_classes_change_no_score() -> None:
    labels, memberships = clustered(90, 3, 4, 5)
    before = scorer(labels).scores(Evidence(None, None, memberships))
    renamed = np.array([2, 0, 1])[labels]
    after = scorer(renamed).scores(Evidence(None, None, memberships[:, [3, 1, 0, 2]]))
    for metric in METRICS[5:]:
        assert after[metric] == pytest.approx(before[metric], rel=1e-12)


def test_only_held_out_rows_are_scored() -> None:
    """What lies elsewhere, labels or codes, changes nothing but the digest's halves."""
    labels, memberships = clustered(90, 2, 2, 3)
    order, rows = memberships[:, 1] - memberships[:, 0], np.arange(0, 90, 3)
    whole = Evidence(order, 0.0, memberships)
    own = Evidence(order[rows], 0.0, memberships[rows])
    scored = Scorer(labels, "0" * 64, order + labels, rows).scores(whole)
    assert scored == Scorer(labels[rows], "0" * 64, (order + labels)[rows]).scores(own)
    others = np.setdiff1d(np.arange(90), rows)
    for part in (labels, order, memberships):
        part[others] = part[others][::-1]
    assert Scorer(labels, "0" * 64, None, rows).scores(whole)["accuracy"] == scored["accuracy"]
    ids = {Scorer(labels, "0" * 64, None, r).identity() for r in (None, rows, rows[1:])}
    assert len(ids) == 3
