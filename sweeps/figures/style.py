"""What every figure has in common: colours, sizes, quiet axes, labels that fit, grids of panels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Each colour has a twin for dark pages, which `svg` names; text in them has a contrast of 4.5.
SEED, TROUBLE = "#2b78bd", "#ad4e00"
# Okabe and Ito 2008, darkened where text or a thin line would be faint, and three more.
CLASSES = (
    *("#0072b2", "#d55e00", "#008a64", "#b8578f", "#b07900"),
    *("#3a93c9", "#882255", "#7a7a1f", "#6a6a70", "#4b3fa0"),
)
DARK = {
    SEED: "#5fabe8",
    TROUBLE: "#f0a15e",
    **dict(
        zip(
            CLASSES,
            (
                *("#4aa8e8", "#ff8f4d", "#3ccfa0", "#eb9ac9", "#efbf4a"),
                *("#8cd3f7", "#e07fae", "#c9c95a", "#b4b4bb", "#a79cf5"),
            ),
            strict=True,
        )
    ),
}
Panel = TypeVar("Panel")
INK = "#000000"  # `svg` makes of it the colour of the text around
FAINT = 0.22

INCHES = 9.0
POINTS = 72.0
TEXT = 8.5
LETTER = 0.57 * TEXT / POINTS  # inches a letter, on average, in a wide face
LINE = 1.3 * TEXT / POINTS
LABEL_LETTERS = 36

# Whatever the user's matplotlibrc says.
_LOOK: dict[str, Any] = {"font.size": TEXT, "svg.fonttype": "none", "svg.hashsalt": "seedsweep"}
STYLE = style.context(("default", _LOOK))


def class_colour(place: int) -> str:
    """Return the colour of a class; the eleventh has the first one's again."""
    return CLASSES[place % len(CLASSES)]


def wrapped(label: str, letters: int = LABEL_LETTERS) -> list[str]:
    """Return a label as lines, without the control codes that XML cannot hold."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in label)
    return textwrap.wrap(printable, letters) or ["?"]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return limits with a margin around the values."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.03 * (high - low) or 0.05
    return low - margin, high + margin


def quiet(axes: Axes) -> None:
    """Leave of the frame what is read: a faint line below, text."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=INK, alpha=2 * FAINT)
    axes.tick_params(length=0, labelsize=TEXT, labelcolor=INK)
    axes.xaxis.label.set(color=INK, fontsize=TEXT)
    axes.yaxis.label.set(color=INK, fontsize=TEXT)
    axes.title.set(color=INK)


def panels(
    labels: Sequence[str], name: str, *, across: int, tall: float, top: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a quiet panel a label, `tall` inches high, below `top` inches of air."""
    pitch = INCHES / across
    wide = pitch - 0.62
    titles = [wrapped(label, int((pitch - 0.15) / LETTER))[:3] for label in labels]
    head = 0.12 + LINE * max((len(title) for title in titles), default=1)
    down = max(1, math.ceil(len(labels) / across))
    height = top + down * (head + tall + 0.3) + 0.2
    figure = Figure(figsize=(INCHES, height), label=name)
    found = []
    for place, title in enumerate(titles):
        row, column = divmod(place, across)
        bottom = height - top - (row + 1) * (head + tall) - row * 0.3
        corner = ((column * pitch + 0.5) / INCHES, bottom / height)
        axes = figure.add_axes((*corner, wide / INCHES, tall / height))
        quiet(axes)
        text = "\n".join(title)
        axes.set_title(text, loc="left", x=-0.4 / wide, fontsize=TEXT, parse_math=False)
        found.append(axes)
    return figure, found


def lowest(axes: Sequence[Panel], across: int) -> Sequence[Panel]:
    """Return the panels with none below them."""
    return axes[max(0, len(axes) - across) :]


def key(figure: Figure, names: Sequence[tuple[str, str]]) -> None:
    """Write (name, colour) pairs along the top, with a square each."""
    height = figure.get_figheight()
    for (_, colour), (text, across, down) in zip(names, _key([n for n, _ in names]), strict=True):
        base = height - 0.05 - (down + 0.75) * LINE
        square = (across / INCHES, base / height), 0.09 / INCHES, 0.09 / height
        figure.add_artist(Rectangle(*square, facecolor=colour, transform=figure.transFigure))
        where = ((across + 0.14) / INCHES, base / height)
        figure.text(*where, text, fontsize=TEXT, color=INK, va="baseline", parse_math=False)


def key_inches(names: Sequence[str]) -> float:
    """Return how many inches `key` takes for such names."""
    return 0.15 + (1 + max(down for _, _, down in _key(names))) * LINE if names else 0.0


def _key(names: Sequence[str]) -> list[tuple[str, float, int]]:
    """Return each name as it is shown, its place across in inches, and its line."""
    start, down, found = 0.1, 0, list[tuple[str, float, int]]()
    across = start
    for name in names:
        text = wrapped(name, 40)[0]
        length = 0.3 + LETTER * len(text)
        if across + length > INCHES and across > start:
            across, down = start, down + 1
        found.append((text, across, down))
        across += length
    return found
