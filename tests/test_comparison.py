"""Comparisons against enumeration by hand, scipy's own tests, and what must hold for any data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps.comparison import (
    Comparison,
    brown_forsythe_p,
    compare,
    compare_cells,
    holm,
    least_pairs,
    power,
    seeds_to_settle,
    sign_flip_p,
    wilson,
)
from sweeps.stability import stability

# Integers in 1/64: sums and differences of them are exact, so that a tie is a tie.
number = st.integers(-640, 640).map(lambda k: k / 64)
pairs = st.lists(st.tuples(number, number), min_size=1, max_size=24)
quick = settings(max_examples=30, deadline=None)  # each example costs a few bootstraps


def cell(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values))


def both(values: Sequence[tuple[float, float]]) -> tuple[dict[int, float], dict[int, float]]:
    return cell([a for a, _ in values]), cell([b for _, b in values])


def near(found: Comparison, expected: Comparison, absolute: float = 1e-12) -> bool:
    """Compare every number, None with None."""
    left, right = asdict(found), asdict(expected)
    return all(
        (left[name] is None and right[name] is None)
        or left[name] == pytest.approx(right[name], rel=1e-9, abs=absolute)
        for name in left
    )


# The sign-flip test


@pytest.mark.parametrize("n", [6, 7, 10])
def test_flips_are_all_enumerated(n: int) -> None:
    differences = np.random.default_rng(n).integers(-20, 40, n) / 64
    total = abs(differences.sum())
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=n)
    ]
    assert sign_flip_p(differences) == sum(one >= total for one in sums) / 2**n


@pytest.mark.parametrize("n", [8, 16, 17, 40])
def test_flips_agree_with_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.4, 1, n), rng.normal(0, 1, n)
    oracle = stats.permutation_test(
        (a - b,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**16,
        rng=rng,
    )
    # Above 16 pairs both are draws of 65,535: four sd of their difference.
    noise = 0 if n <= 16 else 4 * math.sqrt(2 * 0.25 / 2**16)
    assert sign_flip_p(a - b) == pytest.approx(oracle.pvalue, abs=noise + 1e-12)


def test_drawn_flips_count_the_observed_one() -> None:
    # No drawn flip of 60 equal differences reaches the sum but by all signs alike, 2 in 2^60.
    assert sign_flip_p([1.0] * 60) == 1 / 2**16


def test_drawn_flips_agree_with_the_normal_limit() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, 400)
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert sign_flip_p(differences) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_thousands_of_pairs_have_the_p_of_the_limit() -> None:
    differences = np.random.default_rng(4).normal(0.03, 1, 2001)
    drawn, limit = sign_flip_p(differences[:2000]), sign_flip_p(differences)
    assert limit == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.01)
    # One pair less, 2097 flips instead of the limit: four sd of a share of so many.
    assert drawn == pytest.approx(limit, abs=4 * math.sqrt(0.25 / 2097))
    assert sign_flip_p([1.0] * 3000) == pytest.approx(0, abs=1e-300)
    assert sign_flip_p([0.0] * 3000) == 1


def test_no_p_below_six_pairs() -> None:
    values = np.arange(5.0)
    assert sign_flip_p(values) is None
    assert brown_forsythe_p(values, values**2) is None
    assert sign_flip_p(np.arange(1.0, 7.0)) == 2 / 64
    found = compare(cell(values), cell(values**2))
    assert (found.p, found.p_spread, found.n) == (None, None, 5)
    assert found.difference == -4.0


def test_no_difference_at_all_is_p_one() -> None:
    assert sign_flip_p([0.0] * 8) == 1
    assert sign_flip_p([0.0] * 30) == 1


def test_p_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(11)
    found = [sign_flip_p(rng.normal(0, 1, 12)) for _ in range(400)]
    assert stats.kstest([p for p in found if p is not None], "uniform").pvalue > 0.01
    spreads = [brown_forsythe_p(rng.normal(0, 1, 30), rng.normal(0, 1, 30)) for _ in range(400)]
    low = sum(p is not None and p < 0.05 for p in spreads) / 400
    assert low == pytest.approx(0.05, abs=0.03)  # it is known to be a little below the level


# Spreads


def test_brown_forsythe_by_hand() -> None:
    """One-way analysis of variance of the distances to the medians."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 20), rng.normal(0, 3, 15)
    distances = [np.abs(one - np.median(one)) for one in (a, b)]
    grand = np.concatenate(distances).mean()
    between = sum(len(d) * (d.mean() - grand) ** 2 for d in distances)
    within = sum(((d - d.mean()) ** 2).sum() for d in distances) / 33
    assert brown_forsythe_p(a, b) == pytest.approx(float(stats.f.sf(between / within, 1, 33)))


def test_brown_forsythe_has_its_published_power() -> None:
    # sd ratio 2 at n = 20 is settled with probability .69; 4 sd of 500 draws is .08.
    rng = np.random.default_rng(7)
    draws = [brown_forsythe_p(rng.normal(0, 1, 20), rng.normal(0, 2, 20)) for _ in range(500)]
    assert sum(p is not None and p < 0.05 for p in draws) / 500 == pytest.approx(0.69, abs=0.08)


def test_no_spread_is_no_comparison_of_spreads() -> None:
    flat, wide = cell([0.5] * 12), cell(np.arange(12.0).tolist())
    found = compare(flat, wide)
    assert (found.ln_ratio, found.ln_ratio_low, found.ln_ratio_high) == (None, None, None)
    assert found.p_spread is not None
    assert compare(flat, flat).p_spread is None
    assert compare(cell([1.0]), cell([2.0])).ln_ratio is None
    # A spread that one seed makes is lost in a third of the resamples: no interval.
    lone = compare(cell([0.5] * 11 + [1.0]), wide)
    assert lone.ln_ratio is not None
    assert (lone.ln_ratio_low, lone.ln_ratio_high) == (None, None)


def test_ln_variance_ratio_and_its_interval() -> None:
    """A plain loop over resampled pairs, with its own draws: the bounds agree to their noise."""
    rng = np.random.default_rng(9)
    a, b = rng.normal(0, 2, 30), rng.normal(0, 1, 30)
    found = compare(cell(a.tolist()), cell(b.tolist()))
    assert found.ln_ratio == pytest.approx(math.log(a.var() / b.var()))
    drawn = []
    for _ in range(4000):
        place = rng.integers(0, 30, 30)
        drawn.append(math.log(a[place].var() / b[place].var()))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.ln_ratio_low == pytest.approx(low, abs=0.08)
    assert found.ln_ratio_high == pytest.approx(high, abs=0.08)


def test_pairs_are_resampled_together() -> None:
    """The same seeds with twice the spread: the ratio is ln 4 in every resample."""
    a = np.random.default_rng(2).normal(0, 1, 20)
    found = compare(cell((2 * a).tolist()), cell(a.tolist()))
    bounds = (found.ln_ratio, found.ln_ratio_low, found.ln_ratio_high)
    assert bounds == pytest.approx([math.log(4)] * 3)


# How often a is above b


@pytest.mark.parametrize(("wins", "n"), [(0, 7), (3, 10), (10, 10), (29, 30)])
def test_wilson_agrees_with_scipy(wins: int, n: int) -> None:
    oracle = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson(wins, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_ties_count_half() -> None:
    found = compare(cell([1, 2, 3, 4]), cell([0, 2, 3, 5]))
    assert found.greater == 0.5
    assert compare(cell([1, 2, 3]), cell([0, 2, 3])).greater == pytest.approx(2 / 3)
    # Wilson's bounds solve (share - p)^2 = z^2 p (1 - p) / n, for half a success as well.
    for bound in wilson(2.5, 9):
        z = stats.norm.ppf(0.975)
        assert (2.5 / 9 - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / 9)


# Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(values: list[float]) -> None:
    for level in (0.01, 0.05, 0.3):
        order = sorted(range(len(values)), key=values.__getitem__)
        rejected = set()
        for rank, place in enumerate(order):
            if (len(values) - rank) * values[place] > level:
                break
            rejected.add(place)
        adjusted = holm(values)
        assert {k for k, p in enumerate(adjusted) if p is not None and p <= level} == rejected


def test_a_family_is_the_best_against_each_other_or_all_pairs() -> None:
    rng = np.random.default_rng(4)
    cells = {name: cell(rng.normal(k, 1, 9).tolist()) for k, name in enumerate("abcd")}
    some, every = compare_cells(cells, "d"), compare_cells(cells)
    assert list(some) == [("d", "a"), ("d", "b"), ("d", "c")]
    assert list(every) == [*(("a", x) for x in "bcd"), ("b", "c"), ("b", "d"), ("c", "d")]
    for found in (some, every):
        for p, corrected in (("p", "p_holm"), ("p_spread", "p_spread_holm")):
            plain = [asdict(one)[p] for one in found.values()]
            assert [asdict(one)[corrected] for one in found.values()] == holm(plain)


# The whole


def test_only_seeds_of_both_make_pairs() -> None:
    a = {seed: float(seed) for seed in range(8)}
    b = {seed: seed / 2 for seed in range(4, 20)}
    found = compare(a, b)
    assert found.n == 4
    assert found.difference == pytest.approx((4 + 5 + 6 + 7) / 8)
    assert compare(a, {99: 1.0}) == Comparison(n=0)
    assert compare({"x": 1.0, 2: 3.0}, {2: 1.0, "x": 4.0}).difference == -0.5


@pytest.mark.parametrize("n", [1, 2, 9, 10, 25])
def test_the_difference_has_the_interval_of_a_mean(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(1, 1, n), rng.normal(0, 1, n)  # a above b: this direction is computed
    expected = stability(a - b)
    found = compare(cell(a.tolist()), cell(b.tolist()))
    if n < 10:  # BCa of the other direction is another draw
        oracle: Any = stats.ttest_1samp(a - b, 0).confidence_interval() if n > 1 else (None, None)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(oracle))
    assert (found.difference, found.sd) == (expected.mean, expected.sd)
    for mine, theirs in ((found.ci_low, expected.ci_low), (found.ci_high, expected.ci_high)):
        assert mine == (None if theirs is None else pytest.approx(theirs, abs=0.05))


def test_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        compare(cell([1.0, math.nan]), cell([1.0, 2.0]))


@quick
@given(pairs)
def test_swapping_the_cells_mirrors_every_number(values: list[tuple[float, float]]) -> None:
    a, b = both(values)
    assert near(compare(b, a), compare(a, b).mirrored())


@quick
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_changes_nothing(values: list[tuple[float, float]], r: Any) -> None:
    shuffled = list(values)
    r.shuffle(shuffled)
    assert compare(*both(shuffled)) == compare(*both(values))


@quick
@given(pairs, st.integers(-8, 8), st.sampled_from([0.25, 2.0, 8.0]))
def test_shift_and_scale_touch_differences_alone(
    values: list[tuple[float, float]], shift: float, scale: float
) -> None:
    found = compare(*both(values))
    moved = compare(*both([(scale * a + shift, scale * b + shift) for a, b in values]))
    for name, expected in asdict(found).items():
        factor = scale if name in {"difference", "ci_low", "ci_high", "sd"} else 1.0
        wanted = expected if expected is None else pytest.approx(factor * expected, abs=1e-9)
        assert asdict(moved)[name] == wanted, name


@quick
@given(pairs)
def test_no_number_is_nan_and_bounds_enclose(values: list[tuple[float, float]]) -> None:
    found = compare(*both(values))
    assert all(one is None or math.isfinite(one) for one in asdict(found).values())
    for low, middle, high in (
        (found.greater_low, found.greater, found.greater_high),
        (found.ci_low, found.difference, found.ci_high),
    ):
        if low is not None and middle is not None and high is not None:
            assert low - 1e-12 <= middle <= high + 1e-12


# How many more seeds


@pytest.mark.parametrize(("effect", "comparisons"), [(0.5, 1), (0.8, 1), (0.8, 6)])
def test_power_is_80_percent_with_that_many_seeds(effect: float, comparisons: int) -> None:
    more = seeds_to_settle(0.1 * effect, 0.1, 5, comparisons)
    assert more is not None
    n, level = 5 + more, 0.05 / comparisons
    rng = np.random.default_rng(12)
    t = stats.ttest_1samp(rng.normal(effect, 1, (4000, n)), 0, axis=1).pvalue < level
    assert np.mean(t) == pytest.approx(0.8, abs=0.025)  # 4 sd of 4000 draws
    flips = [sign_flip_p(rng.normal(effect, 1, n)) for _ in range(250)]
    assert np.mean([p is not None and p < level for p in flips]) == pytest.approx(0.8, abs=0.1)


def test_power_agrees_with_published_sample_sizes() -> None:
    # Cohen 1988, table 2.3.5 by way of the paired test: 34 pairs for d = .5, 15 for d = .8.
    assert (seeds_to_settle(0.5, 1, 0), seeds_to_settle(0.8, 1, 0)) == (34, 15)
    assert power(0.5, 34, 0.05) == pytest.approx(0.807, abs=0.001)
    assert power(0.5, 33, 0.05) == pytest.approx(0.795, abs=0.001)


def test_no_sensible_number_is_none() -> None:
    assert seeds_to_settle(None, None, 0) is None
    assert seeds_to_settle(0.0, 0.1, 12) is None
    assert seeds_to_settle(1e-6, 0.1, 12) is None
    assert seeds_to_settle(0.05, 1, 12) is None  # 3,142 seeds


def test_seeds_that_are_there_are_not_asked_for() -> None:
    assert seeds_to_settle(0.5, 1, 34) == seeds_to_settle(0.5, 1, 90) == 0
    assert seeds_to_settle(-0.5, 1, 30) == 4
    assert seeds_to_settle(5, 1, 3) == 3  # whatever the effect, six pairs
    assert seeds_to_settle(5, 0.0, 3, 9) == least_pairs(9) - 3


@pytest.mark.parametrize("comparisons", [1, 2, 5, 9, 100])
def test_least_pairs_is_what_the_flips_need(comparisons: int) -> None:
    n = least_pairs(comparisons)
    assert comparisons * 2 / 2**n <= 0.05
    assert n == 6 or comparisons * 2 / 2 ** (n - 1) > 0.05
