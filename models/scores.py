"""Scores of a code against labels, which training never reads.

Besides, only what a diagnostic says of each class reads them (`diagnostics/`).

An unsupervised code has no sign and its clusters have no names. Every score says how it was given
them: by the labels themselves (`auc_oracle`, and what matches clusters to classes), by one half of
the labelled images for the other (`auc_split` and the two after it), or by a covariate named before
training (`auc_covariate`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    balanced_accuracy_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from models.clusters import Evidence

SCORES_VERSION = 2  # raised whenever a definition changes; studies are then rescored from codes
Metric = Literal[
    "auc_oracle",
    "auc_split",
    "auc_covariate",
    "average_precision",
    "balanced_accuracy",
    "auc_matched",
    "accuracy",
    "ari",
    "nmi",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
OF_TWO_CLASSES: tuple[Metric, ...] = METRICS[:5]

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Scorer:
    """Labels (N,) from 0, and the halves that orient each other; the last class is positive.

    `covariate` (N,) fixes the sign of `auc_covariate`; None leaves that score undefined. `rows` are
    the images to score, all of them where it is None.
    """

    labels: Labels | None
    label_digest: str
    covariate: Array | None = None
    rows: Labels | None = None

    @property
    def classes(self) -> int:
        """Return how many classes there are, 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def identity(self) -> str:
        """Return the digest of all that the scores depend on besides the code."""
        covariate = b"" if self.covariate is None else self.covariate.tobytes()
        rows = b"" if self.rows is None else b"rows" + self.rows.tobytes()
        content = f"{SCORES_VERSION}|{self.label_digest}|".encode() + covariate + rows
        return hashlib.sha256(content).hexdigest()[:16]

    def scores(self, evidence: Evidence) -> Scores:
        """Return every metric of what a code (N, ...) says, None where it is not defined."""
        found: Scores = dict.fromkeys(METRICS)
        if self.labels is None:
            return found
        rows = slice(None) if self.rows is None else self.rows
        labels = self.labels[rows]
        if len(np.unique(labels)) < 2:  # noqa: PLR2004
            return found
        if evidence.order is not None and self.classes == 2:  # noqa: PLR2004
            covariate = None if self.covariate is None else self.covariate[rows]
            halves = _halves(labels, self.label_digest)
            found |= _of_two(labels, halves, evidence.order[rows], covariate, evidence.threshold)
        if evidence.memberships is not None:
            found |= _of_clusters(labels, evidence.memberships[rows], self.classes)
        return found


def _of_two(
    labels: Labels, halves: Labels, code: Array, covariate: Array | None, threshold: float | None
) -> Scores:
    """Return the scores of an order of the images, (N,), with the threshold that came with it."""
    auc = float(roc_auc_score(labels, code))
    accuracy = None
    if threshold is not None:
        accuracy = _by_halves(labels, halves, code - threshold, _accuracy_at_zero)
    return {
        "auc_oracle": max(auc, 1 - auc),
        "auc_split": _by_halves(labels, halves, code, roc_auc_score),
        "auc_covariate": _by_covariate(code, covariate, auc),
        "average_precision": _by_halves(labels, halves, code, average_precision_score),
        "balanced_accuracy": accuracy,
    }


def _accuracy_at_zero(labels: Labels, signed: Array) -> float:
    return float(balanced_accuracy_score(labels, signed > 0))


def _by_halves(labels: Labels, halves: Labels, code: Array, metric: object) -> float | None:
    """Score each half with the sign that the other half's AUC prefers, and average.

    None where a class has a single image, which only one half can hold.
    """
    if min(np.unique(labels, return_counts=True)[1]) < 2:  # noqa: PLR2004
        return None
    values = []
    for own, other in ((0, 1), (1, 0)):
        mine, theirs = halves == own, halves == other
        sign = 1.0 if roc_auc_score(labels[theirs], code[theirs]) >= 0.5 else -1.0  # noqa: PLR2004
        values.append(float(metric(labels[mine], sign * code[mine])))  # type: ignore[operator]
    return float(np.mean(values))


def _by_covariate(code: Array, covariate: Array | None, auc: float) -> float | None:
    if covariate is None or np.ptp(code) == 0 or np.ptp(covariate) == 0:
        return None
    return auc if np.corrcoef(code, covariate)[0, 1] >= 0 else 1 - auc


def _halves(labels: Labels, label_digest: str) -> Labels:
    """Return 0 or 1 for each image: stratified halves, drawn by the label digest."""
    generator = np.random.default_rng(int(label_digest[:16], 16))
    halves = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        halves[members[len(members) // 2 :]] = 1
    return halves


def rises(labels: Labels, order: Array) -> bool:
    """Return whether the last class has the higher values rather than the lower: AUC of ½ or more.

    True where there is a single class.
    """
    if len(np.unique(labels)) < 2:  # noqa: PLR2004
        return True
    return bool(roc_auc_score(labels, order) >= 0.5)  # noqa: PLR2004


def _of_clusters(labels: Labels, memberships: Array, classes: int) -> Scores:
    """Return the scores of clusters, given how much each image belongs to each, (N, K)."""
    clusters = memberships.argmax(1)
    cluster_of = match(labels, clusters, classes, memberships.shape[1])
    named = np.array([cluster_of.get(label, -1) for label in range(classes)])
    areas = [
        float(roc_auc_score(labels == label, memberships[:, named[label]]))
        if named[label] >= 0
        else 0.5
        for label in np.unique(labels)
    ]
    return {
        "auc_matched": float(np.mean(areas)),
        "accuracy": float(np.mean(clusters == named[labels])),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }


def match(labels: Labels, clusters: Labels, classes: int, count: int) -> dict[int, int]:
    """Return the cluster of each class: the pairing with the most images in place (Kuhn 1955).

    Each cluster names one class at most; with fewer clusters than classes some classes have none.
    """
    table = np.zeros((classes, count), dtype=np.int64)
    np.add.at(table, (labels, clusters), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True)}
