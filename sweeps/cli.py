"""The command `sweeps`: thin; each command reads its arguments, calls a room, prints, exits."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import __version__
from sweeps.mistakes import Refused

if TYPE_CHECKING:
    from sweeps.run import Review, Sweep

OK, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except Refused as refusal:
        print("\n".join(refusal.mistakes), file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweeps",
        description="Sweep configurations and seeds of unsupervised autoencoders, "
        "and learn which result can be trusted.",
        epilog="exit codes: 0 all runs scored; 1 some diverged or failed, all accounted for; "
        "2 bad input; 130 interrupted, everything finished so far kept",
    )
    parser.add_argument("--version", action="version", version=f"seedsweep {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], help_: str, what: str) -> Any:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.set_defaults(command=command)
        sub.add_argument("study", metavar=what, help=f"a path, or a shipped study's name ({what})")
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        sub.add_argument("--out", type=Path, metavar="DIR", help="study folder [runs/NAME]")
        return sub

    plan = add(
        "plan", _plan, "show cells, seeds, packs and the estimated time; train nothing", "STUDY"
    )
    run = add(
        "run", _run, "train what is missing, print the stability table, write the report", "STUDY"
    )
    for sub in (plan, run):
        sub.add_argument("--seeds", type=int, metavar="N", help="seeds 0 ... N-1 for this call")
    run.add_argument("--launcher", default="local", metavar="WHERE", help="local (Ray) or inline")
    run.add_argument("--pack-width", type=int, metavar="W", help="most seeds trained together")
    add("report", _report, "statistics and report again, from a study's records", "STUDY|DIR")
    _add_data(commands)
    return parser


def _add_data(commands: Any) -> None:
    what = "list datasets and forms of files, describe one, or export it as .npz and .png"
    data = commands.add_parser("data", help=what, description=what)
    data.set_defaults(command=_data)
    data.add_argument("action", choices=("list", "describe", "export"), metavar="ACTION")
    where = "a shipped dataset's name, a file or folder of images, or a study"
    data.add_argument("what", nargs="?", metavar="WHAT", help=where)
    data.add_argument("--json", action="store_true", help="one JSON object on stdout")
    data.add_argument("--out", type=Path, metavar="DIR", help="where export writes")


def _open(options: argparse.Namespace) -> Sweep:
    """Load the study that was named, with its folder."""
    from sweeps.run import open_sweep  # noqa: PLC0415 - seconds of imports, not for --help
    from sweeps.study import find_study, load_study  # noqa: PLC0415

    path = find_study(options.study)
    study, dataset = load_study(path)
    study = study.with_seeds(getattr(options, "seeds", None))
    inside = Path(options.study).is_dir() or path.name == "study.yaml"
    folder = options.out or (path.parent if inside else Path("runs") / study.name)
    return open_sweep(study, dataset, folder)


def _plan(options: argparse.Namespace) -> int:
    from sweeps.estimate import estimate  # noqa: PLC0415
    from sweeps.plan import packs_of  # noqa: PLC0415
    from sweeps.results import read_records  # noqa: PLC0415

    sweep = _open(options)
    study = sweep.study
    missing = sweep.missing(read_records(sweep.folder))
    slots = max(1, int((os.cpu_count() or 1) / study.resources.cpus))
    slots = min(slots, study.resources.max_concurrent or slots)
    packs = packs_of(missing, slots)
    images, pixels = sweep.dataset.pixels.shape
    guess = estimate(packs, pixels, images, slots, study.resources.gpus)
    content = {
        "study": study.name,
        "cells": len(study.cells),
        "seeds": len(study.seeds),
        "runs": len(sweep.runs),
        "packs": len(packs),
        "done": len(sweep.runs) - len(missing),
        "missing": len(missing),
        "slots": slots,
        "estimate_seconds": round(guess.seconds, 1),
        "estimate_gpu_hours": round(guess.gpu_hours, 4),
        "out": str(sweep.folder),
        "warnings": [text for cell in study.cells for text in cell.warnings()],
    }
    if options.json:
        print(json.dumps(content))
        return OK
    from rich.console import Console  # noqa: PLC0415

    from sweeps.terminal import print_plan  # noqa: PLC0415

    print_plan(study, content, Console())
    return OK


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415

    from sweeps.launch import check_launcher  # noqa: PLC0415
    from sweeps.progress import Display  # noqa: PLC0415
    from sweeps.results import read_records  # noqa: PLC0415
    from sweeps.run import count_states, review, train_missing  # noqa: PLC0415
    from sweeps.terminal import markdown_table  # noqa: PLC0415

    if options.pack_width is not None and options.pack_width < 1:
        raise Refused([f"--pack-width: expected at least 1, got {options.pack_width}"])
    check_launcher(options.launcher)
    start = time.monotonic()
    sweep = _open(options)
    console = Console(stderr=True)
    missing = len(sweep.missing(read_records(sweep.folder)))
    if missing:
        words = f"{sweep.study.name}: {missing} of {len(sweep.runs)} runs to train"
        console.print(f"{words}, {options.launcher}", highlight=False, soft_wrap=True)
    outcome = train_missing(
        sweep,
        launcher=options.launcher,
        width=options.pack_width,
        display=lambda steps, runs: Display(console, sweep.study.name, steps, runs),
    )
    done = review(sweep)
    from sweeps.tracking import track  # noqa: PLC0415 - mlflow takes seconds to import

    table = markdown_table(sweep.study, done.results, done.baselines)
    tracked = track(sweep.study, sweep.runs, sweep.folder, done.results, table)
    states = count_states(done.results)
    content = {
        "study": sweep.study.name,
        "planned": len(sweep.runs),
        "trained": outcome.trained,
        "skipped": outcome.skipped,
        **{state: states[state] for state in ("ok", "collapsed", "diverged", "failed")},
        "seconds": round(time.monotonic() - start, 1),
        "out": str(sweep.folder),
        "tracking_uri": tracked.uri,
        "tracking": tracked.state,
    }
    if options.json:
        print(json.dumps(content))
    else:
        _show(sweep, done)
        if tracked.state == "written":
            look = ", look with: mlflow ui" if tracked.uri.startswith("sqlite:") else ""
            print(f"MLflow: {tracked.uri}{look}")
    if tracked.problem:
        print(f"MLflow: {tracked.problem}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted; what was finished is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    return OK if states["ok"] + states["collapsed"] == len(sweep.runs) else INCOMPLETE


def _report(options: argparse.Namespace) -> int:
    from sweeps.report import as_json  # noqa: PLC0415
    from sweeps.results import read_records  # noqa: PLC0415
    from sweeps.run import count_states, review  # noqa: PLC0415

    sweep = _open(options)
    if not read_records(sweep.folder):
        text = f"{sweep.folder}: no records; first: sweeps run {options.study}"
        raise Refused([text])
    done = review(sweep)
    if options.json:
        print(json.dumps(as_json(sweep.study, done.results, done.baselines)))
    else:
        _show(sweep, done)
    states = count_states(done.results)
    return OK if states["ok"] + states["collapsed"] == len(sweep.runs) else INCOMPLETE


def _data(options: argparse.Namespace) -> int:
    if options.action != "list" and options.what is None:
        raise Refused([f"data {options.action}: name a dataset, a file or a study; see: data list"])
    if (options.action == "export") != (options.out is not None):
        fix = "export needs --out DIR" if options.out is None else "--out is for export"
        raise Refused([f"data {options.action}: {fix}"])
    from rich.console import Console  # noqa: PLC0415

    from sweeps import data  # noqa: PLC0415 - seconds of imports, not for --help

    content: dict[str, Any]
    if options.action == "list":
        content = data.catalogue()
        show = data.print_catalogue
    else:
        dataset = data.open_data(options.what)
        content = data.describe(dataset)
        show = data.print_description
    if options.action == "export":
        files = [str(path) for path in data.export(dataset, options.out)]
        content |= {"files": files}
    if options.json:
        print(json.dumps(content))
        return OK
    show(content, Console())
    print("".join(f"written: {path}\n" for path in content.get("files", ())), end="")
    return OK


def _show(sweep: Sweep, done: Review) -> None:
    from rich.console import Console  # noqa: PLC0415

    from sweeps.terminal import print_table  # noqa: PLC0415

    if done.rescored:
        what = "runs scored again: their labels or their orientation changed"
        print(f"{done.rescored} {what}", file=sys.stderr)
    print_table(sweep.study, done.results, done.baselines, console=Console())
    print(f"\nreport: {done.page}")


if __name__ == "__main__":
    sys.exit(main())
