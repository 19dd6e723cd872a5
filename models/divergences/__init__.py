"""Divergences: how far the code is from the prior, a value a member.

A file for each way to look at the code: at the *density* of each q(z|x), at the *aggregate* of a
batch, or at the *sample* of codes in it, by transport, kernels or a critic. What a row draws at
every step it draws for each member apart.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import BeforeValidator, Field

from models.divergences.aggregate import Js, KlAggregate, OfAggregates
from models.divergences.base import Compared, Compares, Weighted
from models.divergences.critic import Adversarial, ByCritics
from models.divergences.density import Analogy, Kl, OfDensities
from models.divergences.kernels import ByKernels, Energy, Mmd
from models.divergences.transport import ByTransport, Sinkhorn, Wasserstein
from models.settings import as_kind

Divergence = Annotated[
    OfDensities | OfAggregates | ByTransport | ByKernels | ByCritics,
    Field(discriminator="kind"),
    BeforeValidator(as_kind),
]
DIVERGENCES: dict[str, type[Weighted]] = {
    row.model_fields["kind"].default: row for row in get_args(get_args(Divergence)[0])
}

__all__ = [
    "DIVERGENCES",
    "Adversarial",
    "Analogy",
    "Compared",
    "Compares",
    "Divergence",
    "Energy",
    "Js",
    "Kl",
    "KlAggregate",
    "Mmd",
    "Sinkhorn",
    "Wasserstein",
    "Weighted",
]
