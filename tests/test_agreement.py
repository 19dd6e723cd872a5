"""Agreement between seeds: against SciPy pair by pair, and what must not change it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from models.agreement import agreements

Codes = list[NDArray[np.float32]]


def codes(seeds: int, units: int, count: int = 60) -> Codes:
    """Return codes that share something, some values tied."""
    generator = np.random.default_rng(seeds * 10 + units)
    shared = generator.normal(size=(count, units))
    noise = generator.normal(size=(seeds, count, units))
    return [(shared + one).round(1).astype(np.float32) for one in noise]


def by_hand(own: Codes) -> list[float]:
    """Spearman by SciPy for every pair of units, and every way to pair them."""

    def pair(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        units = range(a.shape[1])
        table = [[abs(spearmanr(a[:, i], b[:, j]).statistic) for j in units] for i in units]
        ways = itertools.permutations(units)
        return max(float(np.mean([table[i][j] for i, j in enumerate(way)])) for way in ways)

    return [
        float(np.mean([pair(a, b) for j, b in enumerate(own) if j != i])) for i, a in enumerate(own)
    ]


@pytest.mark.parametrize(("seeds", "units"), [(2, 1), (5, 1), (4, 2), (3, 3)])
def test_agreement_is_spearmans_of_each_pair(seeds: int, units: int) -> None:
    own = codes(seeds, units)
    assert agreements(own) == pytest.approx(by_hand(own), rel=1e-12)


def test_signs_monotone_maps_and_the_order_of_units_change_nothing() -> None:
    own = codes(4, 3)
    before = agreements(own)
    own[0] = -own[0]
    own[1] = np.exp(own[1])
    own[2] = own[2][:, [2, 0, 1]]
    own[3] = own[3] ** 3 * np.float32([1, -1, 1])
    assert agreements(own) == pytest.approx(before, rel=1e-12)


def test_the_order_of_seeds_orders_the_numbers() -> None:
    own = codes(5, 2)
    order = [3, 0, 4, 1, 2]
    moved = agreements([own[place] for place in order])
    before = agreements(own)
    assert moved == pytest.approx([before[place] for place in order], rel=1e-12)


def test_a_unit_that_never_varies_agrees_with_nothing() -> None:
    own = codes(3, 1)
    own[1] = np.full_like(own[1], 2.5)
    values = agreements(own)
    assert values[1] == 0
    assert values[0] == pytest.approx(abs(spearmanr(own[0], own[2]).statistic) / 2)


def test_equal_codes_agree_wholly_and_a_seed_alone_with_nobody() -> None:
    (one,) = codes(1, 2)
    assert agreements([one, one, -one]) == pytest.approx([1, 1, 1], rel=1e-12)
    assert agreements([one]) == [None]
    assert agreements([]) == []


def test_codes_of_chance_agree_little() -> None:
    """E|Spearman| of independent codes is sqrt(2 / (pi (n - 1))): .025 for 1,000 images."""
    noise = np.random.default_rng(0).normal(size=(20, 1_000, 1)).astype(np.float32)
    assert np.mean(agreements(list(noise))) == pytest.approx(0.025, rel=0.15)
