"""A member's training state, and the pack that trains several of them together.

Starting, dropping, resuming and regrouping are one operation: build a pack from members. A member
is the same value whatever pack it comes from, which is what makes its result its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adam import adam

from models.divergences import Adversarial
from models.objectives import Loss, Target, draw, loss_of
from models.packed import Views
from models.spec import Spec
from models.streams import PURPOSES, Purpose, stream

BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


@dataclass(frozen=True)
class Member:
    """One seed's training between two steps: all that its future depends on."""

    seed: int
    step: int
    values: Tensor  # (P,)
    first_moment: Tensor  # (P,)
    second_moment: Tensor  # (P,)
    buffers: Tensor  # (Q,) running statistics
    pending: Tensor  # (R,) image numbers already drawn, still to be seen
    streams: dict[Purpose, Tensor]  # generator states

    @staticmethod
    def start(
        spec: Spec, seed: int, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Member:
        """Return the member before its first step; images are (N, *shape)."""
        network = spec.assemble(shape)
        values = network.parameters().first_row(stream(seed, "init")).to(dtype)
        return Member(
            seed=seed,
            step=0,
            values=values,
            first_moment=torch.zeros_like(values),
            second_moment=torch.zeros_like(values),
            buffers=network.buffers().first_row(stream(seed, "init")).to(dtype),
            pending=torch.empty(0, dtype=torch.int64),
            streams={purpose: stream(seed, purpose).get_state() for purpose in PURPOSES},
        )


class Pack:
    """Members of one specification at the same step, trained as one batched computation."""

    def __init__(
        self, spec: Spec, members: Sequence[Member], images: Tensor, rows: Tensor | None = None
    ) -> None:
        """Stack the members; images are (N, ...), in the members' dtype, on any device.

        `rows` (R,) are the places of the images to train on, all of them where it is None.
        """
        if len({member.step for member in members}) != 1:
            msg = "a pack needs members, all at the same step"
            raise ValueError(msg)
        self.spec, self.images, self.rows = spec, images.flatten(1), rows
        self.seeds = [member.seed for member in members]
        self.step = members[0].step
        self.network = spec.assemble(images.shape[1:])
        device = images.device
        layout, running_layout = self.network.parameters(), self.network.buffers()
        self._layout, self._running_layout = layout, running_layout
        self._values = layout.pack(torch.stack([m.values for m in members]).to(device))
        self._first = layout.pack(torch.stack([m.first_moment for m in members]).to(device))
        self._second = layout.pack(torch.stack([m.second_moment for m in members]).to(device))
        self._running = running_layout.pack(torch.stack([m.buffers for m in members]).to(device))
        self._gradients = torch.zeros_like(self._values)
        self._cut = self.network.critics_start * len(members)
        # Made once, but for scales that change from step to step.
        annealed = getattr(spec.prior, "anneal", None) is not None
        self._settled = None if annealed else spec.targets
        self._pending = torch.stack([m.pending for m in members])
        self._generators: list[dict[Purpose, torch.Generator]] = [
            {purpose: _restored(state) for purpose, state in m.streams.items()} for m in members
        ]
        self._adam_step = torch.tensor(float(self.step), device=device)
        count = len(members)
        running = running_layout.views(self._running, count)
        leaves = {
            name: view.requires_grad_() for name, view in layout.views(self._values, count).items()
        }
        gradients = layout.views(self._gradients, count)
        self._training_views = Views(leaves, gradients, running, training=True)
        self.views = Views(layout.views(self._values.detach(), count), {}, running, training=False)
        batch, units = spec.training.batch_size, spec.stochastic_units
        self._batch = images.new_empty(len(members) * batch, self.images.shape[1])
        self._noise = torch.empty(len(members), batch, units) if units else None

    def members(self) -> list[Member]:
        """Return each member's state, copied out of the pack."""
        count = len(self.seeds)
        values, first, second = (
            self._layout.unpack(part, count).cpu()
            for part in (self._values, self._first, self._second)
        )
        running = self._running_layout.unpack(self._running, count).cpu()
        return [
            Member(
                seed=seed,
                step=self.step,
                values=values[place],
                first_moment=first[place],
                second_moment=second[place],
                buffers=running[place],
                pending=self._pending[place].clone(),
                streams={p: g.get_state() for p, g in self._generators[place].items()},
            )
            for place, seed in enumerate(self.seeds)
        ]

    def tensors(self, place: int) -> dict[str, NDArray[np.float32]]:
        """Return one member's parameters and running statistics by block name, as copies."""
        named = {**self.views.values, **self.views.buffers}
        return {name: view[place].cpu().numpy().copy() for name, view in named.items()}

    def advance(self) -> Loss:
        """Take one optimiser step; return the losses that it went by, (S,) each."""
        images, noise, drawn = self.next_batch(), self.next_noise(), self.next_drawn()
        divergence, targets = self.spec.divergence, self._targets
        weight = divergence.weight_at(self.step) if divergence else 0.0
        loss = loss_of(
            self.network,
            self._training_views,
            images,
            noise,
            targets,
            drawn,
            divergence,
            weight,
        )
        loss.total.sum().backward()  # type: ignore[no-untyped-call]
        self._update()
        self.step += 1
        return loss

    def next_batch(self) -> Tensor:
        """Return the next images of every member, (S, B, pixels), in a buffer used again."""
        batch = self.spec.training.batch_size
        count = len(self.images) if self.rows is None else len(self.rows)
        while self._pending.shape[1] < batch:
            drawn = [torch.randperm(count, generator=g["order"]) for g in self._generators]
            self._pending = torch.cat([self._pending, torch.stack(drawn)], 1)
        which, self._pending = self._pending[:, :batch], self._pending[:, batch:]
        where = which.reshape(-1) if self.rows is None else self.rows[which.reshape(-1)]
        where = where.to(self.images.device)
        torch.index_select(self.images, 0, where, out=self._batch)
        return self._batch.view(len(self.seeds), batch, -1)

    def next_noise(self) -> Tensor | None:
        """Return the next standard normal noise of the units with a variance; None for none."""
        if self._noise is None:
            return None
        for row, generators in zip(self._noise, self._generators, strict=True):
            row.normal_(generator=generators["noise"])
        return self._noise.to(self.images)

    def next_drawn(self) -> list[Tensor | None]:
        """Return what the divergence compares the codes with, (S, ...) for each part with a prior.

        Each member draws its own, in the shape that the specification fixes.
        """
        divergence, batch = self.spec.divergence, self.spec.training.batch_size
        if divergence is None:
            return []
        targets = self._targets
        each = [draw(divergence, targets, batch, g["prior"]) for g in self._generators]
        return [
            None if part[0] is None else torch.stack(part).to(self.images)
            for part in map(list, zip(*each, strict=True))
        ]

    @property
    def _targets(self) -> tuple[Target, ...]:
        settled = self._settled
        return self.spec.targets_at(self.step) if settled is None else settled

    @torch.no_grad()
    def _update(self) -> None:
        """Step the networks and then, at a rate of their own, the critics that lie behind them."""
        rate, divergence = self.spec.training.learning_rate, self.spec.divergence
        cut = self._cut
        parts = [(slice(0, cut), rate)]
        if self.network.critics and isinstance(divergence, Adversarial):
            parts.append((slice(cut, None), rate * divergence.rate))
        # Every call counts the step.
        counts = [self._adam_step, *(self._adam_step.clone() for _ in parts[1:])]
        for (part, own_rate), count in zip(parts, counts, strict=True):
            adam(
                [self._values[part]],
                [self._gradients[part]],
                [self._first[part]],
                [self._second[part]],
                [],
                [count],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=own_rate,
                weight_decay=0.0,
                eps=ADAM_EPSILON,
                maximize=False,
            )


def _restored(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator
