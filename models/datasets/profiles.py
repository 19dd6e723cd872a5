"""Light of stars and galaxies on pixels, made where a convolution is a product: in Fourier space.

An image is source * point spread * pixel, looked at in the middles of the pixels, so its transform
is a product of four: Sersic's (a table, to 3e-5), Moffat's (a closed form), the pixel's sinc and a
phase for the place. Nothing is sampled near a galaxy's cusp, so nothing need be oversampled there.
Two things remain: frequencies above twice the pixels' own limit are left out, below 1e-4 of the
flux in any pixel where the seeing is 2 pixels or more, and what lies more than 2.5 cut-outs away
comes in again from the other side, below 5e-6 of the flux a pixel for radii to a sixth of the size.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import gammaincinv, gammaln, j0

Floats = NDArray[np.float64]

BETA = 3.5  # of the Moffat profile; half-integers have an elementary transform
FIELD = 3  # sides of the periodic field, in cut-outs
AT_ONCE = 2**19  # frequencies worked on together; the same for every call, so are the bits
FLATTEST, STEEPEST = 0.8, 4.0  # Sersic indices
LARGEST_Q = 121.0  # frequency times radius: up to 13 pixels
NODES, FINE = 200, 4096  # of the table: computed, interpolated


@dataclass(frozen=True)
class Sources:
    """Point sources (radius 0) and galaxies, each array (M,); places and lengths in pixels.

    `x` and `y` count from the middle of the first pixel; `seeing` is the point spread's full width
    at half maximum. `radius` is along the major axis and holds half of the light of a galaxy of
    Sersic index `index`; `ratio` is minor to major axis, `angle` goes from x towards y, in radians.
    """

    x: Floats
    y: Floats
    seeing: Floats
    index: Floats
    radius: Floats
    ratio: Floats
    angle: Floats

    def __getitem__(self, rows: Any) -> Sources:
        """Return some of them."""
        return Sources(**{name: values[rows] for name, values in vars(self).items()})


def render(sources: Sources, size: int) -> Floats:
    """Return images (M, size, size) of sources of flux 1; what lies outside is not in them."""
    count = len(sources.x)
    images = np.empty((count, size, size))
    step = max(1, AT_ONCE // (2 * (FIELD * size) ** 2))
    for start in range(0, count, step):
        part = slice(start, start + step)
        images[part] = _render(sources[part], size)
    return images


def _render(sources: Sources, size: int) -> Floats:
    side = FIELD * size
    half = side // 2 + 1
    # Whole numbers of waves in the field; on pixels, a wave m looks like the wave m - side.
    waves_y = np.concatenate([np.arange(side), np.arange(side) - side])
    waves_x = np.concatenate([np.arange(half), np.arange(half) - side])
    ky, kx = (2 * np.pi / side * waves for waves in (waves_y, waves_x))
    amplitude = _amplitude(sources, ky[:, None], kx)
    rows = amplitude * np.exp(-1j * ky * sources.y[:, None])[:, :, None]
    rows = (rows[:, :side] + rows[:, side:]) * np.exp(-1j * kx * sources.x[:, None])[:, None]
    folded = rows[:, :, :half] + rows[:, :, half:]
    image: Floats = np.fft.irfft2(folded, s=(side, side), axes=(1, 2))[:, :size, :size]
    return image


def _amplitude(sources: Sources, ky: Floats, kx: Floats) -> Floats:
    """Return the transform but for the place, (M, frequencies along y, along x)."""
    pixel = np.sinc(ky / (2 * np.pi)) * np.sinc(kx / (2 * np.pi))
    length = np.sqrt(ky**2 + kx**2)
    found = pixel * moffat_transform(length * moffat_scale(sources.seeing)[:, None, None])
    extended = np.flatnonzero(sources.radius > 0)
    if len(extended):
        some = sources[extended]
        cos, sin, flat = np.cos(some.angle), np.sin(some.angle), some.ratio**2
        xx, yy = cos**2 + flat * sin**2, sin**2 + flat * cos**2
        xy = 2 * cos * sin * (1 - flat)
        a, b, c = ((some.radius**2 * term)[:, None, None] for term in (xx, yy, xy))
        square = a * kx**2 + b * ky**2 + c * (kx * ky)
        found[extended] *= sersic_transform(np.sqrt(np.maximum(square, 0)), some.index)
    return found


def moffat_scale(seeing: Floats) -> Floats:
    """Return the length a of (1 + r^2 / a^2)^-beta of this full width at half maximum."""
    scale: Floats = seeing / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    return scale


def moffat_transform(x: Floats) -> Floats:
    """Return the transform at x = frequency times scale: 2 (x/2)^v K_v(x) / Gamma(v), v = beta - 1.

    With beta = 7/2 it is (1 + x + x^2 / 3) e^-x.
    """
    value: Floats = (1 + x * (1 + x / 3)) * np.exp(-x)
    return value


def sersic_b(index: float | Floats) -> Floats:
    """Return b_n, for which the half-light radius of exp(-b (r/R)^(1/n)) is R (Ciotti 1991)."""
    return np.asarray(gammaincinv(2 * np.asarray(index), 0.5))


def sersic_transform(q: Floats, index: Floats) -> Floats:
    """Return the transform (M, ...) at q = frequency times half-light radius, for indices (M,)."""
    spline, nodes = _table()
    rows = spline(index)  # (M, FINE), even in the fourth root of q
    place = np.sqrt(np.sqrt(q))
    place *= (FINE - 1) / nodes
    below = np.minimum(place.astype(np.intp), FINE - 2)
    share = place - below
    below += (np.arange(len(index)) * FINE).reshape(-1, *[1] * (q.ndim - 1))
    flat = rows.ravel()
    low: Floats = flat[below]
    found: Floats = low + share * (flat[below + 1] - low)
    return found


@functools.cache
def _table() -> tuple[CubicSpline, float]:
    """Return a spline over the index of rows over q, and the last place of a row.

    The transform is the mean of J0(q r), with t = b r^(1/n) distributed as Gamma(2n): written with
    t = u^2, a sum over even steps of u, exact beyond the digits that are used.
    """
    last = np.sqrt(np.sqrt(LARGEST_Q))
    q = np.linspace(0, last, NODES) ** 4
    u = np.linspace(0, 7, 3001)[1:]
    indices = np.linspace(FLATTEST, STEEPEST, 17)
    rows = []
    for n in indices:
        weight = np.exp((4 * n - 1) * np.log(u) - u**2 - gammaln(2 * n))
        weight /= weight.sum()
        radius = (u**2 / sersic_b(n)) ** n
        rows.append((j0(q[:, None] * radius) * weight).sum(1))
    fine = CubicSpline(np.linspace(0, last, NODES), np.array(rows), axis=1)
    return CubicSpline(indices, fine(np.linspace(0, last, FINE)), axis=0), float(last)
