"""Do defects vanish? Hot pixels at known sites, and what a reconstruction leaves of them.

A hot pixel is one pixel wide and saturated, as defects of a CCD and hits by cosmic rays are. A
narrow code has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

NAMES = ("hot_suppression", "elsewhere_error")
KEY = 0x407  # of the stream that draws sites: the same for every seed and cell of a study
DARK = 0.5  # of the way up to saturation: brighter pixels hide what is put there

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Numbers = dict[str, float | None]
Map = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Defects:
    """Images (M, C, H, W) as they are and with hot pixels, and where those are, (M, C, H, W)."""

    clean: Floats
    noisy: Floats
    sites: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return that of one image."""
        return tuple(self.clean.shape[1:])


def with_defects(images: Floats, count: int, level: float) -> Defects:
    """Put `count` hot pixels into each of images (M, C, H, W), the same ones every time.

    Their value is `level` times the largest of all the images. Sites are drawn among the pixels of
    an image that lie less than halfway between its least value and that; an image with fewer has
    fewer.
    """
    hot = np.float32(level * float(images.max()))
    generator = np.random.default_rng(np.random.SeedSequence([KEY, count]))
    order = generator.random(images.shape).reshape(len(images), -1)
    rows = images.reshape(len(images), -1)
    least = rows.min(axis=1, keepdims=True)
    order[rows >= least + DARK * (hot - least)] = np.inf
    chosen = np.argsort(order, axis=1)[:, :count]
    places = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(places, chosen, np.isfinite(np.take_along_axis(order, chosen, 1)), axis=1)
    sites = places.reshape(images.shape)
    noisy = np.where(sites, hot, images).astype(np.float32)
    return Defects(images, noisy, sites)


def removal(made: Floats, defects: Defects) -> Numbers:
    """Return what images (M, ...), made from the noisy ones, have of the defects and elsewhere.

    `hot_suppression` is the median over the sites of 1 - |made - clean| / |noisy - clean|: 1 where
    the true value is back, 0 where the defect is as it was, less where it is worse.
    `elsewhere_error` is the root of the mean square of made - clean over all other pixels. None
    where there are none of these, or where a value is not finite.
    """
    back = made.reshape(defects.clean.shape).astype(np.float64)
    if not np.isfinite(back).all():
        return dict.fromkeys(NAMES)
    error = np.abs(back - defects.clean)
    sites = defects.sites
    put = np.abs(defects.noisy.astype(np.float64) - defects.clean)[sites]
    left = error[~sites]
    return {
        "hot_suppression": float(np.median(1 - error[sites] / put)) if len(put) else None,
        "elsewhere_error": float(np.sqrt(np.mean(left**2))) if len(left) else None,
    }


def denoising_of(encode: Map, decode: Map, defects: Defects) -> Numbers:
    """Return the numbers of NAMES for a member that encodes rows (M, pixels) and decodes codes."""
    return removal(decode(encode(defects.noisy.reshape(len(defects.noisy), -1))), defects)


def filtered(images: Floats) -> Floats:
    """Return images (M, C, H, W) after a 3x3 median filter, edges repeated: the usual remedy."""
    made: Floats = median_filter(images, size=(1, 1, 3, 3), mode="nearest")
    return made
