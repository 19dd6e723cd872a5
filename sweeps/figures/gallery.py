"""Figures of the gallery: divergences of shapes drawn apart, above them values, below gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.exhibits import CONSTANT, HALVES, MIXTURE, PEAKS, Curve
from sweeps.figures.style import CLASSES, FAINT, INK, STYLE, key, key_inches, panels


class Panel(NamedTuple):
    """What stands above a column, and how far its values and gradients are shown."""

    title: str
    value: tuple[float, float]
    gradient: tuple[float, float]


LINES = {
    "kl_aggregate": Panel("Kullback-Leibler", (-0.4, 8), (-13, 13)),
    "js": Panel("Jensen-Shannon", (-0.04, 0.8), (-2.6, 2.6)),
    "wasserstein p=1": Panel("Wasserstein, p = 1", (-0.15, 3.15), (-1.3, 1.3)),
}
ROWS = {
    "wasserstein p=2": Panel("wasserstein, p = 2", (-0.4, 9.5), (-6.6, 6.6)),
    "sinkhorn": Panel("sinkhorn", (-0.2, 4.8), (-3.3, 3.3)),
    "energy": Panel("energy", (-0.3, 6.3), (-2.6, 2.6)),
    "mmd": Panel("mmd", (-0.6, 9.8), (-8, 8)),
}
CODE = {
    HALVES: "half of KL to each peak",
    CONSTANT: "KL to one in the middle, plus m²/2s²",
    MIXTURE: "KL to the mixture of both",
}
NO_WIDTH = "lines, no width"
TALL = 1.45


@STYLE
def lines(curves: Sequence[Curve]) -> Figure:
    """Draw KL, JS and Wasserstein by formula, and on the curves dots, as a study's rows see them.

    Thick: parallel lines; where that jumps or is infinite, a dot at 0.
    """
    text = "KL, JS and Wasserstein of two shapes drawn apart, with gradients"
    figure, found = _columns(curves, LINES, text)
    for axes, height, words in ((found[0], 0.9, "∞"), (found[3], 0.06, "none")):
        axes.text(0.99, height, f"lines: {words}", ha="right", transform=axes.transAxes)
    return figure


@STYLE
def rows(curves: Sequence[Curve]) -> Figure:
    """Draw the rows without a formula for Gaussians, as a study sees them, and their limits."""
    return _columns(curves, ROWS, "more divergences of two shapes drawn apart, with gradients")[0]


@STYLE
def peaks(curves: Sequence[Curve]) -> Figure:
    """Draw what a code between two peaks pays by its place: to each of them, and to both at once.

    The first two are equal, and drawn one on the other.
    """
    names = list(zip(CODE.values(), (CLASSES[1], INK, CLASSES[0]), strict=True))
    figure, (above, below) = panels(
        ["divergence", "gradient"],
        "KL of a code from each of two peaks, and from their mixture",
        across=2,
        tall=1.9,
        top=key_inches([name for name, _ in names]),
    )
    key(figure, names)
    widths = {HALVES: 3.4, CONSTANT: 0.9, MIXTURE: 1.6}
    for name, (_, colour) in zip(CODE, names, strict=True):
        (curve,) = (one for one in curves if one.divergence == name)
        above.plot(curve.theta, curve.value, color=colour, linewidth=widths[name])
        below.plot(curve.theta, curve.gradient, color=colour, linewidth=widths[name])
    for axes in (above, below):
        for place in (-PEAKS.m, PEAKS.m):
            axes.axvline(place, color=INK, alpha=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlabel("place of the code; dashed: the peaks", labelpad=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)
    above.set_ylim(-0.5, 15)
    below.set_ylim(-13, 13)
    return figure


def _columns(
    curves: Sequence[Curve], chosen: Mapping[str, Panel], name: str
) -> tuple[Figure, list[Axes]]:
    """Draw a column a divergence: its value, and below it its gradient."""
    widths = sorted({one.width for one in curves if one.pair == "gaussians"}, reverse=True)
    colours = dict(zip(widths, CLASSES, strict=False)) | {0.0: INK}
    names = [(f"Gaussians of width {w:g}" if w else NO_WIDTH, c) for w, c in colours.items()]
    titles = [panel.title for panel in chosen.values()]
    figure, found = panels(
        [*titles, *(f"gradient of {title}" for title in titles)],
        name,
        across=len(chosen),
        tall=TALL,
        top=key_inches([text for text, _ in names]),
    )
    key(figure, names)
    for place, (divergence, panel) in enumerate(chosen.items()):
        above, below = found[place], found[place + len(chosen)]
        above.set_ylim(panel.value)
        below.set_ylim(panel.gradient)
        below.set_xlabel("distance θ; dots: a study's row", labelpad=2)
        for axes in (above, below):
            axes.set(xlim=(-3.1, 3.1), xticks=(-3, -2, -1, 0, 1, 2, 3))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)
        own = [one for one in curves if one.divergence == divergence]
        for curve in sorted(own, key=lambda one: (one.width, one.source)):
            _draw(above, below, curve, colours[curve.width])
    return figure, found


def _draw(above: Axes, below: Axes, curve: Curve, colour: str) -> None:
    """Draw a formula as a line, a row as dots; lines without a width thick, below the rest."""
    for axes, numbers in ((above, curve.value), (below, curve.gradient)):
        if curve.source == "row":
            thin = 0.0 if curve.divergence in LINES else 0.7  # there the formula is drawn
            axes.plot(curve.theta, numbers, ".-", color=colour, markersize=3.6, linewidth=thin)
            continue
        shown = np.where(np.isfinite(numbers), numbers, np.nan)
        jumps = not curve.width and curve.divergence in ("js", "mmd") and axes is above
        line = np.where(curve.theta == 0, np.nan, shown) if jumps else shown
        thick = 1.1 if curve.width else 2.6
        look: dict[str, Any] = {
            "linewidth": thick,
            "solid_capstyle": "butt",
            "zorder": 2 if curve.width else 1,
        }
        axes.plot(curve.theta, line, color=colour, **look)
        if not curve.width and axes is above and (jumps or not np.isfinite(numbers).all()):
            axes.plot([0], [0], "o", color=colour, markersize=4.5, zorder=1)
