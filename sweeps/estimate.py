"""How long a plan will take: a few steps timed on random data, two seconds at most."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.members import Member
from models.members import Pack as Members
from models.train import quiet_machine
from sweeps.plan import Pack

BUDGET = 1.6  # seconds of timing in all
MOST_TIMED = 8  # configurations; the others are taken to be like their mean
START_UP = 11.0  # seconds until local Ray has workers with torch imported
PER_PACK = 0.3  # seconds of scheduling and writing
BESIDE = 1.4  # how much slower a pack is beside others: 1.2 to 1.6, cores share caches and more
AFTERWARDS = 8.0  # seconds of baselines, figures, page and MLflow
PER_RUN = 0.08  # of those, and of scoring, a run
PER_IMAGE = 6e-5  # the same, an image of a run
PER_DRAW = 1.5  # baselines of data that a seed has of its own


@dataclass(frozen=True)
class Estimate:
    """Wall-clock seconds, and GPU hours summed over packs."""

    seconds: float
    gpu_hours: float


def estimate(packs: Sequence[Pack], shape: tuple[int, ...], slots: int, gpus: float) -> Estimate:
    """Estimate the time to train packs on so many slots; their pixels are random, nothing is kept.

    `shape` is that of the images, (N, C, H, W).
    """
    if not packs:
        return Estimate(0.0, 0.0)
    widest: dict[str, Pack] = {}
    for pack in packs:
        known = widest.get(pack.runs[0].cell_id)
        if known is None or len(pack.runs) > len(known.runs):
            widest[pack.runs[0].cell_id] = pack
    chosen = list(widest.values())
    timed = chosen[:: -(-len(chosen) // MOST_TIMED)]
    with quiet_machine():
        costs = {p.runs[0].cell_id: _step(p, shape, BUDGET / len(timed)) for p in timed}
    usual = sum(costs.values()) / len(costs)
    busy = [
        pack.cell.spec.training.steps * costs.get(pack.runs[0].cell_id, usual) + PER_PACK
        for pack in packs
    ]
    runs = sum(len(pack.runs) for pack in packs)
    draws = len({run.image_digest for pack in packs for run in pack.runs})
    after = AFTERWARDS + runs * (PER_RUN + PER_IMAGE * shape[0]) + PER_DRAW * (draws - 1)
    return Estimate(START_UP + _span(busy, slots) + after, sum(busy) * gpus / 3600)


def _span(busy: Sequence[float], slots: int) -> float:
    """Return when the last pack ends where each starts, in order, as soon as a slot is free."""
    beside = BESIDE if min(slots, len(busy)) > 1 else 1.0
    ends = [0.0] * max(1, slots)
    for seconds in busy:
        heapq.heapreplace(ends, ends[0] + seconds * beside)
    return max(ends)


def _step(pack: Pack, shape: tuple[int, ...], budget: float) -> float:
    """Return the seconds of one optimiser step of all members."""
    start = time.perf_counter()
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    members = [Member.start(pack.cell.spec, run.seed, shape[1:]) for run in pack.runs]
    trial = Members(pack.cell.spec, members, data)
    trial.advance()
    steps, begun = 0, time.perf_counter()
    while not steps or time.perf_counter() - start < budget:
        trial.advance()
        steps += 1
    return (time.perf_counter() - begun) / steps
