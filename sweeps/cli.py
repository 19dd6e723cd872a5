"""The command `sweeps`: its arguments. What a command does is in `sweeps/commands/`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps import __version__
from sweeps.commands import INTERRUPTED, REFUSED
from sweeps.folder.places import place
from sweeps.interrupts import gentle, interrupted
from sweeps.mistakes import Refused

# The file of each command: imported when it is called, since some take seconds.
FILES = {
    **dict.fromkeys(("plan", "run", "report", "track", "predict"), "studies"),
    **dict.fromkeys(("submit", "jobs", "logs", "stop"), "jobs"),
    **{name: name for name in ("status", "data", "gallery", "ui")},
}
OF_TABLES = ("cell", "seed", "metric", "low", "measure")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        options = _parser().parse_args(arguments)
        with gentle() if options.command == "run" else contextlib.nullcontext():
            file = _file(options)
            command = getattr(importlib.import_module(f"sweeps.commands.{file}"), options.command)
            code: int = command(options)
    except Refused as refusal:
        print("\n".join(refusal.mistakes), file=sys.stderr)
        return REFUSED
    except BaseException as failure:
        if not interrupted(failure):
            raise
        print("interrupted; what was finished is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    return code


def _file(options: argparse.Namespace) -> str:
    """Return where the command stands: a report is of a study or of anyone's table."""
    if options.command != "report":
        return FILES[options.command]
    from sweeps.sheet import is_table  # noqa: PLC0415 - not for --help

    if is_table(options.study):
        return "tables"
    named = [f"--{name}" for name in OF_TABLES if getattr(options, name) is not None]
    if named:
        text = f"{options.study}: {', '.join(named)}: only for a table, a .csv or .parquet file"
        raise Refused([text])
    return FILES["report"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweeps",
        description="Sweep configurations and seeds of unsupervised autoencoders, "
        "and learn which result can be trusted.",
        epilog="exit codes: 0 all runs scored; 1 some diverged or failed, all accounted for; "
        "2 bad input, or a study folder or cluster that cannot be used; "
        "130 interrupted, everything finished so far kept",
    )
    parser.add_argument("--version", action="version", version=f"seedsweep {__version__}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_studies(commands)
    _add_predict(commands)
    _add_data(commands)
    _add_gallery(commands)
    _add_jobs(commands)
    return parser


def _add_studies(commands: Any) -> None:
    def add(name: str, help_: str, what: str, **of_the_study: Any) -> Any:
        sub = commands.add_parser(name, help=help_, description=help_)
        of_the_study = {"help": f"a path, or a shipped study's name ({what})", **of_the_study}
        sub.add_argument("study", metavar=what, **of_the_study)
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        sub.add_argument("--out", type=place, metavar="DIR", help="study folder [runs/NAME]")
        return sub

    plan = add("plan", "show cells, seeds, packs and the estimated time; train nothing", "STUDY")
    run = add("run", "train what is missing, print the stability table, write the report", "STUDY")
    for sub in (plan, run):
        sub.add_argument("--seeds", type=int, metavar="N", help="seeds 0 ... N-1 for this call")
    where = "local (Ray here), inline (no Ray), auto or HOST:PORT (a running Ray cluster)"
    run.add_argument("--launcher", default="local", metavar="WHERE", help=where)
    run.add_argument("--pack-width", type=int, metavar="W", help="most seeds trained together")
    run.add_argument("--received", help=argparse.SUPPRESS)  # as `submit` has it called
    what = "statistics and report again, from a study's records or from a table of anyone's runs"
    _add_columns(add("report", what, "STUDY|DIR|TABLE"))
    add("track", "write MLflow's view again, from a study's records", "STUDY|DIR")
    what = "what is done, running, interrupted and left; without a study: of all"
    add("status", what, "STUDY|DIR", nargs="?")
    ui = commands.add_parser("ui", help="the MLflow UI on the right store, until Ctrl-C")
    ui.add_argument("study", nargs="?", metavar="STUDY|DIR", help="whose experiment to show")
    ui.add_argument("--port", type=int, metavar="N", help="[a free one]")
    ui.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="[127.0.0.1]")


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


def _add_predict(commands: Any) -> None:
    what = "score new images with a study's trained members, joined or one alone"
    sub = commands.add_parser("predict", help=what, description=what)
    sub.add_argument("study", metavar="STUDY|DIR", help="a study, or its folder [runs/NAME]")
    sub.add_argument("images", metavar="IMAGES", help="a file or folder of images")
    sub.add_argument("--cell", metavar="CELL", help="its label or id, where there are several")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, metavar="N", help="this seed alone: its raw code")
    joined = "the mean over all seeds that did not collapse, aligned by rank [the default]"
    which.add_argument("--join", action="store_true", help=joined)
    sub.add_argument("--out", type=Path, metavar="FILE", help=".csv or .parquet [CSV on stdout]")
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_data(commands: Any) -> None:
    what = "list datasets and forms of files, describe one, or export it as .npz and .png"
    data = commands.add_parser("data", help=what, description=what)
    data.add_argument("action", choices=("list", "describe", "export"), metavar="ACTION")
    where = "a shipped dataset's name, a file or folder of images, or a study"
    data.add_argument("what", nargs="?", metavar="WHAT", help=where)
    data.add_argument("--json", action="store_true", help="one JSON object on stdout")
    data.add_argument("--out", type=Path, metavar="DIR", help="where export writes")


def _add_gallery(commands: Any) -> None:
    what = "KL, JS, Wasserstein and the rest of shapes drawn apart, with their gradients"
    sub = commands.add_parser("gallery", help=what, description=what)
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    where = "where figures (.svg, .png) and gallery.csv are written [gallery]"
    sub.add_argument("--out", type=Path, metavar="DIR", default=Path("gallery"), help=where)


def _add_jobs(commands: Any) -> None:
    """Add what has to do with a Ray cluster elsewhere."""

    def add(name: str, help_: str) -> Any:
        sub = commands.add_parser(name, help=help_, description=help_)
        where = "of its dashboard, http(s)://HOST:PORT [RAY_API_SERVER_ADDRESS, RAY_ADDRESS]"
        sub.add_argument("--address", metavar="URL", help=where)
        return sub

    submit = add("submit", "send a study to a Ray cluster, which runs it as a job")
    submit.add_argument("study", metavar="STUDY", help="a path, or a shipped study's name")
    where = "study folder: an absolute path that every node of the cluster sees"
    submit.add_argument("--out", metavar="DIR", required=True, help=where)
    submit.add_argument("--seeds", type=int, metavar="N", help="seeds 0 ... N-1 for this call")
    submit.add_argument("--pack-width", type=int, metavar="W", help="most seeds trained together")
    what = "stay until the job has ended: its progress, run's exit code"
    submit.add_argument("--wait", action="store_true", help=what)
    jobs = add("jobs", "the studies on a Ray cluster: state, start, owner")
    for sub in (submit, jobs):
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
    logs = add("logs", "what a job has printed")
    logs.add_argument("--follow", action="store_true", help="until the job ends")
    stop = add("stop", "end a job gently, and keep what is done")
    for sub in (logs, stop):
        sub.add_argument("job", metavar="JOB", help="as submit and jobs print it")


if __name__ == "__main__":
    sys.exit(main())
