"""What every prior has: its numbers, and what it says of itself besides its distribution."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from models.distributions import Distribution, Mixture
from models.packed import Parameter
from models.settings import Settings

Number = Annotated[float, Field(ge=-1e6, le=1e6)]
LEAST = 1e-6  # of a scale, and of a share
Positive = Annotated[float, Field(ge=LEAST, le=1e6)]
STAGES = 32  # of annealing: so many distributions, each with tables of its own


class Shape(Settings):
    """What every prior says of itself besides its distribution."""

    everywhere: ClassVar[bool] = True  # a density above zero on the whole of space
    learned: ClassVar[bool] = False

    def misfit(self, units: int) -> str | None:
        """Return why it cannot be the prior of so many class units, or None."""
        del units
        return None

    def distribution(self, units: int = 1) -> Distribution:
        """Return the distribution, of a learned prior the one that it begins with."""
        raise NotImplementedError

    def at(self, step: int, units: int) -> Distribution:
        """Return the distribution at a step, counted from 0."""
        del step
        return self.distribution(units)

    def parameters(self, units: int) -> tuple[Parameter, ...]:
        """Return what a member learns of it: nothing."""
        del units
        return ()


class Anneal(Settings):
    """Scales that begin `factor` times as wide and shrink to their own over `steps` steps.

    By equal ratios, in 32 stages: at a large scale two peaks are one hill, and codes can still
    change sides.
    """

    factor: float = Field(default=3.0, ge=1, le=1e3)
    steps: int = Field(default=300, ge=1, le=100_000_000)

    def factor_at(self, step: int) -> float:
        """Return by how much scales are wider at a step."""
        stage = min(STAGES, step * STAGES // self.steps)
        return float(self.factor ** (1 - stage / STAGES))


class Peaked(Shape):
    """A prior with peaks, whose scales can be annealed."""

    anneal: Anneal | None = None

    def distribution(self, units: int = 1) -> Mixture:
        """Return the distribution that training ends with."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """Return what a label may say: annealing as one word."""
        own = self.anneal
        told = {} if own is None else {"anneal": f"{own.factor:g}x/{own.steps}"}
        return {**super().summary(), **told}

    def at(self, step: int, units: int) -> Mixture:
        """Return the distribution at a step, counted from 0."""
        own = self.distribution(units)
        return own if self.anneal is None else own.widened(self.anneal.factor_at(step))


def listed(point: tuple[float, ...]) -> str:
    """Return a point as a study file has it: a number, or a list of them."""
    return f"{point[0]:g}" if len(point) == 1 else f"[{', '.join(f'{x:g}' for x in point)}]"
