"""Several members of one cell as one: codes and clusters of different seeds, aligned and averaged.

An unsupervised code has no sign and its clusters no order, so each seed has its own. Alignment
reads the codes of the training images alone, never a label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from models.ranks import evenly, unit_ranks

ROUNDS = 100

Array = NDArray[np.float64]
Signs = NDArray[np.float64]
Places = NDArray[np.int64]


def share_below(training: Array, values: Array) -> Array:
    """Return for each value (M,) the share of the training values (N,) below it, equals half.

    The mid-distribution function: 0 ... 1, and 1 - share for the negated values.
    """
    ordered = np.sort(training)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.where(np.isnan(values), np.nan, (below + up_to) / (2 * len(ordered)))


def aligned_signs(codes: Sequence[Array]) -> Signs:
    """Return the sign, 1 or -1, that makes each code (N,) agree with the others.

    The code with the highest mean |Spearman correlation| keeps its own; each other one takes the
    sign of its correlation with the mean of the signed ranks, again and again until none changes.
    """
    every = evenly(len(codes[0]))
    ranks = unit_ranks(np.stack([code[every] for code in codes], axis=1)).T  # (S, N)
    similar = ranks @ ranks.T
    first = int(np.abs(similar).sum(1).argmax())
    signs: Signs = np.where(similar[first] < 0, -1.0, 1.0)
    for _ in range(ROUNDS):
        again: Signs = np.where(ranks @ (signs @ ranks) < 0, -1.0, 1.0)
        again *= again[first]
        if (again == signs).all():
            break
        signs = again
    return signs


def aligned_clusters(shares: Sequence[Array]) -> list[Places]:
    """Return for each member which of its clusters is the first, second, ... of the reference.

    `shares` (N, K) are each member's shares of its K clusters in the same images. The reference is
    the member that agrees best with the others; clusters are paired by the images that they have in
    common (Kuhn 1955).
    """
    members, clusters = len(shares), shares[0].shape[1]
    columns = np.concatenate(shares, axis=1)  # (N, S * K)
    common = columns.T @ columns
    blocks = common.reshape(members, clusters, members, clusters).swapaxes(1, 2)  # (S, S, K, K)
    pairs = [[linear_sum_assignment(block, maximize=True)[1] for block in row] for row in blocks]
    agreement = [
        sum(
            float(block[np.arange(clusters), pair].sum())
            for block, pair in zip(row, own, strict=True)
        )
        for row, own in zip(blocks, pairs, strict=True)
    ]
    return pairs[int(np.argmax(agreement))]
