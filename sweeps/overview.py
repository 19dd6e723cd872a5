"""A study's status as lines for a terminal: what is there, what is wrong, what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sweeps.folder.traces import Content, time_of
from sweeps.look import Look, many, write
from sweeps.status import STATES, process

# How many lines of a kind there are, and of the runs of an error, how many are named.
MOST_ERRORS, MOST_RUNS, MOST_PACKS, MOST_FILES = 20, 3, 8, 5
STATE_WORDS = {"never run": "not run yet"}
COLUMNS = ("planned", *STATES[:-1], "running", STATES[-1])


def print_status(content: Content, console: Console, command: str) -> None:
    """Print the totals, a row a cell, and blocks of lines.

    `command` is the call of `sweeps run` that would go on with the study.
    """
    look = Look.of(console)
    write(console, look, look.text(_first(content), "bold"))
    write(console, look, Text())
    write(console, look, _table(look, {"cell": "cell"}, [_apart(c) for c in content["cells"]]))
    for block in _blocks(content, command):
        write(console, look, Text())
        for line in block:
            write(console, look, look.text(line))


def print_list(found: Sequence[Content], console: Console) -> None:
    """Print a row a study."""
    look = Look.of(console)
    write(console, look, _table(look, {"study": "out", "state": "state"}, found))


def _first(content: Content) -> str:
    scored = content["planned"] - content["unscored"]
    words = f"{content['study']}: {scored:,} of {many(content['planned'], 'run')} scored"
    state = STATE_WORDS.get(content["state"], content["state"])
    if state == "running":
        return f"{words}, {state}{_since(content['driver'])}"
    end = time_of(content["last_progress"]) if state == "interrupted" else None
    return f"{words}, {state}{f' at {clock(end)}' if end else ''}"


def _since(driver: Content) -> str:
    since = time_of(driver["since"])
    return f"{f' since {clock(since)}' if since else ''}{process(driver)}"


def clock(time: datetime) -> str:
    """Return a time as clocks here show it, with the day unless it is today."""
    here = time.astimezone()
    today = here.date() == datetime.now(tz=here.tzinfo).date()
    return here.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def _blocks(content: Content, command: str) -> Iterable[list[str]]:
    blocks = (
        _running(content),
        _interrupted(content),
        _failures(content["errors"]),
        _damaged(content["damaged"]),
        [f"newest record: {content['last_record'] or 'none'} · folder: {content['out']}"],
        [f"next: {_next(content, command)}"],
    )
    return filter(None, blocks)


def _running(content: Content) -> list[str]:
    packs: list[Content] = content["running"]
    driver = content["driver"]
    if content["state"] != "running":
        return [f"in use by {driver['command']}{_since(driver)}"] if driver else []
    if not packs and content["writing"]:
        return ["its tables and report are being written"]
    if not packs:
        return ["no run is being trained at this moment: it starts up, or is about to end"]
    lines = [_pack(pack) for pack in packs[:MOST_PACKS]]
    if len(packs) > MOST_PACKS:
        rest = sum(len(pack["seeds"]) for pack in packs[MOST_PACKS:])
        lines.append(f"and {many(rest, 'run')} more")
    return ["running now:", *(f"  {line}" for line in lines)]


def _pack(pack: Content) -> str:
    words = f"{pack['cell']} {seeds(pack['seeds'])}"
    if pack["host"] is None and not pack["done"]:
        return f"{words}: starting"
    share = 100 * pack["done"] // pack["steps"] if pack["steps"] else 0
    host = f" on {pack['host']}" if pack["host"] else ""
    pid = "" if pack["pid"] is None else f", process {pack['pid']}"
    return f"{words}: {share} %{host}{pid}"


def seeds(listed: Sequence[int]) -> str:
    """Return seeds with neighbours joined, such as `seeds 0-3, 7`."""
    ordered = sorted(set(listed))
    starts = [ordered[0], *(b for a, b in pairwise(ordered) if b > a + 1)]
    ends = [*(a for a, b in pairwise(ordered) if b > a + 1), ordered[-1]]
    parts = (str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    return f"seed{'' if len(ordered) == 1 else 's'} {', '.join(parts)}"


def _interrupted(content: Content) -> list[str]:
    """Return from where the interrupted runs go on; nothing while somebody trains them."""
    if content["state"] == "running":
        return []
    kept: list[Content] = content["resumable"]
    lines = []
    if kept:
        low, high = (f(one["step"] for one in kept) for f in (min, max))
        steps = f"step {low:,}" if low == high else f"steps {low:,} to {high:,}"
        totals = {one["steps"] for one in kept}
        (total,) = totals if len(totals) == 1 else (None,)
        of = "" if total is None else f" of {total:,}"
        lines.append(f"{_were(len(kept))} interrupted and {_go(len(kept))} on from {steps}{of}")
    stopped = {run_id for pack in content["interrupted"] for run_id in pack["run_ids"]}
    anew = len(stopped - {one["run_id"] for one in kept})
    if anew:
        start = "starts" if anew == 1 else "start"
        lines.append(f"{_were(anew)} interrupted before a first checkpoint and {start} again")
    return lines


def _were(count: int) -> str:
    return f"{many(count, 'run')} {'was' if count == 1 else 'were'}"


def _go(count: int) -> str:
    return "goes" if count == 1 else "go"


def _failures(errors: Sequence[Content]) -> list[str]:
    lines = []
    for error in errors[:MOST_ERRORS]:
        runs = [f"{run['cell']} seed {run['seed']}" for run in error["runs"]]
        more = f" and {len(runs) - MOST_RUNS:,} more" if len(runs) > MOST_RUNS else ""
        lines.append(f"failed, {error['error']}: {', '.join(runs[:MOST_RUNS])}{more}")
        if error["log"]:
            lines.append(f"  log: {error['log']}")
    if len(errors) > MOST_ERRORS:
        lines.append(f"and {many(len(errors) - MOST_ERRORS, 'other error')}")
    return lines


def _damaged(found: Sequence[Content]) -> list[str]:
    if not found:
        return []
    lines = [f"damaged: {one['file']}: {one['reason']}" for one in found[:MOST_FILES]]
    if len(found) > MOST_FILES:
        lines.append(f"and {many(len(found) - MOST_FILES, 'other damaged file')}")
    them = "it aside and trains its" if len(found) == 1 else "them aside and trains their"
    return [*lines, f"the next sweeps run sets {them} runs again"]


def _next(content: Content, command: str) -> str:
    plan = content["next"]
    if content["state"] == "running":
        return "it goes on by itself; until it ends, another sweeps run here is refused"
    if not plan["train"]:
        unfinished = content["state"] == "interrupted"
        return f"{command} writes tables and report" if unfinished else "nothing is left to train"
    notes = []
    if plan["resume"]:
        notes.append(f"{plan['resume']:,} from a checkpoint")
    if plan["retry"]:
        notes.append(f"{plan['retry']:,} that failed")
    which = f" ({', '.join(notes)})" if notes else ""
    return f"{command} trains {many(plan['train'], 'run')}{which}"


def _apart(cell: Content) -> Content:
    """Return a cell's counts with every run in one of them: what is being trained is neither."""
    first = cell["running"] - cell["retried"]
    failed, missing = cell["failed"] - cell["retried"], cell["missing"] - first
    return cell | {"failed": failed, "missing": missing}


def _table(look: Look, heads: dict[str, str], rows: Sequence[dict[str, Any]]) -> Table:
    """Return counts by state; a state that no run has is no column."""
    shown = [name for name in COLUMNS if name == "planned" or any(row.get(name) for row in rows)]
    words = (Column(overflow="fold") for _ in heads)
    counts = (Column(justify="right", no_wrap=True) for _ in shown)
    table = Table.grid(*words, *counts, padding=(0, 2, 0, 0))
    table.add_row(*(look.text(name, "dim") for name in (*heads, *shown)))
    for row in rows:
        texts = [STATE_WORDS.get(row[key], row[key]) for key in heads.values()]
        texts += [f"{row[name]:,}" if row[name] else "–" for name in shown]  # noqa: RUF001
        table.add_row(*map(look.text, texts))
    return table
