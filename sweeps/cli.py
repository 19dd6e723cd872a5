"""The command `sweeps`: thin; each command reads its arguments, calls a room, prints, exits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import __version__
from sweeps.mistakes import Refused

if TYPE_CHECKING:
    from sweeps.run import Review, Sweep

OK, INCOMPLETE, REFUSED, INTERRUPTED = 0, 1, 2, 130
PREVIEW = 5  # rows of a prediction that JSON shows beside a file of all


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
    _add_predict(commands)
    _add_data(commands)
    return parser


def _add_predict(commands: Any) -> None:
    what = "score new images with a study's trained members, joined or one alone"
    sub = commands.add_parser("predict", help=what, description=what)
    sub.set_defaults(command=_predict)
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
    data.set_defaults(command=_data)
    data.add_argument("action", choices=("list", "describe", "export"))
    where = "a shipped dataset's name, a file or folder of images, or a study"
    data.add_argument("what", nargs="?", metavar="WHAT", help=where)
    data.add_argument("--json", action="store_true", help="one JSON object on stdout")
    data.add_argument("--out", type=Path, metavar="DIR", help="where export writes")


def _open(options: argparse.Namespace) -> Sweep:
    """Load the study that was named, with its folder."""
    from sweeps.session import open_study  # noqa: PLC0415 - seconds of imports, not for --help

    return open_study(options.study, getattr(options, "seeds", None), options.out)


def _plan(options: argparse.Namespace) -> int:
    from sweeps.session import planned  # noqa: PLC0415

    sweep = _open(options)
    content = planned(sweep)
    if options.json:
        print(json.dumps(content))
        return OK
    from rich.console import Console  # noqa: PLC0415

    from sweeps.terminal import print_plan  # noqa: PLC0415

    print_plan(sweep.study, content, Console())
    return OK


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415

    from sweeps import session  # noqa: PLC0415

    session.check_run(options.launcher, options.pack_width)
    sweep, console = _open(options), Console(stderr=True)
    done = session.run(sweep, launcher=options.launcher, width=options.pack_width, console=console)
    tracked = done.tracked
    if options.json:
        print(json.dumps(session.as_json(sweep, done)))
    else:
        _show(sweep, done.review)
        if tracked.state == "written":
            look = ", look with: mlflow ui" if tracked.uri.startswith("sqlite:") else ""
            print(f"MLflow: {tracked.uri}{look}")
    if tracked.problem:
        print(f"MLflow: {tracked.problem}", file=sys.stderr)
    if done.outcome.interrupted:
        print("interrupted; what was finished is kept, run again to go on", file=sys.stderr)
        return INTERRUPTED
    return OK if session.complete(sweep, done.review) else INCOMPLETE


def _report(options: argparse.Namespace) -> int:
    from sweeps.report import as_json  # noqa: PLC0415
    from sweeps.run import review  # noqa: PLC0415
    from sweeps.session import complete, open_recorded  # noqa: PLC0415

    sweep = open_recorded(options.study, options.out)
    done = review(sweep)
    if options.json:
        print(json.dumps(as_json(sweep.study, done.results, done.baselines)))
    else:
        _show(sweep, done)
    return OK if complete(sweep, done) else INCOMPLETE


def _predict(options: argparse.Namespace) -> int:
    from sweeps.predict import as_csv, check_out, predict, write  # noqa: PLC0415
    from sweeps.session import open_recorded  # noqa: PLC0415

    check_out(options.out)
    sweep = open_recorded(options.study)
    done = predict(sweep, options.images, cell=options.cell, seed=options.seed)
    if options.out:
        write(done, options.out)
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
