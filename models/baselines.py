"""Cheap baselines, fit without labels and scored as the codes are.

Each is fit to images, given how many classes are looked for, and returns what judges images: a code
(N, 1) whose natural threshold is 0, or memberships of clusters (N, K). To add one: a function and a
row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from models.clusters import Evidence, against_the_nearest, against_the_rest, evidence, odds
from models.ranks import evenly

Array = NDArray[np.float64]
Judge = Callable[[Array], Array]

STARTS = 50
MOST_COMPONENTS = 10
CHUNK = 4096  # images judged together
OWN = "own scalar: "  # before the name that a dataset gives it


def pixel_sum(images: Array, classes: int) -> Judge:
    """Judge by the sum of the pixels, less its mean."""
    del classes
    usual = images.sum(1).mean()
    return lambda others: others.sum(1, keepdims=True) - usual


def principal_component(images: Array, classes: int) -> Judge:
    """Judge by the first principal component."""
    del classes
    fitted = _components(images, 1)
    return lambda others: np.asarray(fitted.transform(others))


def _components(images: Array, count: int) -> PCA:
    """Fit principal components, exactly; by the covariance where it is the smaller matrix."""
    tall = images.shape[0] >= images.shape[1]
    return PCA(count, svd_solver="covariance_eigh" if tall else "full").fit(images)


def pca_mixture(images: Array, classes: int) -> Judge:
    """Judge by a Gaussian mixture on up to ten principal components."""
    reduce = _components(images, min(MOST_COMPONENTS, *images.shape))
    mixture = GaussianMixture(classes, n_init=10, random_state=0, reg_covar=1e-4)
    mixture.fit(reduce.transform(images))
    # Probabilities saturate at 0 and 1; the joint density orders what lies beyond.
    joint = mixture._estimate_weighted_log_prob  # noqa: SLF001
    return lambda others: against_the_rest(np.asarray(joint(reduce.transform(others))))


def k_means(images: Array, classes: int) -> Judge:
    """Judge by the distances to the means of k-means, best of fifty starts."""
    means = KMeans(classes, n_init=STARTS, random_state=0).fit(images)
    return lambda others: against_the_nearest(np.asarray(means.transform(others)))


BASELINES: dict[str, Callable[[Array, int], Judge]] = {
    "sum of pixels": pixel_sum,
    "first principal component": principal_component,
    "PCA + Gaussian mixture": pca_mixture,
    "k-means": k_means,
}


def names(scalar: str | None) -> tuple[str, ...]:
    """Return what the baselines are called where a dataset names a scalar of its own, or none."""
    return (*BASELINES, *((f"{OWN}{scalar}",) if scalar else ()))


def fit_all(
    images: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    classes: int,
    scalar: tuple[str, Array] | None = None,
) -> dict[str, Evidence]:
    """Fit every baseline to images (N, D), to `rows` of them where given; judge all of them.

    Of very many, 20,000 evenly spaced ones are fit, so that it ends in minutes. `scalar` is a name
    and values (N,) that the dataset itself puts forward; its threshold is the mean over those rows.

    On one thread: their own are slower beside a sweep, and may add in another order.
    """
    places = np.arange(len(images)) if rows is None else rows
    places = places[evenly(len(places))]
    fit, wanted = images[places].astype(np.float64), max(2, classes)
    with threadpool_limits(limits=1):
        found = {
            name: _evidence(judge(fit, wanted), images, wanted) for name, judge in BASELINES.items()
        }
        if scalar is not None:
            name, values = scalar
            said = values - values[places].mean()
            clusters = evidence(said[:, None], None, wanted).memberships
            found[f"{OWN}{name}"] = Evidence(said, 0.0, clusters)
    return found


def _evidence(judge: Judge, images: NDArray[np.float32], classes: int) -> Evidence:
    starts = range(0, len(images), CHUNK)
    parts = [judge(images[start : start + CHUNK].astype(np.float64)) for start in starts]
    said = np.concatenate(parts)
    if said.shape[1] > 1:
        return Evidence(*odds(said), said)
    return Evidence(said[:, 0], 0.0, evidence(said, None, classes).memberships)
