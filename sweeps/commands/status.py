"""The command `status`: quick on a folder, for which neither data nor torch is loaded."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps import overview
from sweeps import status as state
from sweeps.commands import INCOMPLETE, OK
from sweeps.folder.places import place
from sweeps.mistakes import Refused


def status(options: argparse.Namespace) -> int:
    """Show what is done, what is running and what is left."""
    if options.study is None:
        return _all(options)
    content = _of(options)
    if options.json:
        print(json.dumps(content))
    else:
        overview.print_status(content, Console(), _run_call(options, content["launcher"]))
    return OK if content["unscored"] == 0 else INCOMPLETE


def _all(options: argparse.Namespace) -> int:
    """Show every study; then Refused names those that cannot be read."""
    found, problems = state.list_status(options.out or Path("runs"))
    if options.json:
        print(json.dumps({"studies": found}))
    else:
        overview.print_list(found, Console())
    if problems:
        raise Refused(problems)
    return OK if all(one["unscored"] == 0 for one in found) else INCOMPLETE


def _of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the status of a folder by its last call's plan, of a study by its file."""
    folder = place(options.study)
    if folder.is_dir() and not options.out:
        return state.status(folder, state.read_plan(folder))
    from sweeps.plan import as_json  # noqa: PLC0415 - torch, for the runs' identities
    from sweeps.session import open_study  # noqa: PLC0415

    sweep = open_study(options.study, None, options.out)
    plan = json.loads(as_json(sweep.study, sweep.dataset, sweep.runs, []))
    return state.status(sweep.folder, plan)


def _run_call(options: argparse.Namespace, launcher: str | None) -> str:
    """Return the call that would train what is left, where it was trained before."""
    words = ["sweeps", "run", options.study]
    words += ["--out", str(options.out)] if options.out else []
    words += ["--launcher", launcher] if launcher not in (None, "local") else []
    return shlex.join(words)
