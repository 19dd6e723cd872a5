"""The data of each seed: one dataset for all of them, or for each a draw of its own.

A draw is simulated once and kept in the cache. It is loaded when it is looked at: in memory are the
study's own dataset and one draw, while one is changed for the next perhaps two.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.datasets import BadData, Dataset, DatasetSettings
from models.datasets.simulated import Simulated
from models.datasets.split import training_rows
from models.scores import Scorer
from sweeps.study import Study, lacks_class


@dataclass(frozen=True)
class Draw:
    """A dataset as a study uses it: which images train, and what scores codes of the others."""

    dataset: Dataset
    split: float | None = None
    orient_by: str | None = None

    @cached_property
    def rows(self) -> NDArray[np.int64] | None:
        """Return the places of the images to train on, None for all."""
        return None if self.split is None else training_rows(self.dataset, self.split)

    @cached_property
    def scorer(self) -> Scorer:
        """Return what scores codes: labels, and the covariate that orients, if any."""
        covariate = self.dataset.covariates[self.orient_by] if self.orient_by else None
        held_out = None
        if self.rows is not None:
            held_out = np.setdiff1d(np.arange(len(self.dataset.images)), self.rows)
        return Scorer(self.dataset.labels, self.dataset.label_digest or "", covariate, held_out)


@dataclass(frozen=True)
class Recipe:
    """How any machine comes by a seed's draw: by its settings; images need not travel."""

    settings: Simulated
    image_digest: str
    split: float | None
    orient_by: str | None

    def made(self) -> Draw:
        """Return the draw; RuntimeError where this machine draws other images than the driver."""
        draw = _drawn(self.settings, self.split, self.orient_by)
        if draw.dataset.image_digest != self.image_digest:
            text = f"dataset {self.settings.form}, seed {self.settings.seed}: this machine draws"
            fix = "let all nodes have the same versions, or share the folder of SEEDSWEEP_CACHE"
            msg = f"{text} other images than the one that planned the runs; {fix}"
            raise RuntimeError(msg)
        return draw


@dataclass(frozen=True)
class Draws:
    """Which data each seed of a study has; `dataset` is the study's own, as its file names it."""

    study: Study
    dataset: Dataset

    @cached_property
    def own(self) -> Draw:
        """Return the study's own dataset as the study uses it."""
        return Draw(self.dataset, self.study.split, self.study.orient_by)

    def of(self, seed: int) -> Draw:
        """Return a seed's data, which its run was trained on and is scored with."""
        settings = self._settings(seed)
        if settings is None:
            return self.own
        return _drawn(settings, self.study.split, self.study.orient_by)

    def digest(self, seed: int) -> str:
        """Return the SHA-256 of a seed's images; loads them once in a process.

        Raises BadData where the seed's data cannot be drawn, or cannot be split.
        """
        settings = self._settings(seed)
        if settings is None:
            return self.dataset.image_digest
        with _told_of(seed):
            return _examined(settings, self.study.split, self.study.orient_by)

    def undrawn(self) -> int:
        """Return of how many seeds the data must be simulated first."""
        found = (self._settings(seed) for seed in self.study.seeds)
        return sum(settings is not None and not settings.is_kept for settings in found)

    def recipe(self, seed: int) -> Recipe | None:
        """Return what a worker draws a seed's data by, None where it is the study's own."""
        settings = self._settings(seed)
        if settings is None:
            return None
        study = self.study
        return Recipe(settings, self.digest(seed), study.split, study.orient_by)

    def of_record(self, seed: int, image_digest: str | None) -> Draw | None:
        """Return the data of a recorded run, None where no planned seed has these images."""
        if image_digest == self.dataset.image_digest:
            return self.own
        planned = seed in self.study.seeds
        return self.of(seed) if planned and image_digest == self.digest(seed) else None

    def settings(self, seed: int) -> DatasetSettings:
        """Return the settings that a seed's data follow from."""
        return cast("DatasetSettings", self._settings(seed) or self.study.dataset)

    def key(self, seed: int) -> int | None:
        """Return what tells a seed's data from that of others: None where all have the same."""
        return seed if self.study.redraws_data else None

    def _settings(self, seed: int) -> Simulated | None:
        settings = self.study.dataset
        if not self.study.redraws_data or not isinstance(settings, Simulated) or seed == 0:
            return None
        with _told_of(seed):
            return settings.redrawn(seed)


@contextlib.contextmanager
def _told_of(seed: int) -> Iterator[None]:
    """Say of data that cannot be used which seed has drawn it."""
    try:
        yield
    except BadData as bad:
        raise BadData(bad.setting, f"what seed {seed} draws: {bad.sentence}") from None


@functools.lru_cache(maxsize=1)
def _drawn(settings: Simulated, split: float | None, orient_by: str | None) -> Draw:
    return Draw(settings.load(), split, orient_by)


@functools.cache
def _examined(settings: Simulated, split: float | None, orient_by: str | None) -> str:
    """Return the digest of the images that the settings give, once they are found to be usable."""
    dataset = _drawn(settings, split, orient_by).dataset
    lacking = None if split is None else lacks_class(dataset, split)
    if lacking:
        where = "objects"
        raise BadData(where, f"{lacking}; take more")
    return dataset.image_digest
