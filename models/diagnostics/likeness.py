"""How like images decoded samples are: told apart by a classifier, and near one another?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from models.diagnostics.features import Features, classifier
from models.diagnostics.reference import Reference

NAMES_OF_LIKENESS = ("two_sample_auc", "density", "coverage", "class_gap")
NEAREST = 5  # images whose reach makes a ball, as in the source
KEY = 0x11CE

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Likeness:
    """Images (M, pixels) that samples are compared with, and what tells their classes, if any."""

    images: Floats
    reference: Reference | None = None

    @property
    def count(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    @cached_property
    def features(self) -> Features:
        """Return the images' principal components."""
        return Features.of(self.images)

    @cached_property
    def places(self) -> Array:
        """Return where the images lie in their components."""
        return self.features(self.images)

    @cached_property
    def reach(self) -> Array:
        """Return each image's distance (M,) from its fifth nearest other."""
        distances = cdist(self.places, self.places)
        np.fill_diagonal(distances, np.inf)
        nearest = min(NEAREST, self.count - 1)
        found: Array = np.partition(distances, nearest - 1, axis=1)[:, nearest - 1]
        return found

    def of(self, made: Floats) -> Numbers:
        """Return how like the images those made, (K, pixels), are; None where one is not finite.

        `two_sample_auc` is as below. `density` and `coverage` are Naeem et al.'s (2020,
        arXiv:2002.09797), with k = 5 and distances in ten principal components of the images: in
        how many images' balls a sample lies, over k, 1 where samples lie as images do; and the
        share of the images with a sample in theirs. `class_gap` is the total variation distance
        between the classes of the samples, as the reference classifier sees them, and those of the
        images: 0 for the same shares.
        """
        if not np.isfinite(made).all():
            return dict.fromkeys(NAMES_OF_LIKENESS)
        inside = cdist(self.places, self.features(made)) < self.reach[:, None]
        return {
            "two_sample_auc": two_sample_auc(self.images, made),
            "density": float(inside.sum() / (NEAREST * len(made))),
            "coverage": float(inside.any(axis=1).mean()),
            "class_gap": None if self.reference is None else self.reference.gap(made),
        }


def two_sample_auc(images: Floats, made: Floats) -> float:
    """Return how well a classifier tells images (M, pixels) from those made (K, pixels): AUC.

    .5: not at all; 1: every time (Lopez-Paz and Oquab 2017, arXiv:1610.06545). Logistic regression
    on ten principal components of both together, their squares and products. Each half is judged by
    what the other half taught, and the two AUCs are averaged.
    """
    both = np.concatenate([images, made])
    values = Features.of(both)(both)
    target = np.repeat([0, 1], [len(images), len(made)])
    fold = _halves(len(images), len(made))
    found = []
    for own in (0, 1):
        teach, judge = fold != own, fold == own
        taught = classifier().fit(values[teach], target[teach])
        found.append(roc_auc_score(target[judge], taught.decision_function(values[judge])))
    return float(np.mean(found))


def _halves(*counts: int) -> NDArray[np.int64]:
    """Return 0 or 1 for each of so many and so many: half of each, the same every time."""
    generator = np.random.default_rng(KEY)
    return np.concatenate([generator.permutation(count) % 2 for count in counts])
