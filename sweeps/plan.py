"""Step 2: cells x seeds as runs, less what is recorded already, grouped into packs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from models.datasets import Dataset
from sweeps.cells import Cell, identity
from sweeps.draws import Draws
from sweeps.study import Study


@dataclass(frozen=True)
class Run:
    """One cell trained with one seed, on the images of a digest."""

    cell: Cell
    cell_id: str
    seed: int
    run_id: str
    image_digest: str


@dataclass(frozen=True)
class Pack:
    """Runs of one cell that are trained together: one Ray Tune trial."""

    runs: tuple[Run, ...]

    @property
    def pack_id(self) -> str:
        """Return 16 hex digits of the members' identities: content, not position."""
        return hashlib.sha256(" ".join(run.run_id for run in self.runs).encode()).hexdigest()[:16]

    @property
    def cell(self) -> Cell:
        """Return the configuration that the members share."""
        return self.runs[0].cell

    @property
    def steps(self) -> int:
        """Return the optimiser steps of all members together."""
        return len(self.runs) * self.cell.spec.training.steps


def all_runs(study: Study, dataset: Dataset) -> list[Run]:
    """Return every run of the study: cells in the file's order, seeds ascending.

    A cell has the identity that its runs on the study's own dataset give it, whether or not other
    seeds redraw the data. Raises BadData where a seed's data cannot be drawn.
    """
    own, split, draws = dataset.image_digest, study.split, Draws(study, dataset)
    digests = {seed: draws.digest(seed) for seed in study.seeds}
    return [
        Run(cell, cell_id, seed, identity(cell.spec, digest, seed, split), digest)
        for cell, cell_id in ((cell, cell.cell_id(own, split)) for cell in study.cells)
        for seed, digest in digests.items()
    ]


def packs_of(runs: Sequence[Run], slots: int, width: int | None = None) -> list[Pack]:
    """Group runs into packs of one cell each, interleaved over cells.

    Interleaved, so that a sweep that is stopped has about as many seeds of every cell. Without a
    width, packs are as wide as pays for their network, and narrow enough that every slot gets one.
    Members share their images: where seeds have their own, a pack has one member.
    """
    share = max(1, len(runs) // max(1, slots))
    by_cell: dict[str, list[Run]] = {}
    for run in runs:
        by_cell.setdefault(run.cell_id, []).append(run)
    if len({run.image_digest for run in runs}) > 1:
        width = 1
    columns = [
        _evenly(members, width or min(share, members[0].cell.spec.network.widest))
        for members in by_cell.values()
    ]
    rows = itertools.zip_longest(*columns)
    return [pack for row in rows for pack in row if pack is not None]


def _evenly(runs: list[Run], width: int) -> list[Pack]:
    """Cut a cell's runs into the fewest packs of at most `width`, of nearly equal sizes."""
    count = -(-len(runs) // width)
    edges = [round(place * len(runs) / count) for place in range(count + 1)]
    return [Pack(tuple(runs[a:b])) for a, b in itertools.pairwise(edges)]


def as_json(study: Study, dataset: Dataset, runs: Iterable[Run], packs: Sequence[Pack]) -> str:
    """Return plan.json: what this call means to have, and what it is about to train."""
    cells: dict[str, dict[str, Any]] = {}
    for run in runs:
        entry = cells.setdefault(
            run.cell_id,
            {"cell": run.cell.label, "cell_id": run.cell_id, "axes": run.cell.axes}
            | {"steps": run.cell.spec.training.steps, "runs": {}},
        )
        entry["runs"][str(run.seed)] = run.run_id
    content = {
        "study": study.name,
        "metric": study.metric,
        "low": study.low,
        "seeds": list(study.seeds),
        "split": study.split,
        "vary": list(study.vary),
        "dataset_digest": dataset.image_digest,
        "cells": list(cells.values()),
        "packs": [
            {
                "pack": pack.pack_id,
                "cell_id": pack.runs[0].cell_id,
                "seeds": [run.seed for run in pack.runs],
            }
            for pack in packs
        ],
    }
    return json.dumps(content, indent=1) + "\n"
