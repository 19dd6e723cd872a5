"""Priors: the shape that the class unit's code is pushed towards.

A prior is settings that give a `Mixture`; everything else (densities, samples, quantiles, the
number of modes) is the mixture's. To add one: a final class here, and its place in `Prior`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from scipy.special import ndtr
from torch import Tensor

from models.settings import Settings, as_kind

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the line, components from left to right."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density at z, elementwise, in z's shape."""
        terms = [
            ((z - mean) / scale).square().mul(-0.5) + (math.log(weight / scale) - LOG_SQRT_2PI)
            for mean, scale, weight in zip(self.means, self.scales, self.weights, strict=True)
        ]
        return functools.reduce(_log_add_exp, terms)

    def cdf(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distribution function at z."""
        parts = zip(self.means, self.scales, self.weights, strict=True)
        total: NDArray[np.float64] = sum(
            (weight * ndtr((z - mean) / scale) for mean, scale, weight in parts), np.zeros_like(z)
        )
        return total

    def quantile(self, share: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where the distribution function reaches share (strictly between 0 and 1).

        Bisection over ±40 scales around the components, to the last bit of float64.
        """
        reach = 40 * max(self.scales)
        low = np.full_like(share, min(self.means) - reach)
        high = np.full_like(share, max(self.means) + reach)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle) < share
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        result: NDArray[np.float64] = (low + high) / 2
        return result

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw values of the shape, float32 on the CPU."""
        weights = torch.tensor(self.weights)
        which = torch.multinomial(weights, math.prod(shape), replacement=True, generator=generator)
        noise = torch.randn(math.prod(shape), generator=generator)
        means, scales = torch.tensor(self.means), torch.tensor(self.scales)
        return (means[which] + scales[which] * noise).view(shape)

    @functools.cached_property
    def modes(self) -> int:
        """Count the peaks of the density, found on a grid of a hundredth of the least scale."""
        low, high = min(self.means) - max(self.scales), max(self.means) + max(self.scales)
        points = math.ceil(100 * (high - low) / min(self.scales)) | 1
        density = self.log_prob(torch.linspace(low, high, points, dtype=torch.float64)).numpy()
        rising = np.diff(density) > 0
        return int(np.sum(rising[:-1] & ~rising[1:]))

    @property
    def midpoint(self) -> float:
        """Return the point halfway between the outermost components."""
        return (self.means[0] + self.means[-1]) / 2


def _log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    # torch.logaddexp rounds its last few values differently from the rest (a scalar tail), which
    # would let a member's place in the pack show; exp and log1p do not.
    high = torch.maximum(a, b)
    return high + (a - b).abs().neg().exp().log1p()


@final
class Normal(Settings):
    """One Gaussian."""

    kind: Literal["normal"] = "normal"
    mean: float = 0.0
    scale: float = Field(default=1.0, gt=0)

    def mixture(self) -> Mixture:
        """Return the distribution."""
        return Mixture((self.mean,), (self.scale,), (1.0,))


@final
class Bimodal(Settings):
    """Two equal Gaussians of scale s at -m and m; two peaks only where m > s."""

    kind: Literal["bimodal"] = "bimodal"
    m: float = Field(default=1.0, gt=0)
    s: float = Field(default=0.35, gt=0)

    def mixture(self) -> Mixture:
        """Return the distribution."""
        return Mixture((-self.m, self.m), (self.s, self.s), (0.5, 0.5))


Prior = Annotated[Normal | Bimodal, Field(discriminator="kind"), BeforeValidator(as_kind)]
