"""A figure of numbers between 0 and 1 in rows and columns: the darker the more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sweeps.figures.style import INCHES, INK, LETTER, LINE, SEED, STYLE, TEXT, wrapped

LABEL_LETTERS = 34
MOST_ROWS = 40
WIDEST = 0.95  # inches, of a column
DARKEST = 0.6  # opacity at 1: text stays readable on it, in light and dark


@dataclass(frozen=True)
class HeatRow:
    """A label, and a value a column, None where there is none."""

    label: str
    values: Sequence[float | None]


@STYLE
def heat_map(
    rows: Sequence[HeatRow], heads: Sequence[str], groups: Sequence[str], name: str
) -> Figure:
    """Draw values (0 ... 1) as squares with their numbers; columns of one group stand together.

    Of more than 40 rows the first are drawn.
    """
    rows = rows[:MOST_ROWS]
    labels = [wrapped(row.label, LABEL_LETTERS)[:2] for row in rows]
    left = 0.25 + LETTER * max(len(line) for label in labels for line in label)
    gaps = [0.14 if i and groups[i] != groups[i - 1] else 0.0 for i in range(len(groups))]
    wide = min(WIDEST, (INCHES - left - sum(gaps) - 0.1) / len(heads))
    words = [wrapped(head, max(4, int(wide / LETTER)))[:3] for head in heads]
    tall = max(0.3, LINE * max(map(len, labels)) + 0.08)
    top = 0.1 + LINE * (1 + max(map(len, words))) + 0.06
    height = top + tall * len(rows) + 0.06
    figure = Figure(figsize=(INCHES, height), label=name)
    starts = [left + sum(gaps[: i + 1]) + i * wide for i in range(len(heads))]

    def write(across: float, down: float, text: str, where: str, *, bold: bool = False) -> None:
        place = across / INCHES, 1 - down / height
        weight = "bold" if bold else "normal"
        look: dict[str, Any] = {"ha": where, "va": "center", "color": INK, "weight": weight}
        figure.text(*place, text, fontsize=TEXT, parse_math=False, **look)

    for place, (start, lines) in enumerate(zip(starts, words, strict=True)):
        if place == 0 or groups[place] != groups[place - 1]:
            write(start + 0.03, 0.1 + LINE / 2, groups[place], "left", bold=True)
        for line, text in enumerate(lines):
            write(start + wide / 2, 0.1 + LINE * (line + 1.5), text, "center")
    for down, (row, label) in enumerate(zip(rows, labels, strict=True)):
        middle = top + (down + 0.5) * tall
        for line, text in enumerate(label):
            write(0.08, middle + (line - (len(label) - 1) / 2) * LINE, text, "left")
        for start, value in zip(starts, row.values, strict=True):
            if value is None:
                write(start + wide / 2, middle, "–", "center")  # noqa: RUF001
                continue
            corner = ((start + 0.02) / INCHES, 1 - (middle + tall / 2 - 0.02) / height)
            size = (wide - 0.04) / INCHES, (tall - 0.04) / height
            shade = Rectangle(
                corner,
                *size,
                facecolor=SEED,
                alpha=0.04 + (DARKEST - 0.04) * min(1.0, max(0.0, value)),
                linewidth=0,
                transform=figure.transFigure,
            )
            figure.add_artist(shade)
            write(start + wide / 2, middle, f"{value:.2f}", "center")
    return figure
