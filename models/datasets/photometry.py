"""What can be measured on a cut-out whatever is on it: flux, size, shape, concentration.

All is measured round a centroid under a Gaussian weight that starts in the middle; images
(N, H, W) have their sky subtracted, and `noise` is the standard deviation of a pixel of it. Nothing
here divides by what noise alone could bring near zero: every value is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Floats = NDArray[np.float64]

WEIGHT = 1.0  # width (sd) of the Gaussian weight, in full widths of the usual seeing
INNER, OUTER = 0.6, 1.8  # radii of the apertures, in the same
ROUNDS, REACH = 6, 3.0  # of the centroid: how often, and how far from the middle at most, pixels


@dataclass(frozen=True)
class Measured:
    """Each (N,): flux in the outer aperture, its share within the inner one, and weighted moments.

    `radius` is the root of the mean square distance under the weight, in pixels; `ellipticity` is
    (a^2 - b^2) / (a^2 + b^2) of the weighted second moments.
    """

    flux: Floats
    concentration: Floats
    radius: Floats
    ellipticity: Floats


def mended(images: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Return images (N, H, W) with masked pixels replaced by the median of their 3 x 3 pixels."""
    found: Floats = np.where(mask, median_filter(images, size=(1, 3, 3), mode="nearest"), images)
    return found


def measure(images: Floats, seeing: float, noise: float) -> Measured:
    """Measure with weights and apertures that follow the usual seeing (full width, pixels)."""
    y, x = centroids(images, WEIGHT * seeing)
    flux = aperture(images, y, x, OUTER * seeing)
    floor = noise * np.sqrt(np.pi) * OUTER * seeing
    inner = aperture(images, y, x, INNER * seeing)
    xx, xy, yy, total = _moments(images, y, x, WEIGHT * seeing)
    weighted = np.maximum(total, noise)
    square = np.clip((xx + yy) / weighted, 0, None)
    stretch = np.hypot(xx - yy, 2 * xy) / np.maximum(np.abs(xx + yy), noise)
    concentration = inner / np.maximum(flux, floor)
    return Measured(flux, concentration, np.sqrt(square), np.minimum(stretch, 1.0))


def centroids(images: Floats, width: float) -> tuple[Floats, Floats]:
    """Return where the light is, row and column (N,), under a weight that follows it.

    Twice the usual step: a Gaussian under a weight of its own width is then found in one.
    """
    middle = (np.array(images.shape[1:]) - 1) / 2
    y, x = (np.full(len(images), centre) for centre in middle)
    for _ in range(ROUNDS):
        down, right = _weights(images.shape[1], y, width), _weights(images.shape[2], x, width)
        rows = np.einsum("nhw,nw->nh", images, right)
        total = np.maximum((rows * down).sum(1), np.finfo(float).tiny)
        away = np.arange(images.shape[1]) - y[:, None], np.arange(images.shape[2]) - x[:, None]
        columns = np.einsum("nhw,nh->nw", images, down)
        steps = (rows * down * away[0]).sum(1), (columns * right * away[1]).sum(1)
        y, x = (
            np.clip(place + 2 * np.clip(step / total, -1, 1), centre - REACH, centre + REACH)
            for place, step, centre in zip((y, x), steps, middle, strict=True)
        )
    return y, x


def aperture(images: Floats, y: Floats, x: Floats, radius: float) -> Floats:
    """Return the flux within a circle; a pixel on its edge counts by how far it reaches in."""
    rows, columns = np.arange(images.shape[1]), np.arange(images.shape[2])
    distance = np.hypot((rows - y[:, None])[:, :, None], (columns - x[:, None])[:, None])
    inside = np.clip(radius + 0.5 - distance, 0, 1)
    flux: Floats = np.einsum("nhw,nhw->n", images, inside)
    return flux


def _weights(side: int, centre: Floats, width: float) -> Floats:
    weights: Floats = np.exp(-0.5 * ((np.arange(side) - centre[:, None]) / width) ** 2)
    return weights


def _moments(
    images: Floats, y: Floats, x: Floats, width: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the weighted sums of light times x^2, xy, y^2 and 1, each (N,)."""
    down, right = _weights(images.shape[1], y, width), _weights(images.shape[2], x, width)
    dy, dx = np.arange(images.shape[1]) - y[:, None], np.arange(images.shape[2]) - x[:, None]
    rows = {power: np.einsum("nhw,nw->nh", images, right * dx**power) for power in (0, 1, 2)}
    return (
        (rows[2] * down).sum(1),
        (rows[1] * down * dy).sum(1),
        (rows[0] * down * dy**2).sum(1),
        (rows[0] * down).sum(1),
    )
