"""Does a unit of the code follow a covariate? Rank correlation and mutual information.

Both see ranks alone, so that they do not change when the code is bent monotonically. Labels, where
they are given, part the images into classes; nothing is fitted to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

LEAST = 8  # images: fewer say nothing
IN_BIN = 5  # images on average in a field of the table of bins
MOST_BINS = 16

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Correspondence:
    """How one unit follows one covariate over n images, of one class or of all (`label` None).

    Each number is None where the unit or the covariate has one value there.
    """

    unit: int
    covariate: str
    label: int | None
    n: int
    spearman: float | None
    mutual_information: float | None


class Physics:
    """A study's covariates, ranked once for all of its codes."""

    def __init__(
        self, covariates: Mapping[str, Array], labels: NDArray[np.int64] | None = None
    ) -> None:
        """Take named covariates (N,), and labels (N,) where there are any.

        Images whose covariate is not finite are left out of that covariate's numbers.
        """
        classes = [] if labels is None else [int(label) for label in np.unique(labels)]
        self._parts: list[_Part] = []
        shared: dict[bytes, NDArray[np.int64]] = {}  # equal rows are one object: ranked once
        for name, covariate in covariates.items():
            for label in (None, *(classes if len(classes) > 1 else ())):
                chosen = np.isfinite(covariate)
                if label is not None:
                    chosen &= labels == label
                rows = np.flatnonzero(chosen)
                rows = shared.setdefault(rows.tobytes(), rows)
                self._parts.append(_Part(name, label, rows, _Ranked.of(covariate[rows])))

    def of(self, code: NDArray[np.float32]) -> Iterator[Correspondence]:
        """Yield each unit of a code (N, U) with each covariate, over all images and each class."""
        ranked: dict[tuple[int, int], _Ranked | None] = {}
        for part in self._parts:
            for unit in range(code.shape[1]):
                key = id(part.rows), unit
                if key not in ranked:
                    ranked[key] = _Ranked.of(code[part.rows, unit].astype(np.float64))
                both = _both(ranked[key], part.ranked)
                yield Correspondence(unit, part.covariate, part.label, len(part.rows), *both)


@dataclass(frozen=True)
class _Ranked:
    """Ranks (N,) less their mean, and the bins (N,) that they fall into; None for one value."""

    ranks: Array
    bins: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, values: Array) -> _Ranked | None:
        if len(values) < LEAST or np.ptp(values) == 0:
            return None
        ranks = rankdata(values)
        count = bins_for(len(values))
        bins = np.minimum(((ranks - 0.5) * count / len(values)).astype(np.int64), count - 1)
        return cls(ranks - ranks.mean(), bins, count)


@dataclass(frozen=True)
class _Part:
    """One covariate over the images of one class, or of all."""

    covariate: str
    label: int | None
    rows: NDArray[np.int64]
    ranked: _Ranked | None


def bins_for(count: int) -> int:
    """Return how many bins of equal share so many values are put into, 2 ... 16."""
    return int(np.clip(np.sqrt(count / IN_BIN), 2, MOST_BINS))


def _both(own: _Ranked | None, other: _Ranked | None) -> tuple[float | None, float | None]:
    if own is None or other is None:
        return None, None
    product = float(own.ranks @ other.ranks)
    size = float(np.sqrt((own.ranks @ own.ranks) * (other.ranks @ other.ranks)))
    return min(1.0, max(-1.0, product / size)), _information(own, other)


def _information(own: _Ranked, other: _Ranked) -> float:
    """Return the mutual information of the bins in nats, less its bias, at least 0.

    Plug-in estimate of the table of counts less (rows - 1)(columns - 1) / 2n, over the bins that
    hold something (Miller 1955). Ranks in bins of equal share: a perfect correspondence has the
    logarithm of the number of bins, not infinity.
    """
    flat = np.bincount(own.bins * other.count + other.bins, minlength=own.count * other.count)
    table = flat.reshape(own.count, other.count) / len(own.bins)
    rows, columns = table.sum(1), table.sum(0)
    full = table > 0
    ratio = table[full] / np.outer(rows, columns)[full]
    found = float(table[full] @ np.log(ratio))
    bias = (np.sum(rows > 0) - 1) * (np.sum(columns > 0) - 1) / (2 * len(own.bins))
    return max(0.0, found - float(bias))
