"""Where a pack's time went, as its worker measured it: what a claim about waiting rests on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FOLDER = "timeline"


@dataclass
class Timeline:
    """Spans of a pack: load, train (checkpoint and report inside it), score, write.

    Times are in seconds from the pack's start; `cpu_seconds` are those of the pack's one thread.
    """

    about: dict[str, Any] = field(default_factory=dict)
    spans: list[dict[str, Any]] = field(default_factory=list)
    _start: float = field(default_factory=time.perf_counter)
    _cpu_start: float = field(default_factory=time.thread_time)

    @contextlib.contextmanager
    def span(self, what: str, least: float = 0, **facts: Any) -> Iterator[dict[str, Any]]:
        """Measure what happens inside; the span may be given more facts while it lasts.

        One that took less than `least` seconds is not kept.
        """
        entry: dict[str, Any] = {"what": what, "start": self.seconds(), **facts}
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            yield entry
        finally:
            entry["seconds"] = time.perf_counter() - start
            entry["cpu_seconds"] = time.thread_time() - cpu
            if entry["seconds"] >= least:
                self.spans.append(entry)

    def seconds(self) -> float:
        """Return the time since the pack's start."""
        return time.perf_counter() - self._start

    def as_json(self) -> bytes:
        """Return the timeline up to now."""
        total = {
            "seconds": self.seconds(),
            "cpu_seconds": time.thread_time() - self._cpu_start,
        }
        return json.dumps({**self.about, **total, "spans": self.spans}, indent=1).encode()
