"""Priors: the shape that the class units' code is pushed towards.

A prior is settings that give a `Distribution` in so many class units; densities, samples,
quantiles and peaks are the distribution's. To add one: a final class in `shapes` or `peaks`, and
its place in `Prior`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from models.distributions import Box, Distribution, Mixture
from models.priors.base import Anneal
from models.priors.peaks import LearnedMixture, PeakMixture
from models.priors.shapes import Bimodal, Normal, Uniform
from models.settings import as_kind

Prior = Annotated[
    Normal | Uniform | Bimodal | PeakMixture | LearnedMixture,
    Field(discriminator="kind"),
    BeforeValidator(as_kind),
]
PRIORS = {
    row.model_fields["kind"].default: row
    for row in (Normal, Uniform, Bimodal, PeakMixture, LearnedMixture)
}

__all__ = [
    "PRIORS",
    "Anneal",
    "Bimodal",
    "Box",
    "Distribution",
    "LearnedMixture",
    "Mixture",
    "Normal",
    "PeakMixture",
    "Prior",
    "Uniform",
]
