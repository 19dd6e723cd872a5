"""The gallery of divergences: of two shapes drawn apart, as tables, JSON and figures.

Importing this imports torch and matplotlib, which takes seconds: the command does so when called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from models.exhibits import CONSTANT, EXACT, HALVES, MIXTURE, PEAKS, ROWS, WIDTHS, Curve
from models.exhibits import exhibits as _exhibits
from models.train import quiet_machine
from sweeps.figures import gallery as figures
from sweeps.figures import svg
from sweeps.folder.storage import write_whole
from sweeps.look import WIDE, Look
from sweeps.look import write as _print
from sweeps.mistakes import Refused
from sweeps.pictures.base import as_csv
from sweeps.terminal import PLAIN

Drawing = Callable[[Sequence[Curve]], Figure]

DRAWINGS: dict[str, Drawing] = {
    "lines": figures.lines,
    "rows": figures.rows,
    "peaks": figures.peaks,
}
LINES_AT = (-2.0, -0.5, 0.0, 0.5, 2.0)
GAUSSIANS_AT = (0.5, 2.0)
ROWS_AT = 1.0
CODES_AT = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
SHORT = {"kl_aggregate": "KL", "js": "JS", "wasserstein p=1": "Wasserstein 1"}
CODE = {HALVES: "half to each", CONSTANT: "one + m^2/2s^2", MIXTURE: "mixture"}
MANY_DIGITS = 100.0  # from here on decimals say nothing
NOTES = {
    "lines": "Shapes that do not overlap have an infinite KL and a JS of log 2, however far apart "
    "they are: neither says whether a step went the right way, so JS has no gradient. Wasserstein "
    "is what it costs to move one onto the other: it falls with every step nearer, and its "
    "gradient is the way there.",
    "rows": "Narrow Gaussians come near the lines. JS has less than 1 % of its steepest gradient "
    "left from 7 widths on; the pull of KL grows without bound. mmd goes flat as well, since its "
    "kernels are as wide as the prior; wasserstein, sinkhorn and energy keep pulling.",
    "peaks": "Half of KL to each of two peaks is KL to one Gaussian between them plus the constant "
    "m^2/2s^2: it pulls every code to the middle. Only KL to the mixture itself has a valley at "
    "each peak.",
}


def curves() -> list[Curve]:
    """Compute every curve, on one thread: the same bits each time."""
    with quiet_machine():
        return list(_exhibits())


def as_json(shown: Sequence[Curve]) -> dict[str, Any]:
    """Return the curves and what to take from them; a number is null where there is none."""
    listed = [
        {
            "pair": one.pair,
            "width": one.width,
            "divergence": one.divergence,
            "source": one.source,
            "theta": one.theta.tolist(),
            "value": [_number(value) for value in one.value],
            "gradient": [_number(value) for value in one.gradient],
        }
        for one in shown
    ]
    return {"curves": listed, "peaks": {"m": PEAKS.m, "s": PEAKS.s}, "notes": list(NOTES.values())}


def _number(value: float) -> float | str | None:
    """Return what JSON can hold: it has no infinity."""
    if math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else "infinite"


def make_room(folder: Path) -> None:
    """Make the folder, before anything is computed for it; raises Refused where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise _unwritable(folder, failure) from None


def write(shown: Sequence[Curve], folder: Path) -> list[Path]:
    """Write each figure as SVG and PNG, and all numbers as gallery.csv; return the paths.

    Raises Refused where the folder cannot be written.
    """
    written = []
    try:
        for name, data in _files(shown):
            write_whole(folder / name, data)
            written.append(folder / name)
    except OSError as failure:
        raise _unwritable(folder, failure) from None
    return written


def _files(shown: Sequence[Curve]) -> Iterator[tuple[str, bytes]]:
    yield "gallery.csv", as_csv(list(_table(shown)))
    for name, draw in DRAWINGS.items():
        figure = draw(shown)
        yield f"{name}.svg", svg.alone(svg.svg(figure)).encode()
        yield f"{name}.png", svg.png(figure)


def _unwritable(folder: Path, failure: OSError) -> Refused:
    reason = f"{folder}: cannot be written: {failure.strerror or failure}"
    return Refused([f"{reason}; choose another with --out"])


def _table(shown: Sequence[Curve]) -> Iterator[dict[str, Any]]:
    for one in shown:
        kind = {name: getattr(one, name) for name in ("pair", "width", "divergence", "source")}
        for theta, value, gradient in zip(one.theta, one.value, one.gradient, strict=True):
            numbers = {"value": value, "gradient": None if math.isnan(gradient) else gradient}
            yield {**kind, "theta": theta, **numbers}


def print_gallery(shown: Sequence[Curve], console: Console) -> None:
    """Print the tables, each with what a reader should take from it."""
    look = Look.of(console)
    found = {(one.pair, one.width, one.divergence, one.source): one for one in shown}
    _head(console, look, "Two parallel lines at a distance theta: value, and gradient by theta")
    rows = [
        [f"{theta:g}", *_both(theta, *(found["lines", 0.0, name, "formula"] for name in SHORT))]
        for theta in LINES_AT
    ]
    _rows(console, look, ["theta", *_pairs(SHORT.values())], rows)
    _note(console, look, "lines")
    _head(console, look, "Two Gaussians of one width, drawn apart by theta")
    rows = [
        [f"{width:g}", f"{theta:g}", *_both(theta, *_exact(found, width))]
        for width in WIDTHS
        for theta in GAUSSIANS_AT
    ]
    _rows(console, look, ["width", "theta", *_pairs(SHORT.values())], rows)
    _head(console, look, f"The same by the rows of a study, on 64 codes at theta = {ROWS_AT:g}")
    rows = []
    for name in ROWS:
        seen = [found["gaussians", width, name, "row"] for width in WIDTHS]
        numbers = _both(ROWS_AT, *seen, found["lines", 0.0, name, "formula"])
        rows += [[name, "value", *numbers[::2]], ["", "gradient", *numbers[1::2]]]
    heads = ["divergence", "width", *(f"{width:g}" for width in WIDTHS), "lines"]
    _rows(console, look, heads, rows, texts=2)
    _note(console, look, "rows")
    title = f"KL of a code of width {PEAKS.s:g} from two peaks at -{PEAKS.m:g} and {PEAKS.m:g}"
    _head(console, look, f"{title}, width {PEAKS.s:g}")
    seen = [one for name in CODE for one in shown if (one.pair, one.divergence) == ("peaks", name)]
    rows = [[f"{place:g}", *_both(place, *seen)] for place in CODES_AT]
    _rows(console, look, ["code", *_pairs(CODE.values())], rows)
    _note(console, look, "peaks")


def _exact(found: dict[Any, Curve], width: float) -> list[Curve]:
    return [found["gaussians", width, name, "formula"] for name in EXACT]


def _pairs(names: Any) -> list[str]:
    return [head for name in names for head in (name, "gradient")]


def _both(theta: float, *chosen: Curve) -> list[str]:
    """Return value and gradient of each curve at theta, one after the other."""
    places = [int(np.flatnonzero(one.theta == theta)[0]) for one in chosen]
    return [
        _text(numbers[place])
        for one, place in zip(chosen, places, strict=True)
        for numbers in (one.value, one.gradient)
    ]


def _text(value: float) -> str:
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "infinite"
    rounded = round(value, 0 if abs(value) >= MANY_DIGITS else 3) + 0.0  # no -0.000
    return f"{rounded:.0f}" if abs(value) >= MANY_DIGITS else f"{rounded:.3f}"


def _head(console: Console, look: Look, title: str) -> None:
    _print(console, look, look.text(title, "bold"))


def _rows(
    console: Console,
    look: Look,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: int = 0,
) -> None:
    table = Table(
        box=box.SIMPLE_HEAD if look.encoding.startswith("utf") else PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold" if look.styled else "",
    )
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(look.text, row))
    # Where the terminal is narrower, lines run over: no number is cut off.
    _print(console, replace(look, width=WIDE), table)
    _print(console, look, Text())


def _note(console: Console, look: Look, name: str) -> None:
    listing = Table.grid(Column(overflow="fold"))
    listing.add_row(look.text(NOTES[name]))
    _print(console, look, listing)
    _print(console, look, Text())
