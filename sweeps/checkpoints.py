"""Members between two steps, kept in the study folder while their pack trains.

A file a running pack: safetensors, whose metadata says which runs are inside and how far they are.
A new pack reads its members by run_id, out of whatever files hold them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.members import Member
from models.saved import Saved
from models.streams import PURPOSES
from sweeps.folder import kept
from sweeps.folder.kept import FOLDER, SUFFIX, Kept
from sweeps.folder.storage import read_safetensors, to_safetensors, write_whole
from sweeps.folder.timeline import Timeline

SHARE = 0.01  # of a pack's time, at most, goes into the writer
PARTS = ("values", "first_moment", "second_moment", "buffers", "pending")  # tensors of a member

Tensors = Mapping[str, NDArray[Any]]


@dataclass
class Keeper:
    """Saves a pack now and then: at first after `shortest` seconds, then as its cost allows.

    That a checkpoint cannot be written (a full disk, say) stops no training: the record at its end
    is what counts.
    """

    folder: Path
    pack_id: str
    run_ids: Sequence[str]
    shortest: float
    timeline: Timeline
    _next: float = field(init=False)
    _since: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Let the first period begin."""
        self._next = time.monotonic() + self.shortest

    def due(self) -> bool:
        """Tell whether the period is over: the clock of the cost starts where it is."""
        self._since = time.monotonic()
        return self._since >= self._next

    def keep(self, saved: Sequence[Saved]) -> None:
        """Write the members, and choose when to do so again."""
        copied = time.monotonic() - self._since
        with self.timeline.span("checkpoint", copied=copied) as span:
            span["steps"] = [one.step for one in saved]
            try:
                write(self.folder, self.pack_id, self.run_ids, saved)
            except OSError as failure:
                span["failed"] = f"{type(failure).__name__}: {failure}"
        now = time.monotonic()
        self._next = now + max(self.shortest, (now - self._since) / SHARE)


def write(folder: Path, pack_id: str, run_ids: Sequence[str], saved: Sequence[Saved]) -> None:
    """Write the members of one pack, in place of what was kept of it before.

    Raises OSError where the folder cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {}
    notes = []
    for run_id, one in zip(run_ids, saved, strict=True):
        tensors[f"{run_id}/curve"] = one.curve
        if one.member is not None:
            tensors |= {f"{run_id}/{name}": t.numpy() for name, t in _parts(one.member).items()}
        notes.append(
            {"run_id": run_id, "seed": one.seed, "step": one.step}
            | {"resumed": list(one.resumed), "diverged": one.member is None}
        )
    data = to_safetensors(tensors, {"members": json.dumps(notes)})
    write_whole(_file(folder, pack_id), data)


def read(folder: Path, run_ids: Iterable[str]) -> dict[str, Saved]:
    """Return what is kept of the runs, by run_id; of a damaged file nothing."""
    there = kept.index(folder)
    by_path: dict[Path, list[Kept]] = {}
    for run_id in run_ids:
        if run_id in there:
            by_path.setdefault(there[run_id].path, []).append(there[run_id])
    found: dict[str, Saved] = {}
    for path, members in by_path.items():
        try:
            tensors = read_safetensors(path)
            found |= {one.run_id: _saved(one, tensors) for one in members}
        except (OSError, ValueError, KeyError):  # then they begin anew
            continue
    return found


def remove(folder: Path, pack_id: str) -> None:
    """Remove what was kept of a pack that has its records."""
    _file(folder, pack_id).unlink(missing_ok=True)


def tidy(folder: Path, done: Iterable[str]) -> None:
    """Remove files that hold nothing but finished runs, and the folder with the last of them."""
    finished = set(done)
    for path in kept.files(folder):
        members = kept.members(path)
        if members and all(one.run_id in finished for one in members):
            path.unlink(missing_ok=True)
    place = folder / FOLDER
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def _file(folder: Path, pack_id: str) -> Path:
    return folder / FOLDER / f"{pack_id}{SUFFIX}"


def _parts(member: Member) -> dict[str, torch.Tensor]:
    streams = {f"streams/{purpose}": state for purpose, state in member.streams.items()}
    return {part: getattr(member, part) for part in PARTS} | streams


def _saved(one: Kept, tensors: Tensors) -> Saved:
    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(tensors[f"{one.run_id}/{name}"].copy())

    member = None
    if not one.diverged:
        streams = {purpose: tensor(f"streams/{purpose}") for purpose in PURPOSES}
        parts = {part: tensor(part) for part in PARTS}
        member = Member(seed=one.seed, step=one.step, streams=streams, **parts)
    curve = np.array(tensors[f"{one.run_id}/curve"], dtype=np.float64)
    return Saved(one.seed, member, curve, one.resumed)
