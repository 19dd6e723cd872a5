"""Raw images become training images: a list of steps, a few images at a time.

Between the steps images (N, C, H, W) are float64; only the last result is rounded to float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.datasets.base import BadData, chunks
from models.datasets.steps import (
    Block,
    Blocks,
    Centre,
    Crop,
    Mask,
    Shift,
    Standardise,
    Step,
    UnfitError,
)


def through(steps: Sequence[Step | Shift], blocks: Blocks) -> Blocks:
    """Return the blocks as they come out of the steps, as float32.

    Raises BadData with the step's place and the image's number.
    """
    for place, step in enumerate(steps):
        blocks = _through(f"preprocess[{place}]", step, blocks)

    def rounded() -> Iterator[Block]:
        for numbers, images in blocks():
            with np.errstate(over="ignore"):
                small = images.astype(np.float32)
            wrong = ~np.isfinite(small).all((1, 2, 3))
            if wrong.any():
                number = numbers[wrong.argmax()]
                text = f"image {number} (counted from 0) is not finite afterwards"
                raise BadData("preprocess", text)
            yield numbers, small

    return rounded


def preprocess(steps: Sequence[Step], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images (N, C, H, W) that are in memory as they come out of the steps."""
    blocks = _blocks(images)
    return np.concatenate([part for _, part in through(steps, blocks)()]) if steps else images


def fitted(steps: Sequence[Step], images: NDArray[np.float32]) -> list[Step | Shift]:
    """Return the steps as they treat raw images (N, C, H, W), ready for others.

    So that `standardise` takes new images by the mean and deviation of these.
    """
    ready: list[Step | Shift] = []
    blocks = _blocks(images)
    for place, step in enumerate(steps):
        where = f"preprocess[{place}]"
        ready.append(_fitted(where, step, blocks))
        blocks = _through(where, ready[-1], blocks)
    return ready


def moved(steps: Sequence[Step], images: NDArray[np.float32], mask: Mask) -> Mask:
    """Return the mask of raw images (N, C, H, W) as it lies on the images that `preprocess` gives.

    Pixels that come in from outside are not masked.
    """
    blocks = _blocks(images)
    for place, step in enumerate(steps):
        if isinstance(step, Crop | Centre):
            parts = [step.move(part, mask[numbers]) for numbers, part in blocks()]
            mask = np.concatenate(parts)
        blocks = _through(f"preprocess[{place}]", step, blocks)
    return mask


def _blocks(images: NDArray[np.float32]) -> Blocks:
    def run() -> Iterator[Block]:
        start = 0
        for part in chunks(images):
            yield np.arange(start, start + len(part)), part
            start += len(part)

    return run


def _fitted(where: str, step: Step | Shift, blocks: Blocks) -> Step | Shift:
    try:
        return step.fit(blocks) if isinstance(step, Standardise) else step
    except UnfitError as unfit:
        raise BadData(where, unfit.sentence) from None


def _through(where: str, step: Step | Shift, blocks: Blocks) -> Blocks:
    ready = _fitted(where, step, blocks)

    def run() -> Iterator[Block]:
        for numbers, images in blocks():
            try:
                result = ready.apply(images)
            except UnfitError as unfit:
                which = "" if unfit.place is None else f"image {numbers[unfit.place]} "
                which += "(counted from 0) " if which else ""
                raise BadData(where, f"{which}{unfit.sentence}") from None
            yield numbers, result

    return run
