"""What a terminal shows: the stability table with its notes, and progress while packs train.

Order, numbers, notes and protocol are the report's.
"""

from __future__ import annotations

import math
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column, Table
from rich.text import Text

from sweeps.report import (
    DASH,
    Baselines,
    Row,
    between,
    fixed,
    mixed_cells,
    notes,
    percent,
    protocol,
    ranked,
    ranked_baselines,
    variances,
)
from sweeps.results import Results
from sweeps.study import Study

LINE_EVERY = 10.0  # seconds between progress lines in a log
NARROW, WIDE = 80, 120  # a pipe's and a log's width; beyond the other the eye loses its row
NARROWEST = 40  # below it lines run over rather than lose a number


def _columns(study: Study, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the table's numbers as texts, a list a column, by the column's full name."""

    def column(name: str) -> list[float | None]:
        return [row[f"{study.metric}_{name}"] for row in rows]

    bounds = zip(column("ci_low"), column("ci_high"), strict=True)
    return {
        "n": [f"{row['n_scored']}/{row['n_planned']}" for row in rows],
        "mean": [fixed(value) for value in column("mean")],
        "95 % interval": [between(low, high) for low, high in bounds],
        "sd": [fixed(value) for value in column("sd")],
        "variance": variances(column("variance")),
        "min": [fixed(value) for value in column("min")],
        "worst quarter": [fixed(value) for value in column("worst_quarter")],
        f"below {study.low:g}": [percent(value) for value in column("low_basin_share")],
        "beats baseline": [percent(value) for value in column("beats_baseline_share")],
    }


def markdown_table(study: Study, results: Results, baselines: Baselines) -> str:
    """Return the table as GitHub's markdown; labels stay text whatever they contain."""
    rows = ranked(study, results)
    columns = _columns(study, rows)
    lines = [["cell", *columns], ["---", *("--:" for _ in columns)]]
    numbers = zip(*columns.values(), strict=True)
    lines += [[_literal(row["cell"]), *n] for row, n in zip(rows, numbers, strict=True)]
    for name, value in ranked_baselines(study, baselines):
        cells = {head: fixed(value) if head == "mean" else "" for head in columns}
        lines.append([f"*baseline: {_literal(name)}*", *cells.values()])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _literal(words: str) -> str:
    """Escape what markdown or HTML would act upon; `leaky_relu` needs nothing."""
    return re.sub(r"([\\`*\[\]<>|&~])", r"\\\1", " ".join(words.split()))


@dataclass(frozen=True)
class Look:
    """What a terminal can show."""

    width: int = NARROW
    encoding: str = "utf-8"
    styled: bool = True

    @classmethod
    def of(cls, console: Console) -> Look:
        """Return a console's own. No style under NO_COLOR: rich would keep bold and dim."""
        styled = console.is_terminal and not console.no_color
        return cls(min(max(console.width, NARROWEST), WIDE), console.encoding, styled)

    def text(self, words: str, style: str = "") -> Text:
        """Return words that can be printed there, and are never read as markup or control codes."""
        plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in words)
        try:
            plain.encode(self.encoding)
        except UnicodeEncodeError:
            spelled = plain.replace(DASH, "-").replace("…", "...")
            plain = spelled.encode(self.encoding, "replace").decode(self.encoding)
        return Text(plain, style if self.styled else "")


# Left out in this order where labels need the room; the first two for the look of it alone.
LEFT_OUT = ("sd", "min", "worst quarter", "beats baseline", "n", "95 % interval", "variance")
EASILY = LEFT_OUT[:2]
SHORT = {"worst quarter": "worst\n1/4", "beats baseline": "beats\nbase"}
SHORT |= {"95 % interval": "95 %\ninterval"}
LEAST_LABEL, MOST_LABEL = 14, 24
LABEL_LINES = 2
PLAIN = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def stability_table(
    study: Study, results: Results, baselines: Baselines, look: Look | None = None
) -> Table:
    """Return the table of the study's metric, at most `look.width` (80) columns wide.

    Labels wrap, numbers never do: where labels are long, columns are left out, `sd` first.
    """
    look = Look() if look is None else look
    rows = ranked(study, results)
    labels = [row["cell"] for row in rows]
    columns, room = _fit(_columns(study, rows), labels, look.width)
    longest = max(len(label) for label in [*labels, *baselines, " " * LEAST_LABEL])
    airy = room - len(columns) >= longest
    table = Table(
        box=box.SIMPLE_HEAD if look.encoding.startswith("utf") else PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1 if airy else 0, 0, 0),
        header_style="bold" if look.styled else "",
    )
    table.add_column("cell", overflow="fold", min_width=LEAST_LABEL)
    for head in columns:
        table.add_column(_short(head), justify="right", no_wrap=True)
    for label, numbers in zip(labels, zip(*columns.values(), strict=True), strict=True):
        table.add_row(look.text(label), *map(look.text, numbers))
    if baselines:
        table.add_section()
        table.add_row(look.text("baselines", "dim"))
    for name, value in ranked_baselines(study, baselines):
        cells = {head: fixed(value) if head == "mean" else "" for head in columns}
        table.add_row(*(look.text(text, "dim") for text in (f"  {name}", *cells.values())))
    return table


def _short(head: str) -> str:
    return SHORT.get(head, head.replace(" ", "\n"))


def _fit(
    columns: dict[str, list[str]], labels: Sequence[str], width: int
) -> tuple[dict[str, list[str]], int]:
    """Return the columns that leave the labels room, and how much."""
    wide = {
        head: max(len(text) for text in [*texts, *_short(head).split("\n")])
        for head, texts in columns.items()
    }
    words = max((len(word) for label in labels for word in label.split()), default=0)
    least = min(MOST_LABEL, max(LEAST_LABEL, words))
    kept = dict(columns)
    for head in LEFT_OUT:
        room = width - sum(wide[name] + 1 for name in kept)
        lines = max((len(textwrap.wrap(label, max(1, room))) for label in labels), default=0)
        if room >= least and (lines <= LABEL_LINES or head not in EASILY):
            break
        del kept[head]
    return kept, width - sum(wide[name] + 1 for name in kept)


def print_table(study: Study, results: Results, baselines: Baselines, *, console: Console) -> None:
    """Print the table, then what to know before believing it, then how it came about."""
    look = Look.of(console)
    cells, seeds = results.summary.num_rows, len(study.seeds)
    title = f"{study.name}: {study.metric}, {_many(cells, 'cell')}, {_many(seeds, 'seed')} each"
    _print(console, look, look.text(title, "bold"))
    _print(console, look, Text())
    _print(console, look, stability_table(study, results, baselines, look))
    for mark, sentences in ("!", notes(study, results)), ("-", protocol(study, baselines)):
        listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 1, 0, 0))
        style = "dim" if mark == "-" else ""
        for sentence in sentences:
            listing.add_row(look.text(mark, style or "yellow"), look.text(sentence, style))
        if sentences:
            _print(console, look, Text())
            _print(console, look, listing)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print(console: Console, look: Look, what: RenderableType) -> None:
    """Print without the blanks that rich fills lines with, and never cut a number off."""
    options = console.options.update(width=look.width, highlight=False)
    for line in console.render_lines(what, options, pad=False):
        text = Text.assemble(*((piece.text, piece.style or "") for piece in line))
        text.rstrip()
        console.print(text, soft_wrap=True, highlight=False)


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
            self._line(f"{self._so_far()}, {ending} {_minutes(self.seconds_taken())}")

    def steps(self, pack_id: str, done: int, members: int) -> None:
        """Hear that every member of a running pack has done so many optimiser steps."""
        if pack_id not in self._ended:
            self._running[pack_id] = done * members
        self._refresh()

    def finished(self, pack_id: str, runs: int, steps: int) -> None:
        """Hear that a pack of so many runs, of so many steps each, has ended somehow."""
        self._running.pop(pack_id, None)
        self._ended[pack_id] = (runs, runs * steps)
        self._refresh()

    def seconds_left(self) -> float | None:
        """Return the time left at the speed since the start; None while nothing tells."""
        done, elapsed = self._done(), self.seconds_taken()
        if done == 0 or elapsed <= 0 or done >= self._total_steps:
            return None
        return elapsed * (self._total_steps - done) / done

    def seconds_taken(self) -> float:
        """Return the time since the `with` block began."""
        return self._clock() - self._start

    def words(self) -> str:
        """Return what a line says after the study's name."""
        left = self.seconds_left()
        return self._so_far() + ("" if left is None else f", {_minutes(left)} left")

    def _so_far(self) -> str:
        runs = min(self._total_runs, sum(runs for runs, _ in self._ended.values()))
        share = 100 * self._done() // self._total_steps if self._total_steps > 0 else 100
        return f"{runs}/{self._total_runs} runs, {share} %"

    def _done(self) -> int:
        done = sum(self._running.values()) + sum(steps for _, steps in self._ended.values())
        return min(done, self._total_steps)

    def _refresh(self) -> None:
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
        return Text(f"{self._display.words()}, {_minutes(self._display.seconds_taken())} elapsed")


def _minutes(seconds: float) -> str:
    """Return a duration as 0:24 or 1:02:03; a started second counts."""
    minutes, rest = divmod(math.ceil(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def stdout_console() -> Console:
    """Return the console for what a command answers."""
    return Console()


def stderr_console() -> Console:
    """Return the console for progress and messages, so that stdout holds the answer alone."""
    return Console(stderr=True)


def print_plan(study: Study, content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what `plan --json` says: how much there is to train, and about how long it takes."""
    console = stdout_console() if console is None else console
    look = Look.of(console)
    left = _minutes(content["estimate_seconds"])
    hours = content["estimate_gpu_hours"]
    lines = {
        "cells": f"{content['cells']:,}",
        "seeds": f"{content['seeds']:,}",
        "runs": f"{content['runs']:,}, of which {content['done']:,} are done",
        "to train": f"{content['missing']:,} in {_many(content['packs'], 'pack')}, "
        f"{content['slots']:,} at a time",
        "estimate": f"{left}{f', {hours:.2f} GPU hours' if hours else ''}",
        "folder": content["out"],
    }
    _print(console, look, look.text(f"{study.name}: {study.question}".rstrip(": "), "bold"))
    listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in lines.items():
        listing.add_row(look.text(name, "dim"), look.text(text))
    _print(console, look, listing)
    for sentence in content["warnings"]:
        _print(console, look, look.text(f"! {sentence}", "yellow"))


__all__ = [
    "Display",
    "Look",
    "markdown_table",
    "mixed_cells",
    "print_plan",
    "print_table",
    "stability_table",
    "stderr_console",
    "stdout_console",
]
