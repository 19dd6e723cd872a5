"""Diagnostics of trained members, as a worker takes them at the end and a review makes up for them.

The same numbers in both: the same weights and codes, one thread, streams of their own.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.diagnostics.generation import Coded
from models.diagnostics.request import Requested
from models.diagnostics.table import NAMES, Examination, Member
from models.restore import Restored, restored
from models.scores import Scorer
from models.spec import Spec
from sweeps.folder.packfiles import file_of
from sweeps.folder.storage import read_safetensors
from sweeps.results import SCORED, Record

Floats = NDArray[np.float32]
Tensors = Mapping[str, Floats]


class Weights:
    """A pack's kept weights, read when they are first asked for."""

    def __init__(self, folder: Path, pack: str) -> None:
        """Take the study's folder and the pack's name."""
        self._path = file_of(folder, "members", pack)

    @functools.cached_property
    def _all(self) -> dict[str, Floats]:
        return read_safetensors(self._path)

    def of(self, run_id: str) -> Tensors:
        """Return a run's tensors by block name; OSError or Damaged where they cannot be read."""
        start = f"{run_id}/"
        return {n.removeprefix(start): x for n, x in self._all.items() if n.startswith(start)}


def examination(images: Floats, scorer: Scorer, requested: Requested) -> Examination:
    """Return what a study's members are measured with; labels are those that score them."""
    return Examination(images, scorer.labels, scorer.label_digest, scorer.rows, requested)


def identities_of(record: Record) -> dict[str, str]:
    """Return the digests of what a record's diagnostics were made with, by group."""
    try:
        found = json.loads(record.get("diagnostics_id") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def missing(record: Record, wanted: Mapping[str, str]) -> list[str]:
    """Return the groups that a scored record lacks, or has of something else."""
    if record["status"] not in SCORED:
        return []
    known = identities_of(record)
    return [group for group in NAMES if group in wanted and known.get(group) != wanted[group]]


def measured(
    spec: Spec,
    seed: int,
    code: Floats,
    tensors: Callable[[], Tensors],
    groups: Iterable[str],
    exam: Examination,
    learned_prior: str | None,
) -> Record:
    """Return a member's diagnostics as a record holds them.

    `learned_prior` is the record's own. `tensors` is called where a group needs the member itself.
    Raises ValueError where they are not this specification's.
    """

    @functools.cache
    def own() -> Restored:
        return restored(spec, tensors(), exam.images.shape[1:])

    prior = spec.prior_of(learned_prior)
    coded = Coded(code, spec.code.class_units, prior, spec.code.style == "normal")
    member = Member(seed, coded, lambda rows: own().encode(rows), lambda codes: own().decode(codes))
    found: Record = {}
    for group in groups:
        found |= exam.measure(group, member)
    return {name: x if x is not None and math.isfinite(x) else None for name, x in found.items()}


def as_identities(record: Record, groups: Sequence[str], wanted: Mapping[str, str]) -> str:
    """Return a record's `diagnostics_id` after these groups were measured."""
    known = identities_of(record) | {group: wanted[group] for group in groups}
    return json.dumps(known, sort_keys=True)


def one_thread() -> threadpool_limits:
    """Limit linear algebra to one thread: more of them add in another order."""
    return threadpool_limits(limits=1)
