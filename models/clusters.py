"""What a code says of classes without having seen any: an order of the images, and clusters.

One class unit orders the images by itself; a prior with several peaks names the clusters. Where the
prior has fewer peaks than there are classes, or there is none, k-means takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from models.distributions import Distribution

STARTS = 10
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """An order of the images (N,) with its natural threshold, and memberships (N, K) of clusters.

    Memberships say how much rather an image is of this cluster than of any other: log odds, or the
    difference of squared distances to the means of k-means. Each column orders the images, and the
    largest of a row is the cluster. Each part is None where there is none.
    """

    order: Array | None
    threshold: float | None
    memberships: Array | None


def evidence(code: Array, prior: Distribution | None, classes: int) -> Evidence:
    """Return what the class units (N, C) say where so many classes are looked for.

    Reads no labels, only how many classes there are: 0 or 1 where nobody knows.
    """
    code = np.asarray(code, dtype=np.float64)
    memberships = _memberships(code, prior, classes)
    if code.shape[1] == 1:
        return Evidence(code[:, 0], None if prior is None else prior.midpoint, memberships)
    return Evidence(*odds(memberships), memberships)


def against_the_rest(joint: Array) -> Array:
    """Return the log odds of each cluster against all others, given log joint densities (N, K)."""
    rest = [logsumexp(np.delete(joint, place, 1), axis=1) for place in range(joint.shape[1])]
    rather: Array = joint - np.stack(rest, 1)
    return rather


def against_the_nearest(distances: Array) -> Array:
    """Return how much nearer each mean is than any other, in squared distance, (N, K).

    The log odds of equal round Gaussians, as their variance goes to zero and but for a factor.
    """
    squares = distances**2
    rest = [np.delete(squares, place, 1).min(1) for place in range(squares.shape[1])]
    nearer: Array = np.stack(rest, 1) - squares
    return nearer


def odds(memberships: Array | None) -> tuple[Array | None, float | None]:
    """Return how much rather the second of two clusters it is, (N,), with its threshold 0."""
    if memberships is None or memberships.shape[1] != 2:  # noqa: PLR2004
        return None, None
    return memberships[:, 1] - memberships[:, 0], 0.0


def threshold_of(code: Array, prior: Distribution | None) -> float | None:
    """Return where a single class unit (N,) is cut in two: the prior's midpoint, else 2-means'.

    None where the code has one value and there is no prior.
    """
    if prior is not None:
        return prior.midpoint
    if len(np.unique(code)) < 2:  # noqa: PLR2004
        return None
    return float(_means(code[:, None], 2).cluster_centers_.mean())


def shares(code: Array, new: Array, prior: Distribution | None, classes: int) -> Array | None:
    """Return new codes' shares (M, K) of the clusters that `evidence` finds in codes (N, C).

    Posteriors of the prior's peaks, or 1 for the nearest of the means of k-means.
    """
    if prior is not None and prior.peaks >= max(2, classes):
        posterior: Array = prior.log_joint(torch.from_numpy(new)).softmax(-1).numpy()
        return posterior
    if classes < 2 or len(np.unique(code, axis=0)) < classes:  # noqa: PLR2004
        return None
    nearest = _means(code, classes).transform(new).argmin(1)
    votes: Array = np.eye(classes)[nearest]
    return votes


def _means(code: Array, classes: int) -> KMeans:
    # On one thread: scikit-learn's own are slower beside a sweep, and may add in another order.
    with threadpool_limits(limits=1):
        return KMeans(classes, n_init=STARTS, random_state=0).fit(code)


def _memberships(code: Array, prior: Distribution | None, classes: int) -> Array | None:
    """Return how much rather it is each of the prior's peaks, or of the means of k-means."""
    if prior is not None and prior.peaks >= max(2, classes):
        return against_the_rest(prior.log_joint(torch.from_numpy(code)).numpy())
    if classes < 2 or len(np.unique(code, axis=0)) < classes:  # noqa: PLR2004
        return None
    return against_the_nearest(np.asarray(_means(code, classes).transform(code)))
