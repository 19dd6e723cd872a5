"""Divergences of a batch of codes from the prior, by a kernel over all pairs.

To add one: a final class here, with its kernel, and its place in `ByKernels`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from models.distributions import Distribution
from models.divergences.base import MOST_COMPARED, Compared, Compares, Weighted, thinned

# A kernel takes squared distances, and returns its values and their slopes by these.
Kernel = Callable[[Tensor], tuple[Tensor, Tensor]]
LEAST_SQUARE = 1e-20  # of a distance: below it two codes are one, and pull at each other no more


class _Pairs(Weighted):
    """What both have: as many draws from the prior as codes, of a whole dataset 2,048."""

    weight: float = Field(default=10.0, ge=0, le=1e9)
    compares: ClassVar[Compares] = "sample"

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw codes of the prior, (count, U)."""
        return prior.sample((min(count, MOST_COMPARED),), generator)


@final
class Mmd(_Pairs):
    """Maximum mean discrepancy with inverse multiquadratic kernels (Tolstikhin 2018, section 4).

    k(x, y) = sum over s in `scales` of s C / (s C + |x - y|^2) with C = 2 U v, where v is the
    prior's variance a unit; the unbiased estimate of algorithm 2 there, with as many draws from the
    prior as codes. It may be below zero near the optimum. Of a whole dataset 2,048 codes, evenly
    spaced, are compared.
    """

    kind: Literal["mmd"] = "mmd"
    scales: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = Field(
        default=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), strict=False, min_length=1, max_length=32
    )

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the squared discrepancy of each member's batch, (S,)."""
        widths = [scale * 2 * prior.units * prior.variance for scale in self.scales]
        return _discrepancy(code, "mmd", functools.partial(_multiquadratic, widths=widths))


@final
class Energy(_Pairs):
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (Szekely and Rizzo 2013, equation 1).

    It is the squared discrepancy of the kernel -|x - y| (Sejdinovic et al. 2013, theorem 22), so it
    has no width to choose; on one unit it is twice the integral of the squared gap of both
    distribution functions. The unbiased estimate, which may be below zero near the optimum.
    """

    kind: Literal["energy"] = "energy"

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return the distance of each member's batch, (S,)."""
        del prior
        return _discrepancy(code, "energy", _distance)


def _multiquadratic(squares: Tensor, widths: list[float]) -> tuple[Tensor, Tensor]:
    value, steepness = torch.zeros_like(squares), torch.zeros_like(squares)
    part, product = torch.empty_like(squares), torch.empty_like(squares)
    for width in widths:
        torch.add(squares, width, out=part).reciprocal_()
        value += torch.mul(part, width, out=product)
        steepness -= product.mul_(part)
    return value, steepness


def _distance(squares: Tensor) -> tuple[Tensor, Tensor]:
    apart = squares.sqrt()
    steepness = squares.clamp(min=LEAST_SQUARE).sqrt_().reciprocal_().mul_(-0.5)
    return apart.neg_(), steepness.mul_((squares > LEAST_SQUARE).to(squares))


def _discrepancy(code: Compared, kind: str, kernel: Kernel) -> Tensor:
    drawn = code.draws(kind)
    sample = thinned(code.sample, drawn.shape[1])
    value: Tensor = _Discrepancy.apply(sample, drawn, kernel)  # type: ignore[no-untyped-call]
    return value


class _Discrepancy(torch.autograd.Function):
    """The unbiased squared discrepancy with its gradient by the codes, each in one pass."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, drawn: Tensor, kernel: Kernel) -> Tensor:
        count = codes.shape[1]
        off = 1 - torch.eye(count).to(codes)
        own, own_slope = kernel(_squares(codes, codes))
        cross, cross_slope = kernel(_squares(codes, drawn))
        others, _ = kernel(_squares(drawn, drawn))
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


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of all pairs, (S, B, B)."""
    gaps = [x[:, :, None, u] - y[:, None, :, u] for u in range(x.shape[2])]
    return functools.reduce(torch.add, [gap.square() for gap in gaps])


def _pull(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return sum over y of weight times (x - y), (S, B, U)."""
    units = [((x[:, :, None, u] - y[:, None, :, u]) * weights).sum(2) for u in range(x.shape[2])]
    return torch.stack(units, 2)


ByKernels = Mmd | Energy
