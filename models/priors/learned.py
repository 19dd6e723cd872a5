"""Peaks that members learn: a distribution a member, whose gradient reaches its parameters."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from models.distributions import LOG_SQRT_2PI, NOTHING, SPAN, Mixture


@dataclass(frozen=True, eq=False)
class LearnedPeaks:
    """Mixtures of K Gaussians: means (S, K, U), scales (S, K) and weights (S, K).

    What a divergence asks of a prior that has a gradient of its own: its log density, the span of a
    unit, and the distribution of one unit.
    """

    means: Tensor
    scales: Tensor
    weights: Tensor

    @property
    def units(self) -> int:
        """Return the dimension U."""
        return self.means.shape[2]

    @property
    def peaks(self) -> int:
        """Return the number of components K."""
        return self.means.shape[1]

    def log_prob(self, z: Tensor) -> Tensor:
        """Return each member's log density of (S, ..., U) as (S, ...)."""
        shape = (-1, *[1] * (z.ndim - 2))
        constants = self.weights.log() - self.units * (self.scales.log() + LOG_SQRT_2PI)
        terms = []
        for k in range(self.peaks):
            scale = self.scales[:, k].view(shape)
            means = [self.means[:, k, u].view(shape) for u in range(self.units)]
            squares = [((z[..., u] - mean) / scale).square() for u, mean in enumerate(means)]
            terms.append(functools.reduce(torch.add, squares) * -0.5 + constants[:, k].view(shape))
        high = functools.reduce(torch.maximum, [term.detach() for term in terms])
        parts = [(term - high).clamp(min=NOTHING).exp() for term in terms]
        return functools.reduce(torch.add, parts).log() + high

    def span(self) -> tuple[Tensor, Tensor]:
        """Return between which values each member's unit lies, but for 1e-15 of it, (S,)."""
        reach = SPAN * self.scales
        return (self.means[:, :, 0] - reach).amin(1), (self.means[:, :, 0] + reach).amax(1)

    def marginal(self, unit: int) -> LearnedPeaks:
        """Return the distribution of one unit."""
        return LearnedPeaks(self.means[:, :, [unit]], self.scales, self.weights)

    def mixture(self, place: int) -> Mixture:
        """Return one member's mixture as a value, its peaks in the order of their means."""
        means, scales, weights = (
            part[place].double().tolist() for part in (self.means, self.scales, self.weights)
        )
        peaks = sorted(zip(map(tuple, means), scales, weights, strict=True))
        total = sum(weights)
        return Mixture(
            tuple(mean for mean, _, _ in peaks),
            tuple(scale for _, scale, _ in peaks),
            tuple(weight / total for _, _, weight in peaks),
        )
