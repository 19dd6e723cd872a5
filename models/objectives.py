"""Objectives: what a member minimises, as rows of one table.

Every loss is a vector with one value a member, each the mean over that member's own batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.divergences import Compares, Divergence
from models.networks import Autoencoder, Code
from models.packed import Views, half_squared_error
from models.priors import Mixture

ObjectiveName = Literal["ae", "vae", "wae"]


@dataclass(frozen=True)
class Objective:
    """A row: is the encoder stochastic, and which divergences make sense with it."""

    meaning: str
    stochastic: bool
    compares: Compares | None
    divergence: str | None  # the default


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "ae": Objective("reconstruction alone", stochastic=False, compares=None, divergence=None),
    "vae": Objective(
        "evidence lower bound (Kingma and Welling 2014)",
        stochastic=True,
        compares="density",
        divergence="kl",
    ),
    "wae": Objective(
        "Wasserstein autoencoder (Tolstikhin 2018)",
        stochastic=False,
        compares="sample",
        divergence="wasserstein",
    ),
}


@dataclass(frozen=True)
class Loss:
    """The parts of the loss, (S,) each; `divergence` is unweighted, None without a prior."""

    total: Tensor
    reconstruction: Tensor
    divergence: Tensor | None


def divergence_of(
    divergence: Divergence, prior: Mixture, code: Code, sample: Tensor, class_units: int
) -> Tensor:
    """Return the divergence of the class units from the prior, unweighted, (S,)."""
    if divergence.compares == "density":
        if code.log_variance is None:
            msg = f"{divergence.kind} needs a stochastic encoder"
            raise TypeError(msg)
        means = code.mean[:, :, :class_units]
        return divergence.value(prior, means, code.log_variance)  # type: ignore[call-arg]
    return divergence.value(prior, sample[:, :, :class_units])  # type: ignore[call-arg]


def sample_code(code: Code, noise: Tensor | None) -> Tensor:
    """Return z = mean + sigma * noise in the class units, the mean elsewhere, (S, B, C + T)."""
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
    prior: Mixture | None,
    divergence: Divergence | None,
    weight: float,
    class_units: int,
) -> Loss:
    """Return the loss of one batch: images (S, B, pixels), noise (S, B, C) or None."""
    code = network.encode(views, images)
    sample = sample_code(code, noise)
    error = half_squared_error(network.decode(views, sample), images)
    if prior is None or divergence is None:
        return Loss(error, error, None)
    distance = divergence_of(divergence, prior, code, sample, class_units)
    return Loss(error + distance * weight, error, distance)
