"""Layers of many members at once, with the bits that each member would have alone.

A member is one seed's network. Its parameters are one row of P values in named blocks; a pack keeps
S rows in one flat buffer, block after block and, inside a block, member after member, each on a
64-byte boundary. The kernel of a layer is chosen by the member's own shape, never by S, so a
member's numbers do not depend on how many partners it has (decision 1).

Gradients are written straight into a buffer of the same layout, so a layer serves once a step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIGN = 16  # floats: one 64-byte cache line, one AVX-512 register
EPSILON = 1e-5  # of BatchNorm, as in torch.nn.BatchNorm1d
MOMENTUM = 0.1


@dataclass(frozen=True)
class Block:
    """One tensor of a member: its name, shape and first values.

    They are `start` where that is given, else uniform in ±bound around centre.
    """

    name: str
    shape: tuple[int, ...]
    bound: float = 0.0
    centre: float = 0.0
    start: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where each block of a member lies in its row."""

    blocks: tuple[Block, ...]

    @functools.cached_property
    def cuts(self) -> tuple[tuple[Block, int, int], ...]:
        """Return (block, start, end) of each block, padded to whole cache lines."""
        cuts, end = [], 0
        for block in self.blocks:
            start, end = end, end - (-block.size // ALIGN) * ALIGN
            cuts.append((block, start, end))
        return tuple(cuts)

    @property
    def size(self) -> int:
        """Return the length P of a member's row."""
        return self.cuts[-1][2] if self.cuts else 0

    def pack(self, rows: Tensor) -> Tensor:
        """Lay member rows (S, P) out as one flat buffer (S * P)."""
        parts = [rows[:, start:end].reshape(-1) for _, start, end in self.cuts]
        return torch.cat(parts) if parts else rows.reshape(-1)

    def unpack(self, flat: Tensor, members: int) -> Tensor:
        """Return the member rows (S, P) of a flat buffer, as a copy."""
        parts = [
            flat[members * start : members * end].view(members, -1) for _, start, end in self.cuts
        ]
        return torch.cat(parts, 1) if parts else flat.view(members, 0)

    def views(self, flat: Tensor, members: int) -> dict[str, Tensor]:
        """Return each block of a flat buffer as a view (S, *shape)."""
        return {
            block.name: flat[members * start : members * end]
            .view(members, -1)[:, : block.size]
            .view(members, *block.shape)
            for block, start, end in self.cuts
        }

    def first_row(self, generator: torch.Generator) -> Tensor:
        """Draw a member's first values, (P,), block after block, always as float32 on the CPU."""
        row = torch.zeros(1, self.size)
        views = self.views(row[0], 1)
        for block in self.blocks:
            values = views[block.name]
            if block.bound:
                values.uniform_(-block.bound, block.bound, generator=generator)
            values.add_(block.centre)
            if block.start:
                values.copy_(torch.tensor(block.start).view(block.shape))
        return row[0]


@dataclass(frozen=True)
class Views:
    """The members' tensors by block name, each with a leading member axis."""

    values: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    training: bool


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply (S, B, I) by (S, I, O) by the kernel that suits (I, O)."""
    fan_in, fan_out = weight.shape[1:]
    if fan_out == 1:
        y = (x * weight.transpose(1, 2)).sum(2, keepdim=True)
    elif fan_in == 1:
        y = x * weight
    elif fan_in * fan_out % ALIGN == 0:
        y = torch.bmm(x, weight)
    else:
        y = torch.stack([one @ w for one, w in zip(x, weight, strict=True)])
    return y if bias is None else y.add_(bias.unsqueeze(1))


def _weight_gradient(x: Tensor, grad: Tensor, out: Tensor) -> None:
    """Write the gradient of `_affine` by its weight to `out` (S, I, O)."""
    fan_in, fan_out = out.shape[1:]
    if fan_out == 1 or fan_in == 1:
        torch.sum(x * grad, 1, out=out.view(len(out), -1))
    elif fan_in * fan_out % ALIGN == 0:
        torch.bmm(x.transpose(1, 2), grad, out=out)
    else:
        for one, g, target in zip(x, grad, out, strict=True):
            torch.mm(one.t(), g, out=target)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gradients: Sequence[Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.gradients = gradients
        return _affine(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        _weight_gradient(x, grad, ctx.gradients[0])
        if len(ctx.gradients) > 1:
            torch.sum(grad, 1, out=ctx.gradients[1])
        wanted = ctx.needs_input_grad[0]
        return (_affine(grad, weight.transpose(1, 2), None) if wanted else None), None, None, None


@dataclass(frozen=True)
class Linear:
    """(S, B, fan_in) to (S, B, fan_out), initialised as torch.nn.Linear is."""

    name: str
    fan_in: int
    fan_out: int
    bias: bool = True

    def blocks(self) -> list[Block]:
        """Return the parameters of one member."""
        bound = 1 / math.sqrt(self.fan_in)
        weight = Block(f"{self.name}.weight", (self.fan_in, self.fan_out), bound)
        return [weight, *([Block(f"{self.name}.bias", (self.fan_out,), bound)] * self.bias)]

    def buffers(self) -> list[Block]:
        """Return the state without gradients: none."""
        return []

    def __call__(self, views: Views, x: Tensor) -> Tensor:
        """Apply each member's weight to its rows."""
        names = [block.name for block in self.blocks()]
        weight, *bias = (views.values[name] for name in names)
        gradients = [views.gradients[name] for name in names] if views.training else []
        y: Tensor = _Linear.apply(x, weight, bias[0] if bias else None, gradients)  # type: ignore[no-untyped-call]
        return y


class _Parameter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        ctx.gradient.copy_(grads[0])
        return None, None


@dataclass(frozen=True)
class Parameter:
    """Values of a member that a formula reads as they are."""

    block: Block

    @property
    def part(self) -> str:
        """Return the last word of its name."""
        return self.block.name.rpartition(".")[2]

    def blocks(self) -> list[Block]:
        """Return the parameters of one member."""
        return [self.block]

    def buffers(self) -> list[Block]:
        """Return the state without gradients: none."""
        return []

    def __call__(self, views: Views) -> Tensor:
        """Return the members' values, (S, *shape)."""
        value, name = views.values[self.block.name], self.block.name
        if not views.training:
            return value
        y: Tensor = _Parameter.apply(value, views.gradients[name])  # type: ignore[no-untyped-call]
        return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        running: tuple[Tensor, Tensor],
        gradients: Sequence[Tensor],
    ) -> Tensor:
        mean = x.mean(1, keepdim=True)
        normed = x - mean
        variance = normed.square().mean(1, keepdim=True)
        inverse = variance.add(EPSILON).sqrt_().reciprocal_()
        normed.mul_(inverse)
        count = x.shape[1]
        # Separate multiplications and additions: a fused one may differ between vector and tail.
        for state, now in zip(running, (mean, variance * (count / (count - 1))), strict=True):
            state.mul_(1 - MOMENTUM).add_(now.squeeze(1) * MOMENTUM)
        ctx.save_for_backward(normed, inverse, scale)
        ctx.gradients = gradients
        return (normed * scale.unsqueeze(1)).add_(shift.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grads
        normed, inverse, scale = ctx.saved_tensors
        by_scale, by_shift = ctx.gradients
        torch.sum(grad, 1, out=by_shift)
        x_grad = grad * normed
        torch.sum(x_grad, 1, out=by_scale)
        count = grad.shape[1]
        torch.mul(normed, (by_scale / count).unsqueeze(1), out=x_grad)
        x_grad.add_((by_shift / count).unsqueeze(1))
        torch.sub(grad, x_grad, out=x_grad)
        x_grad.mul_(inverse * scale.unsqueeze(1))
        return x_grad, None, None, None, None


@dataclass(frozen=True)
class BatchNorm:
    """Normalise (S, B, width) over each member's own batch, as torch.nn.BatchNorm1d does.

    Source: Ioffe and Szegedy 2015, algorithm 1 (arXiv:1502.03167).
    """

    name: str
    width: int

    def blocks(self) -> list[Block]:
        """Return scale and shift of one member."""
        shape = (self.width,)
        return [Block(f"{self.name}.scale", shape, centre=1.0), Block(f"{self.name}.shift", shape)]

    def buffers(self) -> list[Block]:
        """Return the running statistics of one member."""
        shape = (self.width,)
        return [
            Block(f"{self.name}.mean", shape),
            Block(f"{self.name}.variance", shape, centre=1.0),
        ]

    def __call__(self, views: Views, x: Tensor) -> Tensor:
        """Normalise by the batch while training, by the running statistics afterwards."""
        names = [block.name for block in self.blocks()]
        scale, shift = (views.values[name] for name in names)
        mean, variance = (views.buffers[block.name] for block in self.buffers())
        if views.training:
            gradients = [views.gradients[name] for name in names]
            running = (mean, variance)
            y: Tensor = _BatchNorm.apply(x, scale, shift, running, gradients)  # type: ignore[no-untyped-call]
            return y
        factor = scale * variance.add(EPSILON).sqrt_().reciprocal_()
        return ((x - mean.unsqueeze(1)) * factor.unsqueeze(1)).add_(shift.unsqueeze(1))


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # torch's own rounds its last few values differently from the rest (a scalar tail), which
        # would let a member's place in the pack show; exp, minimum and maximum do not.
        y = x.clamp(max=0).exp_().sub_(1).add_(x.clamp(min=0))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope: Tensor = y.clamp(max=0).add_(1)
        return grads[0] * slope


def elu(x: Tensor) -> Tensor:
    """Return x above 0 and exp(x) - 1 below (Clevert et al. 2016, equation 15)."""
    y: Tensor = _Elu.apply(x)  # type: ignore[no-untyped-call]
    return y


class _HalfSquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decoded: Tensor, images: Tensor) -> Tensor:
        gap = decoded - images
        ctx.save_for_backward(gap)
        return gap.square().sum(2).mean(1) * 0.5

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gap,) = ctx.saved_tensors
        return gap * (grads[0] / gap.shape[1])[:, None, None], None


def half_squared_error(decoded: Tensor, images: Tensor) -> Tensor:
    """Return half the squared error summed over pixels, mean over rows: (S, B, D) to (S,)."""
    loss: Tensor = _HalfSquaredError.apply(decoded, images)  # type: ignore[no-untyped-call]
    return loss
