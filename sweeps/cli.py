"""The command `sweeps`: thin; each command reads its arguments, calls a room, prints, exits."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import __version__
from sweeps.mistakes import Refused

if TYPE_CHECKING:
    from sweeps.run import Review, Sweep
    from sweeps.tracking import Tracked

OK, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130
COLUMNS = ("cell", "seed", "metric", "low", "measure")


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
        sub.add_argument(
            "study",
            metavar=what,
            nargs="?" if command is _status else None,
            help=f"a path, or a shipped study's name ({what})",
        )
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
    what = "statistics and report again, from a study's records or from a table of anyone's runs"
    _add_columns(add("report", _report, what, "STUDY|DIR|TABLE"))
    add("track", _track, "write MLflow's view again, from a study's records", "STUDY|DIR")
    add("status", _status, "what is done and what is not; without a study: of all", "STUDY|DIR")
    ui = commands.add_parser("ui", help="the MLflow UI on the right store, until Ctrl-C")
    ui.set_defaults(command=_ui)
    ui.add_argument("study", nargs="?", metavar="STUDY|DIR", help="whose experiment to show")
    ui.add_argument("--port", type=int, metavar="N", help="[a free one]")
    ui.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="[127.0.0.1]")
    _add_data(commands)
    return parser


def _add_columns(report: Any) -> None:
    """Add what only a table of runs needs."""
    group = report.add_argument_group("of a table, .csv or .parquet with a row a run")
    group.add_argument("--cell", metavar="COLUMNS", help="columns that make a cell, with commas")
    group.add_argument("--seed", metavar="COLUMN", help="the column of the seed, number or text")
    group.add_argument("--metric", metavar="COLUMN", help="the column of the score")
    group.add_argument("--low", type=float, metavar="L", help="below it a seed is in the low basin")
    group.add_argument(
        "--measure", metavar="COLUMN", help="what a score measures; unlike cells do not compare"
    )


def _add_data(commands: Any) -> None:
    what = "list datasets and forms of files, describe one, or export it as .npz and .png"
    data = commands.add_parser("data", help=what, description=what)
    data.set_defaults(command=_data)
    data.add_argument("action", choices=("list", "describe", "export"))
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
    tracked = _view(sweep, done)
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
            print(f"MLflow: {tracked.uri}, look with: sweeps ui {shlex.quote(str(sweep.folder))}")
    if tracked.problem:
        print(f"MLflow: {tracked.problem}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted; what was finished is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    return OK if states["ok"] + states["collapsed"] == len(sweep.runs) else INCOMPLETE


def _view(sweep: Sweep, done: Review) -> Tracked:
    """Bring MLflow in line with what was reviewed."""
    from sweeps.terminal import markdown_table  # noqa: PLC0415
    from sweeps.tracking import track  # noqa: PLC0415 - mlflow takes seconds to import

    table = markdown_table(sweep.study, done.results, done.baselines)
    return track(sweep.study, sweep.dataset, sweep.runs, sweep.folder, done.results, table)


def _recorded(options: argparse.Namespace) -> Sweep:
    """Load the study that was named; Refused where nothing of it is recorded."""
    from sweeps.results import read_records  # noqa: PLC0415

    sweep = _open(options)
    if not read_records(sweep.folder):
        text = f"{sweep.folder}: no records; first: sweeps run {options.study}"
        raise Refused([text])
    return sweep


def _report(options: argparse.Namespace) -> int:
    from sweeps.report import as_json  # noqa: PLC0415
    from sweeps.run import count_states, review  # noqa: PLC0415
    from sweeps.sheet import is_table  # noqa: PLC0415

    if is_table(options.study):
        return _report_table(options)
    named = [f"--{name}" for name in COLUMNS if getattr(options, name) is not None]
    if named:
        text = f"{options.study}: {', '.join(named)}: only for a table, a .csv or .parquet file"
        raise Refused([text])
    sweep = _recorded(options)
    done = review(sweep)
    if options.json:
        print(json.dumps(as_json(sweep.study, done.results, done.baselines, done.answer)))
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


def _report_table(options: argparse.Namespace) -> int:
    from sweeps.answer import answer  # noqa: PLC0415
    from sweeps.report import as_json, write_report  # noqa: PLC0415
    from sweeps.results import to_parquet  # noqa: PLC0415
    from sweeps.sheet import read_sheet  # noqa: PLC0415
    from sweeps.storage import write_whole  # noqa: PLC0415
    from sweeps.table import Columns  # noqa: PLC0415

    cell = tuple(name.strip() for name in (options.cell or "").split(",") if name.strip())
    texts = {name: getattr(options, name) or "" for name in ("seed", "metric", "measure")}
    sheet, tables = read_sheet(options.study, Columns(cell=cell, low=options.low, **texts))
    folder = options.out or Path("runs") / sheet.name
    if (folder / "study.yaml").exists():
        raise Refused([f"{folder}: holds a study, which has its own report; choose another --out"])
    found = answer(sheet, tables, {})
    try:
        write_whole(folder / "summary.parquet", to_parquet(tables.summary))
        page = write_report(sheet, None, folder, tables, {}, found)
    except OSError as failure:
        text = f"{folder}: the report cannot be written: {failure.strerror}"
        raise Refused([f"{text}; choose another with --out"]) from None
    if options.json:
        print(json.dumps(as_json(sheet, tables, {}, found)))
    else:
        from rich.console import Console  # noqa: PLC0415

        from sweeps.terminal import print_table  # noqa: PLC0415

        print_table(sheet, tables, {}, found, console=Console())
        print(f"\nreport: {page}")
    return OK if tables.runs["status"].to_pylist().count("failed") == 0 else INCOMPLETE


def _track(options: argparse.Namespace) -> int:
    from sweeps.run import review  # noqa: PLC0415

    sweep = _recorded(options)
    done = review(sweep)
    tracked = _view(sweep, done)
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


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415

    from sweeps import status as state  # noqa: PLC0415

    if options.study is None:
        found = state.list_status(options.out or Path("runs"))
        print(json.dumps({"studies": found})) if options.json else state.print_list(
            found, Console()
        )
        return OK if all(one["unscored"] == 0 for one in found) else INCOMPLETE
    named = Path(options.study)
    if named.is_dir() and not options.out:
        content = state.status(named, state.read_plan(named))  # quick: neither data nor torch
    else:
        from sweeps.plan import as_json  # noqa: PLC0415

        sweep = _open(options)
        plan = json.loads(as_json(sweep.study, sweep.dataset, sweep.runs, []))
        content = state.status(sweep.folder, plan)
    print(json.dumps(content)) if options.json else state.print_status(content, Console())
    return OK if content["unscored"] == 0 else INCOMPLETE


def _ui(options: argparse.Namespace) -> int:
    from sweeps.study import find_study, read_yaml  # noqa: PLC0415
    from sweeps.tracking import tracking_uri  # noqa: PLC0415
    from sweeps.tracking.problems import without_credentials  # noqa: PLC0415
    from sweeps.ui import LOOPBACK, SERVER, check_store, places_of, served  # noqa: PLC0415

    uri = tracking_uri()
    check_store(uri)
    study = read_yaml(find_study(options.study)).get("name") if options.study else None
    places = places_of(uri, study)
    if SERVER.match(uri):  # has its own UI
        _print_links(without_credentials(uri).rstrip("/"), places)
        return OK
    if options.host not in LOOPBACK:
        what = "asks for no password: whoever reaches it can read and change every run"
        print(f"--host {options.host}: the UI {what}", file=sys.stderr)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with served(uri, options.host, options.port) as (address, process):
            _print_links(address, places)
            print("until Ctrl-C", file=sys.stderr)
            code = process.wait()
    except KeyboardInterrupt:
        return OK
    raise Refused([f"the MLflow UI ended by itself, with exit code {code}"])


def _print_links(address: str, places: Sequence[str]) -> None:
    print(f"{address}{places[0]}", flush=True)
    for place in places[1:]:
        print(f"its seeds, grouped by cell: {address}{place}", file=sys.stderr)


def _show(sweep: Sweep, done: Review) -> None:
    from rich.console import Console  # noqa: PLC0415

    from sweeps.terminal import print_table  # noqa: PLC0415

    if done.rescored:
        what = "runs scored again: their labels or their orientation changed"
        print(f"{done.rescored} {what}", file=sys.stderr)
    print_table(sweep.study, done.results, done.baselines, done.answer, console=Console())
    print(f"\nreport: {done.page}")


if __name__ == "__main__":
    sys.exit(main())
