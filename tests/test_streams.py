"""Random streams: no two (seed, purpose) share one, and a stored state goes on where it was."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from models.streams import LARGEST_SEED, PURPOSE_BITS, PURPOSES, Purpose, stream, stream_key

WORD = 2**32
SEEDS = st.integers(0, LARGEST_SEED)
PAIRS = st.tuples(SEEDS, st.sampled_from(PURPOSES))


def undo_shift(key: int, bits: int) -> int:
    """Return x where x ^ (x >> bits) is the key: the upper bits stand, each helps the next."""
    x = key
    for _ in range(32 // bits + 1):
        x = key ^ (x >> bits)
    return x


def undo(key: int) -> tuple[int, Purpose]:
    """Invert every step of the key by algebra: shifts, odd factors modulo 2^32, the constant."""
    key = undo_shift(key, 16)
    key = undo_shift(key * pow(0xC2B2AE35, -1, WORD) % WORD, 13)
    key = undo_shift(key * pow(0x85EBCA6B, -1, WORD) % WORD, 16)
    word = key ^ 0x5EED5EED
    return word >> PURPOSE_BITS, PURPOSES[word % 2**PURPOSE_BITS]


@given(PAIRS)
@example((LARGEST_SEED, PURPOSES[-1]))
def test_a_key_can_be_turned_back_into_its_seed_and_purpose(pair: tuple[int, Purpose]) -> None:
    """What has an inverse is injective; and it fits the 32 bits that torch keeps."""
    assert undo(stream_key(*pair)) == pair
    assert 0 <= stream_key(*pair) < WORD


@given(PAIRS, PAIRS)
def test_two_pairs_have_one_key_only_where_they_are_one(
    one: tuple[int, Purpose], other: tuple[int, Purpose]
) -> None:
    assert (stream_key(*one) == stream_key(*other)) == (one == other)


def test_ten_thousand_seeds_have_distinct_keys_for_every_purpose() -> None:
    keys = {stream_key(seed, purpose) for seed in range(10_000) for purpose in PURPOSES}
    assert len(keys) == 10_000 * len(PURPOSES)


def test_torch_keeps_32_bits_of_a_seed() -> None:
    """Why a key must be a bijection of 32 bits: a longer hash would be cut to them."""
    draws = [torch.rand(3, generator=torch.Generator().manual_seed(k)) for k in (7, 7 + WORD)]
    assert torch.equal(*draws)


def test_purposes_fit_their_bits_and_keep_their_places() -> None:
    """A purpose's place is part of its stream: new ones are added at the end."""
    assert PURPOSES[:5] == ("init", "order", "noise", "prior", "evaluation")
    assert len(PURPOSES) <= 2**PURPOSE_BITS


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**40])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    sentence = f"seed {seed} is outside 0 ... 134217727"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        stream_key(seed, "init")


def test_neighbouring_streams_are_uncorrelated() -> None:
    """96 streams of 20,000 draws: the largest of 4,560 correlations stays under 5 sigma."""
    count = 20_000
    draws = np.stack(
        [
            torch.randn(count, generator=stream(seed, purpose)).numpy()
            for seed in range(32)
            for purpose in PURPOSES
        ]
    )
    correlations = np.corrcoef(draws)
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(count)
    shifted = np.array([np.corrcoef(a[1:], b[:-1])[0, 1] for a, b in itertools.pairwise(draws)])
    assert np.abs(shifted).max() < 5 / np.sqrt(count)


def test_a_stream_is_the_same_each_time_and_goes_on_from_a_stored_state() -> None:
    """An odd number of normal draws leaves half a pair in the state, which must survive."""
    generator = stream(12, "noise")
    torch.randn(7, generator=generator)
    state = generator.get_state().clone()
    expected = torch.randn(50, generator=generator)
    restored = torch.Generator()
    restored.set_state(state)
    assert torch.equal(torch.randn(50, generator=restored), expected)
    again = stream(12, "noise")
    torch.randn(7, generator=again)
    assert torch.equal(torch.randn(50, generator=again), expected)


def test_streams_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    torch.randn(5, generator=stream(3, "init"))
    assert torch.equal(torch.get_rng_state(), before)
