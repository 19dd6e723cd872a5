"""What a training goes on from: each member's state, and the part of its curve that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.members import Member
from models.spec import Spec
from models.streams import PURPOSES, stream

CURVE_POINTS = 50
CURVE_PARTS = 4  # step, loss, reconstruction, divergence


@dataclass(frozen=True)
class Saved:
    """One seed in the middle of its training, after any step.

    `member` is None where it diverged: then the last point of `curve` says when. `curve` (points,
    4) is as in `Trained.history`. `resumed` are the steps from which it was picked up again before
    this was saved, ascending.
    """

    seed: int
    member: Member | None
    curve: NDArray[np.float64]
    resumed: tuple[int, ...] = ()

    @property
    def step(self) -> int:
        """Return the optimiser steps it has, at its last point where it diverged."""
        return int(self.curve[-1, 0]) if self.member is None else self.member.step


class Keeper(Protocol):
    """Who decides when the members are saved, and puts them somewhere."""

    def due(self) -> bool:
        """Say whether to save now; asked after every optimiser step."""

    def keep(self, saved: Sequence[Saved]) -> None:
        """Take every member of the call, in the order of its seeds; all of them are copies."""


def curve_steps(steps: int) -> list[int]:
    """Return the steps (counted from 1) after which the learning curve has a point."""
    return sorted({round(point) for point in np.linspace(1, steps, min(steps, CURVE_POINTS))})


def check_saved(saved: Saved, seed: int, spec: Spec, shape: Sequence[int], images: int) -> None:
    """Raise ValueError where `seed` of the specification cannot go on from what was saved.

    `images` is the number of images to train on, `shape` that of each.
    """
    mistake = _mistake(saved, seed, spec, shape, images)
    if mistake is not None:
        msg = f"seed {seed} cannot go on from what was saved of it: {mistake}"
        raise ValueError(msg)


def _mistake(saved: Saved, seed: int, spec: Spec, shape: Sequence[int], images: int) -> str | None:
    curve, member, steps = saved.curve, saved.member, spec.training.steps
    owners = {saved.seed, saved.seed if member is None else member.seed}
    if owners != {seed}:
        return f"it is of seed {min(owners - {seed})}"
    if curve.ndim != 2 or curve.shape[1] != CURVE_PARTS:  # noqa: PLR2004
        return f"expected a curve of the shape (points, {CURVE_PARTS}), got {curve.shape}"
    if member is None and (not len(curve) or np.isfinite(curve[-1, 1])):
        return "it has no member, and yet its curve does not end with a loss that is not finite"
    if not 0 <= saved.step <= steps:
        return f"it is at step {saved.step}, expected 0 ... {steps}"
    if curve[:, 0].tolist() != [float(p) for p in curve_steps(steps) if p <= saved.step]:
        return f"expected the points of {steps} steps up to step {saved.step} in its curve"
    return None if member is None else _wrong_size(member, spec, shape, images)


def _wrong_size(member: Member, spec: Spec, shape: Sequence[int], images: int) -> str | None:
    """Name the first tensor that is not as large as a member's of this specification."""
    network = spec.assemble(shape)
    size, running = network.parameters().size, network.buffers().size
    left = -member.step * spec.training.batch_size % images  # of the last epoch that was drawn
    state = stream(0, "init").get_state().shape[0]
    parts: dict[str, tuple[Tensor, int, torch.dtype]] = {
        "values": (member.values, size, torch.float32),
        "first_moment": (member.first_moment, size, torch.float32),
        "second_moment": (member.second_moment, size, torch.float32),
        "buffers": (member.buffers, running, torch.float32),
        "pending": (member.pending, left, torch.int64),
    }
    if set(member.streams) != set(PURPOSES):
        return f"expected the streams {', '.join(PURPOSES)}, got {', '.join(member.streams)}"
    for purpose, generator in member.streams.items():
        parts[f"streams.{purpose}"] = (generator, state, torch.uint8)
    for name, (tensor, length, dtype) in parts.items():
        if tensor.shape != (length,) or tensor.dtype != dtype:
            expected = f"{dtype} of the shape ({length},)".removeprefix("torch.")
            got = f"{tensor.dtype} of {tuple(tensor.shape)}".removeprefix("torch.")
            return f"{name}: expected {expected}, got {got}"
    outside = (member.pending < 0) | (member.pending >= images)
    return f"pending: expected places 0 ... {images - 1}" if outside.any() else None
