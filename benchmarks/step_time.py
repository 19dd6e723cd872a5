"""Milliseconds a step a seed: packed members against a loop over plain modules.

Both sides have one thread, resident images, a fused Adam and subnormals flushed, and draw the same
batches from the same streams; their losses are compared before anything is timed. Times are CPU
time of this process, so that a busy machine disturbs them less. Exit code 1: a goal is missed.

    python benchmarks/step_time.py [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

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
DENSE = 2  # dimensions of a dense layer's weight
# The proof runs in float64, where sums in another order agree to 1e-15 and Adam, which divides by
# the size of a gradient, carries that into the weights; BatchNorm in float32 would need 1e-2.
PROOF_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Case:
    """A network to time, its images, and the speed-up that is promised at `GOAL_WIDTH`."""

    name: str
    spec: Spec
    images: Tensor
    steps: int  # a repeat; four times as many where one member steps alone
    goal: float | None


@dataclass(frozen=True)
class Result:
    """One case: milliseconds a step a seed by side, and the loop's time by the side's, a repeat."""

    name: str
    goal: float | None
    reached: float
    loss_gap: float
    met: bool
    milliseconds: dict[str, list[float]]
    ratios: dict[str, list[float]]


class Plain(nn.Module):
    """The same autoencoder as anybody would write it, and its share of the training loop."""

    def __init__(self, spec: Spec, seed: int, images: Tensor) -> None:
        """Start from the first values of the seed's packed member."""
        super().__init__()
        layers = _convolutional if spec.network.kind == "conv" else _dense
        self.layers = nn.Sequential(*layers(spec, images.shape[1:])).to(images.dtype)
        self.images = images
        self.batch = images.new_empty(spec.training.batch_size, *images.shape[1:])
        self.order = stream(seed, "order")
        self.pending = torch.empty(0, dtype=torch.int64)
        self._copy_start(spec, seed)
        self.adam = torch.optim.Adam(self.parameters(), lr=spec.training.learning_rate, fused=True)

    @torch.no_grad()
    def _copy_start(self, spec: Spec, seed: int) -> None:
        """Take the packed member's first values; its dense weights are (in, out), not (out, in)."""
        start = Member.start(spec, seed, self.images.shape[1:])
        layout = spec.assemble(self.images.shape[1:]).parameters()
        values = layout.views(start.values, 1).values()
        for own, theirs in zip(self.layers.parameters(), values, strict=True):
            own.copy_(theirs[0].T if theirs[0].ndim == DENSE else theirs[0])

    def advance(self) -> Tensor:
        """Take one optimiser step and return the loss before it."""
        if len(self.pending) < len(self.batch):
            drawn = torch.randperm(len(self.images), generator=self.order)
            self.pending = torch.cat([self.pending, drawn])
        which, self.pending = self.pending[: len(self.batch)], self.pending[len(self.batch) :]
        torch.index_select(self.images, 0, which, out=self.batch)
        self.adam.zero_grad()
        gap = (self.layers(self.batch) - self.batch).flatten(1)
        loss: Tensor = gap.square().sum(1).mean() * 0.5
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return loss.detach()


def _stack(widths: list[int], *, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers.append(nn.Linear(fan_in, fan_out, bias=not norm))
        layers += [nn.BatchNorm1d(fan_out)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return layers


def _dense(spec: Spec, shape: Sequence[int]) -> list[nn.Module]:
    hidden, norm = spec.network.hidden, spec.network.batch_norm
    up, down = [*shape, *hidden], [1, *reversed(hidden)]
    encoder = [*_stack(up, norm=norm), nn.Linear(up[-1], 1)]
    return [*encoder, *_stack(down, norm=norm), nn.Linear(down[-1], up[0])]


def _convolutional(spec: Spec, shape: Sequence[int]) -> list[nn.Module]:
    """Two halvings and a dense layer, for a height and width that 4 divides; mirrored."""
    (bands, height, width), hidden = shape, spec.network.hidden
    (one, two), norm = spec.network.channels, spec.network.batch_norm
    maps = (two, height // 4, width // 4)
    down, up = [math.prod(maps), *hidden], [1, *reversed(hidden)]

    def shaped(layer: nn.Module, channels: int) -> list[nn.Module]:
        return [layer, *([nn.BatchNorm2d(channels)] if norm else []), nn.ReLU(inplace=True)]

    return [
        *shaped(nn.Conv2d(bands, one, 4, 2, 1, bias=not norm), one),
        *shaped(nn.Conv2d(one, two, 4, 2, 1, bias=not norm), two),
        nn.Flatten(),
        *_stack(down, norm=norm),
        nn.Linear(down[-1], 1),
        *_stack(up, norm=norm),
        nn.Linear(up[-1], down[0], bias=not norm),
        *shaped(nn.Unflatten(1, maps), two),
        *shaped(nn.ConvTranspose2d(two, one, 4, 2, 1, bias=not norm), one),
        nn.ConvTranspose2d(one, bands, 4, 2, 1),
    ]


def cases() -> list[Case]:
    """Return the three networks, each without and with BatchNorm."""
    digits = torch.from_numpy(Digits().load().pixels)
    large = torch.rand(4096, 784, generator=torch.Generator().manual_seed(0))
    square = large.view(-1, 1, 28, 28)
    mlp, conv = {"kind": "mlp"}, {"kind": "conv", "channels": (16, 32)}
    rows = []
    for norm in (False, True):
        for name, images, kind, hidden, batch, steps, goal in (
            ("digits 64-64-32-1, batch 32", digits, mlp, (64, 32), 32, 96, 6.0),
            ("784-256-64-1, batch 128", large, mlp, (256, 64), 128, 6, 0.95),
            ("28 x 28, 16 and 32 channels, batch 128", square, conv, (64,), 128, 2, None),
        ):
            network = {**kind, "hidden": hidden, "batch_norm": norm}
            spec = Spec.model_validate(
                {"objective": "ae", "network": network, "training": {"batch_size": batch}}
            )
            label = f"{name}{', BatchNorm' if norm else ''}"
            rows.append(Case(label, spec, images, steps, None if norm else goal))
    return rows


def packed(case: Case, width: int) -> Pack:
    """Return a pack of the first `width` seeds at their start."""
    shape, dtype = case.images.shape[1:], case.images.dtype
    starts = [Member.start(case.spec, seed, shape, dtype) for seed in range(width)]
    return Pack(case.spec, starts, case.images)


def proof_of_equal_work(case: Case) -> float:
    """Return the largest relative gap of a seed's loss between both sides over a few steps."""
    double = replace(case, images=case.images.double())
    pack = packed(double, 3)
    plain = [Plain(case.spec, seed, double.images) for seed in pack.seeds]
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


def measured(case: Case) -> Result:
    """Prove equal work, time the case, and compare with its goal."""
    gap = proof_of_equal_work(case)
    times = timed(case)
    ratios = {
        side: [loop / own for loop, own in zip(times["loop"], values, strict=True)]
        for side, values in times.items()
    }
    reached = statistics.median(ratios[str(GOAL_WIDTH)])
    met = gap <= PROOF_TOLERANCE and (case.goal is None or reached >= case.goal)
    return Result(case.name, case.goal, reached, gap, met, times, ratios)


def table(result: Result) -> str:
    """Return the lines of one case: medians and, in brackets, ranges over the repeats."""
    lines = [f"{result.name}: losses agree to {result.loss_gap:.0e}"]
    for side, times in result.milliseconds.items():
        label = side if side == "loop" else f"width {side}"
        lines.append(f"  {label:9}{_spread(times, 4)} ms{_spread(result.ratios[side], 2):>26} x")
    if result.goal is not None:
        word = "met" if result.met else "MISSED"
        lines.append(f"  goal at width {GOAL_WIDTH}: {result.goal} x, {word}")
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


def main() -> int:
    """Time and print every case; return 1 where a goal or the proof of equal work is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    as_json: bool = parser.parse_args().json
    results = []
    with quiet_machine():
        for case in cases():
            results.append(measured(case))
            if not as_json:
                print(table(results[-1]), flush=True)
    if as_json:
        print(json.dumps({"cases": [asdict(one) for one in results]}))
    return 0 if all(one.met for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
