"""Which runs have a checkpoint, and how far: read from the files' headers alone, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER, SUFFIX = "checkpoints", ".safetensors"
LENGTH = 8  # bytes that say how long a safetensors header is, the lowest first
LONGEST = 1 << 26  # no header of ours comes near: a damaged length must not be believed
NO_HEADER = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),  # numbers beyond all bounds, and brackets
)


@dataclass(frozen=True)
class Kept:
    """A run's checkpoint; `resumed` are the steps from which the run was picked up before."""

    path: Path
    run_id: str
    seed: int
    step: int
    resumed: tuple[int, ...]
    diverged: bool


def files(folder: Path) -> list[Path]:
    """Return the checkpoint files of a study folder, by name."""
    return sorted((folder / FOLDER).glob(f"*{SUFFIX}"))


def index(folder: Path) -> dict[str, Kept]:
    """Return the checkpoint of each run that got furthest, by run_id; damaged headers have none."""
    best: dict[str, Kept] = {}
    for path in files(folder):
        for kept in members(path):
            known = best.get(kept.run_id)
            if known is None or kept.step > known.step:
                best[kept.run_id] = kept
    return best


def members(path: Path) -> list[Kept]:
    """Return what a checkpoint file says that it holds; nothing where that cannot be read."""
    try:
        notes = json.loads(_metadata(path)["members"])
        return [_kept(path, note) for note in notes]
    except NO_HEADER:
        return []


def _metadata(path: Path) -> Mapping[str, str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        if length > LONGEST:
            msg = f"{path}: a header of {length} bytes"
            raise ValueError(msg)
        header: dict[str, Any] = json.loads(file.read(length))
    about: Mapping[str, str] = header["__metadata__"]
    return about


def _kept(path: Path, note: Mapping[str, Any]) -> Kept:
    resumed = tuple(int(step) for step in note["resumed"])
    diverged = bool(note["diverged"])
    return Kept(path, str(note["run_id"]), int(note["seed"]), int(note["step"]), resumed, diverged)
