"""The shape of a code: active units, spread, its two sides, the valley between, how far from where.

From the kept codes alone, without labels. Of a stochastic encoder these are the means: the noise
that a VAE adds around them is in none of the numbers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtri

from models.diagnostics.collapse import ACTIVE_VARIANCE
from models.distributions import Distribution

NAMES = (
    *("active_units", "code_spread", "minority_share", "valley_depth"),
    *("prior_distance", "normal_distance"),
)
BANDWIDTH = 0.45  # times min(sd, IQR / 1.34) n^(-1/5): half of Silverman's, which joins peaks
BINS = 512
MARGIN = 4.0  # bandwidths of air around the codes
LEAST_SIDE = 0.05  # of the codes on each side of a valley: below it, one bump is an outlier's
NOTABLE = 0.25  # the depth that a few hundred values of one Gaussian hardly reach by chance
DRAWN = 20_000  # samples of a prior of several units, for the quantiles of each

Array = NDArray[np.float64]
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Valley:
    """A dip of a density: how deep (0 ... 1), where, and the share of values on its lesser side."""

    depth: float
    place: float
    side: float


def shape_of(code: NDArray[np.float32], class_units: int, prior: Distribution | None) -> Numbers:
    """Return the numbers of NAMES for a code (N, C + T), class units first.

    `active_units` counts units, style ones too, whose variance is above .01 (Burda et al. 2016,
    arXiv:1509.00519). `code_spread` is the class units' sd, averaged. `minority_share` is the share
    of the codes on the prior's rarest peak or, where the prior has no peaks apart, on the lesser
    side of the deepest valley, if that is .25 deep; None without either. `valley_depth` is that of
    the class unit whose valley is deepest, 0 where none has one. `prior_distance` is Wasserstein's
    W1 from the class prior in units of its sd, None without one; `normal_distance` that of the
    standardised code from a standard Gaussian, one ruler for every objective. Both are means over
    the class units.
    """
    values = np.asarray(code, dtype=np.float64)
    units = values[:, :class_units]
    valleys = [found for found in map(valley, units.T) if found is not None]
    deepest = max(valleys, key=lambda one: one.depth, default=None)
    share = rarest_peak(units, prior)
    if share is None and deepest is not None and deepest.depth >= NOTABLE:
        share = deepest.side
    return {
        "active_units": float(np.sum(values.var(axis=0) > ACTIVE_VARIANCE)),
        "code_spread": float(units.std(axis=0).mean()),
        "minority_share": share,
        "valley_depth": 0.0 if deepest is None else deepest.depth,
        "prior_distance": None if prior is None else prior_distance(units, prior),
        "normal_distance": normal_distance(units),
    }


def rarest_peak(units: Array, prior: Distribution | None) -> float | None:
    """Return the share of codes (N, C) on the peak that has fewest; None without peaks apart."""
    if prior is None or prior.peaks == 1 or prior.modes < prior.peaks:
        return None
    joint = prior.log_joint(torch.from_numpy(np.ascontiguousarray(units)))
    counts = np.bincount(joint.argmax(-1).numpy(), minlength=prior.peaks)
    return float(counts.min() / len(units))


def valley(values: Array) -> Valley | None:
    """Return the deepest dip in the density of values (N,), None where there is one mode.

    The density is a Gaussian kernel's, of the bandwidth that BANDWIDTH says, on 512 bins. A dip's
    depth is 1 minus its density over that of the lower of the two modes that it parts, and each of
    its sides has 5 % of the values at least. A sample of a few hundred from one Gaussian has dips
    of up to a quarter by chance.
    """
    spread = _spread(values)
    if spread == 0:
        return None
    bandwidth = BANDWIDTH * spread * len(values) ** -0.2
    ends = values.min() - MARGIN * bandwidth, values.max() + MARGIN * bandwidth
    counts, edges = np.histogram(values, BINS, ends)
    width = float(edges[1] - edges[0])
    density = gaussian_filter1d(counts.astype(np.float64), bandwidth / width, mode="constant")
    lower = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    below = (np.cumsum(counts) - counts / 2) / len(values)
    sides = np.minimum(below, 1 - below)
    depths = np.zeros(BINS)
    np.divide(density, lower, out=depths, where=lower > 0)
    depths = np.where((sides >= LEAST_SIDE) & (lower > 0), 1 - depths, 0.0)
    best = int(np.argmax(depths))
    if depths[best] <= 0:
        return None
    return Valley(float(depths[best]), float(edges[best] + width / 2), float(sides[best]))


def _spread(values: Array) -> float:
    """Return the lesser of sd and IQR / 1.34; the sd where half of the values are equal."""
    deviation = float(values.std())
    first, third = np.quantile(values, (0.25, 0.75))
    robust = float(third - first) / 1.34
    return min(deviation, robust) if robust > 0 else deviation


def prior_distance(units: Array, prior: Distribution) -> float:
    """Return W1 of each unit of codes (N, C) from the prior's, in its sd, averaged over units."""
    quantiles = _quantiles(prior, len(units))
    scale = prior.variance**0.5
    return float(np.abs(np.sort(units, axis=0) - quantiles).mean() / scale)


def normal_distance(units: Array) -> float | None:
    """Return W1 of each standardised unit of codes (N, C) from N(0, 1), averaged over units.

    Units that do not vary are left out; None where none varies. 0 for a Gaussian, about .48 for two
    points of equal weight.
    """
    moving = units[:, units.std(axis=0) > 0]
    if not moving.shape[1]:
        return None
    standard = np.sort((moving - moving.mean(axis=0)) / moving.std(axis=0), axis=0)
    return float(np.abs(standard - ndtri(_middles(len(units)))[:, None]).mean())


def _middles(count: int) -> Array:
    """Return (i - 1/2) / count: the shares at which W1 compares sorted values with quantiles."""
    places: Array = (np.arange(count) + 0.5) / count
    return places


@functools.lru_cache(maxsize=64)
def _quantiles(prior: Distribution, count: int) -> Array:
    """Return the prior's quantiles for so many sorted codes, (count, C); the same each time.

    Exact with one unit; with several those of each unit of a fixed large sample.
    """
    shares = _middles(count)
    if prior.units == 1:
        return prior.quantile(shares)[:, None]
    drawn = prior.sample((DRAWN,), torch.Generator().manual_seed(0)).numpy().astype(np.float64)
    found: Array = np.quantile(drawn, shares, axis=0)
    return found
