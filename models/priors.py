"""Priors: the shape that the class units' code is pushed towards.

A prior is settings that give a `Distribution` in so many class units; densities, samples,
quantiles and peaks are the distribution's. To add one: a final class here, and its place in
`Prior`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, final, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from models.distributions import Box, Distribution, Mixture
from models.settings import Settings, as_kind, mistakes_of

Number = Annotated[float, Field(ge=-1e6, le=1e6)]
LEAST = 1e-6  # of a scale, and of a share
Positive = Annotated[float, Field(ge=LEAST, le=1e6)]
Mean = Annotated[
    Annotated[Number, Tag("number")]
    | Annotated[tuple[Number, ...], Field(strict=False, min_length=1), Tag("point")],
    Discriminator(lambda value: "point" if isinstance(value, list | tuple) else "number"),
]
MOST_PEAKS = 1000
SHARES = 1e-9  # weights that sum to one within it are shares already


class Shape(Settings):
    """What every prior says of itself besides its distribution."""

    everywhere: ClassVar[bool] = True  # a density above zero on the whole of space

    def misfit(self, units: int) -> str | None:
        """Return why it cannot be the prior of so many class units, or None."""
        del units
        return None


@final
class Normal(Shape):
    """One Gaussian, the same and independent in every class unit."""

    kind: Literal["normal"] = "normal"
    mean: Number = 0.0
    scale: Positive = 1.0

    def distribution(self, units: int = 1) -> Mixture:
        """Return the distribution."""
        return Mixture(((self.mean,) * units,), (self.scale,), (1.0,))


@final
class Uniform(Shape):
    """The same density everywhere between `low` and `high`, independent in every class unit."""

    kind: Literal["uniform"] = "uniform"
    low: Number = -1.0
    high: Number = 1.0
    everywhere: ClassVar[bool] = False

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.low >= self.high:
            text = f"expected more than low ({self.low:g}), got {self.high:g}"
            raise mistakes_of([("high", text)])
        return self

    def distribution(self, units: int = 1) -> Box:
        """Return the distribution."""
        return Box(self.low, self.high, units)


@final
class Bimodal(Shape):
    """Two equal Gaussians of scale s at -m and m of one class unit; two peaks only where m > s."""

    kind: Literal["bimodal"] = "bimodal"
    m: Positive = 1.0
    s: Positive = 0.35

    def misfit(self, units: int) -> str | None:
        """Return why it cannot be the prior of so many class units, or None."""
        if units == 1:
            return None
        rest = (0.0,) * (units - 1)
        places = f"{_listed((-self.m, *rest))}, {_listed((self.m, *rest))}"
        return (
            f"'bimodal' has its peaks on one class unit, and code.class_units is {units}; "
            f"use 'mixture' with means such as [{places}]"
        )

    def distribution(self, units: int = 1) -> Mixture:
        """Return the distribution; `units` is 1."""
        assert units == 1  # noqa: S101 - `misfit` is asked before
        return Mixture(((-self.m,), (self.m,)), (self.s, self.s), (0.5, 0.5))


@final
class PeakMixture(Shape):
    """Gaussians, each with a mean, a scale and a weight; the scale is the same in every class unit.

    `means` are numbers for one class unit, else lists with a number a unit. A single scale counts
    for every peak; weights are shares, and without them all peaks weigh the same. The resolved
    prior is sorted by its means.
    """

    kind: Literal["mixture"] = "mixture"
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
            found.append(("means", f"{_listed(twice[0])} is there twice; use one, and its weight"))
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


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    total = sum(weights)
    return list(weights) if abs(total - 1) < SHARES else [weight / total for weight in weights]


def _listed(point: tuple[float, ...]) -> str:
    return f"{point[0]:g}" if len(point) == 1 else f"[{', '.join(f'{x:g}' for x in point)}]"


def _lengths(means: Sequence[float | tuple[float, ...]]) -> str:
    words = [f"a list of {len(m)}" if isinstance(m, tuple) else "a number" for m in means]
    return " and ".join(word for word, _ in itertools.groupby(sorted(words)))


Prior = Annotated[
    Normal | Uniform | Bimodal | PeakMixture,
    Field(discriminator="kind"),
    BeforeValidator(as_kind),
]
EVERYWHERE: dict[str, bool] = {
    row.model_fields["kind"].default: row.everywhere for row in get_args(get_args(Prior)[0])
}

__all__ = [
    "EVERYWHERE",
    "Bimodal",
    "Distribution",
    "Mixture",
    "Normal",
    "PeakMixture",
    "Prior",
    "Uniform",
]
