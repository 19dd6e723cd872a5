"""How much the codes of different seeds say the same: stability without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from models.ranks import evenly, unit_ranks


def agreements(codes: Sequence[NDArray[np.float32]]) -> list[float | None]:
    """Return for each seed its code's mean agreement with those of the others, 0 ... 1.

    Codes are (N, U) each. Two codes agree by the mean |Spearman correlation| of their units, each
    unit paired with the other code's that suits best overall; a unit that never varies agrees with
    nothing. After the unsupervised disentanglement ranking of Duan et al. 2020 (arXiv:1905.12614).
    None for a seed alone.
    """
    if len(codes) < 2:  # noqa: PLR2004
        return [None] * len(codes)
    units = codes[0].shape[1]
    every = evenly(len(codes[0]))
    ranks = unit_ranks(np.concatenate([code[every] for code in codes], axis=1))
    similar = np.abs(ranks.T @ ranks).clip(0, 1)
    pairs = np.array([[_paired(block) for block in row] for row in _blocks(similar, units)])
    others = len(codes) - 1
    return [float((row.sum() - row[place]) / others) for place, row in enumerate(pairs)]


def _blocks(matrix: NDArray[np.float64], units: int) -> NDArray[np.float64]:
    count = len(matrix) // units
    return matrix.reshape(count, units, count, units).swapaxes(1, 2)  # (S, S, U, U)


def _paired(block: NDArray[np.float64]) -> float:
    if block.shape == (1, 1):
        return float(block[0, 0])
    rows, columns = linear_sum_assignment(block, maximize=True)
    return float(block[rows, columns].mean())
