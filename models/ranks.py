"""Ranks of codes over the images, and which images stand for very many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

# Evenly spaced. The standard error of a rank correlation over so many is 0.007.
MOST_IMAGES = 20_000


def evenly(count: int, most: int = MOST_IMAGES) -> NDArray[np.int64]:
    """Return the places of at most so many of `count` images, first and last among them."""
    places: NDArray[np.int64] = np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
    return places


def unit_ranks(columns: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each column's (N, K) ranks, centred and of length 1; zeros where it never varies.

    The product of two is their Spearman correlation.
    """
    ranks: NDArray[np.float64] = rankdata(columns, axis=0)
    ranks -= ranks.mean(0)
    length = np.sqrt(np.square(ranks).sum(0))
    ranks /= np.where(length > 0, length, 1)
    return ranks
