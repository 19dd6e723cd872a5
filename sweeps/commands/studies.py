"""The commands on a study: plan, run, report, track, predict."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from rich.console import Console

from sweeps import session
from sweeps.commands import INCOMPLETE, INTERRUPTED, OK, REFUSED
from sweeps.folder import damage
from sweeps.predict import as_csv, check_out, write
from sweeps.predict import predict as predicted
from sweeps.remote.travel import unpack
from sweeps.report import as_json
from sweeps.review import Review, write_page
from sweeps.sweep import Sweep
from sweeps.terminal import print_plan, print_table

PREVIEW = 5  # rows of a prediction that JSON shows beside a file of all


def plan(options: argparse.Namespace) -> int:
    """Show what there is to train."""
    sweep = session.open_study(options.study, options.seeds, options.out)
    content = session.planned(sweep)
    if options.json:
        print(json.dumps(content))
    else:
        print_plan(sweep.study, content, Console())
    return OK


def run(options: argparse.Namespace) -> int:
    """Train what is missing, and show what came of it."""
    session.check_run(options.launcher, options.pack_width)
    if options.received:
        file, note = unpack(options.study, options.received, options.out)
        options.study = str(file)
        if note:
            print(note, file=sys.stderr)
    sweep = session.open_study(options.study, options.seeds, options.out)
    console = Console(stderr=True)
    done = session.run(sweep, launcher=options.launcher, width=options.pack_width, console=console)
    if options.json:
        print(json.dumps(session.as_json(sweep, done)))
    else:
        _show(sweep, done.review, done.page)
        if done.tracked.state == "written":
            look = f"sweeps ui {shlex.quote(str(sweep.folder))}"
            print(f"MLflow: {done.tracked.uri}, look with: {look}")
    if done.tracked.problem:
        print(f"MLflow: {done.tracked.problem}", file=sys.stderr)
    if done.outcome.stopped:
        print(done.outcome.stopped, file=sys.stderr)
        return REFUSED
    if done.outcome.interrupted:
        print("interrupted; what was finished is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    return OK if session.complete(sweep, done.review) else INCOMPLETE


def report(options: argparse.Namespace) -> int:
    """Show statistics and write the page again, from the records."""
    sweep = session.open_recorded(options.study, options.out)
    done = _reviewed(sweep)
    page = write_page(sweep, done)
    if options.json:
        print(json.dumps(as_json(sweep.study, done.results, done.baselines, done.answer)))
    else:
        _show(sweep, done, page)
    return OK if session.complete(sweep, done) else INCOMPLETE


def _reviewed(sweep: Sweep) -> Review:
    """Review the records; say what of them cannot be read."""
    for found in damage.find(sweep.folder):
        fix = "run the study again to set it aside and to train its runs anew"
        print(f"{found.path}: {found.reason}; {fix}", file=sys.stderr)
    return session.reviewed(sweep)


def _show(sweep: Sweep, done: Review, page: Path) -> None:
    if done.rescored:
        what = "runs scored again: their labels or their orientation changed"
        print(f"{done.rescored} {what}", file=sys.stderr)
    print_table(sweep.study, done.results, done.baselines, done.answer, console=Console())
    print(f"\nreport: {page}")


def track(options: argparse.Namespace) -> int:
    """Write MLflow's view again, from the records."""
    sweep = session.open_recorded(options.study, options.out)
    done = _reviewed(sweep)
    tracked = session.show(sweep, done)
    content = {
        "study": sweep.study.name,
        "runs": done.results.runs.num_rows,
        "rescored": done.rescored,
        "out": str(sweep.folder),
        "tracking_uri": tracked.uri,
        "tracking": tracked.state,
    }
    if options.json:
        print(json.dumps(content))
    elif tracked.state == "written":
        what = f"{content['runs']} runs in {len(sweep.study.cells)} cells"
        print(f"MLflow: {tracked.uri} shows {what} of {sweep.study.name}")
    if tracked.problem:
        print(f"MLflow: {tracked.problem}", file=sys.stderr)
    return OK if tracked.state == "written" else INCOMPLETE


def predict(options: argparse.Namespace) -> int:
    """Score new images with the trained members."""
    check_out(options.out)
    sweep = session.open_recorded(options.study)
    done = predicted(sweep, options.images, cell=options.cell, seed=options.seed)
    if options.out:
        write(done, Path(options.out))
    if options.json:
        rows = done.table[: PREVIEW if options.out else None].to_pylist()
        out = str(options.out) if options.out else None
        print(json.dumps({**done.as_json(), "out": out, "rows": rows}))
        return OK
    if not options.out:
        print(as_csv(done.table).decode(), end="")
    # Where the table itself is on stdout, the words about it are not.
    print("\n".join(done.words()), file=sys.stdout if options.out else sys.stderr)
    return OK
