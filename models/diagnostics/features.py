"""Images as a few numbers, and a classifier on them that sees means, variances and blur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

COMPONENTS = 10
ROUNDS = 200  # of the optimiser; the penalty makes the problem round, and it ends long before
LEAST = 1e-12  # of the images' variance: nothing is left outside the components

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Principal components of images, with what lies outside of them."""

    components: PCA

    @classmethod
    def of(cls, images: NDArray[np.floating]) -> Features:
        """Fit up to ten components to images (N, pixels), by a randomised method that is seeded."""
        count = min(COMPONENTS, *images.shape)
        solver = "randomized" if count < min(images.shape) else "full"
        found = PCA(count, svd_solver=solver, random_state=0).fit(images.astype(np.float64))
        return cls(found)

    def __call__(self, images: NDArray[np.floating]) -> Array:
        """Return (N, components + 1): the components, and the log of the rest's mean square.

        The rest is what a blurred image lacks.
        """
        values = images.astype(np.float64)
        scores = self.components.transform(values)
        total = np.square(values - self.components.mean_).sum(axis=1)
        rest = np.maximum(total - np.square(scores).sum(axis=1), LEAST * (total.mean() + LEAST))
        return np.hstack([scores, np.log(rest)[:, None]])


def classifier() -> Pipeline:
    """Return logistic regression on features, their squares and products, all standardised."""
    return make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(max_iter=ROUNDS),
    )
