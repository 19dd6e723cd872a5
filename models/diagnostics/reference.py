"""Which class would a sample be of? A reference classifier, taught by labelled images.

It reads labels, as `models.scores` does: it belongs to the scoring step, and training cannot import
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from models.diagnostics.features import Features, Images, classifier

KEY = 0x5EF
LEAST = 2  # images of a class in each half

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """A classifier of images, the images' own shares of the classes (K,), and how good it is.

    `accuracy` is that on each half of the images by what the other half taught, averaged.
    """

    features: Features
    taught: Pipeline
    own: Array
    accuracy: float

    def shares(self, images: Images) -> Array:
        """Return the share of images (N, pixels) that it takes for each class, (K,)."""
        said = self.taught.predict(self.features(images)).astype(np.int64)
        found: Array = np.bincount(said, minlength=len(self.own)) / len(said)
        return found

    def gap(self, images: Images) -> float:
        """Return half the sum of |share of a class here - among its own images|: 0 ... 1."""
        return float(np.abs(self.shares(images) - self.own).sum() / 2)


def reference_of(images: Images, labels: Labels | None) -> Reference | None:
    """Return a classifier taught by images (N, pixels); None without two classes of a few images.

    Logistic regression on up to ten principal components, their squares and products.
    """
    if labels is None:
        return None
    counts = np.bincount(labels)
    if np.sum(counts > 0) < 2 or counts[counts > 0].min() < 2 * LEAST:  # noqa: PLR2004
        return None
    features = Features.of(images)
    values = features(images)
    fold = _halves(labels)
    right = []
    for own in (0, 1):
        teach, judge = fold != own, fold == own
        said = classifier().fit(values[teach], labels[teach]).predict(values[judge])
        right.append(np.mean(said == labels[judge]))
    taught = classifier().fit(values, labels)
    return Reference(features, taught, counts / len(labels), float(np.mean(right)))


def _halves(labels: Labels) -> Labels:
    """Return 0 or 1 for each image: stratified halves, the same every time."""
    generator = np.random.default_rng(KEY)
    halves = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        halves[members[len(members) // 2 :]] = 1
    return halves
