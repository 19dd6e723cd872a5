"""Step 4: rounds. Plan what is missing, execute it, reconcile, and go round again.

Resume is round one. A run is finished when its record says so; what Ray says of a trial is never
believed on its own.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps import checkpoints
from sweeps.draws import Recipe
from sweeps.folder import kept
from sweeps.folder.damage import settle
from sweeps.journal import Journal, Shown
from sweeps.launch import Launcher, open_launcher
from sweeps.mistakes import Refused
from sweeps.plan import Pack, Run, packs_of
from sweeps.results import DONE, Record, read_records, write_part
from sweeps.retries import Kind, Retries, kind_of
from sweeps.sweep import Sweep, write_plan
from sweeps.trial import Data, Job

CHECKPOINT_SECONDS = 15.0
PERIOD = "SEEDSWEEP_CHECKPOINT_SECONDS"  # the environment's own shortest time between two

Display = Callable[[int, int], AbstractContextManager[Shown]]


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did: `trained` runs got a record in it, `skipped` had one before.

    `stopped` says why training ended before its time, if it did.
    """

    trained: int
    skipped: int
    interrupted: bool
    stopped: str | None = None


def train_missing(
    sweep: Sweep,
    *,
    launcher: str,
    width: int | None,
    display: Display,
    journal: Journal | None = None,
) -> Outcome:
    """Train what is missing, in rounds, and keep every finished record.

    `display(total_steps, total_runs)` gives the context manager that shows progress. Packs that
    failed go round again, in halves where that may help. An interrupt ends the rounds, as does a
    folder that cannot be written any more; Refused passes through before the first round.
    """
    journal = journal or Journal(sweep.folder, launcher)
    period = checkpoint_seconds()
    before = read_records(sweep.folder)
    missing = sweep.missing(before)
    skipped = len(sweep.runs) - len(missing)
    if not missing:
        write_plan(sweep, [])
        return Outcome(0, skipped, interrupted=False)
    interrupted, stopped = False, None
    try:
        with open_launcher(launcher, sweep.study.resources, sweep.folder) as place:
            packs = packs_of(missing, place.slots, width)
            write_plan(sweep, packs)
            with display(sum(pack.steps for pack in packs), len(missing)) as shown:
                try:
                    _rounds(_Rounds(sweep, place, journal, shown, period), packs)
                except Refused as refusal:
                    stopped = "; ".join(refusal.mistakes)
    except KeyboardInterrupt:
        interrupted = True
    now = read_records(sweep.folder)
    trained = sum(
        run.run_id in now and now[run.run_id] != before.get(run.run_id) for run in missing
    )
    return Outcome(trained, skipped, interrupted, stopped)


def checkpoint_seconds() -> float:
    """Return the shortest time between two checkpoints of a pack; Refused where it is no time."""
    text = os.environ.get(PERIOD, "")
    try:
        seconds = float(text or CHECKPOINT_SECONDS)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Refused([f"{PERIOD}: expected seconds, got '{text}'"])
    return seconds


@dataclass(frozen=True)
class _Rounds:
    """What all rounds of a call have in common."""

    sweep: Sweep
    place: Launcher
    journal: Journal
    shown: Shown
    period: float


def _rounds(call: _Rounds, packs: Sequence[Pack]) -> None:
    """Execute packs until nothing is left that may be tried again."""
    sweep, retries = call.sweep, Retries()
    data = Data.of(sweep.draws.own)
    commit = _git_commit()
    while packs:
        start = time.monotonic()
        call.journal.begin(packs, call.shown)
        asked = sweep.study.diagnostics
        jobs = [
            Job.of(pack, sweep.folder, commit, call.period, asked, _recipe(sweep, pack))
            for pack in packs
        ]
        errors = call.place.execute(jobs, data, call.journal)
        records, taken = read_records(sweep.folder), time.monotonic() - start
        begun = {pack.pack_id for pack in packs if call.journal.where(pack.pack_id)}
        failed, waiting = [], []
        for pack in packs:
            left = [run for run in pack.runs if not _done(records, run)]
            if left and pack.pack_id in errors and begun and pack.pack_id not in begun:
                waiting.append(Pack(tuple(left)))  # Ray ended before its turn came
            elif left:
                failed.append((pack, left, _account(call, pack, left, records, errors, taken)))
        done = [run_id for run_id, record in records.items() if record["status"] in DONE]
        checkpoints.tidy(sweep.folder, done)
        _settle(sweep.folder)
        steps = {run_id: one.step for run_id, one in kept.index(sweep.folder).items()}
        packs = [*retries.next_packs(failed, steps), *waiting]


def _recipe(sweep: Sweep, pack: Pack) -> Recipe | None:
    """Return what a pack's own data is drawn by: one member's, where seeds differ in it."""
    return sweep.draws.recipe(pack.runs[0].seed)


def _settle(folder: Path) -> None:
    """Take out records that a later try has replaced; Refused where the folder takes no change."""
    try:
        settle(folder)
    except OSError as failure:
        raise Refused([cannot_write(folder, failure)]) from None


def _done(records: Mapping[str, Record], run: Run) -> bool:
    return run.run_id in records and records[run.run_id]["status"] in DONE


def _account(
    call: _Rounds,
    pack: Pack,
    left: Sequence[Run],
    records: Mapping[str, Record],
    errors: Mapping[str, str],
    seconds: float,
) -> Kind:
    """Tell why a pack left runs undone; write the records that a dead worker could not."""
    if pack.pack_id not in errors and all(run.run_id in records for run in left):
        return kind_of(str(records[left[0].run_id]["error"]), recorded=True)
    reason = errors.get(pack.pack_id, "the worker ended without a record")
    where = call.journal.where(pack.pack_id)
    _write_failed(call.sweep, pack, left, reason, where, seconds)
    return kind_of(reason, recorded=False)


def _write_failed(
    sweep: Sweep,
    pack: Pack,
    lost: Sequence[Run],
    reason: str,
    where: Mapping[str, Any],
    seconds: float,
) -> None:
    """Write the records that a dead worker could not; Refused where the folder takes none."""
    now = datetime.now(UTC)
    rows = [
        {
            "run_id": run.run_id,
            "cell_id": run.cell_id,
            "seed": run.seed,
            "status": "failed",
            "error": headline(reason),
            "traceback": reason,
            "log": where.get("log"),
            "host": where.get("host"),
            "pack": pack.pack_id,
            "seconds": seconds / len(pack.runs),
            "dataset_digest": run.image_digest,
            "finished_at": now,
        }
        for run in lost
    ]
    try:
        write_part(sweep.folder, pack.pack_id, rows)
    except OSError as failure:
        raise Refused([cannot_write(sweep.folder, failure)]) from None


def headline(reason: str) -> str:
    """Return an error's type and its last line, which says most, of whatever is known of it."""
    lines = reason.strip().splitlines() or ["the worker ended without a record"]
    kind, colon, _ = lines[0].partition(": ")
    named = kind.isidentifier() and colon and not lines[-1].startswith(f"{kind}: ")
    return (f"{kind}: {lines[-1].strip()}" if named else lines[-1].strip())[:500]


def cannot_write(folder: Path, failure: OSError) -> str:
    """Say that a folder takes no more files, and what to do."""
    reason = failure.strerror or str(failure)
    kept_ = "what was finished is kept; make room or make it writable, and run again"
    return f"{folder}: the study folder cannot be written: {reason}; {kept_}"


def _git_commit() -> str | None:
    """Return the commit of our own source tree; None where it is installed without one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        call = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return call.stdout.strip()
