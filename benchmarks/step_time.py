"""Milliseconds a step a seed: packed members against a loop over plain modules.

Both sides have one thread, resident images, a fused Adam and subnormals flushed, and draw the same
batches from the same streams; their losses are compared before anything is timed. Times are CPU
time of this process, so that a busy machine disturbs them less. Exit code 1: a goal is missed.

    python benchmarks/step_time.py [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.datasets import Digits
from models.members import Member, Pack
from models.spec import Spec
from models.streams import stream
from models.train import quiet_machine

WIDTHS = (1, 4, 8, 16, 32)
GOAL_WIDTH = 16
REPEATS = 7
PROOF_STEPS = 5
# Float32 rounds at 6e-8; sums over 784 pixels in another order differ by up to 1e-6 of the loss,
# and Adam's first steps, whose size is the gradient's sign, carry that into every weight.
PROOF_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A network to time, its images, and the speed-up that is promised at `GOAL_WIDTH`."""

    name: str
    spec: Spec
    images: Tensor
    steps: int  # a repeat, divided by the width for the wider packs of the larger network
    goal: float | None


class Plain(nn.Module):
    """The same autoencoder as anybody would write it, and its share of the training loop."""

    def __init__(self, spec: Spec, seed: int, images: Tensor) -> None:
        super().__init__()
        hidden = spec.network.hidden
        up = [images.shape[1], *hidden]
        down = [1, *reversed(hidden)]
        norm = spec.network.batch_norm
        self.layers = nn.Sequential(
            *_stack(up, norm=norm),
            nn.Linear(up[-1], 1),
            *_stack(down, norm=norm),
            nn.Linear(down[-1], up[0]),
        )
        self.images = images
        self.batch = images.new_empty(spec.training.batch_size, images.shape[1])
        self.order = stream(seed, "order")
        self.pending = torch.empty(0, dtype=torch.int64)
        self._copy_start(spec, seed)
        self.adam = torch.optim.Adam(self.parameters(), lr=spec.training.learning_rate, fused=True)

    @torch.no_grad()
    def _copy_start(self, spec: Spec, seed: int) -> None:
        """Take the packed member's first values; its weights are (in, out), ours (out, in)."""
        start = Member.start(spec, seed, self.images.shape[1])
        layout = spec.assemble(self.images.shape[1]).parameters()
        for own, theirs in zip(
            self.layers.parameters(), layout.views(start.values, 1).values(), strict=True
        ):
            own.copy_(theirs[0].T if own.ndim > 1 else theirs[0])

    def advance(self) -> Tensor:
        """Take one optimiser step and return the loss before it."""
        if len(self.pending) < len(self.batch):
            drawn = torch.randperm(len(self.images), generator=self.order)
            self.pending = torch.cat([self.pending, drawn])
        which, self.pending = self.pending[: len(self.batch)], self.pending[len(self.batch) :]
        torch.index_select(self.images, 0, which, out=self.batch)
        self.adam.zero_grad()
        loss = (self.layers(self.batch) - self.batch).square().sum(1).mean() * 0.5
        loss.backward()
        self.adam.step()
        return loss.detach()


def _stack(widths: list[int], *, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers.append(nn.Linear(fan_in, fan_out, bias=not norm))
        layers += [nn.BatchNorm1d(fan_out)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return layers


def cases() -> list[Case]:
    """Return the two networks, each without and with BatchNorm."""
    digits = torch.from_numpy(Digits().load().pixels)
    large = torch.rand(4096, 784, generator=torch.Generator().manual_seed(0))
    rows = []
    for norm in (False, True):
        for name, images, hidden, batch, steps, goal in (
            ("digits 64-64-32-1, batch 32", digits, (64, 32), 32, 96, 6.0),
            ("784-256-64-1, batch 128", large, (256, 64), 128, 6, 0.95),
        ):
            network = {"kind": "mlp", "hidden": hidden, "batch_norm": norm}
            spec = Spec.model_validate(
                {"objective": "ae", "network": network, "training": {"batch_size": batch}}
            )
            label = f"{name}{', BatchNorm' if norm else ''}"
            rows.append(Case(label, spec, images, steps, None if norm else goal))
    return rows


def packed(case: Case, width: int) -> Pack:
    """Return a pack of the first `width` seeds at their start."""
    starts = [Member.start(case.spec, seed, case.images.shape[1]) for seed in range(width)]
    return Pack(case.spec, starts, case.images)


def proof_of_equal_work(case: Case) -> float:
    """Return the largest relative gap of a seed's loss between both sides over a few steps."""
    pack, width = packed(case, 3), 3
    plain = [Plain(case.spec, seed, case.images) for seed in range(width)]
    gap = 0.0
    for _ in range(PROOF_STEPS):
        ours = pack.advance().total.detach()
        theirs = torch.stack([one.advance() for one in plain])
        gap = max(gap, float(((ours - theirs) / theirs).abs().max()))
    return gap


def milliseconds(advance: Callable[[], object], steps: int) -> float:
    """Return CPU milliseconds a call."""
    start = time.process_time()
    for _ in range(steps):
        advance()
    return (time.process_time() - start) * 1e3 / steps


def timed(case: Case) -> dict[str, list[float]]:
    """Return, for the loop and for each width, milliseconds a step a seed of every repeat."""
    plain = Plain(case.spec, 0, case.images)
    sides: dict[str, tuple[Callable[[], object], int]] = {"loop": (plain.advance, 1)}
    sides |= {str(width): (packed(case, width).advance, width) for width in WIDTHS}
    for advance, _ in sides.values():
        advance()
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(REPEATS):  # interleaved, so that a slow minute meets every side
        for side, (advance, width) in sides.items():
            steps = case.steps * 4 if side in ("loop", "1") else case.steps
            times[side].append(milliseconds(advance, steps) / width)
    return times


def row(case: Case) -> dict[str, object]:
    """Time one case; ratios are the loop's time by the pack's, repeat by repeat."""
    gap = proof_of_equal_work(case)
    times = timed(case)
    ratios = {
        side: [loop / own for loop, own in zip(times["loop"], values, strict=True)]
        for side, values in times.items()
    }
    reached = statistics.median(ratios[str(GOAL_WIDTH)])
    met = gap <= PROOF_TOLERANCE and (case.goal is None or reached >= case.goal)
    return {
        "case": case.name, "goal": case.goal, "reached": reached, "met": met,
        "loss_gap": gap, "milliseconds": times, "ratios": ratios,
    }  # fmt: skip


def show(result: dict[str, object]) -> None:
    print(json.dumps(result)[:100])


def main() -> int:
    with quiet_machine():
        for case in cases():
            r = row(case)
            print(r["case"], r["goal"], r["reached"], r["loss_gap"])
            for k, v in r["milliseconds"].items():
                print("  ", k, "%.4f  %.4f..%.4f  ratio %.2f" % (statistics.median(v), min(v), max(v), statistics.median(r["ratios"][k])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
