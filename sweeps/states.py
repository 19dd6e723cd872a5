"""What can become of a run, and which of its records counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SCORED = ("ok", "collapsed")
DONE = (*SCORED, "diverged")


def that_count(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a record each run_id: a finished one wins over a failed, then the newer."""
    best: dict[str, dict[str, Any]] = {}
    for record in records:
        known = best.get(record["run_id"])
        if known is None or _rank(record) > _rank(known):
            best[record["run_id"]] = record
    return best


def _rank(record: dict[str, Any]) -> tuple[bool, Any]:
    return record["status"] in DONE, record["finished_at"]
