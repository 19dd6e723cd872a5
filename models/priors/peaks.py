"""Priors with any number of peaks, fixed or learned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, final, get_args

from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor

from models.distributions import Mixture
from models.packed import Block, Parameter
from models.priors.base import LEAST, Number, Peaked, Positive, listed
from models.priors.learned import LearnedPeaks
from models.settings import mistakes_of

Mean = Annotated[
    Annotated[Number, Tag("number")]
    | Annotated[tuple[Number, ...], Field(strict=False, min_length=1), Tag("point")],
    Discriminator(lambda value: "point" if isinstance(value, list | tuple) else "number"),
]
MOST_PEAKS = 1000
Part = Literal["means", "scales", "weights"]
PARTS: tuple[Part, ...] = get_args(Part)
SHARES = 1e-9  # weights that sum to one within it are shares already


class _Mixture(Peaked):
    """Gaussians, each with a mean, a scale and a weight; the scale is the same in every class unit.

    `means` are numbers for one class unit, else lists with a number a unit. A single scale counts
    for every peak; weights are shares, and without them all peaks weigh the same. The resolved
    prior is sorted by its means.
    """

    means: tuple[Mean, ...] = Field(
        default=(-2.0, 0.0, 2.0), strict=False, min_length=1, max_length=MOST_PEAKS
    )
    scales: tuple[Positive, ...] = Field(default=(0.35,), strict=False)
    weights: tuple[Positive, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="before")
    @classmethod
    def _one_scale_for_all(cls, data: Any) -> Any:
        """Read a bare number as a list of it."""
        if not isinstance(data, Mapping):
            return data
        scales = data.get("scales")
        bare = isinstance(scales, int | float) and not isinstance(scales, bool)
        return {**data, "scales": [scales]} if bare else data

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        """Write out a scale and a share for each peak, the peaks in the order of their means."""
        points = self.points()
        count, units = len(points), {len(point) for point in points}
        found = []
        if units == {0} or len(units) > 1:
            text = "expected numbers, or lists with the same number of units each"
            found.append(("means", f"{text}, got {_lengths(self.means)}"))
        twice = [place for place in sorted(set(points)) if points.count(place) > 1]
        if twice:
            found.append(("means", f"{listed(twice[0])} is there twice; use one, and its weight"))
        if len(self.scales) not in (1, count):
            text = f"expected one scale, or one for each of {count} means"
            found.append(("scales", f"{text}, got {len(self.scales)}"))
        if self.weights is not None and len(self.weights) != count:
            text = f"expected a weight for each of {count} means, got {len(self.weights)}"
            found.append(("weights", text))
        elif min(_shares(self.weights, count)) < LEAST:
            text = f"expected shares of at least {LEAST:g}, got {min(self.weights or ()):g}"
            found.append(("weights", f"{text} of {sum(self.weights or ()):g}"))
        if found:
            raise mistakes_of(found)
        scales = self.scales * (count if len(self.scales) == 1 else 1)
        peaks = sorted(zip(points, scales, _shares(self.weights, count), strict=True))
        means = [point if len(point) > 1 else point[0] for point, _, _ in peaks]
        object.__setattr__(self, "means", tuple(means))
        object.__setattr__(self, "scales", tuple(scale for _, scale, _ in peaks))
        object.__setattr__(self, "weights", tuple(weight for _, _, weight in peaks))
        return self

    def summary(self) -> dict[str, Any]:
        """Return what a label may say: one scale where all are equal, no weights where all are."""
        values = super().summary()
        scales, weights = set(self.scales), set(self.weights or ())
        values["scales"] = values["scales"][0] if len(scales) == 1 else values["scales"]
        return values if len(weights) > 1 else {**values, "weights": None}

    def points(self) -> list[tuple[float, ...]]:
        """Return each mean with a number a unit."""
        return [mean if isinstance(mean, tuple) else (mean,) for mean in self.means]

    def misfit(self, units: int) -> str | None:
        """Return why it cannot be the prior of so many class units, or None."""
        own = len(self.points()[0])
        if own == units:
            return None
        means = "numbers" if own == 1 else f"lists of {own} numbers"
        return (
            f"its means are {means}, and code.class_units is {units}; set code.class_units to "
            f"{own}, or write each mean with {units}"
        )

    def distribution(self, units: int = 1) -> Mixture:
        """Return the distribution; `units` is that of the means."""
        assert self.weights is not None  # noqa: S101 - resolved
        assert self.misfit(units) is None  # noqa: S101 - asked before
        return Mixture(tuple(self.points()), self.scales, self.weights)


@final
class PeakMixture(_Mixture):
    """A fixed mixture: Gaussians, each with a mean, a scale and a weight."""

    kind: Literal["mixture"] = "mixture"


@final
class LearnedMixture(_Mixture):
    """A mixture whose means, scales and weights each member learns, as in VaDE.

    Jiang et al. 2017 (arXiv:1611.05148), without its pre-training and its start from a fitted
    mixture: it begins with the `means`, `scales` and `weights` that are given, and a `warm_up` of
    the divergence lets the code find its form first. No scale and no weight falls below its floor:
    else a peak dies, or shrinks onto a single image.
    """

    kind: Literal["learned_mixture"] = "learned_mixture"
    means: tuple[Mean, ...] = Field(
        default=(-1.0, 1.0), strict=False, min_length=2, max_length=MOST_PEAKS
    )
    learn: tuple[Part, ...] = Field(default=PARTS, strict=False, min_length=1)
    least_scale: Positive = 0.05
    least_weight: float = Field(default=0.05, ge=LEAST, le=0.5)
    anneal: None = None
    learned: ClassVar[bool] = True

    @model_validator(mode="after")
    def _above_floors(self) -> Self:
        found = []
        if len(set(self.learn)) < len(self.learn):
            found.append(("learn", "a part is named twice"))
        if min(self.scales) <= self.least_scale:
            text = f"expected more than least_scale ({self.least_scale:g})"
            found.append(("scales", f"{text}, got {min(self.scales):g}"))
        if min(self.weights or ()) <= self.least_weight:
            text = f"expected shares of more than least_weight ({self.least_weight:g})"
            found.append(("weights", f"{text}, got {min(self.weights or ()):g}"))
        if found:
            raise mistakes_of(found)
        return self

    def parameters(self, units: int) -> tuple[Parameter, ...]:
        """Return what a member learns of it, each in a form without bounds."""
        count, floor = len(self.means), self.least_weight
        spare = [(w - floor) / (1 - count * floor) for w in self.weights or ()]
        starts: dict[Part, tuple[tuple[int, ...], list[float]]] = {
            "means": ((count, units), [value for point in self.points() for value in point]),
            "scales": ((count,), [math.log(scale - self.least_scale) for scale in self.scales]),
            "weights": ((count,), [math.log(share) for share in spare]),
        }
        return tuple(
            Parameter(Block(f"prior.{part}", shape, start=tuple(start)))
            for part, (shape, start) in starts.items()
            if part in self.learn
        )

    def of(self, units: int, values: Mapping[str, Tensor]) -> LearnedPeaks:
        """Return the members' distributions from what they learned, (S, ...) a part."""
        start = self.distribution(units)
        like = next(iter(values.values()))
        scales, weights = (like.new_tensor(part) for part in (start.scales, start.weights))
        if "scales" in values:
            scales = values["scales"].exp() + self.least_scale
        if "weights" in values:
            spare = 1 - len(self.means) * self.least_weight
            weights = _softmax(values["weights"]) * spare + self.least_weight
        means = values.get("means", like.new_tensor(start.means))
        members = len(like)
        return LearnedPeaks(
            means.expand(members, -1, -1), scales.expand(members, -1), weights.expand(members, -1)
        )


def _softmax(logits: Tensor) -> Tensor:
    parts = (logits - logits.detach().amax(1, keepdim=True)).exp()
    return parts / parts.sum(1, keepdim=True)


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    total = sum(weights)
    return list(weights) if abs(total - 1) < SHARES else [weight / total for weight in weights]


def _lengths(means: Sequence[float | tuple[float, ...]]) -> str:
    words = [f"a list of {len(m)}" if isinstance(m, tuple) else "a number" for m in means]
    return " and ".join(word for word, _ in itertools.groupby(sorted(words)))
