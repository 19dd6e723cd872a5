"""A part to train on and a part to score on: by object, without labels, the same for all seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import Dataset


def training_rows(dataset: Dataset, share: float) -> NDArray[np.int64]:
    """Return the places of the images to train on, ascending: a share, drawn by the image digest.

    The digest is that of the images, so neither labels nor seeds move an object to the other part.
    """
    count = len(dataset.images)
    generator = np.random.default_rng(int(dataset.image_digest[:16], 16))
    drawn: NDArray[np.int64] = np.sort(generator.permutation(count)[: training_size(count, share)])
    return drawn


def training_size(count: int, share: float) -> int:
    """Return how many of so many images are trained on: at least one, and one less than all."""
    return min(max(1, round(share * count)), count - 1)
