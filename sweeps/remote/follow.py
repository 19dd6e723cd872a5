"""What a job says while it runs, and its answer when it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from sweeps.mistakes import Refused
from sweeps.remote.client import Cluster, Job

SOONEST = 1.0  # seconds between two looks
PER_SECOND = 50_000  # letters: all of a log comes at each look, so a long one is looked at less
NOT_FOUND = 127  # what a shell says of a command
PATIENCE = 60.0  # seconds that a cluster may be out of reach


def lines(cluster: Cluster, name: str) -> Iterator[str]:
    """Yield a job's lines, as they come, until it has ended and all is said."""
    shown = 0
    lost: float | None = None
    while True:
        try:
            over = cluster.job(name).over  # first: what is said before the end is read after
            text = cluster.logs(name)
            lost = None
        except Refused:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE or not shown:
                raise
            time.sleep(SOONEST)
            continue
        end = len(text) if over else text.rfind("\n") + 1
        yield from text[shown:end].splitlines()
        shown = max(shown, end)
        if over:
            return
        time.sleep(max(SOONEST, len(text) / PER_SECOND))


def answer_of(line: str, study: str) -> dict[str, Any] | None:
    """Return run's JSON where a line begins with it; another process may have written behind it.

    stdout and stderr of a job go to one file, and nothing of ours on stderr begins with a brace.
    """
    if not line.startswith('{"study": '):
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(line)
    except ValueError:
        return None
    is_ours = content.get("study") == study and "planned" in content and "out" in content
    return content if is_ours else None


def ended(job: Job) -> int:
    """Return run's exit code of a job that has ended; Refused where it did not come so far."""
    if job.status == "STOPPED":
        return 130
    if job.status == "SUCCEEDED":
        return 0
    if job.exit_code in (1, 2, 130):
        return int(job.exit_code)
    if job.exit_code == NOT_FOUND:
        text = f"{job.id}: the cluster's head finds no command `sweeps`; install seedsweep on every"
        raise Refused([f"{text} node, and start Ray with its environment's bin folder on PATH"])
    again = "what was finished is kept; submit again to go on"
    if job.exit_code is not None:
        text = f"{job.id}: ended with exit code {job.exit_code}"
        raise Refused([f"{text}; sweeps logs {job.id} says more; {again}"])
    reason = " ".join(job.message.split())[:400] or "its cluster says no reason"
    raise Refused([f"{job.id}: failed: {reason}; {again}"])
