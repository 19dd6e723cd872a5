"""Random streams: one generator per (seed, purpose), and no two of them alike.

`torch.Generator.manual_seed` keeps 32 bits of its argument on a CPU, so a hash of (seed, purpose)
could give two streams the same start. The key here is a bijection of 32-bit integers instead:
distinct (seed, purpose) pairs cannot collide, and neighbours still start far apart.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

Purpose = Literal["init", "order", "noise", "prior", "evaluation"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

PURPOSE_BITS = 5  # room for 32 purposes; a purpose's place in PURPOSES is part of its stream
LARGEST_SEED = 2 ** (32 - PURPOSE_BITS) - 1

_ROOT = 0x5EED5EED
_MASK = 0xFFFFFFFF


def stream_key(seed: int, purpose: Purpose) -> int:
    """Return the 32-bit start of the stream of (seed, purpose).

    Xor with a constant, odd multiplication and xor-shift are each invertible, hence so is their
    chain (the finaliser of MurmurHash3; A. Appleby, public domain).

    Raises ValueError where the seed is outside 0 ... LARGEST_SEED.
    """
    if not 0 <= seed <= LARGEST_SEED:
        msg = f"seed {seed} is outside 0 ... {LARGEST_SEED}"
        raise ValueError(msg)
    key = (seed << PURPOSE_BITS | PURPOSES.index(purpose)) ^ _ROOT
    key = (key ^ (key >> 16)) * 0x85EBCA6B & _MASK
    key = (key ^ (key >> 13)) * 0xC2B2AE35 & _MASK
    return key ^ (key >> 16)


def stream(seed: int, purpose: Purpose) -> torch.Generator:
    """Return a fresh CPU generator at the start of the stream of (seed, purpose)."""
    return torch.Generator().manual_seed(stream_key(seed, purpose))
