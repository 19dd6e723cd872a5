"""Divergences: how far the code is from the prior, a value a member.

Each row says what it compares: the *density* of q(z|x), known where the encoder is stochastic, or
the *sample* of codes in the batch. What a row draws at every step it draws for each member apart.
To add one: a final class here, and its place in `Divergence`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor

from models.distributions import Distribution
from models.settings import Settings, as_kind

Compares = Literal["density", "sample"]

LEAST_WEIGHT = 1e-15  # of a node: more than half of 128 lie so far out that they add nothing
LOG_SQRT_2PI_E = 0.5 * math.log(2 * math.pi * math.e)
MOST_COMPARED = 2048  # codes of a whole dataset: pairs are squared, directions many


@dataclass(frozen=True)
class Compared:
    """The codes of a batch in the units that carry the prior, U of them.

    `mean` (S, B, U); `log_variance` the same, None where the encoder is deterministic; `sample`
    (S, B, U), which is the mean there; `drawn` (S, ...) what the divergence's `draw` gave.
    """

    mean: Tensor
    log_variance: Tensor | None
    sample: Tensor
    drawn: Tensor | None = None


class Weighted(Settings):
    """What every divergence has: its weight in the loss, and a linear warm-up in steps."""

    weight: float = Field(default=1.0, ge=0, le=1e9)
    warm_up: int = Field(default=0, ge=0, le=100_000_000)

    def weight_at(self, step: int) -> float:
        """Return the weight at a step, counted from 0: a line from 0 to `weight`, then flat."""
        return self.weight * min(1.0, step / self.warm_up) if self.warm_up else self.weight

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw what one member needs to compare so many codes, None for nothing."""
        del prior, count, generator
        return None


@final
class Kl(Weighted):
    """KL(q(z|x) || p) per image, the ELBO's own term (Kingma and Welling 2014, appendix B).

    Closed form for one Gaussian. For more on one unit, E_q[-log p] by Gauss-Hermite quadrature of
    order `nodes`: the integrand has a kink between two peaks that a wide q sees, and at 32 nodes
    its error makes a code across both peaks look better than one inside either, which invites
    collapse. On several units, E_q[-log p] by the sample that the decoder gets (Monte Carlo).
    """

    kind: Literal["kl"] = "kl"
    nodes: Literal[32, 64, 128, 256] = 128
    compares: ClassVar[Compares] = "density"

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the mean over the batch, (S,)."""
        mean, log_variance = code.mean, code.log_variance
        if log_variance is None:
            msg = "kl needs a stochastic encoder"
            raise TypeError(msg)
        if prior.peaks == 1:
            shift, scale = prior.means[0], prior.scales[0]  # type: ignore[attr-defined]
            at = mean.new_tensor(shift)
            squares = (log_variance.exp() + (mean - at).square()) / scale**2
            per_unit = 0.5 * (squares - 1 - log_variance) + math.log(scale)
            total: Tensor = per_unit.sum(2).mean(1)
            return total
        entropy = 0.5 * log_variance + LOG_SQRT_2PI_E
        if prior.units > 1:
            return (-entropy.sum(2) - prior.log_prob(code.sample)).mean(1)
        points, shares = (torch.from_numpy(part).to(mean) for part in _gauss_hermite(self.nodes))
        spread = (0.5 * log_variance).exp()
        z = mean + spread * points  # (S, B, nodes)
        return (-entropy.squeeze(2) - (prior.log_prob(z.unsqueeze(3)) * shares).sum(2)).mean(1)


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
        own = _projected(_thinned(code.sample, codes.shape[1]), ways)
        gaps = own.sort(2).values - _projected(codes, ways).sort(2).values
        return (gaps.abs() if self.p == 1 else gaps.square()).mean(2).mean(1)


@final
class Mmd(Weighted):
    """Maximum mean discrepancy with inverse multiquadratic kernels (Tolstikhin 2018, section 4).

    k(x, y) = sum over s in `scales` of s C / (s C + |x - y|^2) with C = 2 U v, where v is the
    prior's variance a unit; the unbiased estimate of algorithm 2 there, with as many draws from the
    prior as codes. It may be below zero near the optimum. Of a whole dataset 2,048 codes, evenly
    spaced, are compared.
    """

    kind: Literal["mmd"] = "mmd"
    weight: float = Field(default=10.0, ge=0, le=1e9)
    scales: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = Field(
        default=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), strict=False, min_length=1, max_length=32
    )
    compares: ClassVar[Compares] = "sample"

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw codes of the prior, (count, U)."""
        return prior.sample((min(count, MOST_COMPARED),), generator)

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the squared discrepancy of each member's batch, (S,)."""
        if code.drawn is None:
            msg = "mmd needs draws from the prior"
            raise TypeError(msg)
        drawn = code.drawn.to(code.sample)
        sample = _thinned(code.sample, drawn.shape[1])
        widths = [scale * 2 * prior.units * prior.variance for scale in self.scales]
        value: Tensor = _ImqDiscrepancy.apply(sample, drawn, widths)  # type: ignore[no-untyped-call]
        return value


class _ImqDiscrepancy(torch.autograd.Function):
    """The unbiased squared discrepancy with its gradient by the codes, each in one pass."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, drawn: Tensor, widths: list[float]) -> Tensor:
        count = codes.shape[1]
        off = 1 - torch.eye(count).to(codes)
        own, own_slope = _imq(codes, codes, widths)
        cross, cross_slope = _imq(codes, drawn, widths)
        others, _ = _imq(drawn, drawn, widths, slope=False)
        pairs, every = 1 / max(1, count * (count - 1)), 2 / count**2
        # d|x - y|^2 / dx = 2 (x - y), and a code is on both sides of its own pairs.
        pull = _pull(codes, codes, own_slope * off) * (2 * 2 * pairs)
        ctx.save_for_backward(pull - _pull(codes, drawn, cross_slope) * (2 * every))
        inner = ((own + others) * off).sum(2).sum(1) * pairs
        return inner - cross.sum(2).sum(1) * every

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (pull,) = ctx.saved_tensors
        return pull * grads[0][:, None, None], None, None


def _imq(x: Tensor, y: Tensor, widths: list[float], *, slope: bool = True) -> tuple[Tensor, Tensor]:
    """Return the kernel of all pairs and its slope by the squared distance, (S, B, B) each."""
    gaps = [x[:, :, None, u] - y[:, None, :, u] for u in range(x.shape[2])]
    apart = functools.reduce(torch.add, [gap.square() for gap in gaps])
    value, steepness = torch.zeros_like(apart), torch.zeros_like(apart)
    part, product = torch.empty_like(apart), torch.empty_like(apart)
    for width in widths:
        torch.add(apart, width, out=part).reciprocal_()
        value += torch.mul(part, width, out=product)
        if slope:
            steepness -= product.mul_(part)
    return value, steepness


def _pull(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return sum over y of weight times (x - y), (S, B, U)."""
    units = [((x[:, :, None, u] - y[:, None, :, u]) * weights).sum(2) for u in range(x.shape[2])]
    return torch.stack(units, 2)


def _thinned(codes: Tensor, count: int) -> Tensor:
    """Return so many codes of (S, B, U), evenly spaced; all of a training batch."""
    if codes.shape[1] <= count:
        return codes
    places = torch.linspace(0, codes.shape[1] - 1, count, dtype=torch.float64).round().long()
    return codes[:, places.to(codes.device)]


def _projected(codes: Tensor, ways: Tensor) -> Tensor:
    """Return codes (S, B, U) along directions (S, L, U) as (S, L, B), unit by unit."""
    parts = [codes[:, None, :, u] * ways[:, :, None, u] for u in range(codes.shape[2])]
    return functools.reduce(torch.add, parts)


@functools.lru_cache(maxsize=64)
def _gauss_hermite(nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights /= weights.sum()
    kept = weights > LEAST_WEIGHT
    points, weights = points[kept], weights[kept]
    return points, weights / weights.sum()


@functools.lru_cache(maxsize=64)
def _mid_quantiles(prior: Distribution, count: int) -> NDArray[np.float64]:
    return prior.quantile((np.arange(count) + 0.5) / count)


Divergence = Annotated[
    Kl | Wasserstein | Mmd, Field(discriminator="kind"), BeforeValidator(as_kind)
]
COMPARES: dict[str, Compares] = {
    row.model_fields["kind"].default: row.compares for row in get_args(get_args(Divergence)[0])
}
