"""Divergences of a batch of codes from the prior, as a critic sees them that is trained beside.

To add one: a final class here, and its place in `ByCritics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from models.distributions import Distribution
from models.divergences.base import MOST_COMPARED, Compared, Compares, Weighted, thinned
from models.packed import Linear

Critic = Callable[[Tensor], Tensor]


@final
class Adversarial(Weighted):
    """Adversarial autoencoder (Makhzani et al. 2015, arXiv:1511.05644): a critic per member.

    The critic learns to tell codes from as many draws of the prior, by logistic regression on
    layers of `hidden` units with leaky ReLU; the code is pulled by -log of the probability that the
    critic gives it to be a draw (Goodfellow et al. 2014, section 3), and that is the value. Both
    take one step at a time, the critic's `rate` times as large. Both see the codes through
    Gaussian noise of `noise` times the prior's standard deviation (Sonderby et al. 2016,
    arXiv:1610.04490). With a perfect critic the codes' distribution nears the prior in the
    Jensen-Shannon divergence; the value is log 2 where the critic cannot tell.
    """

    kind: Literal["adversarial"] = "adversarial"
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(64, 64), strict=False, min_length=1, max_length=8
    )
    rate: float = Field(default=0.5, gt=0, le=100)
    noise: float = Field(default=0.1, ge=0, le=10)
    compares: ClassVar[Compares] = "sample"

    def layers(self, units: int, name: str) -> tuple[Linear, ...]:
        """Return the critic's layers."""
        widths = [units, *self.hidden, 1]
        return tuple(
            Linear(f"{name}.{place}", fan_in, fan_out)
            for place, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
        )

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw codes of the prior with their noise, and the codes' noise, (2 count, U)."""
        count = min(count, MOST_COMPARED)
        drawn = prior.sample((count,), generator)
        scale = self.noise * math.sqrt(prior.variance)
        noise = torch.randn((2 * count, prior.units), generator=generator) * scale
        return torch.cat([drawn + noise[:count], noise[count:]])

    def value(self, prior: Distribution, code: Compared) -> Tensor:
        """Return what the critic makes each member pay, (S,)."""
        del prior
        drawn = code.draws("adversarial")
        if code.critic is None:
            msg = "adversarial needs its critic"
            raise TypeError(msg)
        sample = thinned(code.sample, drawn.shape[1] // 2)
        value: Tensor = _Duel.apply(sample, drawn, code.critic)  # type: ignore[no-untyped-call]
        return value


class _Duel(torch.autograd.Function):
    """What the critic charges for the codes, with its gradient; and the critic's own gradients.

    Layers write their gradients where the optimiser reads them, and the last to write stays: the
    codes' pull goes first through the critic, what the critic itself minimises second.
    """

    @staticmethod
    def forward(ctx: Any, sample: Tensor, drawn: Tensor, critic: Critic) -> Tensor:
        count = sample.shape[1]
        training = ctx.needs_input_grad[0]
        with torch.set_grad_enabled(training):
            codes = sample.detach().requires_grad_(training)
            shown = torch.cat([drawn[:, :count], codes + drawn[:, count:]], 1)
            logits = critic(shown).squeeze(2)
            value = _log1p_exp(-logits[:, count:]).mean(1)
            if training:
                (pull,) = torch.autograd.grad(value.sum(), codes, retain_graph=True)
                ctx.save_for_backward(pull)
                own = _log1p_exp(-logits[:, :count]) + _log1p_exp(logits[:, count:])
                torch.autograd.grad(own.mean(1).sum(), codes)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (pull,) = ctx.saved_tensors
        return pull * grads[0][:, None, None], None, None


def _log1p_exp(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)), element by element (torch's softplus has a scalar tail)."""
    return x.clamp(min=0) + x.abs().neg().exp().log1p()


ByCritics = Adversarial
