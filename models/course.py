"""The members of one training: where each of them is, and who steps next.

Members may begin at different steps, since each goes on from where it was saved. Those furthest
behind step together until they come to the next ones, who then join them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.members import Member, Pack
from models.objectives import Loss
from models.saved import CURVE_PARTS, Saved, check_saved
from models.spec import Spec


class Course:
    """A pack of the members furthest behind; those ahead, as they were saved; those that diverged.

    Raises ValueError where a seed cannot go on from what `resume` has under it.
    """

    def __init__(
        self,
        spec: Spec,
        seeds: Sequence[int],
        images: Tensor,
        rows: Tensor | None,
        resume: Mapping[int, Saved],
    ) -> None:
        """Start the seeds that are not in `resume`; images and rows are as in `Pack`."""
        self.spec, self._seeds, self._images, self._rows = spec, list(seeds), images, rows
        shape, count = images.shape[1:], len(images if rows is None else rows)
        self._resumes = frozenset(seeds) & frozenset(resume)
        for seed in self._resumes:
            check_saved(resume[seed], seed, spec, shape, count)
        every = [
            resume[seed]
            if seed in self._resumes
            else Saved(seed, Member.start(spec, seed, shape), np.empty((0, CURVE_PARTS)))
            for seed in seeds
        ]
        self._curves = {one.seed: [tuple(row) for row in one.curve.tolist()] for one in every}
        self._resumed = {one.seed: one.resumed for one in every}
        alive = [one for one in every if one.member is not None]
        self._waiting = sorted(alive, key=lambda one: one.step, reverse=True)
        self._pack: Pack | None = None

    def gathered(self) -> Pack | None:
        """Return the pack, with those that waited for its step; None where all have diverged."""
        pack, waiting = self._pack, self._waiting
        if not waiting or (pack is not None and pack.step < waiting[-1].step):
            return pack
        step, members = waiting[-1].step, [] if pack is None else pack.members()
        while waiting and waiting[-1].step == step:
            one = waiting.pop()
            members += [] if one.member is None else [one.member]
            self._resumed[one.seed] += (step,) if one.seed in self._resumes else ()
        self._pack = Pack(self.spec, members, self._images, self._rows)
        return self._pack

    def note(self, pack: Pack, loss: Loss) -> None:
        """Add a point to the curves of the pack; part from the members that diverged."""
        nothing = torch.full_like(loss.total, torch.nan)
        distance = nothing if loss.divergence is None else loss.divergence
        parts = [loss.total.detach(), loss.reconstruction.detach(), distance.detach()]
        rows = torch.stack(parts, 1).double().tolist()
        for seed, row in zip(pack.seeds, rows, strict=True):
            self._curves[seed].append((float(pack.step), *row))
        finite = {seed for seed, row in zip(pack.seeds, rows, strict=True) if np.isfinite(row[0])}
        if len(finite) < len(rows):
            rest = [member for member in pack.members() if member.seed in finite]
            self._pack = Pack(self.spec, rest, self._images, self._rows) if rest else None

    def saved(self) -> list[Saved]:
        """Return what each seed can go on from, copied out of the pack, in the order of seeds."""
        members = [] if self._pack is None else self._pack.members()
        running = {member.seed: member for member in members}
        waiting = {one.seed: one for one in self._waiting}
        return [
            waiting[seed]
            if seed in waiting
            else Saved(seed, running.get(seed), self.curve(seed), self._resumed[seed])
            for seed in self._seeds
        ]

    def done(self) -> int:
        """Return the sum of the members' steps; one that diverged has no more to do."""
        steps = [] if self._pack is None else [self._pack.step] * len(self._pack.seeds)
        steps += [one.step for one in self._waiting]
        return sum(steps) + (len(self._seeds) - len(steps)) * self.spec.training.steps

    def curve(self, seed: int) -> NDArray[np.float64]:
        """Return the learning curve (points, 4) that a seed has so far, as a copy."""
        return np.array(self._curves[seed], dtype=np.float64).reshape(-1, CURVE_PARTS)

    def resumed(self, seed: int) -> tuple[int, ...]:
        """Return the steps from which a seed was picked up again."""
        return self._resumed[seed]
