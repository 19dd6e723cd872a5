"""Stability statistics against published figures, closed formulas and hand-written twins."""

from __future__ import annotations

import dataclasses
import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from sweeps.stability import Stability, sd_interval, stability, t_interval

# The published example: twelve AUCs under a bimodal prior and the 24 accuracies listed for a
# single Gaussian one (a method for Sloan Digital Sky Survey cut-outs, 2017).
AUC = [
    *(0.874056800995, 0.890954309319, 0.924916904083, 0.907576218669, 0.894452798743),
    *(0.901569885906, 0.761481311188, 0.872700482459, 0.858911459225, 0.882133929019),
    *(0.899523653834, 0.724179096412),
]
ACCURACY = [
    *(0.860203648706, 0.816574741904, 0.889619572903, 0.833050487908, 0.853415358507),
    *(0.7910479423, 0.784896054306, 0.801371800311, 0.701456653939, 0.830787724509),
    *(0.724225710649, 0.797765521143, 0.838141705558, 0.829585631452, 0.864304907368),
    *(0.883326262198, 0.859142978362, 0.814029133079, 0.842313675576, 0.831565549427),
    *(0.849101965776, 0.853556781219, 0.872719558761, 0.725215669637),
]
# mean, sd, min, max, median, IQM to five digits; the t interval of the mean, the chi-square
# interval of the sd and the mean of the worst quarter to three; the BCa interval of the mean, and
# the sd of its two bounds over 200 generators at 9999 resamples.
PUBLISHED: dict[str, Any] = {
    "auc": {
        "values": AUC,
        "five": (0.86604, 0.06066, 0.72418, 0.92492, 0.88654, 0.88564),
        "three": (0.827, 0.905, 0.043, 0.103, 0.782),
        "bca": (0.819, 0.891),
        "noise": (0.0012, 0.0003),
    },
    "accuracy": {
        "values": ACCURACY,
        "five": (0.82281, 0.04941, 0.70146, 0.88962, 0.83231, 0.83279),
        "three": (0.802, 0.844, 0.038, 0.069, 0.754),
        "bca": (0.800, 0.840),
        "noise": (0.0004, 0.0002),
    },
}
published = pytest.mark.parametrize("example", PUBLISHED.values(), ids=PUBLISHED.keys())

# Integers in 1/64: sums of them are exact, so that a tie is a tie in every oracle too.
metric_values = st.lists(st.integers(-640, 640).map(lambda k: k / 64), min_size=1, max_size=30)
varied = metric_values.filter(lambda values: len(set(values)) > 1)
quick = settings(max_examples=50, deadline=None)  # each example costs one bootstrap, about 6 ms


def numbers(result: Stability) -> dict[str, Any]:
    return dataclasses.asdict(result)


def close(expected: object, absolute: float = 1e-12) -> Any:
    """Compare two routes through float64: a few dozen roundings of numbers of order 1."""
    return pytest.approx(expected, rel=1e-12, abs=absolute)


def bca_by_hand(values: list[float], means: np.ndarray, weights: np.ndarray) -> list[float]:
    """Efron and Tibshirani 1993, equations 14.9, 14.10, 14.14, 14.15, for a weighted bootstrap.

    `means` (M,) ascending with their probabilities `weights` (M,) stand for the resamples. For the
    mean, the jackknife deviations of 14.15 are proportional to x - mean.
    """
    x = np.asarray(values)
    deviation = x - x.mean()
    acceleration = np.sum(deviation**3) / (6 * np.sum(deviation**2) ** 1.5)
    below = weights[means < x.mean() - 1e-9].sum()
    ties = weights[np.abs(means - x.mean()) <= 1e-9].sum()
    bias = special.ndtri(below + ties / 2)
    bounds = []
    for z in (special.ndtri(0.025), special.ndtri(0.975)):
        level = special.ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        bounds.append(float(means[np.searchsorted(np.cumsum(weights), level)]))
    return bounds


# The published example


@published
def test_published_figures_to_their_digits(example: dict[str, Any]) -> None:
    values = example["values"]
    found = stability(values)
    five: Any = (found.mean, found.sd, found.min, max(values), found.median, found.iqm)
    assert tuple(round(number, 5) for number in five) == example["five"]
    t, sd = t_interval(values), sd_interval(values)
    assert t is not None
    assert sd is not None
    three: Any = (*t, *sd, found.worst_quarter)
    assert tuple(round(number, 3) for number in three) == example["three"]


def test_the_first_22_accuracies_have_their_published_mean() -> None:
    assert stability(ACCURACY[:22]).mean == pytest.approx(0.82498, abs=5e-6)


@published
def test_published_bca_interval(example: dict[str, Any]) -> None:
    # The published interval is one draw too (2,000,000 resamples give .8196-.8909, .7999-.8394):
    # three sd of the noise, and half of the last digit.
    found: Any = stability(example["values"])
    for bound, expected, noise in zip(
        (found.ci_low, found.ci_high), example["bca"], example["noise"], strict=True
    ):
        assert bound == pytest.approx(expected, abs=3 * noise + 5e-4)


def test_two_low_seeds_make_the_spread_of_the_auc() -> None:
    assert stability(sorted(AUC)[2:]).sd == pytest.approx(0.019, abs=5e-4)
    found = stability(AUC, low=0.8, baseline=0.9)
    assert found.low_basin_share == close(2 / 12)
    assert found.beats_baseline_share == close(3 / 12)


# Independent twins and closed formulas


@published
def test_bca_is_the_hand_written_one(example: dict[str, Any]) -> None:
    x = np.sort(example["values"])
    draws = np.random.default_rng(7).choice(x, size=(100_000, len(x))).mean(axis=1)
    expected = bca_by_hand(list(x), np.sort(draws), np.full(100_000, 1e-5))
    found: Any = stability(x, generator=np.random.default_rng(8))
    for bound, by_hand, noise in zip(
        (found.ci_low, found.ci_high), expected, example["noise"], strict=True
    ):
        assert bound == pytest.approx(by_hand, abs=3 * noise)


@pytest.mark.parametrize(("start", "step"), [(0, 1), (0.85, 1 / 200), (0.1, 0.1), (-3, 1e6)])
@pytest.mark.parametrize(
    "repeats",  # how many seeds have the value start, start + step, start + 2 step, ...
    [(5, 5), (12, 2), (2, 11), (15, 8), (2, 5, 2, 1), (4, 3, 3, 1), (1, 9, 5, 1), (2, 5, 1, 5)],
)
def test_bca_of_repeated_values_is_exact(
    repeats: tuple[int, ...], start: float, step: float
) -> None:
    # On a lattice the sum of n draws has the n-fold convolution of the shares as its distribution:
    # no Monte Carlo in the oracle. For these repeats BCa's levels lie at least three sd of their
    # own Monte Carlo noise from a step of it, so that the found bound is the exact one; it is not
    # where rounding breaks the ties between means.
    n = sum(repeats)
    shares, sums = np.asarray(repeats) / n, np.ones(1)
    for _ in range(n):
        sums = np.convolve(sums, shares)
    counts = np.repeat(np.arange(len(repeats)), repeats)
    expected = bca_by_hand(list(counts), np.arange(len(sums)) / n, sums)
    found: Any = stability(start + step * counts)
    scaled = [(bound - start) / step for bound in (found.ci_low, found.ci_high)]
    assert scaled == pytest.approx(expected, abs=1e-8)  # BCa's steps are 3e-9 of the range


@quick
@given(metric_values)
def test_each_number_is_its_definition(values: list[float]) -> None:
    found, x = stability(values), np.asarray(values)
    assert found.n == len(x)
    assert found.mean == close(np.sum(x) / len(x))
    assert found.median == close(np.percentile(x, 50))
    assert found.iqm == close(stats.trim_mean(x, 0.25))
    assert found.min == x.min()
    assert found.worst_quarter == close(np.sort(x)[: -(-len(x) // 4)].mean())
    if len(x) > 1:
        assert found.variance == close(np.var(x, ddof=1))
        assert found.sd == close(np.std(x, ddof=1), absolute=1e-9)


@quick
@given(metric_values.filter(lambda values: len(values) > 1))
def test_t_and_chi_square_are_the_closed_formulas(values: list[float]) -> None:
    n, sd = len(values), np.std(values, ddof=1)
    # t by its relation to the incomplete beta function, chi-square by the incomplete gamma one
    # (Abramowitz and Stegun 1964, 26.5.27 and 26.4.19).
    beta = special.betaincinv((n - 1) / 2, 0.5, 0.05)
    half = math.sqrt((n - 1) * (1 / beta - 1) / n) * sd
    assert t_interval(values) == close((np.mean(values) - half, np.mean(values) + half), 1e-9)
    chi2 = [2 * special.gammaincinv((n - 1) / 2, p) for p in (0.975, 0.025)]
    assert sd_interval(values) == close([sd * math.sqrt((n - 1) / c) for c in chi2], 1e-9)
    if n < 10:
        assert (stability(values).ci_low, stability(values).ci_high) == t_interval(values)


@quick
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_closed_formula(counts: tuple[int, int]) -> None:
    below, n = counts
    found = stability([0.7] * below + [0.9] * (n - below), low=0.8)
    p, z = below / n, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.low_basin_share == p
    assert (found.low_basin_low, found.low_basin_high) == close((centre - half, centre + half))
    assert found.low_basin_low is not None
    assert found.low_basin_high is not None
    assert 0 <= found.low_basin_low <= p <= found.low_basin_high <= 1


# Properties


@quick
@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_changes_nothing(values: list[float], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    assert stability(values, low=0.5, baseline=0.0) == stability(shuffled, low=0.5, baseline=0.0)
    assert t_interval(values) == t_interval(shuffled)
    assert sd_interval(values) == sd_interval(shuffled)


@quick
@given(varied, st.integers(1, 800).map(lambda k: k / 8), st.integers(-800, 800))
def test_units_carry_through(values: list[float], a: float, b: int) -> None:
    before, after = numbers(stability(values)), numbers(stability([a * x + b for x in values]))
    # a x + b is exact here, hence the resampled units are the same bits; the rest is rounding.
    for name in ("mean", "median", "iqm", "min", "worst_quarter", "ci_low", "ci_high"):
        assert after[name] == close(a * before[name] + b, absolute=1e-10)
    assert after["sd"] == close(a * before["sd"])
    assert after["variance"] == close(a * a * before["variance"])


@quick
@given(varied)
def test_numbers_stand_in_order(values: list[float]) -> None:
    found = numbers(stability(values))
    slack = 4e-9 * (max(values) - min(values))  # BCa's steps are 3e-9 of the range
    assert found["ci_low"] - slack <= found["mean"] <= found["ci_high"] + slack
    assert found["ci_low"] < found["ci_high"]
    assert found["min"] <= found["worst_quarter"] <= found["mean"]
    assert found["min"] <= found["iqm"] <= max(values)
    assert found["sd"] > 0


def test_a_report_drawn_twice_is_the_same_and_a_generator_is_used() -> None:
    assert stability(AUC) == stability(AUC) == stability(AUC, generator=np.random.default_rng(0))
    assert stability(AUC).ci_low != stability(AUC, generator=np.random.default_rng(1)).ci_low


# Edges


def test_no_seeds_define_nothing() -> None:
    found = numbers(stability([], low=0.5, baseline=0.5))
    assert found.pop("n") == 0
    assert set(found.values()) == {None}
    assert t_interval([]) is None
    assert sd_interval([]) is None


def test_one_seed_has_a_value_and_no_spread() -> None:
    found = stability([0.7])
    assert found == Stability(n=1, mean=0.7, median=0.7, iqm=0.7, min=0.7, worst_quarter=0.7)
    assert t_interval([0.7]) is None
    assert sd_interval([0.7]) is None


def test_two_seeds_have_an_interval_by_t() -> None:
    found = stability([0.25, 0.75])
    # One degree of freedom: t is Cauchy, its 97.5 % quantile tan(.475 pi). And sd / sqrt(2) = 1/4.
    half = math.tan(0.475 * math.pi) / 4
    assert (found.ci_low, found.ci_high) == close((0.5 - half, 0.5 + half))
    assert (found.variance, found.min, found.worst_quarter) == (0.125, 0.25, 0.25)


@pytest.mark.parametrize("n", [2, 9, 10, 30])
@pytest.mark.parametrize("x", [0.0, 0.1, 0.7, 1 / 3, 1e6])
def test_equal_values_have_no_spread_to_the_last_bit(x: float, n: int) -> None:
    found = stability([x] * n, low=x, baseline=x)
    assert (found.mean, found.median, found.iqm, found.min, found.worst_quarter) == (x,) * 5
    assert (found.variance, found.sd, found.ci_low, found.ci_high) == (0, 0, x, x)
    assert (found.low_basin_share, found.beats_baseline_share) == (0, 0)  # both are strict
    assert sd_interval([x] * n) == (0, 0)


def test_the_smallest_spread_that_float64_holds_keeps_its_order() -> None:
    found = numbers(stability([0.7] * 9 + [math.nextafter(0.7, 1)]))
    assert 0.7 <= found["ci_low"] <= found["mean"] <= found["ci_high"]
    assert 0 < found["sd"] < 1e-15


@pytest.mark.parametrize("bounds", [(math.nan, 0.9), (0.8, math.nan), (math.nan, math.nan)])
def test_a_bca_that_fails_gives_way_to_t(
    bounds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> SimpleNamespace:
        warnings.warn("cannot be calculated", stats.DegenerateDataWarning, stacklevel=2)
        low, high = bounds
        return SimpleNamespace(confidence_interval=SimpleNamespace(low=low, high=high))

    monkeypatch.setattr(stats, "bootstrap", failing)
    found = stability(AUC)
    assert (found.ci_low, found.ci_high) == t_interval(AUC)


# Refusals


@pytest.mark.parametrize("function", [stability, t_interval, sd_interval])
def test_holes_and_tables_are_refused(function: Any) -> None:
    for hole in (math.nan, math.inf, -math.inf, None):
        with pytest.raises(ValueError, match="never average over holes") as caught:
            function([0.9, hole, 0.8, math.nan])
        assert str(caught.value) == (
            "never average over holes: 2 of 4 values are not finite, first values[1] = "
            f"{math.nan if hole is None else hole}; pass the runs that are ok, count others"
        )
    for table, shape in (([[0.9, 0.8]], r"\(1, 2\)"), (0.9, r"\(\)")):
        message = rf"^expected one metric over seeds, shape \(n,\), got shape {shape}$"
        with pytest.raises(ValueError, match=message):
            function(table)


@pytest.mark.parametrize("name", ["low", "baseline"])
def test_a_threshold_of_nan_is_refused(name: str) -> None:
    thresholds: dict[str, Any] = {name: math.nan}
    with pytest.raises(ValueError, match=f"^{name} is nan; pass None where there is no {name}$"):
        stability(AUC, **thresholds)


def test_thousands_of_seeds_get_an_interval_in_reasonable_memory() -> None:
    values = np.random.default_rng(0).exponential(size=100_000)
    found = stability(values)
    assert (found.ci_low, found.ci_high) == t_interval(values)
    few = stability(values[:2000])  # the last that is BCa, which there is nearly t
    assert (few.ci_low, few.ci_high) != t_interval(values[:2000])
    assert (few.ci_low, few.ci_high) == pytest.approx(t_interval(values[:2000]), abs=0.005)
