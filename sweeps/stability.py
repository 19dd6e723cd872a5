"""Statistics of one metric over the seeds of one cell: how good, and how steady.

Pure functions: arrays in, numbers out, randomness an explicit generator. A seed without a score is
no zero and no gap to skip: the caller passes the scores of the runs that are ok and prints the
planned count beside them; a NaN or Inf in `values` is refused here.

Means and variances are those of `statistics`, which sums exactly and rounds once. So the order of
the seeds cannot show, equal values have variance 0 and not 1e-34, and min <= worst quarter <= mean
holds to the last bit.
"""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
LEAST_FOR_INTERVAL = 2
LEAST_FOR_BOOTSTRAP = 10  # fewer seeds have too few distinct resamples for a percentile
MOST_FOR_BOOTSTRAP = 2000  # beyond, the mean is Gaussian and its jackknife is n^2 numbers
RESAMPLES = 9999
STEPS = 1e9 / math.pi  # irrational: no mean of a few fractions lies halfway between two steps
TRIM = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Stability:
    """The spread of one metric over n seeds; None, never NaN, where a number is not defined.

    `variance` and `sd` have ddof 1; `ci_low`, `ci_high` bound the mean and `low_basin_low`,
    `low_basin_high` the share of the low basin, at 95 %. All are in the metric's unit but
    `variance` (its square) and the shares (of n, 0 ... 1).
    """

    n: int
    mean: float | None = None
    variance: float | None = None
    sd: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    median: float | None = None
    iqm: float | None = None  # hides a low basin: never print it alone
    min: float | None = None
    worst_quarter: float | None = None
    low_basin_share: float | None = None
    low_basin_low: float | None = None
    low_basin_high: float | None = None
    beats_baseline_share: float | None = None


def stability(
    values: ArrayLike,
    *,
    low: float | None = None,
    baseline: float | None = None,
    generator: np.random.Generator | None = None,
    bootstrap: bool = True,
) -> Stability:
    """Return the statistics of one metric's values (n,), one per seed that is ok.

    The interval of the mean is Student's t for 2 <= n < 10 and BCa from n = 10 (Efron 1987, J. Am.
    Stat. Assoc. 82:171), t again beyond 2000; `iqm` is the mean of the middle half
    (`scipy.stats.trim_mean(x, .25)`), `worst_quarter` the mean of the ceil(n/4) lowest values.
    `low_basin_share` counts values strictly below `low`, with Wilson's interval (Wilson 1927,
    J. Am. Stat. Assoc. 22:209); `beats_baseline_share` counts values strictly above `baseline`. The
    order of the values changes no number. Without `bootstrap`, which takes 10 ms, the interval is
    always t. Without a generator a fixed one is used: a report drawn
    twice shows the same interval.

    Raises ValueError where values is not (n,), holds a NaN or Inf, or a threshold is NaN.
    """
    ordered = _ordered(values)
    _check_thresholds(low=low, baseline=baseline)
    n = len(ordered)
    if n == 0:
        return Stability(n=0)
    interval = _mean_interval(ordered, generator) if bootstrap else t_interval(ordered)
    ci_low, ci_high = interval or (None, None)
    share, share_low, share_high = _low_basin(ordered, low)
    cut = int(TRIM * n)
    return Stability(
        n=n,
        mean=_mean(ordered),
        variance=statistics.variance(ordered.tolist()) if n >= LEAST_FOR_INTERVAL else None,
        sd=statistics.stdev(ordered.tolist()) if n >= LEAST_FOR_INTERVAL else None,
        ci_low=ci_low,
        ci_high=ci_high,
        median=float(np.median(ordered)),
        iqm=_mean(ordered[cut : n - cut]),
        min=float(ordered[0]),
        worst_quarter=_mean(ordered[: math.ceil(n / 4)]),
        low_basin_share=share,
        low_basin_low=share_low,
        low_basin_high=share_high,
        beats_baseline_share=None if baseline is None else float(np.mean(ordered > baseline)),
    )


def t_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean of values (n,), None below n = 2.

    Raises ValueError where values is not (n,) or holds a NaN or Inf.
    """
    ordered = _ordered(values)
    n = len(ordered)
    if n < LEAST_FOR_INTERVAL:
        return None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    mean, half = _mean(ordered), quantile * statistics.stdev(ordered.tolist()) / math.sqrt(n)
    return mean - half, mean + half


def sd_interval(values: ArrayLike) -> tuple[float, float] | None:
    """Return the chi-square 95 % interval of the sd of values (n,), None below n = 2.

    True for Gaussian values only: two basins make it too narrow or too wide.

    Raises ValueError where values is not (n,) or holds a NaN or Inf.
    """
    ordered = _ordered(values)
    n = len(ordered)
    if n < LEAST_FOR_INTERVAL:
        return None
    sd = statistics.stdev(ordered.tolist())
    tail = (1 - CONFIDENCE) / 2
    upper, lower = (float(stats.chi2.ppf(p, n - 1)) for p in (1 - tail, tail))
    return sd * math.sqrt((n - 1) / upper), sd * math.sqrt((n - 1) / lower)


def _ordered(values: ArrayLike) -> Array:
    """Return the values sorted, so that no sum and no resample depends on the seeds' order."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        msg = f"expected one metric over seeds, shape (n,), got shape {array.shape}"
        raise ValueError(msg)
    holes = np.flatnonzero(~np.isfinite(array))
    if len(holes) > 0:
        msg = (
            f"never average over holes: {len(holes)} of {len(array)} values are not finite, "
            f"first values[{holes[0]}] = {array[holes[0]]}; pass the runs that are ok, count others"
        )
        raise ValueError(msg)
    return np.sort(array)


def _check_thresholds(**thresholds: float | None) -> None:
    """Refuse a NaN, which no value is below or above: the share would be a confident 0."""
    for name, threshold in thresholds.items():
        if threshold is not None and math.isnan(threshold):
            msg = f"{name} is nan; pass None where there is no {name}"
            raise ValueError(msg)


def _mean(ordered: Array) -> float:
    return float(statistics.mean(ordered.tolist()))


def _mean_interval(
    ordered: Array, generator: np.random.Generator | None
) -> tuple[float, float] | None:
    """Return the interval of the mean: t for few seeds, BCa from ten, t again where BCa fails."""
    if not LEAST_FOR_BOOTSTRAP <= len(ordered) <= MOST_FOR_BOOTSTRAP or ordered[0] == ordered[-1]:
        return t_interval(ordered)
    rng = np.random.default_rng(0) if generator is None else generator
    low, high = _bca(ordered, rng)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else t_interval(ordered)


def _bca(ordered: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Return the BCa interval of the mean of values that are not all equal; NaN where it fails.

    BCa's bias correction counts resamples whose mean ties with the observed one. Rounding breaks
    such ties when a few values repeat (seeds of two basins, accuracies k/N): the same seeds at
    {0, 1} and at {.1, .2} would get different intervals. On the unit range, in steps of 3e-9, ties
    stay ties.
    """
    start, width = float(ordered[0]), float(ordered[-1] - ordered[0])
    unit = (ordered - start) / width

    def mean(sample: Array, axis: int) -> Array:
        means: Array = np.asarray(np.mean(sample, axis=axis), dtype=np.float64)
        return np.round(means * STEPS) / STEPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each says that the interval is NaN, which is returned
        result = stats.bootstrap(
            (unit,),
            mean,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            vectorized=True,
            rng=rng,
        )
    interval = result.confidence_interval
    return start + width * float(interval.low), start + width * float(interval.high)


def _low_basin(
    ordered: Array, low: float | None
) -> tuple[float | None, float | None, float | None]:
    """Return the share of values strictly below `low` and its Wilson interval."""
    if low is None:
        return None, None, None
    below, n = int(np.count_nonzero(ordered < low)), len(ordered)
    interval = stats.binomtest(below, n).proportion_ci(CONFIDENCE, method="wilson")
    return below / n, float(interval.low), float(interval.high)
