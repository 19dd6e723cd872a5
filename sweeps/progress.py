"""Progress while packs train: how far, and how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from sweeps.look import Look
from sweeps.wording import minutes

LINE_EVERY = 10.0  # seconds between progress lines in a log
SETTLING = 5.0  # seconds after the first news: each worker's own comes with work from before it


class Display:
    """Progress while packs train: one live line in a terminal, else a line every ten seconds.

    Work is counted in optimiser steps, each member's its own. What is trained again after a failure
    is not counted twice: then the line waits at its end.
    """

    def __init__(
        self,
        console: Console,
        study: str,
        total_steps: int,
        total_runs: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the study and the work ahead; the clock starts with the `with` block."""
        self._console, self._study, self._clock = console, Look.of(console).text(study), clock
        self._total_steps, self._total_runs = total_steps, total_runs
        self._running: dict[str, int] = {}
        self._ended: dict[str, tuple[int, int]] = {}
        self._start = self._last = 0.0
        self._first: tuple[float, int] | None = None
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        """Start the clock, and the live line where there is a terminal."""
        self._start = self._last = self._clock()
        # FORCE_COLOR makes rich believe in a terminal, but a log cannot draw its line again.
        if self._console.is_interactive and self._console.file.isatty():
            self._study.truncate(24, overflow="ellipsis")
            columns = (TextColumn("{task.description}", markup=False), BarColumn(20), _Tail(self))
            self._live = Progress(*columns, console=self._console, refresh_per_second=4)
            self._live.add_task(self._study.plain, total=max(1, self._total_steps))
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave a last line that says how far it came."""
        if self._live is not None:
            self._live.stop()
        elif self._total_runs > 0:
            ending = "in" if kind is None else "stopped after"
            self._line(f"{self._so_far()}, {ending} {minutes(self.seconds_taken())}")

    def steps(self, pack_id: str, done: int) -> None:
        """Hear how many optimiser steps the members of a running pack have done, in sum."""
        if pack_id not in self._ended:
            self._running[pack_id] = done
        self._refresh()

    def finished(self, pack_id: str, runs: int, steps: int) -> None:
        """Hear that a pack of so many runs, of so many steps each, has ended somehow."""
        self._running.pop(pack_id, None)
        self._ended[pack_id] = (runs, runs * steps)
        self._refresh()

    def lost(self, pack_id: str) -> None:
        """Hear that a pack has ended without a result: its runs may go round again."""
        self._running.pop(pack_id, None)
        self._refresh()

    def note(self, text: str) -> None:
        """Show a sentence of its own line, above the live one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Return the time left at the speed since the first news; None while nothing tells.

        Since the news, not since the start: until then workers are being started, once.
        """
        if self._first is None or self._done() >= self._total_steps:
            return None
        done, elapsed = self._done() - self._first[1], self._clock() - self._first[0]
        if done <= 0 or elapsed < SETTLING:
            return None
        return elapsed * (self._total_steps - self._done()) / done

    def seconds_taken(self) -> float:
        """Return the time since the `with` block began."""
        return self._clock() - self._start

    def words(self) -> str:
        """Return what a line says after the study's name."""
        left = self.seconds_left()
        return self._so_far() + ("" if left is None else f", {minutes(left)} left")

    def _so_far(self) -> str:
        runs = min(self._total_runs, sum(runs for runs, _ in self._ended.values()))
        share = 100 * self._done() // self._total_steps if self._total_steps > 0 else 100
        return f"{runs}/{self._total_runs} runs, {share} %"

    def _done(self) -> int:
        done = sum(self._running.values()) + sum(steps for _, steps in self._ended.values())
        return min(done, self._total_steps)

    def _refresh(self) -> None:
        if self._first is None:
            self._first = self._clock(), self._done()
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=self._done())
        elif self._clock() - self._last >= LINE_EVERY:
            self._last = self._clock()
            self._line(self.words())

    def _line(self, words: str) -> None:
        self._console.print(f"{self._study.plain}: {words}", markup=False, soft_wrap=True)


class _Tail(ProgressColumn):
    """Counts and times behind the bar, drawn anew several times a second."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def render(self, task: Task) -> Text:
        del task
        return Text(f"{self._display.words()}, {minutes(self._display.seconds_taken())} elapsed")
