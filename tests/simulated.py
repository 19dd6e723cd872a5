"""Every setting of simulated datasets that is refused, with its sentence."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "objects few": ({"objects": 3}, "objects: expected at least 4, got 3"),
    "objects many": ({"objects": 2_000_000}, "objects: expected at most 1000000, got 2000000"),
    "objects type": ({"objects": "many"}, "objects: expected a whole number, got 'many' (text)"),
    "seed below": ({"seed": -1}, "seed: expected at least 0, got -1"),
    "seed above": ({"seed": 2**32}, "seed: expected at most 4294967295, got 4294967296"),
    "seed type": ({"seed": True}, "seed: expected a whole number, got true (a truth value)"),
    "step": (
        {"preprocess": ["sing"]},
        "preprocess[0]: unknown kind 'sing'; did you mean 'sign'? "
        "known: asinh, centre, clip, crop, flux, sign, standardise",
    ),
}
REFUSED_STARS: dict[str, tuple[dict[str, Any], str]] = {
    "size small": ({"size": 16}, "size: expected at least 24, got 16"),
    "size large": ({"size": 65}, "size: expected at most 64, got 65"),
    "bands none": ({"bands": 0}, "bands: expected at least 1, got 0"),
    "bands many": ({"bands": 6}, "bands: expected at most 5, got 6"),
    "galaxies none": ({"galaxies": 0}, "galaxies: expected more than 0, got 0"),
    "galaxies only": ({"galaxies": 1.0}, "galaxies: expected less than 1, got 1.0"),
    "galaxies few": (
        {"galaxies": 0.01, "objects": 50},
        "galaxies: 0.01 of 50 objects are 0 galaxies; each class needs at least 2",
    ),
    "seeing sharp": (
        {"seeing": [1, 3]},
        "seeing: expected [low, high], 2 <= low <= high <= 8, got [1, 3]",
    ),
    "seeing number": (
        {"seeing": 3},
        "seeing: expected [low, high], 2 <= low <= high <= 8, got 3",
    ),
    "radius turned": (
        {"radius": [4, 1]},
        "radius: expected [low, high], 0.5 <= low <= high <= 8, got [4, 1]",
    ),
    "snr three": (
        {"snr": [5, 6, 7]},
        "snr: expected [low, high], 5 <= low <= high <= 1000, got [5, 6, 7]",
    ),
    "neighbours below": ({"neighbours": -0.1}, "neighbours: expected at least 0, got -0.1"),
    "neighbours above": ({"neighbours": 6}, "neighbours: expected at most 5, got 6"),
    "hot pixels below": ({"hot_pixels": -1}, "hot_pixels: expected at least 0, got -1"),
    "hot pixels above": ({"hot_pixels": 51}, "hot_pixels: expected at most 50, got 51"),
    "rays below": ({"cosmic_rays": -1}, "cosmic_rays: expected at least 0, got -1"),
    "rays above": ({"cosmic_rays": 51}, "cosmic_rays: expected at most 50, got 51"),
    "colour below": ({"colour_signal": -1}, "colour_signal: expected at least 0, got -1"),
    "colour above": ({"colour_signal": 11}, "colour_signal: expected at most 10, got 11"),
    "offset below": ({"offset": -1}, "offset: expected at least 0, got -1"),
    "offset above": ({"offset": 4}, "offset: expected at most 3, got 4"),
    "way unknown": (
        {"preprocess": "row"},
        "preprocess: unknown way 'row'; did you mean 'raw'? known: canonical, raw, "
        "or a list of steps",
    ),
    "too large": (
        {"objects": 10_000, "size": 64, "bands": 5},
        "objects: 10,000 images of these settings need 0.8 GiB of memory; at most 6,553, "
        "or smaller images",
    ),
}
REFUSED_SPINS: dict[str, tuple[dict[str, Any], str]] = {
    "size small": ({"size": 7}, "size: expected at least 8, got 7"),
    "size large": ({"size": 65}, "size: expected at most 64, got 65"),
    "temperature infinite": (
        {"temperature": [1, float("inf")]},
        "temperature: expected [low, high], 0.5 <= low <= high <= 10, got [1, inf]",
    ),
    "temperature on one side": (
        {"temperature": [2.3, 3], "objects": 8},
        "temperature: expected a range across T_c = 2.2692, with objects on both sides; "
        "0 of 8 are below",
    ),
    "canonical": ({"canonical": 1}, "canonical: expected true or false, got 1"),
}
SENTENCES = " ".join(
    sentence for table in (REFUSED, REFUSED_STARS, REFUSED_SPINS) for _, sentence in table.values()
)

LOAD = """
import json, sys
from images import load
dataset = load(**json.loads(sys.argv[1]))
print(dataset.image_digest, dataset.label_digest)
"""


def digests_elsewhere(settings: str, cache: str) -> list[str]:
    """Return image and label digest of what another process simulates, with a cache of its own."""
    paths = [os.path.dirname(__file__), *sys.path]  # noqa: PTH120 - a search path is of text
    done = subprocess.run(
        [sys.executable, "-c", LOAD, settings],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "SEEDSWEEP_CACHE": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def coarse_digest(images: NDArray[np.float32]) -> str:
    """Return a digest that another CPU has, too: of thousandths, in which rounding is lost."""
    return hashlib.sha256(np.rint(1000 * images).astype("<i4").tobytes()).hexdigest()[:16]
