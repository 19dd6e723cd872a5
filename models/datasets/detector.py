"""From light to pixels as a detector gives them: sky, shot noise, read-out, defective pixels.

Everything is in electrons above the sky.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import chunks

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SKY = 400.0  # electrons a pixel
READ_OUT = 5.0  # standard deviation
SKY_NOISE = float(np.sqrt(SKY + READ_OUT**2))
FULL_WELL = 60_000.0  # a hot pixel is full, whatever falls on it
FAINTEST_RAY, BRIGHTEST_RAY = 2_000.0, 20_000.0  # electrons that a cosmic ray leaves in a pixel
LONGEST_RAY = 6  # pixels


def flux_at(snr: float, profile: Floats) -> float:
    """Return the flux at which a source of this profile (H, W) has a signal-to-noise ratio.

    Of the best linear estimate of its flux where the sky dominates, F / sqrt(F + V / sum(p^2)):
    V is the sky's variance; the first term is the source's own shot noise.
    """
    other = SKY_NOISE**2 / float(np.square(profile).sum())
    return float(snr**2 + np.sqrt(snr**4 + 4 * snr**2 * other)) / 2


def expose(light: Floats, random: np.random.Generator) -> Floats:
    """Return pixels above the sky, for light of the same shape: Poisson counts and read-out."""
    pixels = np.empty_like(light)
    for part, source in zip(chunks(pixels), chunks(light), strict=True):
        part[:] = random.poisson(SKY + np.maximum(source, 0))
    for part in chunks(pixels):
        part[:] += random.normal(0, READ_OUT, part.shape)
    np.minimum(pixels, FULL_WELL, out=pixels)
    pixels -= SKY
    return pixels


def defects(
    pixels: Floats,
    hot: float,
    rays: float,
    hot_random: np.random.Generator,
    ray_random: np.random.Generator,
) -> tuple[Floats, Mask]:
    """Return pixels (N, C, H, W) with defects, and where they are.

    `hot` and `rays` are mean numbers of hot pixels and cosmic rays in each image and channel; rays
    are straight tracks, one pixel wide, of 1 to 6 pixels.
    """
    places = _sites(pixels.shape, hot, hot_random)
    tracks, charges = _rays(pixels.shape, rays, ray_random)
    found, mask = pixels.copy(), np.zeros(pixels.shape, dtype=bool)
    np.add.at(found, tracks, charges)
    np.minimum(found, FULL_WELL - SKY, out=found)
    found[places] = FULL_WELL - SKY
    mask[tracks] = mask[places] = True
    return found, mask


def _sites(
    shape: tuple[int, ...], rate: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], ...]:
    """Return image, channel, row and column of Poisson many places."""
    counts = random.poisson(rate, shape[0] * shape[1])
    image, channel = np.divmod(np.repeat(np.arange(len(counts)), counts), shape[1])
    row, column = (random.integers(0, side, len(image)) for side in shape[2:])
    return image, channel, row, column


def _rays(
    shape: tuple[int, ...], rate: float, random: np.random.Generator
) -> tuple[tuple[NDArray[np.int64], ...], Floats]:
    """Return the pixels that rays hit, and what they leave in each."""
    image, channel, row, column = _sites(shape, rate, random)
    angle = random.uniform(0, np.pi, len(image))
    length = random.integers(1, LONGEST_RAY + 1, len(image))
    low, high = np.log(FAINTEST_RAY), np.log(BRIGHTEST_RAY)
    charge = np.exp(random.uniform(low, high, (len(image), LONGEST_RAY)))
    # A step of 1 along the longer axis, so that a track has no gap and no pixel twice.
    stride = np.maximum(np.abs(np.sin(angle)), np.abs(np.cos(angle)))
    along = np.arange(LONGEST_RAY)
    rows = np.rint(row[:, None] + along * (np.sin(angle) / stride)[:, None]).astype(np.int64)
    columns = np.rint(column[:, None] + along * (np.cos(angle) / stride)[:, None]).astype(np.int64)
    hit = (along < length[:, None]) & (rows < shape[2]) & (columns >= 0) & (columns < shape[3])
    ray, _ = np.nonzero(hit)
    return (image[ray], channel[ray], rows[hit], columns[hit]), charge[hit]
