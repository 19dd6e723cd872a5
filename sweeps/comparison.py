"""Comparisons of two cells over the same seeds: which is better, which is steadier, is it chance?

Pure functions. A pair is a seed that both cells have scored. No number depends on the order of the
seeds, and swapping the cells mirrors every number: pairs are sorted, and of the two
directions always the same one is computed.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sweeps.stability import (
    CONFIDENCE,
    LEAST_FOR_BOOTSTRAP,
    MOST_FOR_BOOTSTRAP,
    RESAMPLES,
    stability,
)

LEVEL = 1 - CONFIDENCE
POWER = 0.8
LEAST_FOR_P = 6  # five pairs cannot reach .05 whatever they are: 2 / 2^5 = .06
MOST_EXACT = 16  # pairs whose 2^n sign flips are all looked at
MOST_MORE = 1000  # seeds; beyond it "more seeds" is no advice
FLIPS = 2**MOST_EXACT - 1  # drawn where there are more pairs; with the +1, p is at least 2^-16
DRAWN = 2**22  # signs or indices in one comparison, so that hundreds of seeds take no longer
BLOCK = 2**20
TIE = 1e-12  # of the largest possible sum: sums of the same numbers in another order

Array = NDArray[np.float64]
Scores = Mapping[Hashable, float]


@dataclass(frozen=True)
class Comparison:
    """Cell a against cell b over n pairs; None, never NaN, where a number is not defined.

    `difference` is the mean of a - b and `ln_ratio` the logarithm of var a / var b, each with a
    95 % interval; `greater` is P(a > b) over pairs, ties half, with Wilson's interval. `p` is of
    the difference and `p_spread` of the spread, None below six pairs; `p_holm` and `p_spread_holm`
    are corrected for the family that the comparison was made in. `sd` is that of the differences.
    """

    n: int
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    sd: float | None = None
    p: float | None = None
    p_holm: float | None = None
    ln_ratio: float | None = None
    ln_ratio_low: float | None = None
    ln_ratio_high: float | None = None
    p_spread: float | None = None
    p_spread_holm: float | None = None
    greater: float | None = None
    greater_low: float | None = None
    greater_high: float | None = None

    def mirrored(self) -> Comparison:
        """Return b against a."""
        return replace(
            self,
            difference=_minus(self.difference),
            ci_low=_minus(self.ci_high),
            ci_high=_minus(self.ci_low),
            ln_ratio=_minus(self.ln_ratio),
            ln_ratio_low=_minus(self.ln_ratio_high),
            ln_ratio_high=_minus(self.ln_ratio_low),
            greater=_rest(self.greater),
            greater_low=_rest(self.greater_high),
            greater_high=_rest(self.greater_low),
        )


def compare(a: Scores, b: Scores, *, generator: np.random.Generator | None = None) -> Comparison:
    """Compare two cells, each seed -> value, over the seeds that both have.

    The interval of the difference is that of `stability` (t below ten pairs, BCa from ten). Without
    a generator a fixed one is used: a table drawn twice shows the same numbers.

    Raises ValueError where a value of a pair is NaN or Inf.
    """
    pairs = sorted((float(a[seed]), float(b[seed])) for seed in a.keys() & b.keys())
    swapped = sorted((y, x) for x, y in pairs)
    if pairs < swapped:
        return _compare(swapped, generator).mirrored()
    return _compare(pairs, generator)


def compare_cells(
    cells: Mapping[str, Scores], best: str | None = None
) -> dict[tuple[str, str], Comparison]:
    """Compare `best` with each other cell, or all pairs of cells without it; Holm over them all.

    A `best` that was chosen by its mean makes each of its p-values smaller than chance would; that
    it is above *all* others at a level still holds at that level, since the closest one decides
    (intersection-union test, Berger 1982, Technometrics 24:295).
    """
    if best is None:
        names = list(combinations(cells, 2))
    else:
        names = [(best, other) for other in cells if other != best]
    found = [compare(cells[first], cells[second]) for first, second in names]
    means, spreads = holm([one.p for one in found]), holm([one.p_spread for one in found])
    return {
        name: replace(one, p_holm=mean, p_spread_holm=spread)
        for name, one, mean, spread in zip(names, found, means, spreads, strict=True)
    }


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values (Holm 1979, Scand. J. Stat. 6:65); None is no test."""
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = largest
    return adjusted


def sign_flip_p(
    differences: ArrayLike, generator: np.random.Generator | None = None
) -> float | None:
    """Return the two-sided p of mean difference 0 by flipping signs; None below six pairs.

    Under the null hypothesis each difference (n,) is as likely as its negative (Fisher 1935, The
    Design of Experiments, 21). All 2^n flips up to 16 pairs; beyond, drawn ones with the observed
    one counted among them (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39); beyond 2000
    pairs their Gaussian limit, of variance sum d^2 (Hoeffding 1952, Ann. Math. Stat. 23:169).
    """
    sizes = np.sort(np.abs(_finite(differences)))
    n = len(sizes)
    if n < LEAST_FOR_P:
        return None
    bound = abs(math.fsum(_finite(differences))) - TIE * math.fsum(sizes)
    if n <= MOST_EXACT:
        codes = np.arange(2**n, dtype=np.uint32)[:, None]
        signs = 1.0 - 2.0 * ((codes >> np.arange(n, dtype=np.uint32)) & 1)
        return float(np.mean(np.abs(signs @ sizes) >= bound))
    if n > MOST_FOR_BOOTSTRAP:
        width = math.sqrt(math.fsum(sizes**2))
        return float(2 * stats.norm.sf(max(0.0, bound) / width)) if width else 1.0
    rng = np.random.default_rng(0) if generator is None else generator
    flips = _draws(n, FLIPS)
    reached = 0
    for rows in _blocks(flips, n):
        bits = np.unpackbits(rng.integers(0, 256, (rows, -(-n // 8)), dtype=np.uint8), axis=1)
        signs = 1.0 - 2.0 * bits[:, :n]
        reached += int(np.count_nonzero(np.abs(signs @ sizes) >= bound))
    return (reached + 1) / (flips + 1)


def brown_forsythe_p(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return p of equal spreads of a (n,) and b (m,); None below six values or without any spread.

    Levene's test around medians (Brown & Forsythe 1974, J. Am. Stat. Assoc. 69:364). It takes the
    two as independent: seeds that move both cells alike change its level little, its power more.
    """
    first, second = _finite(a), _finite(b)
    if min(len(first), len(second)) < LEAST_FOR_P:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no spread at all: 0 / 0, which is None below
        p = float(stats.levene(first, second, center="median").pvalue)
    return p if math.isfinite(p) else None


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n > 0 (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Half a success, a tie, is allowed: the interval is then wider than need be.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    share, weight = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def least_pairs(comparisons: int) -> int:
    """Return how many pairs the sign flips need to reach .05 at Holm's strictest step."""
    return max(LEAST_FOR_P, math.ceil(math.log2(2 * max(1, comparisons) / LEVEL)))


def power(effect: float, pairs: int, level: float) -> float:
    """Return the power of the two-sided paired t test, by the noncentral t.

    `effect` is the mean difference over the sd of the differences (Cohen 1988, Statistical Power
    Analysis, 2.3); the sign-flip test has the same power for all but few pairs (Hoeffding 1952,
    Ann. Math. Stat. 23:169).
    """
    bound = float(stats.t.ppf(1 - level / 2, pairs - 1))
    shift = abs(effect) * math.sqrt(pairs)
    upper = float(stats.nct.sf(bound, pairs - 1, shift))
    # Where the tail is too far for the series it is 1 to every digit that counts here.
    return upper if math.isfinite(upper) else float(stats.norm.sf(bound - shift))


def seeds_to_settle(
    difference: float | None, sd: float | None, pairs: int, comparisons: int = 1
) -> int | None:
    """Return how many more seeds would show this difference at .05 with 80 % power; 0 is none.

    `difference` and `sd` are those of the paired differences so far, taken for the truth, and
    `comparisons` is how many share the level (Holm's strictest step, .05 / comparisons). None where
    that is no sensible number: no difference, or more than a thousand seeds.
    """
    if difference is None or sd is None or difference == 0:
        return None
    least, level = least_pairs(comparisons), LEVEL / max(1, comparisons)
    if sd == 0:
        return max(0, least - pairs)
    low, high = least, max(least, pairs + MOST_MORE)
    if power(difference / sd, high, level) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if power(difference / sd, middle, level) < POWER:
            low = middle + 1
        else:
            high = middle
    return max(0, low - pairs) if low - pairs <= MOST_MORE else None


def _compare(pairs: Sequence[tuple[float, float]], rng: np.random.Generator | None) -> Comparison:
    """Compare sorted pairs (a, b)."""
    n = len(pairs)
    if n == 0:
        return Comparison(n=0)
    a, b = (_finite(column) for column in zip(*pairs, strict=True))
    differences = a - b
    mean = stability(differences, generator=rng)
    wins = int(np.count_nonzero(a > b)) + int(np.count_nonzero(a == b)) / 2
    ln_ratio, ratio_low, ratio_high = _ln_ratio(a, b, rng)
    greater_low, greater_high = wilson(wins, n)
    return Comparison(
        n=n,
        difference=mean.mean,
        ci_low=mean.ci_low,
        ci_high=mean.ci_high,
        sd=mean.sd,
        p=sign_flip_p(differences, rng),
        ln_ratio=ln_ratio,
        ln_ratio_low=ratio_low,
        ln_ratio_high=ratio_high,
        p_spread=brown_forsythe_p(a, b),
        greater=wins / n,
        greater_low=greater_low,
        greater_high=greater_high,
    )


def _ln_ratio(
    a: Array, b: Array, generator: np.random.Generator | None
) -> tuple[float | None, float | None, float | None]:
    """Return ln(var a / var b) with the percentile interval over resampled pairs, from ten pairs.

    None where a variance is 0; no interval where resamples without spread reach into it.
    """
    n = len(a)
    spreads = [statistics.variance(one.tolist()) if n > 1 else 0.0 for one in (a, b)]
    if min(spreads) == 0:
        return None, None, None
    ratio = math.log(spreads[0]) - math.log(spreads[1])
    if n < LEAST_FOR_BOOTSTRAP:
        return ratio, None, None
    rng = np.random.default_rng(0) if generator is None else generator
    # In units of the sd, so that what counts as rounding below is the same for every metric.
    units = [(one - one.mean()) / math.sqrt(s) for one, s in zip((a, b), spreads, strict=True)]
    parts = []
    for rows in _blocks(_draws(n, RESAMPLES), n):
        places = rng.integers(0, n, (rows, n))
        first, second = (np.var(one[places], axis=1) for one in units)
        defined = np.maximum(first, second) > TIE  # both are 0 where one seed is drawn n times
        with np.errstate(divide="ignore"):
            parts.append(np.log(np.where(first > TIE, first, 0)[defined]))
            parts[-1] -= np.log(np.where(second > TIE, second, 0)[defined])
    tail = (1 - CONFIDENCE) / 2
    # Between two infinite resamples there is nothing to interpolate.
    drawn = np.concatenate(parts)
    low = float(np.quantile(drawn, tail, method="lower")) + ratio
    high = float(np.quantile(drawn, 1 - tail, method="higher")) + ratio
    return (ratio, low, high) if math.isfinite(low) and math.isfinite(high) else (ratio, None, None)


def _draws(n: int, most: int) -> int:
    """Return how many resamples of n pairs to draw: fewer where each is long."""
    return min(most, max(RESAMPLES // 10, DRAWN // n))


def _blocks(count: int, n: int) -> Iterable[int]:
    """Yield how many of `count` resamples of n pairs to hold at a time."""
    size = max(1, BLOCK // n)
    for start in range(0, count, size):
        yield min(size, count - start)


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        msg = f"expected finite values over seeds, shape (n,), got {array.shape} or a NaN or Inf"
        raise ValueError(msg)
    return array


def _minus(value: float | None) -> float | None:
    return None if value is None else -value if value else 0.0


def _rest(share: float | None) -> float | None:
    return None if share is None else 1 - share
