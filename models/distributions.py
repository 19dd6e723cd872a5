"""Distributions in a few dimensions: what a prior gives, and all that others ask of it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import ndtr, softmax
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
SPAN = 8  # scales from a mean: 1e-15 of a Gaussian lies beyond
FAR = 40  # scales from a mean: nothing of a Gaussian is left there, even in float64
CLIMBS = 1000
NOTHING = -80.0  # beside a term of 0; below -87 exp makes subnormal numbers, at ten times the cost
LEAST_STEP = 1e-3  # of a scale: closer points of a grid are one
SETTLED, ONE_SUMMIT = 1e-6, 0.1  # of the least scale

Array = NDArray[np.float64]


class Distribution(Protocol):
    """A distribution of codes (..., U)."""

    @property
    def units(self) -> int:
        """Return the dimension U."""

    @property
    def weights(self) -> tuple[float, ...]:
        """Return the share of each component."""

    @property
    def variance(self) -> float:
        """Return the variance of a unit, averaged over the units."""

    @property
    def peaks(self) -> int:
        """Return how many components a code can belong to."""

    @property
    def modes(self) -> int:
        """Count the local maxima of the density; a flat one counts as one."""

    @property
    def midpoint(self) -> float:
        """Return the middle of the first unit: halfway between the outermost components."""

    def __hash__(self) -> int:
        """Distributions are values: equal ones share their tables."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of (..., U) as (...)."""

    def log_joint(self, z: Tensor) -> Tensor:
        """Return log weight plus log density of every component, (..., U) to (..., peaks)."""

    def quantile(self, share: Array) -> Array:
        """Return where the distribution function of a single unit reaches share (0 to 1)."""

    def span(self) -> tuple[float | Tensor, float | Tensor]:
        """Return between which values a single unit lies, but for 1e-15 of it."""

    def marginal(self, unit: int) -> Distribution:
        """Return the distribution of one unit."""

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw (*shape, U), float32 on the CPU."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians: means (K, U), and a scale and a weight for each of the K."""

    means: tuple[tuple[float, ...], ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def units(self) -> int:
        """Return the dimension U."""
        return len(self.means[0])

    @property
    def peaks(self) -> int:
        """Return the number of components K."""
        return len(self.means)

    @property
    def variance(self) -> float:
        """Return the variance of a unit, averaged over the units: within and between components."""
        means, weights = np.array(self.means), np.array(self.weights)
        between = weights @ (means - weights @ means) ** 2
        return float(between.mean() + weights @ np.square(self.scales))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of (..., U) as (...)."""
        value: Tensor = _MixtureLogDensity.apply(z, self)  # type: ignore[no-untyped-call]
        return value

    def log_joint(self, z: Tensor) -> Tensor:
        """Return log weight plus log density of every component, (..., U) to (..., K)."""
        return torch.stack(self.terms(z), -1)

    def terms(self, z: Tensor) -> list[Tensor]:
        """Return log weight plus log density of each component, (...) each."""
        terms = []
        for mean, scale, weight in zip(self.means, self.scales, self.weights, strict=True):
            # Unit by unit, not as a sum over an axis: each element by itself, whatever the layout.
            squares = [((z[..., u] - m) / scale).square() for u, m in enumerate(mean)]
            constant = math.log(weight) - self.units * (math.log(scale) + LOG_SQRT_2PI)
            terms.append(functools.reduce(torch.add, squares).mul(-0.5) + constant)
        return terms

    def cdf(self, z: Array) -> Array:
        """Return the distribution function of a single unit at z."""
        parts = zip(self.means, self.scales, self.weights, strict=True)
        total: Array = sum(
            (weight * ndtr((z - mean[0]) / scale) for mean, scale, weight in parts),
            np.zeros_like(z),
        )
        return total

    def quantile(self, share: Array) -> Array:
        """Return where the distribution function of a single unit reaches share (0 to 1).

        Bisection over ±40 scales around the components, to the last bit of float64.
        """
        places = [mean[0] for mean in self.means]
        reach = FAR * max(self.scales)
        low = np.full_like(share, min(places) - reach)
        high = np.full_like(share, max(places) + reach)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle) < share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        result: Array = (low + high) / 2
        return result

    def span(self) -> tuple[float, float]:
        """Return between which values a single unit lies, but for 1e-15 of it."""
        places = list(zip(self.means, self.scales, strict=True))
        low = min(mean[0] - SPAN * scale for mean, scale in places)
        return low, max(mean[0] + SPAN * scale for mean, scale in places)

    def widened(self, factor: float) -> Mixture:
        """Return the same with every scale so many times as large."""
        scales = tuple(scale * factor for scale in self.scales)
        return self if factor == 1 else Mixture(self.means, scales, self.weights)

    def marginal(self, unit: int) -> Mixture:
        """Return the distribution of one unit: a mixture with the same scales and weights."""
        if self.units == 1:
            return self
        return Mixture(tuple((mean[unit],) for mean in self.means), self.scales, self.weights)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw (*shape, U), float32 on the CPU."""
        means, scales = torch.tensor(self.means), torch.tensor(self.scales)
        noise = torch.randn((*shape, self.units), generator=generator)
        if self.peaks == 1:
            return means[0] + scales[0] * noise
        edges = torch.tensor(np.cumsum(self.weights)[:-1], dtype=torch.float32)
        which = torch.bucketize(torch.rand(shape, generator=generator), edges, right=True)
        return means[which] + scales[which].unsqueeze(-1) * noise

    @functools.cached_property
    def modes(self) -> int:
        """Count the local maxima of the density that lie uphill of the components' means."""
        if self.peaks == 1:
            return 1
        return self._modes_of_a_line() if self.units == 1 else self._modes_uphill()

    def _modes_of_a_line(self) -> int:
        """Count rises that turn to falls on a grid of a hundredth of each scale.

        A mode lies within a scale of some mean: elsewhere the density bends upwards where it is
        level.
        """
        grids = [
            mean[0] + scale * np.linspace(-3, 3, 601)
            for mean, scale in zip(self.means, self.scales, strict=True)
        ]
        grid = np.unique(np.concatenate(grids))
        # Between points that differ by their rounding alone, so would the densities.
        grid = grid[np.diff(grid, prepend=-np.inf) > LEAST_STEP * min(self.scales)]
        density = self.log_prob(torch.from_numpy(grid).unsqueeze(-1)).numpy()
        rising = np.diff(density) > 0
        return int(np.sum(rising[:-1] & ~rising[1:]))

    def _modes_uphill(self) -> int:
        """Climb from every mean by mean shift; summits a tenth of a scale apart are two.

        From a little beside the mean, which itself may be a saddle between its neighbours.
        """
        means, scales = np.array(self.means), np.array(self.scales)
        constant = np.log(self.weights) - self.units * np.log(scales)
        aside = np.random.default_rng(0).normal(size=means.shape)
        place = means + LEAST_STEP * scales[:, None] * aside
        for _ in range(CLIMBS):
            share = softmax(constant - 0.5 * (cdist(place, means) / scales) ** 2, axis=1)
            pull = share / scales**2  # (K, K)
            before, place = place, pull @ means / pull.sum(1, keepdims=True)
            if np.abs(place - before).max() < SETTLED * scales.min():
                break
        apart = cdist(place, place) > ONE_SUMMIT * scales.min()
        return sum(bool(apart[k, :k].all()) for k in range(self.peaks))

    @property
    def midpoint(self) -> float:
        """Return the point of the first unit halfway between the outermost components."""
        places = [mean[0] for mean in self.means]
        return (min(places) + max(places)) / 2


@dataclass(frozen=True)
class Box:
    """The uniform distribution between low and high in every unit."""

    low: float
    high: float
    units: int

    peaks = modes = 1
    weights = (1.0,)

    @property
    def variance(self) -> float:
        """Return the variance of a unit."""
        return (self.high - self.low) ** 2 / 12

    @property
    def midpoint(self) -> float:
        """Return the middle."""
        return (self.low + self.high) / 2

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of (..., U) as (...): minus infinity outside."""
        inside = ((z >= self.low) & (z <= self.high)).all(-1)
        height = -self.units * math.log(self.high - self.low)
        return torch.where(inside, z.new_tensor(height), z.new_tensor(-torch.inf))

    def log_joint(self, z: Tensor) -> Tensor:
        """Return the log density as that of a single component, (..., U) to (..., 1)."""
        return self.log_prob(z).unsqueeze(-1)

    def cdf(self, z: Array) -> Array:
        """Return the distribution function of a single unit at z."""
        share: Array = np.clip((z - self.low) / (self.high - self.low), 0, 1)
        return share

    def quantile(self, share: Array) -> Array:
        """Return where the distribution function of a single unit reaches share (0 to 1)."""
        place: Array = self.low + share * (self.high - self.low)
        return place

    def span(self) -> tuple[float, float]:
        """Return between which values a unit lies."""
        return self.low, self.high

    def marginal(self, unit: int) -> Box:
        """Return the distribution of one unit: all are alike."""
        del unit
        return Box(self.low, self.high, 1)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw (*shape, U), float32 on the CPU."""
        share = torch.rand((*shape, self.units), generator=generator)
        return self.low + share * (self.high - self.low)


class _MixtureLogDensity(torch.autograd.Function):
    """The log of a sum of Gaussians with its gradient, in one pass over the components.

    Element by element, and by exp and log1p: torch's logsumexp and logaddexp round the last few
    values differently from the rest (a scalar tail), which would let a member's place in the pack
    show.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, mixture: Mixture) -> Tensor:
        terms = mixture.terms(z)
        high = functools.reduce(torch.maximum, terms)
        parts = [(term - high).clamp_(min=NOTHING).exp_() for term in terms]
        total = functools.reduce(torch.add, parts)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_slope(z, mixture, parts, total))
        return high + (total - 1).log1p_()  # one of the parts is 1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * grads[0].unsqueeze(-1), None


def _slope(z: Tensor, mixture: Mixture, parts: list[Tensor], total: Tensor) -> Tensor:
    """Return the gradient of the log density, (..., U): pulls to the means by their posteriors."""
    slope = torch.empty_like(z)
    for u in range(mixture.units):
        place = z[..., u]
        pulls = [
            part * (mean[u] - place) / scale**2
            for part, mean, scale in zip(parts, mixture.means, mixture.scales, strict=True)
        ]
        slope[..., u] = functools.reduce(torch.add, pulls) / total
    return slope
