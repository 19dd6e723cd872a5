"""Cheap baselines, fit without labels and scored as the codes are.

Each gives a value an image whose natural threshold is 0. To add one: a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]

STARTS = 50
MOST_COMPONENTS = 10


def principal_component(pixels: Array) -> Array:
    """Return the first principal component."""
    first: Array = PCA(1, svd_solver="full").fit_transform(pixels)[:, 0]
    return first


def pca_mixture(pixels: Array) -> Array:
    """Return the log odds of a two-component Gaussian mixture on up to ten components."""
    components = min(MOST_COMPONENTS, *pixels.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(pixels)
    mixture = GaussianMixture(2, n_init=10, random_state=0, reg_covar=1e-4).fit(reduced)
    joint = mixture._estimate_weighted_log_prob(reduced)  # noqa: SLF001 - probabilities saturate
    odds: Array = joint[:, 1] - joint[:, 0]
    return odds


def k_means(pixels: Array) -> Array:
    """Return the difference of the distances to two means, best of fifty starts."""
    distances = KMeans(2, n_init=STARTS, random_state=0).fit_transform(pixels)
    gap: Array = distances[:, 0] - distances[:, 1]
    return gap


BASELINES: dict[str, Callable[[Array], Array]] = {
    "first principal component": principal_component,
    "PCA + Gaussian mixture": pca_mixture,
    "k-means": k_means,
}


def fit_all(pixels: Array) -> dict[str, Array]:
    """Fit every baseline to images (N, D); one value an image each.

    On one thread: their own are slower beside a sweep, and may add in another order.
    """
    with threadpool_limits(limits=1):
        return {name: fit(pixels) for name, fit in BASELINES.items()}
