"""Priors with one or two settings: a Gaussian, a box, two peaks."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, final

from pydantic import Field, model_validator

from models.distributions import Box, Mixture
from models.priors.base import Number, Peaked, Positive, Shape, listed
from models.settings import mistakes_of


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
class Bimodal(Peaked):
    """Two Gaussians of scale s at -m and m of one class unit; two peaks only where m > s.

    `share` is the weight of the upper one. Which class comes to lie there, nobody decides: where
    the shares are unequal, a code that puts the smaller class on the larger peak pays for it.
    """

    kind: Literal["bimodal"] = "bimodal"
    m: Positive = 1.0
    s: Positive = 0.35
    share: float = Field(default=0.5, ge=0.01, le=0.99)

    def misfit(self, units: int) -> str | None:
        """Return why it cannot be the prior of so many class units, or None."""
        if units == 1:
            return None
        rest = (0.0,) * (units - 1)
        places = f"{listed((-self.m, *rest))}, {listed((self.m, *rest))}"
        return (
            f"'bimodal' has its peaks on one class unit, and code.class_units is {units}; "
            f"use 'mixture' with means such as [{places}]"
        )

    def distribution(self, units: int = 1) -> Mixture:
        """Return the distribution; `units` is 1."""
        assert units == 1  # noqa: S101 - `misfit` is asked before
        return Mixture(((-self.m,), (self.m,)), (self.s, self.s), (1 - self.share, self.share))
