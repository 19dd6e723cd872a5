"""What of a study is done, running, interrupted and left: its plan beside what is in its folder.

Quick on purpose: neither data nor torch is loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.folder.traces import Content, Progress, Traces, holder, read_traces, time_of
from sweeps.mistakes import Refused
from sweeps.states import DONE, SCORED

STATES = (*DONE, "failed", "missing")
LONG = ("cells", "errors", "running", "interrupted", "resumable")  # left out of a list of studies
NO_REASON = "no reason was recorded"


def read_plan(folder: Path) -> Content:
    """Return what the last call of `run` meant to have; Refused where that cannot be read."""
    path = folder / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        _check(plan)
    except FileNotFoundError:
        raise Refused([f"{folder}: {_no_plan(folder)}"]) from None
    except OSError as failure:
        raise Refused([f"{path}: cannot be read: {failure.strerror}"]) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        text = f"{path}: cannot be read as a plan; run the study again, which writes it anew"
        raise Refused([text]) from None
    return dict(plan)


def _check(plan: Any) -> None:
    """Raise one of the errors above where a plan is not what `run` writes."""
    texts, cells = [plan["study"]], plan["cells"]
    for cell in cells:
        texts += [cell["cell"], cell["cell_id"], *cell["runs"].values()]
        all(map(int, cell["runs"]))
    right = isinstance(cells, list) and any(cell["runs"] for cell in cells)
    if not right or not all(isinstance(text, str) for text in texts):
        raise TypeError


def _no_plan(folder: Path) -> str:
    driver = holder(folder)
    if driver:
        return f"a sweep is starting here{process(driver)}; look again in a moment"
    return f"no plan.json; first: sweeps run STUDY --out {folder}"


def process(driver: Mapping[str, Any]) -> str:
    """Return which process and host, in brackets and after a blank; nothing where unknown."""
    pid = None if driver["pid"] is None else f"process {driver['pid']}"
    host = driver["host"] and f"on {driver['host']}"
    words = " ".join(filter(None, (pid, host)))
    return words and f" ({words})"


def status(folder: Path, plan: Mapping[str, Any]) -> Content:
    """Return counts of a plan's runs by their records, and who trains what, from the folder alone.

    `state` is running (a `run` holds the folder), complete (no run is left to train), interrupted
    (a call of `run` did not come to its end), incomplete or never run. `next` is what `run` would
    train, and how many of those go on from a checkpoint or failed before.
    """
    traces = read_traces(folder)
    packs = _packs(traces)
    running = packs if traces.is_running else []
    now = {run_id for pack in running for run_id in pack["run_ids"]}
    cells = [_cell(cell, traces.records, now) for cell in plan["cells"]]
    totals = {name: sum(cell[name] for cell in cells) for name in ("planned", *STATES)}
    left = totals["missing"] + totals["failed"]
    resumable = list(_resumable(plan["cells"], traces))
    newest = max((row["finished_at"] for row in _planned(plan, traces.records)), default=None)
    progress = traces.progress
    return {
        "study": plan["study"],
        "out": str(folder),
        "state": _state(traces, left, started=bool(newest or resumable)),
        "driver": traces.driver,
        **totals,
        "unscored": totals["planned"] - sum(totals[state] for state in SCORED),
        "last_record": newest.isoformat(timespec="seconds") if newest else None,
        "last_progress": _iso(progress),
        "writing": progress is not None and progress.state == "writing",
        "launcher": progress.launcher if progress else None,
        "cells": cells,
        "running": running,
        "interrupted": [] if traces.is_running else packs,
        "resumable": resumable,
        "errors": _errors(plan["cells"], traces.records),
        "damaged": list(traces.damaged),
        "next": {"train": left, "resume": len(resumable), "retry": totals["failed"]},
    }


def list_status(runs: Path) -> tuple[list[Content], list[str]]:
    """Return the status of every study folder in a folder, in short and by name.

    And a sentence for each that has no plan that can be read. Raises Refused without the folder.
    """
    if not runs.is_dir():
        raise Refused([f"{runs}: no such folder; first: sweeps run STUDY, or name a study"])
    found, problems = [], []
    for path in sorted(runs.glob("*/plan.json")):
        try:
            one = status(path.parent, read_plan(path.parent))
        except Refused as refused:
            problems += refused.mistakes
        else:
            found.append({key: value for key, value in one.items() if key not in LONG})
    return found, problems


def _planned(plan: Mapping[str, Any], records: Mapping[str, Content]) -> Iterable[Content]:
    ids = (run_id for cell in plan["cells"] for run_id in cell["runs"].values())
    return (records[run_id] for run_id in ids if run_id in records)


def _iso(progress: Progress | None) -> str | None:
    time = progress.updated_at if progress else None
    return time.isoformat(timespec="seconds") if time else None


def _packs(traces: Traces) -> list[Content]:
    """Return the packs that were being trained when progress was last told, less runs now done.

    What a driver before the one that holds the folder said is no longer so.
    """
    progress = traces.progress
    if progress is None or progress.state == "ended":
        return []
    since = time_of(traces.driver["since"]) if traces.driver and traces.is_running else None
    if since and progress.updated_at and progress.updated_at < since:
        return []
    return [left for pack in progress.packs if (left := _left(pack, traces.records))["seeds"]]


def _left(pack: Content, records: Mapping[str, Content]) -> Content:
    pairs = zip(pack["seeds"], pack["run_ids"], strict=True)
    left = [(seed, run_id) for seed, run_id in pairs if not _is_done(records.get(run_id))]
    return pack | {"seeds": [seed for seed, _ in left], "run_ids": [run_id for _, run_id in left]}


def _is_done(record: Mapping[str, Any] | None) -> bool:
    return record is not None and record["status"] in DONE


def _state(traces: Traces, left: int, *, started: bool) -> str:
    progress = traces.progress
    if traces.is_running:
        return "running"
    if progress is not None and progress.state != "ended":
        return "interrupted"  # its driver died: if no run is left, then before the report
    if left == 0:
        return "complete"
    ended = progress.ended if progress else None
    if not started and ended in (None, "refused"):
        return "never run"
    died = progress is None and bool(traces.steps)
    return "interrupted" if died or ended == "interrupted" else "incomplete"


def _cell(cell: Content, records: Mapping[str, Content], now: set[str]) -> Content:
    """Return a cell's counts by record; `running` are among them, `retried` failed before."""
    ids = list(cell["runs"].values())
    states = [records[one]["status"] if one in records else "missing" for one in ids]
    counts = Counter(states)
    again = Counter(state for one, state in zip(ids, states, strict=True) if one in now)
    return {
        "cell": cell["cell"],
        "cell_id": cell["cell_id"],
        "planned": len(ids),
        **{state: counts[state] for state in STATES},
        "running": again["missing"] + again["failed"],
        "retried": again["failed"],
    }


def _resumable(cells: Sequence[Content], traces: Traces) -> Iterable[Content]:
    """Yield the runs that are left and have a checkpoint: from which step, of how many."""
    for cell in cells:
        for seed, run_id in cell["runs"].items():
            if run_id in traces.steps and not _is_done(traces.records.get(run_id)):
                step, steps = traces.steps[run_id], cell.get("steps")
                yield {
                    "cell": cell["cell"],
                    "seed": int(seed),
                    "run_id": run_id,
                    "step": step,
                    "steps": steps if isinstance(steps, int) else None,  # an older plan has none
                }


def _errors(cells: Sequence[Content], records: Mapping[str, Content]) -> list[Content]:
    """Return what failed by the first line of the error, with the first log that is known."""
    found: dict[str, Content] = {}
    for cell in cells:
        for seed, run_id in cell["runs"].items():
            row = records.get(run_id)
            if row and row["status"] == "failed":
                text = str(row["error"] or "").strip().partition("\n")[0] or NO_REASON
                one = found.setdefault(text, {"error": text, "runs": [], "log": None})
                one["runs"].append({"cell": cell["cell"], "seed": int(seed)})
                one["log"] = one["log"] or row["log"]
    return list(found.values())
