"""Figures of images: contact sheets with a row a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sweeps.figures.style import INCHES, INK, LETTER, LINE, STYLE, TEXT, wrapped

Array = NDArray[np.float64]

LABEL_LETTERS = 30
LARGEST_TILE = 0.62  # inches
MOST_PIXELS = 96  # a side: more are not seen at this size
LEAST_PIXELS = 64  # a side: fewer are repeated, or a viewer of PDF would smooth them


@dataclass(frozen=True)
class Sheet:
    """Images (columns, C, H, W) of one row, with its label and a smaller line below."""

    label: str
    note: str
    images: Array


@STYLE
def contact_sheet(rows: Sequence[Sheet], heads: Sequence[str], name: str) -> Figure:
    """Draw rows of images with one common scale of grey, that of all values in the first row.

    Three channels are colours; of other numbers the mean is shown.
    """
    labels = [wrapped(row.label, LABEL_LETTERS)[:3] for row in rows]
    left = 0.2 + LETTER * max(len(line) for label in labels for line in label)
    left = max(left, 0.2 + LETTER * max(len(row.note) for row in rows))
    columns = max(len(row.images) for row in rows)
    pixels = _fewer(rows[0].images).shape[3]
    share = _gap(pixels) / pixels
    tile = min(LARGEST_TILE, (INCHES - left - 0.1) / (columns * (1 + share)))
    gap = share * tile
    pitch = max(tile + gap, LINE * (1 + max(map(len, labels))) + 0.04)
    top = 0.08 + (LINE if any(heads) else 0.0)
    height = top + pitch * len(rows) + 0.05
    figure = Figure(figsize=(INCHES, height), label=name)
    low, high = float(rows[0].images.min()), float(rows[0].images.max())
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        upper = height - top - place * pitch
        wide = len(row.images) * (tile + gap) - gap
        corner = (left / INCHES, (upper - tile) / height, wide / INCHES, tile / height)
        axes = figure.add_axes(corner)
        axes.axis("off")
        strip = _strip(row.images, low, high)
        axes.imshow(strip, interpolation="none", aspect="auto", resample=False)
        text = "\n".join(label)
        where: dict[str, Any] = {"va": "top", "fontsize": TEXT, "color": INK, "parse_math": False}
        figure.text(0.08 / INCHES, upper / height, text, **where)
        below = (upper - len(label) * LINE) / height
        figure.text(0.08 / INCHES, below, row.note, alpha=0.75, **where)
    look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": TEXT, "color": INK}
    for column, head in enumerate(heads):
        across = (left + column * (tile + gap) + tile / 2) / INCHES
        figure.text(across, (height - 0.03) / height, head, parse_math=False, **look)
    return figure


def _gap(wide: int) -> int:
    """Return the whole pixels between images of that width."""
    return max(1, round(0.14 * wide))


def _fewer(images: Array) -> Array:
    step = -(-max(images.shape[2:]) // MOST_PIXELS)
    return images[:, :, ::step, ::step]


def _strip(images: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Lay images side by side, in RGBA, with transparent gaps."""
    images = _fewer(images)
    times = -(-LEAST_PIXELS // max(images.shape[2:]))
    colours = images if images.shape[1] == 3 else images.mean(1, keepdims=True).repeat(3, 1)  # noqa: PLR2004
    scaled = np.clip((colours - low) / ((high - low) or 1.0), 0, 1)
    between = times * _gap(scaled.shape[3])
    scaled = scaled.repeat(times, 2).repeat(times, 3)
    count, _, tall, wide = scaled.shape
    strip = np.zeros((tall, count * (wide + between) - between, 4), dtype=np.uint8)
    for place in range(count):
        start = place * (wide + between)
        strip[:, start : start + wide, :3] = np.round(255 * scaled[place].transpose(1, 2, 0))
        strip[:, start : start + wide, 3] = 255
    return strip
