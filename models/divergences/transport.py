"""Divergences of a batch of codes from the prior, by what it costs to move one onto the other.

To add one: a final class here, and its place in `ByTransport`.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar, Literal, final

import numpy as np
import torch
from geomloss import SamplesLoss
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from models.distributions import Distribution
from models.divergences.base import MOST_COMPARED, Compared, Compares, Weighted, thinned

WIDTH = 8.0  # of a prior in its own standard deviations, where the entropy's temperature begins
MOST_MATCHED = 512  # codes: every iteration looks at all pairs


@final
class Wasserstein(Weighted):
    """W_p^p between the batch of codes and the prior: exact on one unit, sliced on several.

    On the line (1/B) sum_i |z_(i) - Q((i - 1/2) / B)|^p with the prior's quantile function Q
    (Villani 2009, theorem 2.18 and remark 2.19). On several units the mean over random directions
    of the same between the projected codes and as many projected draws from the prior (Kolouri et
    al. 2018, arXiv:1804.01947, equation 13); of a whole dataset 2,048 codes, evenly spaced. Not
    zero at the optimum: its floor falls with B.
    """

    kind: Literal["wasserstein"] = "wasserstein"
    weight: float = Field(default=10.0, ge=0, le=1e9)
    p: Literal[1, 2] = 2
    directions: int = Field(default=50, ge=1, le=10_000)
    compares: ClassVar[Compares] = "sample"

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw directions (directions, U) and below them codes of the prior (count, U)."""
        if prior.units == 1:
            return None
        ways = torch.randn((self.directions, prior.units), generator=generator)
        ways /= ways.square().sum(1, keepdim=True).sqrt_().clamp_(min=1e-12)
        return torch.cat([ways, prior.sample((min(count, MOST_COMPARED),), generator)])

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the distance of each member's batch, (S,)."""
        if code.drawn is None:
            targets = torch.from_numpy(_mid_quantiles(prior, code.sample.shape[1])).to(code.sample)
            gaps = code.sample.squeeze(2).sort(1).values - targets
            return (gaps.abs() if self.p == 1 else gaps.square()).mean(1)
        drawn = code.drawn.to(code.sample)
        ways, codes = drawn[:, : self.directions], drawn[:, self.directions :]
        own = _projected(thinned(code.sample, codes.shape[1]), ways)
        gaps = own.sort(2).values - _projected(codes, ways).sort(2).values
        return (gaps.abs() if self.p == 1 else gaps.square()).mean(2).mean(1)


@final
class Sinkhorn(Weighted):
    """Sinkhorn divergence for the cost |x - y|^2 / 2 (Feydy et al. 2019, arXiv:1810.08278).

    Optimal transport with an entropy of temperature (`blur` v)^2, v the prior's standard deviation
    a unit, less half of what each side pays for itself, so that it is zero between equals; between
    as many draws from the prior as codes, of a whole dataset 512, evenly spaced. Computed by
    geomloss. Between W_2^2 / 2 (no blur) and half a squared distance of means (all blur). The blur
    shrinks to its own by `scaling` at every iteration: nearer to 1 is truer and slower. Between two
    peaks the potentials settle slowly: the gradient is 9 % off at .9, 51 % at .5 (blur .2).
    """

    kind: Literal["sinkhorn"] = "sinkhorn"
    weight: float = Field(default=10.0, ge=0, le=1e9)
    blur: float = Field(default=0.2, ge=0.01, le=10)
    scaling: float = Field(default=0.9, ge=0.3, le=0.99)
    compares: ClassVar[Compares] = "sample"

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw codes of the prior, (count, U)."""
        return prior.sample((min(count, MOST_MATCHED),), generator)

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the divergence of each member's batch, (S,)."""
        drawn, deviation = code.draws("sinkhorn"), math.sqrt(prior.variance)
        loss = SamplesLoss(
            "sinkhorn",
            p=2,
            blur=self.blur * deviation,
            scaling=self.scaling,
            # Else it would be that of all members' codes together.
            diameter=max(WIDTH, 2 * self.blur) * deviation,
            cost=_half_squares,
            backend="tensorized",
        )
        value: Tensor = loss(thinned(code.sample, drawn.shape[1]), drawn)
        return value


def _half_squares(x: Tensor, y: Tensor) -> Tensor:
    """Return half the squared distance of all pairs, unit by unit, with no matrix product."""
    gaps = [x[:, :, None, u] - y[:, None, :, u] for u in range(x.shape[2])]
    return functools.reduce(torch.add, [gap.square() for gap in gaps]).mul(0.5)


def _projected(codes: Tensor, ways: Tensor) -> Tensor:
    """Return codes (S, B, U) along directions (S, L, U) as (S, L, B), unit by unit."""
    parts = [codes[:, None, :, u] * ways[:, :, None, u] for u in range(codes.shape[2])]
    return functools.reduce(torch.add, parts)


@functools.lru_cache(maxsize=64)
def _mid_quantiles(prior: Distribution, count: int) -> NDArray[np.float64]:
    return prior.quantile((np.arange(count) + 0.5) / count)


ByTransport = Wasserstein | Sinkhorn
