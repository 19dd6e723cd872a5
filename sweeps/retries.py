"""What to do with packs that failed: again, in halves, or no more. No files, no clock, no Ray.

A run's numbers do not depend on its partners (decision 1), so any regrouping is allowed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sweeps.plan import Pack, Run

Kind = Literal["memory", "raised", "lost"]

# What Python, torch (host and CUDA) and Ray's memory monitor say.
MEMORY = re.compile(
    r"MemoryError|OutOfMemory|out of memory|can't allocate memory|annot allocate memory|bad_alloc"
)
# How often a run that is alone may end so, without a step gained, before it is given up. What was
# raised twice in the same place will be raised again; machines die for reasons of their own.
TRIES: Mapping[Kind, int] = {"raised": 2, "memory": 2, "lost": 4}
LOSSES = 2  # of a pack that gains nothing: then halves, since the system's own killer says no word


def kind_of(reason: str, *, recorded: bool) -> Kind:
    """Tell why a pack ended; `recorded` where its worker lived to write it down."""
    if MEMORY.search(reason):
        return "memory"
    return "raised" if recorded else "lost"


@dataclass
class Retries:
    """What has been tried in this call of `run`."""

    _alone: Counter[tuple[str, Kind]] = field(default_factory=Counter)  # by run_id
    _losses: Counter[str] = field(default_factory=Counter)  # by pack_id
    _steps: dict[str, int] = field(default_factory=dict)  # that a run had when it ended last

    def next_packs(
        self, failed: Iterable[tuple[Pack, Sequence[Run], Kind]], steps: Mapping[str, int]
    ) -> list[Pack]:
        """Return what to train next of packs that left runs undone, in the order given.

        `steps` are those that checkpoints hold, by run_id: a run that has gained some starts its
        count anew. Runs that are given up are in no pack.
        """
        return [
            again for pack, left, kind in failed for again in self._again(pack, left, kind, steps)
        ]

    def _again(
        self, pack: Pack, left: Sequence[Run], kind: Kind, steps: Mapping[str, int]
    ) -> list[Pack]:
        gained = [run for run in left if steps.get(run.run_id, 0) > self._steps.get(run.run_id, 0)]
        for run in gained:
            self._steps[run.run_id] = steps[run.run_id]
            for any_kind in TRIES:
                self._alone.pop((run.run_id, any_kind), None)
        if len(pack.runs) == 1:
            alone = left[0].run_id, kind
            self._alone[alone] += not gained
            return [] if self._alone[alone] >= TRIES[kind] else [pack]
        self._losses[pack.pack_id] = 0 if gained else self._losses[pack.pack_id] + 1
        if len(left) == 1 or (kind == "lost" and self._losses[pack.pack_id] < LOSSES):
            return [Pack(tuple(left))]
        half = len(left) // 2
        return [Pack(tuple(left[:half])), Pack(tuple(left[half:]))]
