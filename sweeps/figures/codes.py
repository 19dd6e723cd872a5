"""Figures of codes: where each class lies, and where the prior wanted the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sweeps.figures.style import (
    FAINT,
    INK,
    SEED,
    STYLE,
    class_colour,
    key,
    key_inches,
    lowest,
    padded,
    panels,
)

Array = NDArray[np.float64]
Density = Callable[[Array], Array]

ACROSS = 3
MOST_PANELS = 12
BINS = 48
LINE_POINTS = 161
CONTOURS = 61  # points a side
MOST_DOTS = 1200
CENTRAL = (0.001, 0.999)  # of the prior: what the axis shows at least


@dataclass(frozen=True)
class Codes:
    """The class units (N, C) of one cell's seed; `classes` (N,) is None without labels.

    `density` gives the prior's density at points (M, C); `reach` (2, C) is where it lies. Both are
    None without a prior.
    """

    label: str
    note: str
    units: Array
    classes: NDArray[np.int64] | None
    density: Density | None = None
    reach: Array | None = None

    def limits(self, unit: int = 0) -> tuple[float, float]:
        """Return what holds every code, and the prior where there is one."""
        values = self.units[:, unit]
        ends = [float(values.min()), float(values.max())]
        if self.reach is not None:
            ends += [float(end) for end in self.reach[:, unit]]
        low, high = min(ends), max(ends)
        return (low, high) if high > low else padded((low, high))

    def members(self, count: int) -> list[NDArray[np.bool_]]:
        """Return which images each class has; all, where there are no labels."""
        if self.classes is None:
            return [np.ones(len(self.units), dtype=bool)]
        return [self.classes == place for place in range(count)]


def histogram(codes: Codes, classes: int) -> tuple[Array, NDArray[np.int64]]:
    """Return the edges (BINS + 1,) and each class's counts (classes, BINS) of the first unit."""
    edges = np.linspace(*codes.limits(), BINS + 1)
    values = codes.units[:, 0]
    counts = [np.histogram(values[chosen], edges)[0] for chosen in codes.members(classes)]
    return edges, np.array(counts, dtype=np.int64)


def prior_line(codes: Codes) -> tuple[Array, Array] | None:
    """Return points and the prior's density there, None without a prior."""
    if codes.density is None:
        return None
    points = np.linspace(*codes.limits(), LINE_POINTS)
    return points, codes.density(points[:, None])


@STYLE
def code_densities(cells: Sequence[Codes], class_names: Sequence[str]) -> Figure:
    """Draw where each class's codes lie, a panel a cell, with the prior as a line.

    One class unit: histograms whose areas add to 1 over all classes, so that they compare with the
    prior. Two: a dot an image and contours of the prior; of more, the first two.
    """
    cells = cells[:MOST_PANELS]
    names = list(class_names) if any(cell.classes is not None for cell in cells) else []
    top = key_inches(names)
    figure, found = panels(
        [cell.label for cell in cells],
        "codes of each class against the prior, a panel a cell",
        across=ACROSS,
        tall=1.35,
        top=top,
    )
    key(figure, [(name, class_colour(place)) for place, name in enumerate(names)])
    for axes, cell in zip(found, cells, strict=True):
        if cell.units.shape[1] == 1:
            _histograms(axes, cell, len(names))
        else:
            _scatter(axes, cell, len(names))
            axes.set_aspect("equal", adjustable="datalim")
        where: dict[str, Any] = {"transform": axes.transAxes, "parse_math": False}
        axes.text(0.99, 0.97, cell.note, ha="right", va="top", alpha=0.8, **where)
    for axes, cell in zip(lowest(found, ACROSS), lowest(cells, ACROSS), strict=True):
        axes.set_xlabel("code" if cell.units.shape[1] == 1 else "first unit", labelpad=2)
    return figure


def _colour(cell: Codes, place: int) -> str:
    return SEED if cell.classes is None else class_colour(place)


def _histograms(axes: Axes, cell: Codes, classes: int) -> None:
    edges, counts = histogram(cell, classes)
    scale = 1 / (len(cell.units) * (edges[1] - edges[0]))
    highest = 0.0
    for place, row in enumerate(counts):
        colour, heights = _colour(cell, place), row * scale
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.32, linewidth=0)
        axes.stairs(heights, edges, color=colour, linewidth=0.9, alpha=0.9)
        highest = max(highest, float(heights.max()))
    line = prior_line(cell)
    if line is not None:
        axes.plot(*line, color=INK, linewidth=1.3, zorder=4)
        highest = max(highest, float(line[1].max()))
    axes.set(xlim=padded(cell.limits()), ylim=(0, 1.22 * highest or 1.0), yticks=[])


def _scatter(axes: Axes, cell: Codes, classes: int) -> None:
    step = -(-len(cell.units) // MOST_DOTS)  # evenly spaced images, where there are many
    for place, chosen in enumerate(cell.members(classes)):
        dots = cell.units[chosen][::step]
        look: dict[str, Any] = {
            "s": 5,
            "color": _colour(cell, place),
            "alpha": 0.6,
            "edgecolors": "none",
        }
        axes.scatter(dots[:, 0], dots[:, 1], **look)
    axes.set(xlim=padded(cell.limits(0)), ylim=padded(cell.limits(1)))
    axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)
    if cell.density is None or cell.units.shape[1] > 2:  # noqa: PLR2004 - a plane shows two
        return
    sides = [np.linspace(*padded(cell.limits(unit)), CONTOURS) for unit in (0, 1)]
    plane = np.stack(np.meshgrid(*sides), -1)
    heights = cell.density(plane.reshape(-1, 2)).reshape(CONTOURS, CONTOURS)
    if heights.max() > 0:
        levels = heights.max() * np.exp(-0.5 * np.array([2.0, 1.0]) ** 2)  # one and two deviations
        axes.contour(*sides, heights, levels=levels, colors=INK, linewidths=(0.6, 1.0), alpha=0.8)
