"""Objectives: what a member minimises, as rows of one table.

Every loss is a vector with one value a member, each the mean over that member's own batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from models.distributions import Distribution
from models.divergences import Compared, Compares, Divergence
from models.networks import Autoencoder, Code
from models.packed import Views, half_squared_error
from models.priors import LearnedMixture

ObjectiveName = Literal["ae", "vae", "wae"]


@dataclass(frozen=True)
class Objective:
    """A row: is the encoder stochastic, and what a divergence may look at with it."""

    meaning: str
    stochastic: bool
    compares: tuple[Compares, ...]
    divergence: str | None  # the default


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "ae": Objective("reconstruction alone", stochastic=False, compares=(), divergence=None),
    "vae": Objective(
        "a Gaussian encoder; with kl the evidence lower bound (Kingma and Welling 2014)",
        stochastic=True,
        compares=("density", "aggregate", "sample"),
        divergence="kl",
    ),
    "wae": Objective(
        "Wasserstein autoencoder (Tolstikhin 2018)",
        stochastic=False,
        compares=("sample",),
        divergence="wasserstein",
    ),
}


@dataclass(frozen=True)
class Loss:
    """The parts of the loss, (S,) each; `divergence` is unweighted, None without a prior."""

    total: Tensor
    reconstruction: Tensor
    divergence: Tensor | None


@dataclass(frozen=True)
class Target:
    """A part of the code that is pushed towards a distribution: the units from `start` on."""

    prior: Distribution
    start: int = 0
    settings: LearnedMixture | None = None  # where members learn it, from `prior` on

    def now(self, network: Autoencoder, views: Views) -> Distribution:
        """Return the distribution as the members have it, who may have learned it."""
        if self.settings is None:
            return self.prior
        values = {part.part: part(views) for part in network.prior}
        # What more a distribution has is asked by no divergence that teaches its prior.
        return cast("Distribution", self.settings.of(self.prior.units, values))

    def of(self, part: Tensor) -> Tensor:
        """Return the units of this part out of (S, B, all)."""
        return part[:, :, self.start : self.start + self.prior.units]


def draw(
    divergence: Divergence, targets: Sequence[Target], count: int, generator: torch.Generator
) -> list[Tensor | None]:
    """Draw what one member needs for each part to compare so many codes."""
    return [divergence.draw(target.prior, count, generator) for target in targets]


def divergence_of(
    network: Autoencoder,
    views: Views,
    divergence: Divergence,
    targets: Sequence[Target],
    code: Code,
    sample: Tensor,
    drawn: Sequence[Tensor | None],
) -> Tensor:
    """Return the unweighted divergence of each part from its prior, summed over parts, (S,)."""
    parts = []
    for place, (target, random) in enumerate(zip(targets, drawn, strict=True)):
        spread = None if code.log_variance is None else target.of(code.log_variance)
        critic = functools.partial(network.judge, views, place) if network.critics else None
        compared = Compared(target.of(code.mean), spread, target.of(sample), random, critic)
        parts.append(divergence.value(target.now(network, views), compared))
    return functools.reduce(torch.add, parts)


def sample_code(code: Code, noise: Tensor | None) -> Tensor:
    """Return z = mean + sigma * noise in the units with a variance, the mean elsewhere."""
    if code.log_variance is None or noise is None:
        return code.mean
    units = code.log_variance.shape[2]
    drawn = code.mean[:, :, :units] + (0.5 * code.log_variance).exp() * noise
    return torch.cat([drawn, code.mean[:, :, units:]], 2)


def loss_of(
    network: Autoencoder,
    views: Views,
    images: Tensor,
    noise: Tensor | None,
    targets: Sequence[Target],
    drawn: Sequence[Tensor | None],
    divergence: Divergence | None,
    weight: float,
) -> Loss:
    """Return the loss of one batch: images (S, B, pixels), noise (S, B, stochastic units)."""
    code = network.encode(views, images)
    sample = sample_code(code, noise)
    error = half_squared_error(network.decode(views, sample), images)
    if divergence is None:
        return Loss(error, error, None)
    distance = divergence_of(network, views, divergence, targets, code, sample, drawn)
    return Loss(error + distance * weight, error, distance)
