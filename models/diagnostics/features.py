"""Images as a few numbers, and a classifier on them that sees means, variances and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

COMPONENTS = 10
ROUNDS = 200  # of the optimiser, which ends before

Array = NDArray[np.float64]
Images = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Features:
    """Principal components of images, in the images' units.

    What lies outside of them is left out: noise and detail that no decoder of a narrow code makes.
    With it every decoder is told from images every time, a sharp one as well as a dull one, and
    distances are those of the noise.
    """

    components: PCA

    @classmethod
    def of(cls, images: Images) -> Features:
        """Fit up to ten components to images (N, pixels), by a randomised method that is seeded."""
        count = min(COMPONENTS, *images.shape)
        solver = "randomized" if count < min(images.shape) else "full"
        found = PCA(count, svd_solver=solver, random_state=0).fit(_single(images))
        return cls(found)

    def __call__(self, images: Images) -> Array:
        """Return the components of images (N, pixels), (N, components)."""
        found: Array = self.components.transform(_single(images)).astype(np.float64)
        return found


def _single(images: Images) -> NDArray[np.float32]:
    """Return images in single precision: a thousand of 64 x 64 pixels in five bands are 80 MB."""
    return np.asarray(images, dtype=np.float32)


def classifier() -> Pipeline:
    """Return logistic regression on features, their squares and products, all standardised."""
    return make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(max_iter=ROUNDS),
    )
