"""Figures of curves: every seed's loss over the steps, and every seed's ROC curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sweeps.figures.style import (
    FAINT,
    INK,
    SEED,
    STYLE,
    TROUBLE,
    lowest,
    panels,
)

Row = Mapping[str, Any]
Array = NDArray[np.float64]

MOST_PANELS = 24
MOST_CURVES = 40  # a panel: more are neither told apart nor small
PANELS_ACROSS = 3
LOGARITHMIC = 3.0  # from this ratio of largest to smallest on
MOST_TICKS = 5


@STYLE
def learning_curves(cells: Sequence[tuple[str, Sequence[Row]]]) -> Figure:
    """Draw the loss of every seed over the steps, a panel a cell, given (label, runs) in order.

    A run is its `status` and the lists `step` and `loss` (None where not finite). Thin: runs, those
    that collapsed or diverged in a second colour, a cross where one diverged. Thick: their median,
    in which a run that diverged counts as the worst.
    """
    cells = cells[:MOST_PANELS]
    figure, found = panels(
        [label for label, _ in cells],
        "loss of every seed over the steps",
        across=PANELS_ACROSS,
        tall=1.35,
    )
    for axes, (_, runs) in zip(found, cells, strict=True):
        _panel(axes, runs)
    for axes in lowest(found, PANELS_ACROSS):
        axes.set_xlabel("step", labelpad=1)
    return figure


def _panel(axes: Axes, runs: Sequence[Row]) -> None:
    """Draw one cell's curves; runs that diverged end where their loss did."""
    curves = [(run, *_curve(run)) for run in runs[:MOST_CURVES]]
    losses = np.concatenate([loss for _, _, loss in curves]) if curves else np.array([])
    known = losses[np.isfinite(losses)]
    if not len(known):
        axes.text(0.5, 0.5, "no curve", ha="center", alpha=0.75, transform=axes.transAxes)
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


ROC_ACROSS = 4
MOST_ROC_PANELS = 12
GRID = np.linspace(0.0, 1.0, 101)  # false-positive rates at which curves are drawn and compared
BAND = (0.1, 0.5, 0.9)  # of the seeds, pointwise


@dataclass(frozen=True)
class Roc:
    """A cell's ROC curves: the true-positive rate of each seed on `GRID`, (seeds, points)."""

    label: str
    seeds: tuple[int, ...]
    curves: Array
    areas: tuple[float, ...]

    @property
    def band(self) -> Array:
        """Return the 10 %, 50 % and 90 % quantiles over the seeds, pointwise, (3, points)."""
        return np.quantile(self.curves, BAND, axis=0)


def roc_curve(positive: NDArray[np.bool_], code: Array) -> tuple[Array, float]:
    """Return the true-positive rate on `GRID` and the area, of a code (N,) that has no sign.

    The sign is the one with an area of at least 1/2, so the area is that of `auc_oracle`. Equal
    codes are one step; where the curve rises straight up, the upper end counts (Fawcett 2006).
    """
    rates, area = _rates(positive, code)
    if area < 0.5:  # noqa: PLR2004 - chance
        rates, area = _rates(positive, -code)
    return np.interp(GRID, *rates), area


def _rates(positive: NDArray[np.bool_], code: Array) -> tuple[tuple[Array, Array], float]:
    order = np.argsort(-code, kind="stable")
    hits, ranked = positive[order], code[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # the last of equal codes
    true = np.append(0, np.cumsum(hits)[ends]) / hits.sum()
    false = np.append(0, np.cumsum(~hits)[ends]) / (~hits).sum()
    return (false, true), float(np.trapezoid(true, false))


@STYLE
def roc_curves(cells: Sequence[Roc]) -> Figure:
    """Draw every seed's ROC curve, a panel a cell, with their median and 10-90 % band."""
    cells = cells[:MOST_ROC_PANELS]
    figure, found = panels(
        [cell.label for cell in cells],
        "ROC curves of every seed, a panel a cell",
        across=ROC_ACROSS,
        tall=1.63,
    )
    for axes, cell in zip(found, cells, strict=True):
        low, median, high = cell.band
        axes.plot((0, 1), (0, 1), color=INK, alpha=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.fill_between(GRID, low, high, color=SEED, alpha=0.18, linewidth=0)
        for curve in cell.curves[:MOST_CURVES]:
            line = np.append(0.0, curve)  # from the corner straight up to the first point
            axes.plot(np.append(0.0, GRID), line, color=SEED, linewidth=0.6, alpha=0.55)
        axes.plot(np.append(0.0, GRID), np.append(0.0, median), color=INK, linewidth=1.5)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
        axes.grid(color=INK, alpha=FAINT / 2, linewidth=0.6)
        text = f"median A {np.median(cell.areas):.3f}"
        axes.text(0.98, 0.04, text, ha="right", va="bottom", alpha=0.8)
    for axes in lowest(found, ROC_ACROSS):
        axes.set_xlabel("false-positive rate", labelpad=2)
    for axes in found[::ROC_ACROSS]:
        axes.set_ylabel("true-positive rate", labelpad=1)
    return figure
