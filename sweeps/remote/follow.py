"""What a job says while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sweeps.mistakes import Refused
from sweeps.remote.client import Cluster

SOONEST = 1.0  # seconds between two looks
PER_SECOND = 50_000  # letters: all of a log comes at each look, so a long one is looked at less
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
        yield from map(harmless, text[shown:end].splitlines())
        shown = max(shown, end)
        if over:
            return
        time.sleep(max(SOONEST, len(text) / PER_SECOND))


def harmless(line: str) -> str:
    """Return a line without control codes: what a job prints may be anybody's."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line)
