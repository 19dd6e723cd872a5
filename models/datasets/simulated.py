"""What every simulated dataset shares: seeded streams; drawn once, kept, and the same again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from models.datasets import cache
from models.datasets.base import BadData, Dataset
from models.datasets.preprocess import moved, preprocess
from models.datasets.source import SOURCE_VERSION
from models.datasets.steps import Step, Steps
from models.settings import Settings, mistake

Floats = NDArray[np.float64]
Range = tuple[float, float]

FEWEST_OF_A_CLASS = 2
LARGEST_SEED = 2**32 - 1
COVARIATE = "covariate "  # before its name, among the arrays that are kept


@dataclass(frozen=True)
class Drawn:
    """What a simulator drew: images (N, C, H, W) before any step, labels (N,), covariates (N,)."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    covariates: dict[str, Floats]
    mask: NDArray[np.bool_] | None = None


class Simulated(Settings):
    """What every simulated dataset can set. `seed` is that of its objects, not of a training."""

    form: ClassVar[str]
    version: ClassVar[int]  # raised whenever the same settings give other numbers
    class_names: ClassVar[tuple[str, ...]]
    scalar: ClassVar[str]
    covariates: ClassVar[tuple[str, ...]]

    name: str
    objects: int = Field(default=2000, ge=4, le=1_000_000)
    size: int
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    preprocess: Steps = ()

    @abstractmethod
    def draw(self) -> Drawn:
        """Simulate; raises BadData where the settings cannot be had together."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Return an image's channels, height and width."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Return a sentence that names the parameters."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return all that is done with the images that `draw` returns, and with new ones."""
        return self.preprocess

    def redrawn(self, seed: int) -> Self:
        """Return the settings of another draw, `seed` further on; BadData beyond the last seed."""
        if self.seed + seed > LARGEST_SEED:
            text = f"expected at most {LARGEST_SEED} with the seed of a training added"
            raise BadData("seed", f"{text}, got {self.seed} + {seed}")
        return self.model_copy(update={"seed": self.seed + seed})

    def stream(self, purpose: str) -> np.random.Generator:
        """Return the random stream of (dataset, seed, purpose): its name is its key.

        So that a new purpose, such as another kind of defect, changes no other stream.
        """
        key = tuple(f"{self.form}/{purpose}".encode())
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def load(self) -> Dataset:
        """Return the dataset, from the cache where it was made before; raises BadData."""
        need = 4 * self.objects * int(np.prod(self.shape))
        if need > cache.LARGEST_IN_MEMORY:
            most = cache.LARGEST_IN_MEMORY // (need // self.objects)
            text = f"{self.objects:,} images of these settings need {need / 2**30:.1f} GiB"
            raise BadData("objects", f"{text} of memory; at most {most:,}, or smaller images")
        names = {"images", "labels", "mask", *(COVARIATE + name for name in self.covariates)}
        arrays = cache.remembered(self._key, frozenset(names), self._arrays)
        return Dataset(
            name=self.form,
            images=arrays["images"],
            labels=arrays["labels"],
            class_names=self.class_names,
            covariates={
                name: arrays[COVARIATE + name]
                for name in self.covariates
                if COVARIATE + name in arrays
            },
            description=self.description,
            mask=arrays.get("mask"),
            scalar=self.scalar,
        )

    @property
    def _key(self) -> str:
        """Return the name of what is kept."""
        parts = (self.form, str(self.version), str(SOURCE_VERSION), self.model_dump_json())
        return cache.key_of(*parts)

    @property
    def is_kept(self) -> bool:
        """Return whether the dataset was drawn before, so that `load` takes no time."""
        return cache.remembers(self._key)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return what is kept: images as preprocessed, with a mask that moved where they did."""
        drawn = self.draw()
        images = preprocess(self.steps, drawn.images)
        found: dict[str, NDArray[Any]] = {"images": images, "labels": drawn.labels}
        if drawn.mask is not None:
            found["mask"] = moved(self.steps, drawn.images, drawn.mask)
        return found | {COVARIATE + name: v for name, v in drawn.covariates.items()}


def _as_range(low: float, high: float) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        numbers = isinstance(value, list | tuple) and all(
            isinstance(one, int | float) and not isinstance(one, bool) for one in value
        )
        if not numbers or len(value) != 2 or not low <= value[0] <= value[1] <= high:  # noqa: PLR2004
            got = f"[{', '.join(map(str, value))}]" if numbers else repr(value)
            text = f"expected [low, high], {low:g} <= low <= high <= {high:g}, got {got}"
            raise mistake(text)
        return (float(value[0]), float(value[1]))

    return check


def within(low: float, high: float) -> BeforeValidator:
    """Return the validator of a setting that is a range [low, high], within these bounds."""
    return BeforeValidator(_as_range(low, high))
