"""What every dataset gives: images, and apart from them what only scoring may read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 4 * 2**20  # what is worked on at a time: images may be more than fits in memory


class BadData(Exception):  # noqa: N818 - what it is, in the words of the study's mistakes
    """Data that cannot be used: the setting that names it, and a sentence that says why."""

    def __init__(self, setting: str, sentence: str) -> None:
        """Keep both: `setting` is a place below the dataset's settings, such as `classes[1]`."""
        self.setting, self.sentence = setting, sentence
        super().__init__(f"{setting}: {sentence}")


@dataclass(frozen=True)
class Dataset:
    """Images (N, C, H, W) float32, labels (N,) from 0 or None, and named covariates (N,).

    The images may lie in a file that is mapped into memory; `chunks` goes through them in parts.
    `mask` (N, C, H, W) is true where a pixel is known to be defective, None where nobody knows.
    `scalar` names the covariate that is this domain's own cheap answer, None where there is none.
    """

    name: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    covariates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    description: str = ""
    mask: NDArray[np.bool_] | None = None
    scalar: str | None = None

    @cached_property
    def image_digest(self) -> str:
        """Return the SHA-256 of shape and pixels: 64 hex digits, part of every run's identity."""
        return _digest(self.images, "<f4")

    @cached_property
    def label_digest(self) -> str | None:
        """Return the SHA-256 of the labels, None without labels; no part of an identity."""
        return None if self.labels is None else _digest(self.labels, "<i8")

    @property
    def own_scalar(self) -> tuple[str, NDArray[np.float64]] | None:
        """Return the name and values (N,) of the domain's own scalar, None where there is none."""
        return None if self.scalar is None else (self.scalar, self.covariates[self.scalar])

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Return the images as rows, (N, C * H * W)."""
        return self.images.reshape(len(self.images), -1)


def chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array's rows in order, a few megabytes at a time."""
    step = rows_at_a_time(array.nbytes // max(1, len(array)))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def rows_at_a_time(row_bytes: int) -> int:
    """Return how many rows of so many bytes are worked on at a time."""
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def ink(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return each image's sum of pixels, (N,)."""
    total: NDArray[np.float64] = images.reshape(len(images), -1).sum(1, dtype=np.float64)
    return total


def _digest(array: NDArray[np.generic], dtype: str) -> str:
    content = hashlib.sha256(f"{dtype}{array.shape}".encode())
    for part in chunks(array):
        content.update(np.ascontiguousarray(part, dtype=np.dtype(dtype)).tobytes())
    return content.hexdigest()
