"""What every divergence has, and what it is given to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.distributions import Distribution
from models.packed import Linear
from models.settings import Settings

Compares = Literal["density", "aggregate", "sample"]
MOST_COMPARED = 2048  # codes of a whole dataset: pairs are squared, directions many


@dataclass(frozen=True)
class Compared:
    """The codes of a batch in the units that carry the prior, U of them.

    `mean` (S, B, U); `log_variance` the same, None where the encoder is deterministic; `sample`
    (S, B, U), which is the mean there; `drawn` (S, ...) what the divergence's `draw` gave; `critic`
    maps (S, n, U) to (S, n, 1) by the layers that the divergence has of its own.
    """

    mean: Tensor
    log_variance: Tensor | None
    sample: Tensor
    drawn: Tensor | None = None
    critic: Callable[[Tensor], Tensor] | None = None

    def spread(self, kind: str) -> Tensor:
        """Return the log variance; TypeError where the encoder is deterministic."""
        if self.log_variance is None:
            msg = f"{kind} needs a stochastic encoder"
            raise TypeError(msg)
        return self.log_variance

    def draws(self, kind: str) -> Tensor:
        """Return what was drawn, as the sample is; TypeError where nothing was."""
        if self.drawn is None:
            msg = f"{kind} needs draws from the prior"
            raise TypeError(msg)
        return self.drawn.to(self.sample)


class Weighted(Settings):
    """What every divergence has: its weight in the loss, and a linear warm-up in steps.

    `compares` says what a row looks at: the *density* of each q(z|x), the *aggregate* of a batch,
    which is the mean of those densities, or the *sample* of codes. The first two need a stochastic
    encoder. `learns` says whether its gradient may reach the prior as well.
    """

    weight: float = Field(default=1.0, ge=0, le=1e9)
    warm_up: int = Field(default=0, ge=0, le=100_000_000)
    compares: ClassVar[Compares]
    everywhere: ClassVar[bool] = False  # needs a prior with a density above zero everywhere
    learns: ClassVar[bool] = False

    def weight_at(self, step: int) -> float:
        """Return the weight at a step, counted from 0: a line from 0 to `weight`, then flat."""
        return self.weight * min(1.0, step / self.warm_up) if self.warm_up else self.weight

    def draw(self, prior: Distribution, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw what one member needs to compare so many codes, None for nothing."""
        del prior, count, generator
        return None

    def layers(self, units: int, name: str) -> tuple[Linear, ...]:
        """Return layers of its own that are trained beside the network, named `name...`."""
        del units, name
        return ()


def thinned(codes: Tensor, count: int = MOST_COMPARED) -> Tensor:
    """Return so many codes of (S, B, U), evenly spaced; all of a training batch."""
    if codes.shape[1] <= count:
        return codes
    places = torch.linspace(0, codes.shape[1] - 1, count, dtype=torch.float64).round().long()
    return codes[:, places.to(codes.device)]
