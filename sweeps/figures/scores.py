"""Figures of scores: every seed of every cell, and how high against how steady."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from sweeps.figures.style import (
    FAINT,
    INCHES,
    INK,
    LETTER,
    LINE,
    POINTS,
    SEED,
    STYLE,
    TEXT,
    TROUBLE,
    padded,
    quiet,
    wrapped,
)

Row = Mapping[str, Any]

JITTER = (math.sqrt(5) - 1) / 2  # golden: any run of seeds spreads evenly
LOGARITHMIC = 100.0  # from this ratio of largest to smallest loss on
MOST_ROWS = 60
BAND = 0.46  # of a row's height, for the dots


@STYLE
def strip_plot(
    rows: Sequence[Row],
    runs: Sequence[Row],
    metric: str,
    low: float | None,
    baselines: Sequence[tuple[str, float | None]],
) -> Figure:
    """Draw every scored run as a dot, cells in the order of `rows` (of the summary) from the top.

    A seed has the same height in every cell; collapsed runs are hollow. Behind the dots a box from
    the first to the third quartile with the median; below them the mean and its 95 % interval.
    Dashed: baselines; dotted: `low`. Of more than 60 cells the first are drawn.
    """
    rows = rows[:MOST_ROWS]
    drawn_cells = {row["cell_id"] for row in rows}
    runs = [run for run in runs if run["cell_id"] in drawn_cells]
    labels = [wrapped(row["cell"]) for row in rows]
    lines = [(value, name, TROUBLE) for name, value in baselines if value is not None]
    marks = [*lines, *([] if low is None else [(low, f"low {low:g}", INK)])]
    drawn = [run[metric] for run in runs if _scored(run, metric)]
    limits = padded([*drawn, *(value for value, _, _ in marks)] or [0.0, 1.0])
    left = 0.25 + LETTER * max((len(line) for label in labels for line in label), default=0)
    levels = _levels(marks, limits, INCHES - left - 0.1)
    tall = max(0.4, LINE * max(map(len, labels), default=1) + 0.1)
    top, bottom = 0.1 + LINE * (1 + max(levels, default=0)), 0.5
    height = top + bottom + tall * max(1, len(rows))
    figure = Figure(figsize=(INCHES, height), label=f"{metric} of every seed, a row a cell")
    axes = figure.add_axes(
        (
            left / INCHES,
            bottom / height,
            (INCHES - left - 0.1) / INCHES,
            1 - (top + bottom) / height,
        )
    )
    axes.set(xlim=limits, ylim=(max(1, len(rows)) - 0.5, -0.5))
    quiet(axes)
    axes.set_yticks(range(len(rows)), ["\n".join(x) for x in labels], parse_math=False)
    axes.set_xlabel(metric, parse_math=False)
    if not marks and min(drawn, default=0) > 0 and max(drawn) > LOGARITHMIC * min(drawn):
        axes.set(xscale="log", xlim=(min(drawn) / 1.3, max(drawn) * 1.3))  # a loss that ran away
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color=INK, alpha=FAINT / 2, linewidth=0.6)
    for (value, name, colour), level in zip(marks, levels, strict=True):
        _mark(axes, value, name, colour, level, limits)
    by_cell: dict[str, list[Row]] = {row["cell_id"]: [] for row in rows}
    for run in runs:
        by_cell.setdefault(run["cell_id"], []).append(run)
    for place, row in enumerate(rows):
        _strip(axes, place, row, by_cell[row["cell_id"]], metric)
    return figure


def _spot(seed: int | str) -> float:
    """Return a seed's place in the band, 0 ... 1; anyone's table may name seeds by text."""
    if isinstance(seed, str):
        seed = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])
    return ((seed + 1) * JITTER) % 1


def _scored(run: Row, metric: str) -> bool:
    return run["status"] in {"ok", "collapsed"} and run[metric] is not None


def _strip(axes: Axes, place: int, row: Row, runs: Sequence[Row], metric: str) -> None:
    """Draw one cell: its seeds, and below them their mean and interval."""
    if place:
        axes.axhline(place - 0.5, color=INK, alpha=FAINT / 2, linewidth=0.6)
    _box(axes, place, [run[metric] for run in runs if _scored(run, metric)])
    for hollow in (False, True):
        chosen = [r for r in runs if _scored(r, metric) and (r["status"] == "collapsed") is hollow]
        heights = [place - 0.14 + BAND * (_spot(r["seed"]) - 0.5) for r in chosen]
        axes.scatter(
            [run[metric] for run in chosen],
            heights,
            s=17,
            facecolors="none" if hollow else SEED,
            edgecolors=TROUBLE if hollow else "none",
            linewidths=1.0,
            alpha=None if hollow else 0.75,
            clip_on=False,  # each would have a group of its own
            zorder=3,
        )
    mean, ends = row[f"{metric}_mean"], (row[f"{metric}_ci_low"], row[f"{metric}_ci_high"])
    if mean is None:
        where = axes.get_yaxis_transform()
        scored = any(run["status"] in {"ok", "collapsed"} for run in runs)
        words = "not defined" if scored else "no scored run"
        axes.text(0.5, place, words, ha="center", va="center", alpha=0.75, transform=where)
        return
    below = place + 0.3
    if ends[0] is not None:
        axes.plot(ends, (below, below), color=INK, linewidth=1.6, solid_capstyle="butt", zorder=4)
    axes.plot([mean], [below], marker="D", markersize=4.2, color=INK, zorder=5)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile, linear between values (Hyndman 1996, 7)."""
    first, median, third = np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75))
    return float(first), float(median), float(third)


def _box(axes: Axes, place: int, values: Sequence[float]) -> None:
    """Draw the box of quartiles behind a cell's dots."""
    if not values:
        return
    first, median, third = quartiles(values)
    top, tall = place - 0.14 - BAND / 2 - 0.03, BAND + 0.06
    look: dict[str, Any] = {"facecolor": INK, "alpha": FAINT / 2.6, "linewidth": 0}
    axes.add_patch(Rectangle((first, top), third - first, tall, **look, zorder=1))
    axes.plot((median, median), (top, top + tall), color=INK, alpha=0.5, linewidth=1.2, zorder=2)


def _mark(
    axes: Axes, value: float, name: str, colour: str, level: int, limits: tuple[float, float]
) -> None:
    """Draw a vertical line with its name above the rows."""
    style = ":" if colour == INK else (0, (5, 3))
    axes.axvline(value, color=colour, linewidth=1.1, linestyle=style, alpha=0.85, zorder=2)
    leans_left = value > (limits[0] + limits[1]) / 2
    axes.annotate(
        name,
        (value, 1),
        (-3 if leans_left else 3, 2 + level * LINE * POINTS),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right" if leans_left else "left",
        color=colour,
        parse_math=False,
        annotation_clip=False,
    )
    if level:
        axes.annotate(
            "",
            (value, 1),
            (0, (level + 0.8) * LINE * POINTS),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0},
        )


def _levels(
    marks: Sequence[tuple[float, str, str]], limits: tuple[float, float], inches: float
) -> list[int]:
    """Return the line of text for each mark's name, so that no two names overlap."""
    taken: list[list[tuple[float, float]]] = []
    found = []
    for value, name, _ in marks:
        place = inches * (value - limits[0]) / (limits[1] - limits[0])
        length = LETTER * len(name) + 0.1
        start = place - length if place > inches / 2 else place
        # A name also keeps clear of the stems that rise through its line.
        level = next(
            (
                number
                for number, spans in enumerate(taken)
                if all(start > right or start + length < left for left, right in spans)
            ),
            len(taken),
        )
        if level == len(taken):
            taken.append([])
        for lower in taken[:level]:
            lower.append((place - 0.03, place + 0.03))
        taken[level].append((start, start + length))
        found.append(level)
    return found


MOST_NUMBERED = 36
TALL = 0.56 * TEXT  # half a number's height, with air
AROUND = [
    (radius * math.cos(turn * math.pi / 6), radius * math.sin(turn * math.pi / 6))
    for radius in (9.0, 14.0, 20.0, 28.0)
    for turn in range(12)
]


@STYLE
def mean_against_spread(
    rows: Sequence[Row], metric: str, baseline: tuple[str, float] | None, *, high: bool = True
) -> Figure:
    """Draw each cell's mean (x) and sd over seeds (y), numbered in the order of `rows`.

    The corner that is wanted is named: `high` and steady, or low and steady. Cells without an sd
    are left out; after the first 36 they have no number. Dashed: the baseline.
    """
    known = [row for row in rows if row[f"{metric}_sd"] is not None]
    means = [row[f"{metric}_mean"] for row in known]
    spreads = [row[f"{metric}_sd"] for row in known]
    names = [wrapped(row["cell"], 48)[:2] for row in known[:MOST_NUMBERED]]
    lines = sum(map(len, names)) + 0.25 * len(names)
    high_up, wide = min(4.2, max(3.2, lines * LINE)), 4.9
    height = max(high_up, lines * LINE) + 0.75
    name = f"mean {metric} of each cell against its standard deviation"
    figure = Figure(figsize=(INCHES, height), label=name)
    bottom = height - 0.25 - high_up
    axes = figure.add_axes((0.6 / INCHES, bottom / height, wide / INCHES, high_up / height))
    quiet(axes)
    at = [] if baseline is None else [baseline[1]]
    axes.set(xlim=padded([*means, *at] or [0.0, 1.0]), ylim=_from_zero(spreads))
    axes.set_xlabel(f"mean {metric}", parse_math=False)
    axes.set_ylabel("sd over seeds")
    axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)
    if baseline is not None:
        _mark(axes, baseline[1], baseline[0], TROUBLE, 0, axes.get_xlim())
    corner, side = (0.985, "right") if high else (0.015, "left")
    words = f"{'high' if high else 'low'} and steady"
    look: dict[str, Any] = {"style": "italic", "alpha": 0.75, "transform": axes.transAxes}
    axes.text(corner, 0.02, words, ha=side, va="bottom", **look)
    axes.scatter(means, spreads, s=26, color=SEED, edgecolors="none", alpha=0.9, zorder=3)
    _number(axes, list(zip(means, spreads, strict=True)))
    top = height - 0.25
    for number, lines_of in enumerate(names, start=1):
        where = (0.6 + wide + 0.35) / INCHES
        figure.text(where, top / height, f"{number}", ha="right", va="top", weight="bold")
        text = "\n".join(lines_of)
        figure.text(where + 0.08 / INCHES, top / height, text, va="top", parse_math=False)
        top -= (len(lines_of) + 0.25) * LINE
    return figure


def _from_zero(values: Sequence[float]) -> tuple[float, float]:
    return 0.0, 1.12 * max(values, default=0.0) or 0.05


def _number(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Write each point's number beside it, where neither a point nor another number stands."""
    places = axes.transData.transform(np.array(points).reshape(-1, 2)) * POINTS / 100
    taken = [(x, y, 3.5, 3.5) for x, y in places]
    for number, (x, y) in enumerate(places[:MOST_NUMBERED], start=1):
        half = 0.37 * TEXT * len(str(number))

        def overlap(shift: tuple[float, float], x: float = x, y: float = y, w: float = half) -> int:
            return sum(
                abs(x + shift[0] - other[0]) < w + other[2]
                and abs(y + shift[1] - other[1]) < TALL + other[3]
                for other in taken
            )

        best = min(AROUND, key=overlap)
        taken.append((x + best[0], y + best[1], half, TALL))
        axes.annotate(
            f"{number}",
            points[number - 1],
            best,
            textcoords="offset points",
            ha="center",
            va="center",
            weight="bold",
            arrowprops=None
            if math.hypot(*best) < 10  # noqa: PLR2004 - beside its point
            else {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.5, "shrinkA": 4, "shrinkB": 3},
        )
