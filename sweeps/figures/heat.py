"""A figure of numbers between 0 and 1 in rows and columns: the darker the more."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sweeps.figures.style import INCHES, INK, LETTER, LINE, SEED, STYLE, TEXT, wrapped

LABEL_LETTERS = 34
MOST_ROWS = 40
WIDEST, NARROWEST = 0.95, 0.34  # inches, of a column; in less a number meets its neighbour
GAP = 0.14  # inches, between groups side by side
SLANT = 50.0  # degrees, of heads that are longer than their columns are wide
DARKEST = 0.6  # opacity at 1: text stays readable on it, in light and dark


@dataclass(frozen=True)
class HeatRow:
    """A label, and a value a column, None where there is none."""

    label: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class _Block:
    """Groups that stand side by side, as places of columns, and where each column begins."""

    columns: tuple[int, ...]
    starts: tuple[float, ...]
    wide: float
    slanted: bool
    head: float  # inches above the rows


@STYLE
def heat_map(
    rows: Sequence[HeatRow], heads: Sequence[str], groups: Sequence[str], name: str
) -> Figure:
    """Draw values (0 ... 1) as squares with their numbers; columns of one group stand together.

    Groups stand side by side where their numbers have room, else one under the other. Of more than
    40 rows the first are drawn.
    """
    rows = rows[:MOST_ROWS]
    labels = [wrapped(row.label, LABEL_LETTERS)[:2] for row in rows]
    left = 0.25 + LETTER * max(len(line) for label in labels for line in label)
    tall = max(0.3, LINE * max(map(len, labels)) + 0.08)
    blocks = _blocks(heads, groups, left)
    height = sum(block.head + tall * len(rows) + 0.06 for block in blocks)
    figure = Figure(figsize=(INCHES, height), label=name)
    top = 0.0
    for block in blocks:
        canvas = _Canvas(figure, height, top)
        canvas.heads(block, heads, groups)
        for down, (row, label) in enumerate(zip(rows, labels, strict=True)):
            middle = block.head + (down + 0.5) * tall
            for line, text in enumerate(label):
                canvas.write(0.08, middle + (line - (len(label) - 1) / 2) * LINE, text, ha="left")
            for start, column in zip(block.starts, block.columns, strict=True):
                canvas.cell(start, middle, (block.wide, tall), row.values[column])
        top += block.head + tall * len(rows) + 0.06
    return figure


def _blocks(heads: Sequence[str], groups: Sequence[str], left: float) -> list[_Block]:
    places = [tuple(some) for _, some in groupby(range(len(heads)), key=lambda i: groups[i])]
    together = _block([column for one in places for column in one], heads, groups, left)
    if together.wide >= NARROWEST:
        return [together]
    return [_block(one, heads, groups, left) for one in places]


def _block(
    columns: Sequence[int], heads: Sequence[str], groups: Sequence[str], left: float
) -> _Block:
    names = [groups[column] for column in columns]
    gaps = [GAP if i and names[i] != names[i - 1] else 0.0 for i in range(len(names))]
    room, own = INCHES - left - sum(gaps) - 0.1, [heads[column] for column in columns]
    wide = min(WIDEST, room / len(columns))
    slanted = any(len(word) * LETTER > wide for head in own for word in re.split("[_ ]", head))
    if slanted:  # the last head reaches beyond its column
        beyond = LETTER * len(own[-1]) * math.cos(math.radians(SLANT))
        wide = min(wide, (room - beyond) / (len(columns) - 0.5))
    longest = max(map(len, own))
    lines = max(len(_lines(head, wide)) for head in own)
    head = LETTER * longest * math.sin(math.radians(SLANT)) if slanted else LINE * lines
    starts = tuple(left + sum(gaps[: i + 1]) + i * wide for i in range(len(columns)))
    return _Block(tuple(columns), starts, wide, slanted, 0.16 + LINE + head)


def _lines(head: str, wide: float) -> list[str]:
    return wrapped(head, max(4, int(wide / LETTER)))[:3]


@dataclass(frozen=True)
class _Canvas:
    """A figure that is written on in inches from its left and from the top of a block."""

    figure: Figure
    height: float
    top: float

    def heads(self, block: _Block, heads: Sequence[str], groups: Sequence[str]) -> None:
        before = None
        for start, column in zip(block.starts, block.columns, strict=True):
            if groups[column] != before:
                before = groups[column]
                self.write(start + 0.03, 0.1 + LINE / 2, before, ha="left", weight="bold")
            middle = start + block.wide / 2
            if block.slanted:
                look: dict[str, Any] = {"rotation": SLANT, "rotation_mode": "anchor", "ha": "left"}
                self.write(middle, block.head - 0.06, heads[column], **look)
                continue
            for line, text in enumerate(_lines(heads[column], block.wide)):
                self.write(middle, 0.1 + LINE * (line + 1.5), text)

    def cell(
        self, start: float, middle: float, size: tuple[float, float], value: float | None
    ) -> None:
        wide, tall = size
        if value is None:
            self.write(start + wide / 2, middle, "–")  # noqa: RUF001
            return
        shade = Rectangle(
            self._place(start + 0.02, middle + tall / 2 - 0.02),
            (wide - 0.04) / INCHES,
            (tall - 0.04) / self.height,
            facecolor=SEED,
            alpha=0.04 + (DARKEST - 0.04) * min(1.0, max(0.0, value)),
            linewidth=0,
            transform=self.figure.transFigure,
        )
        self.figure.add_artist(shade)
        self.write(start + wide / 2, middle, f"{value:.2f}")

    def write(self, across: float, down: float, text: str, **look: Any) -> None:
        usual: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "fontsize": TEXT}
        self.figure.text(*self._place(across, down), text, parse_math=False, **usual | look)

    def _place(self, across: float, down: float) -> tuple[float, float]:
        return across / INCHES, 1 - (self.top + down) / self.height
