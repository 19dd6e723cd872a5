"""Figures of a study: every seed's score, and every seed's learning curve.

Pure functions from tables to matplotlib figures without pyplot's global state; `svg` makes of one a
text that a page can hold inline, twice, in light and dark.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Row = Mapping[str, Any]
Array = NDArray[np.float64]

# Mid-tones with a contrast of 3 on white and on near-black, told apart in every colour blindness.
SEED, TROUBLE = "#3b8bd0", "#d9730d"
INK = "#000000"  # `svg` makes of it the colour of the text around
FAINT = 0.22

INCHES = 9.0
POINTS = 72.0
TEXT = 8.5
LETTER = 0.57 * TEXT / POINTS  # inches a letter, on average, in a wide face
LINE = 1.3 * TEXT / POINTS
LABEL_LETTERS = 36
JITTER = (math.sqrt(5) - 1) / 2  # golden: any run of seeds spreads evenly
BAND = 0.46  # of a row's height, for the dots

MOST_PANELS = 60
MOST_CURVES = 100
PANELS_ACROSS = 3
LOGARITHMIC = 3.0  # from this ratio of largest to smallest on
MOST_TICKS = 5

# Whatever the user's matplotlibrc says.
_LOOK = {"font.size": TEXT, "svg.fonttype": "none", "svg.hashsalt": "seedsweep"}
_STYLE = style.context(("default", _LOOK))
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_REFERENCE = re.compile(r"^(?:url\()?#([^)]+)\)?$")
_RESTYLED = (
    ("style", re.compile(r"(?<=: )#000000"), "currentColor"),
    ("style", re.compile(r"font-family: [^;]*; ?"), ""),
)


@_STYLE
def strip_plot(
    rows: Sequence[Row],
    runs: Sequence[Row],
    metric: str,
    low: float | None,
    baselines: Sequence[tuple[str, float | None]],
) -> Figure:
    """Draw every scored run as a dot, cells in the order of `rows` (of the summary) from the top.

    A seed has the same height in every cell; collapsed runs are hollow. Below the dots the mean and
    its 95 % interval. Dashed: baselines; dotted: `low`.
    """
    labels = [_wrapped(row["cell"]) for row in rows]
    lines = [(value, name, TROUBLE) for name, value in baselines if value is not None]
    marks = lines if low is None else [*lines, (low, f"low {low:g}", INK)]
    drawn = [run[metric] for run in runs if _scored(run, metric)]
    limits = _padded([*drawn, *(value for value, _, _ in marks)])
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
    _quiet(axes)
    axes.set_yticks(range(len(rows)), ["\n".join(x) for x in labels], parse_math=False)
    axes.set_xlabel(metric, parse_math=False)
    axes.grid(axis="x", color=INK, alpha=FAINT / 2, linewidth=0.6)
    for (value, name, colour), level in zip(marks, levels, strict=True):
        _mark(axes, value, name, colour, level, limits)
    by_cell: dict[str, list[Row]] = {row["cell_id"]: [] for row in rows}
    for run in runs:
        by_cell[run["cell_id"]].append(run)
    for place, row in enumerate(rows):
        _strip(axes, place, row, by_cell[row["cell_id"]], metric)
    return figure


def _scored(run: Row, metric: str) -> bool:
    return run["status"] in {"ok", "collapsed"} and run[metric] is not None


def _strip(axes: Axes, place: int, row: Row, runs: Sequence[Row], metric: str) -> None:
    """Draw one cell: its seeds, and below them their mean and interval."""
    if place:
        axes.axhline(place - 0.5, color=INK, alpha=FAINT / 2, linewidth=0.6)
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
            zorder=3,
        )
    mean, ends = row[f"{metric}_mean"], (row[f"{metric}_ci_low"], row[f"{metric}_ci_high"])
    if mean is None:
        middle = (axes.get_xlim()[0] + axes.get_xlim()[1]) / 2
        axes.text(middle, place, "no scored run", ha="center", va="center", alpha=0.6)
        return
    below = place + 0.3
    if ends[0] is not None:
        axes.plot(ends, (below, below), color=INK, linewidth=1.6, solid_capstyle="butt", zorder=4)
    axes.plot([mean], [below], marker="D", markersize=4.2, color=INK, zorder=5)


def _spot(seed: int | str) -> float:
    """Return a seed's place in the band, 0 ... 1; anyone's table may name seeds by text."""
    if isinstance(seed, str):
        seed = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])
    return ((seed + 1) * JITTER) % 1


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


@_STYLE
def learning_curves(cells: Sequence[tuple[str, Sequence[Row]]]) -> Figure:
    """Draw the loss of every seed over the steps, a panel a cell, given (label, runs) in order.

    A run is its `status` and the lists `step` and `loss` (None where not finite). Thin: runs, those
    that collapsed or diverged in a second colour, a cross where one diverged. Thick: their median,
    in which a run that diverged counts as the worst.
    """
    cells = cells[:MOST_PANELS]
    down = max(1, math.ceil(len(cells) / PANELS_ACROSS))
    titles = [_wrapped(label, 44)[:2] for label, _ in cells]
    head = 0.12 + LINE * max((len(title) for title in titles), default=1)
    pitch, wide, tall = INCHES / PANELS_ACROSS, INCHES / PANELS_ACROSS - 0.62, 1.35
    height = down * (head + tall + 0.3) + 0.2
    figure = Figure(figsize=(INCHES, height), label="loss of every seed over the steps")
    for place, ((_, runs), title) in enumerate(zip(cells, titles, strict=True)):
        row, column = divmod(place, PANELS_ACROSS)
        bottom = height - (row + 1) * (head + tall) - row * 0.3
        corner = ((column * pitch + 0.5) / INCHES, bottom / height)
        axes = figure.add_axes((*corner, wide / INCHES, tall / height))
        _quiet(axes)
        axes.set_title("\n".join(title), loc="left", x=-0.2, fontsize=TEXT, parse_math=False)
        _panel(axes, runs)
        if place + PANELS_ACROSS >= len(cells):
            axes.set_xlabel("step", labelpad=1)
    return figure


def _panel(axes: Axes, runs: Sequence[Row]) -> None:
    """Draw one cell's curves; runs that diverged end where their loss did."""
    curves = [(run, *_curve(run)) for run in runs[:MOST_CURVES]]
    losses = np.concatenate([loss for _, _, loss in curves]) if curves else np.array([])
    known = losses[np.isfinite(losses)]
    if not len(known):
        axes.text(0.5, 0.5, "no curve", ha="center", alpha=0.6, transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    logarithmic = known.min() > 0 and known.max() > LOGARITHMIC * known.min()
    for run, steps, loss in curves:
        fine = run["status"] == "ok"
        axes.plot(steps, loss, color=SEED if fine else TROUBLE, linewidth=0.6, alpha=0.6)
        alive = np.flatnonzero(np.isfinite(loss))
        if run["status"] == "diverged" and len(alive):
            axes.plot(steps[alive[-1]], loss[alive[-1]], "x", color=TROUBLE, markersize=4)
    axes.plot(*_median([(steps, loss) for _, steps, loss in curves]), color=INK, linewidth=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if logarithmic:
        axes.set_yscale("log")
        ticks = _round_ticks(known.min(), known.max())
        axes.set_yticks(ticks, [f"{tick:g}".replace("e+", "e") for tick in ticks])
        axes.set_yticks([], minor=True)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)


def _curve(run: Row) -> tuple[Array, Array]:
    """Return steps and loss (points,), NaN where the loss was not finite."""
    return np.array(run["step"], dtype=float), np.array(run["loss"], dtype=float)


def _median(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the median over runs at every step; NaN once half of them have diverged."""
    steps = np.unique(np.concatenate([steps for steps, _ in curves]))
    table = np.full((len(curves), len(steps)), np.inf)
    for place, (own, loss) in enumerate(curves):
        table[place, np.searchsorted(steps, own)] = np.where(np.isfinite(loss), loss, np.inf)
    ordered = np.sort(table, axis=0)  # np.median would warn of infinity minus infinity
    upper, lower = ordered[len(curves) // 2], ordered[(len(curves) - 1) // 2]
    with np.errstate(invalid="ignore"):
        middle = lower + (upper - lower) / 2
    return steps, np.where(np.isfinite(middle), middle, np.nan)


def _round_ticks(low: float, high: float) -> list[float]:
    """Return up to five round numbers between low and high, even on a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for within in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        powers = range(first, last + 1, max(1, (last - first) // 4))
        ticks = [float(f"{digit}e{power}") for power in powers for digit in within]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) > MOST_TICKS:
            break
        found = inside
    return found


def _wrapped(label: str, letters: int = LABEL_LETTERS) -> list[str]:
    """Return a label as lines, without the control codes that XML cannot hold."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in label)
    return textwrap.wrap(printable, letters) or ["?"]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.03 * (high - low) or 0.05
    return low - margin, high + margin


def _quiet(axes: Axes) -> None:
    """Leave of the frame what is read: a faint line below, text."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=2 * FAINT)
    axes.tick_params(length=0, labelsize=TEXT, labelcolor=INK)
    axes.xaxis.label.set(color=INK, fontsize=TEXT)
    axes.title.set(color=INK)


@_STYLE
def svg(figure: Figure) -> str:
    """Return a figure as SVG: equal for equal figures, on its own or inline in a page.

    Text stays text and black is currentColor; there is no script, no style sheet, no metadata,
    nothing to load, and no identifier that another figure has.
    """
    sink = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font has not; browsers do
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(sink.getvalue())  # noqa: S314 - written a line above
    for element in root.findall(f"{_SVG}metadata"):
        root.remove(element)
    for parent in root.findall(f".//{_SVG}style/.."):
        parent.clear()  # its rule for `*` would reach the whole page
    _rename(root, f"f{hashlib.sha256(sink.getvalue().encode()).hexdigest()[:10]}-")
    for element in root.iter():
        for name in {"d", "x", "y", "transform"} & set(element.attrib):
            places = _DECIMALS.sub(r"\1", element.attrib[name])
            element.set(name, " ".join(places.split()))
        for name, pattern, text in _RESTYLED:
            if name in element.attrib:
                element.set(name, pattern.sub(text, element.attrib[name]))
    root.attrib.pop("version")
    size = {name: root.attrib[name].removesuffix("pt") for name in ("width", "height")}
    root.attrib.update(size | {"role": "img", "aria-label": str(figure.get_label())})
    root.attrib.update({"fill": "currentColor", "font-family": "system-ui, sans-serif"})
    ET.register_namespace("", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode") + "\n"


def _rename(root: ET.Element, prefix: str) -> None:
    """Keep the identifiers that something refers to, each with the prefix."""
    text = [value for element in root.iter() for value in element.attrib.values()]
    used = {name for value in text for name in _REFERENCE.findall(value)}
    for element in root.iter():
        link = element.attrib.pop(f"{_XLINK}href", None)
        if link is not None:
            element.set("href", f"#{prefix}{link[1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{prefix}"))
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{prefix}{name}")
