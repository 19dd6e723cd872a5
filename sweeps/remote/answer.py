"""What a job that has ended says of itself: run's JSON among its lines, run's exit code."""

from __future__ import annotations

import json
from typing import Any, Protocol

from sweeps.mistakes import Refused

GIVEN = (1, 2, 130)  # what run itself ends with, where it does not end with 0
INCOMPLETE = 1  # also what Python ends with that could not begin
NOT_FOUND = 127  # what a shell says of a command
STOPPED = 130


class Ended(Protocol):
    """What is known of a job that has ended."""

    @property
    def id(self) -> str:
        """Return its name."""

    @property
    def status(self) -> str:
        """Return Ray's word for how it ended."""

    @property
    def exit_code(self) -> int | None:
        """Return its command's, None where that did not end by itself."""

    @property
    def message(self) -> str:
        """Return Ray's words for why it failed."""


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


def exit_code_of(job: Ended, *, answered: bool) -> int:
    """Return run's exit code of a job that has ended; Refused where it did not come so far."""
    if job.status == "STOPPED":
        return STOPPED
    if job.status == "SUCCEEDED":
        return 0
    if job.exit_code in GIVEN and (answered or job.exit_code != INCOMPLETE):
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
