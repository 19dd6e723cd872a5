"""What of a study is done and what is not: its plan beside its records.

Quick on purpose: neither data nor torch is loaded, and of the records only what is counted is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sweeps.look import Look, many, write
from sweeps.mistakes import Refused
from sweeps.packfiles import COUNTED, RECORDS, listed, not_readable, read_rows
from sweeps.seal import Damaged
from sweeps.states import DONE, SCORED, that_count

READ = pa.schema([*COUNTED, ("error", pa.string())])
STATES = (*DONE, "failed", "missing")
MOST_ERRORS, MOST_RUNS = 20, 3  # sentences, and of each the runs that are named

Content = dict[str, Any]


def read_plan(folder: Path) -> Content:
    """Return what the last call of `run` meant to have; Refused where that cannot be read."""
    path = folder / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        for cell in plan["cells"]:
            _ = cell["cell"], cell["cell_id"], cell["runs"].values()
        _ = plan["study"]
    except FileNotFoundError:
        raise Refused([f"{folder}: no plan.json; first: sweeps run STUDY --out {folder}"]) from None
    except OSError as failure:
        raise Refused([f"{path}: cannot be read: {failure.strerror}"]) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        text = f"{path}: cannot be read as a plan; run the study again, which writes it anew"
        raise Refused([text]) from None
    return dict(plan)


def status(folder: Path, plan: Mapping[str, Any]) -> Content:
    """Return counts of a plan's runs by state, in all and a cell, with the errors of those failed.

    Raises Refused where a part of the records cannot be read.
    """
    records = that_count(row for path in listed(folder, RECORDS) for row in _read(path))
    cells: list[Content] = []
    errors: dict[str, list[Content]] = {}
    times: list[datetime] = []
    for cell in plan["cells"]:
        found = {seed: records.get(run_id) for seed, run_id in cell["runs"].items()}
        counts = Counter(row["status"] if row else "missing" for row in found.values())
        cells.append(
            {"cell": cell["cell"], "cell_id": cell["cell_id"], "planned": len(found)}
            | {state: counts[state] for state in STATES}
        )
        times += [row["finished_at"] for row in found.values() if row]
        for seed, row in found.items():
            if row and row["status"] == "failed":
                first = str(row["error"]).strip().partition("\n")[0]
                errors.setdefault(first, []).append({"cell": cell["cell"], "seed": int(seed)})
    totals = {name: sum(cell[name] for cell in cells) for name in ("planned", *STATES)}
    newest = max(times, default=None)
    return {
        "study": plan["study"],
        "out": str(folder),
        **totals,
        "unscored": totals["planned"] - sum(totals[state] for state in SCORED),
        "last_record": newest.isoformat(timespec="seconds") if newest else None,
        "cells": cells,
        "errors": [{"error": text, "runs": runs} for text, runs in errors.items()],
    }


def list_status(runs: Path) -> list[Content]:
    """Return the status of every study folder in a folder, without cells, by name."""
    if not runs.is_dir():
        raise Refused([f"{runs}: no such folder; first: sweeps run STUDY, or name a study"])
    found = [status(path.parent, read_plan(path.parent)) for path in runs.glob("*/plan.json")]
    short = [{k: v for k, v in one.items() if k not in ("cells", "errors")} for one in found]
    return sorted(short, key=lambda one: str(one["out"]))


def _read(path: Path) -> list[Content]:
    try:
        return read_rows(path, READ)
    except Damaged as damaged:
        text = f"{path}: cannot be read as a part of records: {damaged}"
        raise Refused([text]) from None
    except OSError as failure:
        raise not_readable(path, failure) from None


def print_status(content: Content, console: Console) -> None:
    """Print the totals, a row a cell, and what failed with which error."""
    look = Look.of(console)
    write(console, look, look.text(f"{content['study']}: {_total(content)}", "bold"))
    write(console, look, Text())
    write(console, look, _table(look, "cell", "cell", content["cells"]))
    for line in _lines(content):
        write(console, look, Text())
        write(console, look, look.text(line))


def print_list(found: Sequence[Content], console: Console) -> None:
    """Print a row a study."""
    look = Look.of(console)
    write(console, look, _table(look, "study", "out", found))


def _total(content: Content) -> str:
    scored = content["planned"] - content["unscored"]
    return f"{scored:,} of {many(content['planned'], 'run')} scored"


def _lines(content: Content) -> list[str]:
    errors: list[Content] = content["errors"]
    lines = [_failures(error) for error in errors[:MOST_ERRORS]]
    if len(errors) > MOST_ERRORS:
        lines.append(f"and {many(len(errors) - MOST_ERRORS, 'other error')}")
    left = content["missing"] + content["failed"]
    if left:
        lines.append(f"{many(left, 'run')} left to train: run the study again")
    newest = content["last_record"]
    return [*lines, f"newest record: {newest or 'none'} · folder: {content['out']}"]


def _failures(error: Content) -> str:
    runs = [f"{run['cell']} seed {run['seed']}" for run in error["runs"]]
    more = f" and {len(runs) - MOST_RUNS:,} more" if len(runs) > MOST_RUNS else ""
    return f"failed, {error['error']}: {', '.join(runs[:MOST_RUNS])}{more}"


def _table(look: Look, head: str, key: str, rows: Sequence[Content]) -> Table:
    """Return counts by state; a state that no run has is no column."""
    shown = ["planned", *(state for state in STATES if any(row[state] for row in rows))]
    columns = (Column(justify="right", no_wrap=True) for _ in shown)
    table = Table.grid(Column(overflow="fold"), *columns, padding=(0, 2, 0, 0))
    table.add_row(*(look.text(name, "dim") for name in (head, *shown)))
    for row in rows:
        counts = (look.text(f"{row[name]:,}" if row[name] else "–") for name in shown)  # noqa: RUF001
        table.add_row(look.text(str(row[key])), *counts)
    return table
