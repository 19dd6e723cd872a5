"""What the gallery shows: divergences of shapes drawn apart, by formula and as a study's rows do.

A row is given what training gives it, a batch of codes and draws of the prior, and its gradient is
that of training, by autograd.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models import apart
from models.apart import Array, Pulled
from models.distributions import Distribution
from models.divergences import (
    Compared,
    Divergence,
    Energy,
    Js,
    Kl,
    KlAggregate,
    Mmd,
    Sinkhorn,
    Wasserstein,
)
from models.priors import Bimodal, Normal

Pair = Literal["lines", "gaussians", "peaks"]
Source = Literal["formula", "row"]

WIDTHS = (1.0, 0.3, 0.1, 0.03)
BATCH = 64
_SIDE = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
FEW = np.array([*(-x for x in reversed(_SIDE)), 0.0, *_SIDE])
_EVEN = np.arange(-60, 61) / 60
MANY = np.unique([*FEW, *(3 * _EVEN * np.abs(_EVEN)).round(6)])  # close to 0 where narrow ones turn
PEAKS = Bimodal()  # the default, m = 1 and s = .35
PLACES = np.arange(-40, 41) / 20


@dataclass(frozen=True)
class Curve:
    """A divergence of one pair of shapes over theta, with its derivative: (T,) each.

    `width` is that of both Gaussians, 0 for lines, the code's own before two peaks.
    """

    pair: Pair
    width: float
    divergence: str
    source: Source
    theta: Array
    value: Array
    gradient: Array


@dataclass(frozen=True)
class Exhibit:
    """A row of a study, and what it comes to between lines without a width."""

    row: Divergence
    limit: Callable[[Array], Pulled]


ROWS: dict[str, Exhibit] = {
    "kl_aggregate": Exhibit(KlAggregate(), apart.kl_of_lines),
    "js": Exhibit(Js(), apart.js_of_lines),
    "wasserstein p=1": Exhibit(Wasserstein(p=1), apart.wasserstein_1_of_lines),
    "wasserstein p=2": Exhibit(Wasserstein(), apart.wasserstein_2_of_lines),
    "sinkhorn": Exhibit(Sinkhorn(), apart.sinkhorn_of_lines),
    "energy": Exhibit(Energy(), apart.energy_of_lines),
    "mmd": Exhibit(Mmd(), functools.partial(apart.mmd_of_lines, scales=Mmd().scales)),
}
EXACT: dict[str, Callable[[Array, float], Pulled]] = {
    "kl_aggregate": apart.kl_of_gaussians,
    "js": apart.js_of_gaussians,
    "wasserstein p=1": apart.wasserstein_1_of_gaussians,
}
HALVES, CONSTANT, MIXTURE = "mean_of_kls", "kl_and_constant", "kl_of_mixture"


def exhibits() -> Iterator[Curve]:
    """Yield every curve: of lines, of ever narrower Gaussians, of a code before two peaks."""
    for name, exhibit in ROWS.items():
        yield Curve("lines", 0.0, name, "formula", MANY, *exhibit.limit(MANY))
    for width in WIDTHS:
        for name, formula in EXACT.items():
            yield Curve("gaussians", width, name, "formula", MANY, *formula(MANY, width))
        prior = Normal(scale=width).distribution()
        for name, exhibit in ROWS.items():
            seen = by_row(exhibit.row, prior, FEW, width)
            yield Curve("gaussians", width, name, "row", FEW, *seen)
    m, s = PEAKS.m, PEAKS.s
    formulas = {HALVES: apart.mean_of_kls, CONSTANT: apart.kl_and_constant}
    for name, two in formulas.items():
        yield Curve("peaks", s, name, "formula", PLACES, *two(PLACES, s, m, s))
    mixture = by_row(Kl(), PEAKS.distribution(), PLACES, s)
    yield Curve("peaks", s, MIXTURE, "row", PLACES, *mixture)


def by_row(
    row: Divergence, prior: Distribution, theta: Array, width: float, count: int = BATCH
) -> Pulled:
    """Return what a row says of `count` codes of N(theta, width^2), and its derivative by theta.

    The codes are evenly spaced quantiles of N(0, width^2), for every theta the same, moved by it;
    what the row draws is random, from one fixed generator.
    """
    places = torch.from_numpy(theta).requires_grad_()
    shape = (len(theta), count, 1)
    mean = places[:, None, None].expand(shape)
    quantiles = Normal(scale=width).distribution().quantile((np.arange(count) + 0.5) / count)
    drawn = row.draw(prior, count, torch.Generator().manual_seed(0))
    each = None if drawn is None else drawn.double().expand(len(theta), *drawn.shape)
    spread = torch.full(shape, 2 * float(np.log(width)), dtype=torch.float64)
    sample = mean + torch.from_numpy(quantiles)[:, None]
    value = row.value(prior, Compared(mean, spread, sample, each))
    (gradient,) = torch.autograd.grad(value.sum(), places)
    return value.detach().numpy(), gradient.numpy()
