"""Divergences of the aggregate q = (1/n) sum of N(mu_i, sigma_i^2) over a batch from the prior.

The aggregate is what the codes of a batch look like together, the P(x) of the original notes. To
add one: a final class here, and its place in `OfAggregates`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from models.distributions import LOG_SQRT_2PI, NOTHING, Distribution
from models.divergences.base import MOST_COMPARED, Compared, Compares, Weighted, thinned

REACH = 8.0  # sigmas on both sides of a code: 1e-15 of a Gaussian lies beyond
LEAST_DENSITY = 1e-30

Formula = Callable[[Tensor, Tensor], Tensor]  # q and log p on a grid, (S, G): what is summed there


class _Aggregate(Weighted):
    """What both have: where the densities are compared.

    On one unit at `points` of the trapezoidal rule, which span eight sigmas around every code and
    every peak: exact where no sigma is below its step (Trefethen and Weideman 2014, SIAM Review
    56, 385), and a narrower one counts as one step. On several units `joint` judges both densities
    at samples, one of each q(z|x) (Monte Carlo); `per_unit` adds up what each unit gives by itself.
    Of a whole dataset 2,048 codes, evenly spaced, make the aggregate.
    """

    points: int = Field(default=512, ge=64, le=16_384, multiple_of=16)
    several: Literal["joint", "per_unit"] = "joint"
    compares: ClassVar[Compares] = "aggregate"

    def _by_samples(self, prior: Distribution) -> bool:
        return prior.units > 1 and self.several == "joint"

    def _by_grids(self, prior: Distribution, code: Compared, kind: str, formula: Formula) -> Tensor:
        mean, log_variance = thinned(code.mean), thinned(code.spread(kind))
        values = []
        for unit in range(prior.units):
            own = prior.marginal(unit)
            grid, step = _grid(own, mean[:, :, unit], log_variance[:, :, unit], self.points)
            density: Tensor = _Density.apply(  # type: ignore[no-untyped-call]
                mean[:, :, unit], log_variance[:, :, unit], grid, step
            )
            values.append(formula(density, own.log_prob(grid.unsqueeze(2))).sum(1) * step)
        return functools.reduce(torch.add, values)


@final
class KlAggregate(_Aggregate):
    """KL(q || p): the ELBO's own term less the information I(x; z) that the code has of the image.

    Hoffman and Johnson 2016, "ELBO surgery", section 2.
    """

    kind: Literal["kl_aggregate"] = "kl_aggregate"
    everywhere: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the divergence of each member's batch, (S,)."""
        if not self._by_samples(prior):
            return self._by_grids(prior, code, "kl_aggregate", _kl)
        own = thinned(code.sample)
        return (_log_aggregate(own, code, "kl_aggregate") - prior.log_prob(own)).mean(1)


@final
class Js(_Aggregate):
    """Jensen-Shannon divergence (Lin 1991, equation 4.1), at most log 2."""

    kind: Literal["js"] = "js"

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw codes of the prior, (count, U), where both are judged at samples."""
        if not self._by_samples(prior):
            return None
        return prior.sample((min(count, MOST_COMPARED),), generator)

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the divergence of each member's batch, (S,)."""
        if not self._by_samples(prior):
            return self._by_grids(prior, code, "js", _js)
        own, drawn = thinned(code.sample), code.draws("js")
        ours = _above_mean(_log_aggregate(own, code, "js"), prior.log_prob(own))
        theirs = _above_mean(prior.log_prob(drawn), _log_aggregate(drawn, code, "js"))
        return 0.5 * (ours.mean(1) + theirs.mean(1))


def _kl(q: Tensor, log_p: Tensor) -> Tensor:
    return q * (q.clamp(min=LEAST_DENSITY).log() - log_p)


def _js(q: Tensor, log_p: Tensor) -> Tensor:
    p = log_p.exp()
    log_mean = (0.5 * (p + q)).clamp(min=LEAST_DENSITY).log()
    ours = q * (q.clamp(min=LEAST_DENSITY).log() - log_mean)
    return 0.5 * (ours + p * (p.clamp(min=LEAST_DENSITY).log() - log_mean))


def _above_mean(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return log a - log((a + b) / 2), element by element (torch's logaddexp has a scalar tail)."""
    gap = log_b - log_a
    return math.log(2) - (gap.clamp(min=0) + gap.abs().neg().exp().log1p())


@torch.no_grad()
def _grid(
    prior: Distribution, mean: Tensor, log_variance: Tensor, points: int
) -> tuple[Tensor, Tensor]:
    """Return points (S, G) over all codes (S, B) and the prior, and their step (S,)."""
    reach = REACH * (0.5 * log_variance).exp()
    low, high = (torch.as_tensor(end).to(mean) for end in prior.span())
    low = torch.minimum((mean - reach).amin(1), low)
    step = (torch.maximum((mean + reach).amax(1), high) - low) / (points - 1)
    return low[:, None] + step[:, None] * torch.arange(points).to(mean), step


class _Density(torch.autograd.Function):
    """The aggregate's density on a grid with its gradient by means and log variances."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_variance: Tensor, grid: Tensor, step: Tensor) -> Tensor:
        sigma = (0.5 * log_variance).exp()
        seen = torch.maximum(sigma, step[:, None])
        gaps = (grid[:, None, :] - mean[:, :, None]) / seen[:, :, None]  # (S, B, G)
        parts = gaps.square().mul_(-0.5).clamp_(min=NOTHING).exp_()
        parts *= (math.exp(-LOG_SQRT_2PI) / mean.shape[1] / seen)[:, :, None]
        ctx.save_for_backward(gaps, parts, seen, sigma)
        return parts.sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gaps, parts, seen, sigma = ctx.saved_tensors
        weighted = parts * grads[0][:, None, :]
        by_log_variance = (weighted * (gaps.square() - 1)).sum(2) * 0.5
        by_mean = weighted.mul_(gaps).sum(2) / seen
        return by_mean, by_log_variance * (sigma >= seen).to(sigma), None, None


def _log_aggregate(at: Tensor, code: Compared, kind: str) -> Tensor:
    """Return the log density of the aggregate at (S, M, U), (S, M)."""
    mean, log_variance = thinned(code.mean), thinned(code.spread(kind))
    units = mean.shape[2]
    precision = (-log_variance).exp()
    squares = [
        (at[:, :, None, u] - mean[:, None, :, u]).square() * precision[:, None, :, u]
        for u in range(units)
    ]
    spreads = functools.reduce(torch.add, [log_variance[:, None, :, u] for u in range(units)])
    terms = (functools.reduce(torch.add, squares) + spreads).mul(-0.5)  # (S, M, B)
    top = terms.detach().amax(2, keepdim=True)
    total = (terms - top).clamp(min=NOTHING).exp().sum(2)
    return total.log() + top.squeeze(2) - (units * LOG_SQRT_2PI + math.log(mean.shape[1]))


OfAggregates = KlAggregate | Js
