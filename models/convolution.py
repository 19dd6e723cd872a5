"""Convolutions of many members at once: a loop over members, each by the kernel of its own shape.

A grouped convolution, which is also what vmap makes of one, is slower on a CPU than the loop, and
its kernel would depend on how many members there are (decision 1).

A convolution here halves height and width, and a transposed one doubles them again. With a kernel
of 4, a stride of 2 and a padding of 1, H becomes H // 2, and 2 * (H // 2) comes back; a row that is
lost where H is odd is given back by an output padding of 1 (Dumoulin and Visin 2016,
arXiv:1603.07285, relationships 6 and 14). The stride divides the kernel, so every pixel gets
equally many terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.packed import EPSILON, MOMENTUM, BatchNorm, Block, Views

KERNEL, STRIDE, PADDING = 4, 2, 1
Size = tuple[int, int]  # height and width


def halved(size: Size) -> Size:
    """Return height and width after a convolution."""
    return size[0] // 2, size[1] // 2


@dataclass(frozen=True)
class _Way:
    """A convolution's arguments as torch wants them: from large to small, or back."""

    transposed: bool
    extra: Size = (0, 0)  # rows and columns that halving had lost

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve one member's (B, C, H, W)."""
        return torch.convolution(
            x, weight, bias, [STRIDE] * 2, [PADDING] * 2, [1, 1], self.transposed, self.extra, 1
        )

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Return the gradients by one member's input, weight and bias, as far as `wanted`."""
        found: tuple[Tensor | None, Tensor, Tensor | None] = torch.ops.aten.convolution_backward(
            grad,
            x,
            weight,
            [grad.shape[1]],
            [STRIDE] * 2,
            [PADDING] * 2,
            [1, 1],
            self.transposed,
            self.extra,
            1,
            wanted,
        )
        return found


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        way: _Way,
        gradients: Sequence[Tensor],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.way, ctx.gradients = way, gradients
        biases = [None] * len(x) if bias is None else bias
        members = zip(x, weight, biases, strict=True)
        return torch.stack([way(*one) for one in members])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, weight = ctx.saved_tensors
        grad, inward = grads[0].contiguous(), ctx.needs_input_grad[0]
        wanted = [inward, True, len(ctx.gradients) > 1]
        back = []
        for place, one in enumerate(zip(grad, x, weight, strict=True)):
            by_x, *own = ctx.way.backward(*one, wanted)
            back.append(by_x)
            for out, gradient in zip(ctx.gradients, own, strict=False):
                out[place].copy_(gradient)
        return (torch.stack(back) if inward else None), None, None, None, None


@dataclass(frozen=True)
class Convolution:
    """(S, B, fan_in, H, W) to (S, B, fan_out, H // 2, W // 2), initialised as torch.nn.Conv2d is.

    Source: LeCun et al. 1989 (Neural Computation 1, 541).
    """

    name: str
    fan_in: int
    fan_out: int
    bias: bool = True

    def blocks(self) -> list[Block]:
        """Return the parameters of one member."""
        shape = (self.fan_out, self.fan_in, KERNEL, KERNEL)
        return _blocks(self.name, shape, self.fan_out, bias=self.bias)

    def buffers(self) -> list[Block]:
        """Return the state without gradients: none."""
        return []

    def __call__(self, views: Views, x: Tensor) -> Tensor:
        """Apply each member's kernels to its images."""
        return _apply(self.blocks(), views, x, _Way(transposed=False))


@dataclass(frozen=True)
class Transposed:
    """(S, B, fan_in, H // 2, W // 2) to (S, B, fan_out, H, W); `size` is (H, W).

    Initialised as torch.nn.ConvTranspose2d is, whose bound counts the channels that come out.
    Source: Dumoulin and Visin 2016, chapter 4 (arXiv:1603.07285).
    """

    name: str
    fan_in: int
    fan_out: int
    size: Size
    bias: bool = True

    def blocks(self) -> list[Block]:
        """Return the parameters of one member."""
        shape = (self.fan_in, self.fan_out, KERNEL, KERNEL)
        return _blocks(self.name, shape, self.fan_out, bias=self.bias)

    def buffers(self) -> list[Block]:
        """Return the state without gradients: none."""
        return []

    def __call__(self, views: Views, x: Tensor) -> Tensor:
        """Apply each member's kernels to its feature maps."""
        extra = self.size[0] % 2, self.size[1] % 2
        return _apply(self.blocks(), views, x, _Way(transposed=True, extra=extra))


class _NormChannels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        running: tuple[Tensor, Tensor],
        gradients: Sequence[Tensor],
    ) -> Tensor:
        y, mean, inverse = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
        members = zip(x, scale, shift, *running, y, mean, inverse, strict=True)
        for one, by, shift_by, m, v, *out in members:
            torch.native_batch_norm(
                one,
                by,
                shift_by,
                m,
                v,
                training=True,
                momentum=MOMENTUM,
                eps=EPSILON,
                out=(out[0], out[1], out[2]),
            )
        ctx.save_for_backward(x, scale, mean, inverse)
        ctx.gradients = gradients
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        grad = grads[0].contiguous()
        x_grad = torch.empty_like(grad)
        members = zip(grad, *ctx.saved_tensors, x_grad, *ctx.gradients, strict=True)
        for g, one, a, mean, inverse, *outs in members:
            found = torch.ops.aten.native_batch_norm_backward(
                g,
                one,
                a,
                None,
                None,
                mean,
                inverse,
                train=True,
                eps=EPSILON,
                output_mask=[True] * 3,
            )
            for out, value in zip(outs, found, strict=True):
                out.copy_(value)
        return x_grad, None, None, None, None


@dataclass(frozen=True)
class ChannelNorm:
    """Normalise (S, B, channels, H, W) over each member's batch and pixels, as BatchNorm2d does.

    Member by member as the convolutions, which is 2.5 times as fast as all of them at once.
    """

    name: str
    channels: int

    def blocks(self) -> list[Block]:
        """Return scale and shift of one member."""
        return BatchNorm(self.name, self.channels).blocks()

    def buffers(self) -> list[Block]:
        """Return the running statistics of one member."""
        return BatchNorm(self.name, self.channels).buffers()

    def __call__(self, views: Views, x: Tensor) -> Tensor:
        """Normalise by the batch while training, by the running statistics afterwards."""
        names = [block.name for block in self.blocks()]
        scale, shift = (views.values[name] for name in names)
        running = tuple(views.buffers[block.name] for block in self.buffers())
        if views.training:
            gradients = [views.gradients[name] for name in names]
            y: Tensor = _NormChannels.apply(x, scale, shift, running, gradients)  # type: ignore[no-untyped-call]
            return y
        factor = scale * running[1].add(EPSILON).sqrt_().reciprocal_()
        return ((x - _over_pixels(running[0])) * _over_pixels(factor)).add_(_over_pixels(shift))


def _over_pixels(values: Tensor) -> Tensor:
    """Return (S, C) as (S, 1, C, 1, 1)."""
    return values[:, None, :, None, None]


@dataclass(frozen=True)
class AsImages:
    """(S, B, C * H * W) to (S, B, C, H, W)."""

    shape: tuple[int, int, int]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the same values in another shape."""
        return x.view(*x.shape[:2], *self.shape)


def as_rows(x: Tensor) -> Tensor:
    """Return (S, B, C, H, W) as (S, B, C * H * W)."""
    return x.flatten(2)


def _blocks(name: str, shape: tuple[int, ...], fan_out: int, *, bias: bool) -> list[Block]:
    # torch counts the second dimension of a weight as what comes in, whichever way it is used.
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return [
        Block(f"{name}.weight", shape, bound),
        *([Block(f"{name}.bias", (fan_out,), bound)] * bias),
    ]


def _apply(blocks: list[Block], views: Views, x: Tensor, way: _Way) -> Tensor:
    weight, *bias = (views.values[block.name] for block in blocks)
    gradients = [views.gradients[block.name] for block in blocks] if views.training else []
    y: Tensor = _Convolve.apply(x, weight, bias[0] if bias else None, way, gradients)  # type: ignore[no-untyped-call]
    return y
