"""Scores of a code against labels: the only place where labels are read.

An unsupervised code has no sign. Every score says how it was given one: by the labels themselves
(`auc_oracle`), by one half of the labelled images for the other (`auc_split` and the two after it),
or by a covariate named before training (`auc_covariate`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

SCORES_VERSION = 1  # raised whenever a definition changes; studies are then rescored from codes
Metric = Literal[
    "auc_oracle", "auc_split", "auc_covariate", "average_precision", "balanced_accuracy"
]
METRICS: tuple[Metric, ...] = get_args(Metric)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Scorer:
    """Labels (N,) of two classes, 1 the positive one, and the halves that orient each other.

    `covariate` (N,) fixes the sign of `auc_covariate`; None leaves that score undefined.
    """

    labels: Labels | None
    label_digest: str
    covariate: Array | None = None

    def identity(self) -> str:
        """Return the digest of all that the scores depend on besides the code."""
        covariate = b"" if self.covariate is None else self.covariate.tobytes()
        content = f"{SCORES_VERSION}|{self.label_digest}|".encode() + covariate
        return hashlib.sha256(content).hexdigest()[:16]

    def scores(self, code: Array, midpoint: float | None) -> dict[str, float | None]:
        """Return every metric of a code (N,), None where it is not defined."""
        empty: dict[str, float | None] = dict.fromkeys(METRICS)
        if self.labels is None or len(np.unique(self.labels)) != 2:  # noqa: PLR2004
            return dict(empty)
        code = np.asarray(code, dtype=np.float64)
        auc = float(roc_auc_score(self.labels, code))
        return {
            "auc_oracle": max(auc, 1 - auc),
            "auc_split": self._by_halves(code, roc_auc_score),
            "auc_covariate": self._by_covariate(code, auc),
            "average_precision": self._by_halves(code, average_precision_score),
            "balanced_accuracy": None if midpoint is None else self._accuracy(code - midpoint),
        }

    def _by_halves(self, code: Array, metric: object) -> float | None:
        """Score each half with the sign that the other half's AUC prefers, and average.

        None where a class has a single image, which only one half can hold.
        """
        assert self.labels is not None  # noqa: S101 - narrowed by `scores`
        if min(np.unique(self.labels, return_counts=True)[1]) < 2:  # noqa: PLR2004
            return None
        values = []
        for own, other in ((0, 1), (1, 0)):
            mine, theirs = self._halves == own, self._halves == other
            sign = 1.0 if roc_auc_score(self.labels[theirs], code[theirs]) >= 0.5 else -1.0  # noqa: PLR2004
            values.append(float(metric(self.labels[mine], sign * code[mine])))  # type: ignore[operator]
        return float(np.mean(values))

    def _accuracy(self, centred: Array) -> float | None:
        def at_zero(labels: Labels, signed: Array) -> float:
            return float(balanced_accuracy_score(labels, signed > 0))

        return self._by_halves(centred, at_zero)

    def _by_covariate(self, code: Array, auc: float) -> float | None:
        if self.covariate is None or np.ptp(code) == 0 or np.ptp(self.covariate) == 0:
            return None
        return auc if np.corrcoef(code, self.covariate)[0, 1] >= 0 else 1 - auc

    @property
    def _halves(self) -> Labels:
        """Return 0 or 1 for each image: stratified halves, drawn by the label digest."""
        assert self.labels is not None  # noqa: S101 - narrowed by `scores`
        generator = np.random.default_rng(int(self.label_digest[:16], 16))
        halves = np.zeros(len(self.labels), dtype=np.int64)
        for label in np.unique(self.labels):
            members = generator.permutation(np.flatnonzero(self.labels == label))
            halves[members[len(members) // 2 :]] = 1
        return halves
