"""What the command and a notebook do alike: so they cannot differ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.estimate import estimate
from sweeps.folder import damage
from sweeps.folder.lock import hold, holder
from sweeps.folder.places import place
from sweeps.journal import Journal
from sweeps.launch import check_launcher
from sweeps.mistakes import Refused
from sweeps.plan import packs_of
from sweeps.progress import Display
from sweeps.results import read_records
from sweeps.review import Review, count_states, review, write_page
from sweeps.run import Outcome, cannot_write, train_missing
from sweeps.study import find_study, load_study
from sweeps.sweep import Sweep, open_sweep
from sweeps.terminal import markdown_table
from sweeps.tracking import Follower, Tracked, track


@dataclass(frozen=True)
class Finished:
    """What a call of `run` did, and what there is now."""

    outcome: Outcome
    review: Review
    page: Path
    tracked: Tracked
    seconds: float


def open_study(name: str, seeds: int | None = None, out: Path | None = None) -> Sweep:
    """Load a study by its path, its folder or a shipped name, with its folder.

    `seeds` replaces the file's by 0 ... seeds - 1. Raises Refused with every mistake.
    """
    path = find_study(name)
    study, dataset = load_study(path)
    inside = place(name).is_dir() or path.name == "study.yaml"
    folder = out or (path.parent if inside else Path("runs") / study.name)
    return open_sweep(study.with_seeds(seeds), dataset, folder, _to_stderr)


def _to_stderr(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def open_recorded(name: str, out: Path | None = None) -> Sweep:
    """Load a study that has records; Refused where it has none."""
    sweep = open_study(name, None, out)
    if not read_records(sweep.folder):
        text = f"{sweep.folder}: no records; first: sweeps run {name}"
        raise Refused([text])
    return sweep


def planned(sweep: Sweep) -> dict[str, Any]:
    """Return what `plan --json` says: counts, and the estimated time; trains nothing."""
    study = sweep.study
    missing = sweep.missing(read_records(sweep.folder))
    slots = max(1, int((os.cpu_count() or 1) / study.resources.cpus))
    slots = min(slots, study.resources.max_concurrent or slots)
    packs = packs_of(missing, slots)
    guess = estimate(packs, sweep.dataset.images.shape, slots, study.resources.gpus)
    return {
        "study": study.name,
        "cells": len(study.cells),
        "seeds": len(study.seeds),
        "runs": len(sweep.runs),
        "packs": len(packs),
        "vary": list(study.vary),
        "done": len(sweep.runs) - len(missing),
        "missing": len(missing),
        "slots": slots,
        "estimate_seconds": round(guess.seconds, 1),
        "estimate_gpu_hours": round(guess.gpu_hours, 4),
        "out": str(sweep.folder),
        "warnings": [text for cell in study.cells for text in cell.warnings()],
    }


def check_run(launcher: str, width: int | None) -> None:
    """Raise Refused where a run could not start, before anything is loaded."""
    if width is not None and width < 1:
        raise Refused([f"--pack-width: expected at least 1, got {width}"])
    check_launcher(launcher)


def run(sweep: Sweep, *, launcher: str, width: int | None, console: Console) -> Finished:
    """Train what is missing, write tables and report, show them in MLflow.

    Progress goes to the console. Raises Refused, also where another run holds the study folder and
    where that cannot be written any more.
    """
    start = time.monotonic()
    if width not in (None, 1) and sweep.study.redraws_data:
        what = f"{sweep.study.name} draws the data of every seed anew, so a pack has one member"
        raise Refused([f"--pack-width: {what}; expected 1, got {width}"])

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with hold(sweep.folder, f"sweeps run {sweep.study.name}") as warning:
        for text in [warning, *_mend(sweep.folder)]:
            if text:
                say(text)
        missing = len(sweep.missing(read_records(sweep.folder)))
        if missing:
            say(f"{sweep.study.name}: {missing} of {len(sweep.runs)} runs to train, {launcher}")
        journal, ended = Journal(sweep.folder, launcher), "refused"
        try:
            done = _train_and_write(sweep, launcher, width, console, journal, say)
            ended = _ending(sweep, done)
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        except OSError as failure:
            raise Refused([cannot_write(sweep.folder, failure)]) from None
        except MemoryError:
            text = f"{sweep.folder}: memory ran out while tables and report were made; what was"
            raise Refused([f"{text} finished is kept; run again with more memory free"]) from None
        finally:
            journal.end(ended)
    return replace(done, seconds=time.monotonic() - start)


def _train_and_write(
    sweep: Sweep,
    launcher: str,
    width: int | None,
    console: Console,
    journal: Journal,
    say: Callable[[str], None],
) -> Finished:
    """Train, then write tables, page and MLflow's view, which follows all the while."""
    with Follower(sweep.study, sweep.dataset, sweep.runs, sweep.folder) as follower:
        outcome = train_missing(
            sweep,
            launcher=launcher,
            width=width,
            display=lambda steps, runs: Display(console, sweep.study.name, steps, runs),
            journal=journal,
        )
        journal.writing()
        done = review(sweep, say=say)
        page = write_page(sweep, done)
        tracked = follower.finish(markdown_table(sweep.study, done.results, done.baselines))
    return Finished(outcome, done, page, tracked, seconds=0.0)


def _ending(sweep: Sweep, done: Finished) -> str:
    """Return how a call ended, as progress.json says it."""
    if done.outcome.interrupted:
        return "interrupted"
    if done.outcome.stopped:
        return "refused"
    return "complete" if complete(sweep, done.review) else "incomplete"


def reviewed(sweep: Sweep) -> Review:
    """Review what is recorded, without training; scores are brought up to date, where no run is.

    Raises Refused.
    """
    if holder(sweep.folder) is not None:
        return review(sweep, rescored=False)
    with hold(sweep.folder, f"sweeps report {sweep.study.name}"):
        return review(sweep)


def _mend(folder: Path) -> list[str]:
    """Set aside what is damaged, and remove what writers that were killed have left."""
    try:
        said = damage.set_aside(folder, damage.find(folder))
        damage.remove_leftovers(folder)
        damage.settle(folder)
    except OSError as failure:
        raise Refused([cannot_write(folder, failure)]) from None
    return said


def show(sweep: Sweep, done: Review) -> Tracked:
    """Bring MLflow in line with what was reviewed; what another run trains is shown as running."""
    study, results = sweep.study, done.results
    table = markdown_table(study, results, done.baselines)
    running = holder(sweep.folder) is not None
    return track(study, sweep.dataset, sweep.runs, sweep.folder, results, table, running=running)


def as_json(sweep: Sweep, finished: Finished) -> dict[str, Any]:
    """Return what `run --json` says."""
    states = count_states(finished.review.results)
    return {
        "study": sweep.study.name,
        "planned": len(sweep.runs),
        "trained": finished.outcome.trained,
        "skipped": finished.outcome.skipped,
        **{state: states[state] for state in ("ok", "collapsed", "diverged", "failed")},
        "seconds": round(finished.seconds, 1),
        "out": str(sweep.folder),
        "tracking_uri": finished.tracked.uri,
        "tracking": finished.tracked.state,
    }


def complete(sweep: Sweep, done: Review) -> bool:
    """Return whether every planned run has a score."""
    states = count_states(done.results)
    return states["ok"] + states["collapsed"] == len(sweep.runs)
