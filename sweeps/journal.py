"""progress.json: what the driver of a study is doing, for whoever looks from outside."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sweeps.folder.storage import write_whole
from sweeps.plan import Pack

NAME = "progress.json"
EVERY = 2.0  # seconds between two writes


class Shown(Protocol):
    """What shows progress to a person."""

    def steps(self, pack_id: str, done: int) -> None:
        """Hear how many optimiser steps the members of a running pack have done, in sum."""

    def finished(self, pack_id: str, runs: int, steps: int) -> None:
        """Hear that a pack of so many runs, of so many steps each, has ended."""

    def lost(self, pack_id: str) -> None:
        """Hear that a pack has ended without a result, and may go round again."""

    def note(self, text: str) -> None:
        """Show a sentence that a person should know."""


class Journal:
    """Keeps progress.json, and passes progress on to a person."""

    def __init__(self, folder: Path, launcher: str) -> None:
        """Begin; nothing is written yet."""
        self._path, self._launcher = folder / NAME, launcher
        self._round, self._packs = 0, dict[str, Pack]()
        self._running: dict[str, dict[str, Any]] = {}
        self._where: dict[str, Mapping[str, Any]] = {}
        self._shown: Shown | None = None
        self._written = -EVERY

    def begin(self, packs: Sequence[Pack], shown: Shown) -> None:
        """Begin a round of packs."""
        self._round += 1
        self._packs, self._shown = {pack.pack_id: pack for pack in packs}, shown
        self._running.clear()
        self._where.clear()
        self._write()

    def steps(self, pack_id: str, done: int, where: Mapping[str, Any]) -> None:
        """Note how far a running pack is, and where it runs."""
        pack = self._packs[pack_id]
        new = pack_id not in self._running
        self._where[pack_id] = where
        self._running[pack_id] = {
            "pack": pack_id,
            "cell": pack.cell.label,
            "seeds": [run.seed for run in pack.runs],
            "run_ids": [run.run_id for run in pack.runs],
            "done": done,
            "steps": pack.steps,
            **where,
        }
        if self._shown is not None:
            self._shown.steps(pack_id, done)
        if new or time.monotonic() - self._written >= EVERY:
            self._write()

    def finished(self, pack_id: str) -> None:
        """Note that a pack's worker came to its end."""
        self._running.pop(pack_id, None)
        pack = self._packs[pack_id]
        if self._shown is not None:
            self._shown.finished(pack_id, len(pack.runs), pack.cell.spec.training.steps)

    def lost(self, pack_id: str) -> None:
        """Note that a pack's worker did not."""
        self._running.pop(pack_id, None)
        if self._shown is not None:
            self._shown.lost(pack_id)

    def note(self, text: str) -> None:
        """Pass on what a person should know."""
        if self._shown is not None:
            self._shown.note(text)

    def where(self, pack_id: str) -> Mapping[str, Any]:
        """Return where a pack of this round was heard of: host, pid, log; nothing where never."""
        return self._where.get(pack_id, {})

    def writing(self) -> None:
        """Note that the training is over and tables and report are written."""
        self._write("writing")

    def end(self, how: str) -> None:
        """Note how the call ended: complete, incomplete, interrupted or refused."""
        self._running.clear()
        self._write("ended", how)

    def _write(self, state: str = "training", ended: str | None = None) -> None:
        self._written = time.monotonic()
        content = {
            "state": state,
            "ended": ended,
            "launcher": self._launcher,
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "round": self._round,
            "running": list(self._running.values()),
        }
        with contextlib.suppress(OSError):  # a full disk: what matters more will say so
            write_whole(self._path, json.dumps(content, indent=1).encode())
