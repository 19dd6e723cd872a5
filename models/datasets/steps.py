"""The steps between raw and training images, a small final class each.

Every step takes images (N, C, H, W) and returns them as float64. Each is a function of its own
image alone, but `standardise`, which first looks at all. A step that moves pixels also moves a mask
of them. To add one: a class, and its place in `Step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from scipy.ndimage import median_filter

from models.settings import Settings, as_kind, mistake

Images = NDArray[np.float64]
Mask = NDArray[np.bool_]
Block = tuple[NDArray[np.int64], NDArray[Any]]  # each image's number in its file, the images
Blocks = Callable[[], Iterator[Block]]  # all of them in order, as often as asked

GAUSSIAN_MAD = 1.482602218505602  # 1 / normal quantile of 3/4: MAD of a normal is sd / this
GAUSSIAN_MEAN = 1.2533141373155001  # sqrt(pi / 2): mean absolute deviation of a normal is sd / this


class UnfitError(Exception):
    """An image that a step cannot take: its place in the block, and why."""

    def __init__(self, place: int | None, sentence: str) -> None:
        """Keep both; without a place it is about all images."""
        self.place, self.sentence = place, sentence
        super().__init__(sentence)


def _as_size(value: Any) -> Any:
    sides = [value, value] if isinstance(value, int) else value
    whole = isinstance(sides, list | tuple) and all(
        isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides
    )
    if not whole or len(sides) != 2:  # noqa: PLR2004 - height and width
        text = "expected a number of pixels or [height, width], each at least 1"
        raise mistake(text)
    return tuple(sides)


@final
class Crop(Settings):
    """The central rectangle; where it cannot be central, one pixel nearer to the first."""

    kind: Literal["crop"] = "crop"
    size: Annotated[tuple[int, int], BeforeValidator(_as_size)]

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images (N, C, *size)."""
        (height, width), sides = self.size, images.shape[2:]
        if height > sides[0] or width > sides[1]:
            reason = f"{height} x {width} pixels cannot be cut from {sides[0]} x {sides[1]}"
            raise UnfitError(None, reason)
        return self._cut(images).astype(np.float64)

    def move(self, images: NDArray[Any], mask: Mask) -> Mask:
        """Return the mask (N, C, H, W) of the images that `apply` returns for these."""
        del images
        return self._cut(mask)

    def _cut(self, images: NDArray[Any]) -> NDArray[Any]:
        (height, width), sides = self.size, images.shape[2:]
        top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
        return images[:, :, top : top + height, left : left + width]


@final
class Centre(Settings):
    """Shift by whole pixels, so that the flux's centroid is in the middle; zeros come in.

    The centroid is over all channels and over positive pixels: noise below zero would move it, even
    out of the image.
    """

    kind: Literal["centre"] = "centre"

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape."""
        return _shifted(images.astype(np.float64), *self._shift(images))

    def move(self, images: NDArray[Any], mask: Mask) -> Mask:
        """Return the mask (N, C, H, W) of the images that `apply` returns for these."""
        moved: Mask = _shifted(mask, *self._shift(images))
        return moved

    def _shift(self, images: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how far each image goes down and to the right, in pixels."""
        flux = np.maximum(images, 0).sum(1, dtype=np.float64)  # (N, H, W)
        total = flux.sum((1, 2))
        _refuse(total <= 0, "has no positive pixel, hence no centroid")
        height, width = flux.shape[1:]
        rows = flux.sum(2) @ np.arange(height) / total
        columns = flux.sum(1) @ np.arange(width) / total
        down, right = (height - 1) / 2 - rows, (width - 1) / 2 - columns
        return np.rint(down).astype(np.int64), np.rint(right).astype(np.int64)


def _shifted(
    images: NDArray[Any], down: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[Any]:
    shifted = np.zeros_like(images)
    height, width = images.shape[2:]
    for image, out, dy, dx in zip(images, shifted, down, right, strict=True):
        out[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)] = image[
            :, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)
        ]
    return shifted


@final
class Flux(Settings):
    """Divide each image by its sum, its L2 norm or its largest pixel, over all channels."""

    kind: Literal["flux"] = "flux"
    norm: Literal["sum", "l2", "max"] = "sum"

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape, of norm 1."""
        rows = images.reshape(len(images), -1).astype(np.float64)
        if self.norm == "sum":
            size, what = rows.sum(1), "sum"
        elif self.norm == "l2":
            size, what = np.sqrt(np.square(rows).sum(1)), "L2 norm"
        else:
            size, what = rows.max(1), "largest pixel"
        _refuse(size <= 0, f"cannot be divided by its {what}, which is not positive")
        divided: Images = (rows / size[:, None]).reshape(images.shape)
        return divided


@final
class Clip(Settings):
    """Replace defective pixels, hot or hit by a cosmic ray, by the median of their 3 x 3 pixels.

    Defective is what lies more than `sigma` robust standard deviations above that median. The
    deviation is that of all pixels from their medians, per image and channel: 1.4826 times the
    median absolute deviation or, where that is zero, 1.2533 times the mean one (Iglewicz and
    Hoaglin 1993, "How to detect and handle outliers"). At the border the outermost pixel repeats.
    A line that is one pixel wide looks like a row of defects: look at the images afterwards.
    """

    kind: Literal["clip"] = "clip"
    sigma: float = Field(default=5.0, gt=0)

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape."""
        around = median_filter(images.astype(np.float64), size=(1, 1, 3, 3), mode="nearest")
        excess = images - around
        deviation = np.abs(excess - np.median(excess, (2, 3), keepdims=True))
        scale = GAUSSIAN_MAD * np.median(deviation, (2, 3), keepdims=True)
        plain = GAUSSIAN_MEAN * deviation.mean((2, 3), keepdims=True)
        scale = np.where(scale > 0, scale, plain)
        clean: Images = np.where(excess > self.sigma * scale, around, images.astype(np.float64))
        return clean


@final
class Asinh(Settings):
    """y = softening * asinh(x / softening): linear below the softening, logarithmic above.

    Lupton, Gunn and Szalay 1999, Astronomical Journal 118, 1406: asinh magnitudes.
    """

    kind: Literal["asinh"] = "asinh"
    softening: float = Field(default=0.1, gt=0)

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape."""
        return self.softening * np.arcsinh(images.astype(np.float64) / self.softening)


@final
class Sign(Settings):
    """Multiply each image by the sign of its sum, 1 where that is zero.

    Where an image and its negative mean the same, as in spins without a field, one of them is left.
    """

    kind: Literal["sign"] = "sign"

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape, of a sum that is not negative."""
        sums = images.sum((1, 2, 3), dtype=np.float64)
        signed: Images = images * np.where(sums < 0, -1.0, 1.0)[:, None, None, None]
        return signed


@final
class Standardise(Settings):
    """Subtract the mean of the dataset's pixels and divide by their standard deviation."""

    kind: Literal["standardise"] = "standardise"
    over: Literal["all", "channel"] = "all"

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape, of mean 0 and standard deviation 1 together."""
        numbers = np.arange(len(images))
        return self.fit(lambda: iter([(numbers, images)])).apply(images)

    def fit(self, blocks: Blocks) -> Shift:
        """Look at all images twice; the numbers do not depend on how they are cut into blocks."""
        mean = self._mean(blocks, lambda images: images)
        variance = self._mean(blocks, lambda images: np.square(images - mean))
        if (variance <= 0).any():
            raise UnfitError(None, "all pixels are equal, so there is no deviation to divide by")
        return Shift(mean, np.sqrt(variance))

    def _mean(self, blocks: Blocks, of: Callable[[Images], Images]) -> Images:
        """Return the mean over all images, (1, C or 1, 1, 1); sums of images are added exactly."""
        sums: list[Images] = []
        for _, images in blocks():
            values = of(images.astype(np.float64))
            sums.append(values.reshape(*values.shape[:2], -1).sum(2))
            pixels = values.shape[2] * values.shape[3]
        totals = np.concatenate(sums)  # (N, C)
        count = len(totals) * pixels
        means = np.array([math.fsum(channel) / count for channel in totals.T])
        if self.over == "all":
            means = np.full(1, math.fsum(totals.ravel()) / (count * totals.shape[1]))
        return means[None, :, None, None]


@final
@dataclass(frozen=True)
class Shift:
    """What `standardise` found: mean and deviation, each (1, C or 1, 1, 1)."""

    mean: Images
    deviation: Images

    def apply(self, images: NDArray[Any]) -> Images:
        """Return images of the same shape."""
        result: Images = (images.astype(np.float64) - self.mean) / self.deviation
        return result


Step = Annotated[
    Annotated[
        Crop | Centre | Flux | Clip | Asinh | Sign | Standardise, Field(discriminator="kind")
    ],
    BeforeValidator(as_kind),
]
Steps = Annotated[tuple[Step, ...], Field(strict=False)]


def _refuse(wrong: NDArray[np.bool_], sentence: str) -> None:
    if wrong.any():
        raise UnfitError(int(wrong.argmax()), sentence)
