"""What every dataset gives: images, and apart from them what only scoring may read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """Images (N, C, H, W) float32, labels (N,) from 0 or None, and named covariates (N,)."""

    name: str
    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    covariates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    description: str = ""

    @cached_property
    def image_digest(self) -> str:
        """Return the SHA-256 of shape and pixels: 64 hex digits, part of every run's identity."""
        return _digest(self.images, "<f4")

    @cached_property
    def label_digest(self) -> str | None:
        """Return the SHA-256 of the labels, None without labels; no part of an identity."""
        return None if self.labels is None else _digest(self.labels, "<i8")

    @property
    def pixels(self) -> NDArray[np.float32]:
        """Return the images as rows, (N, C * H * W)."""
        return self.images.reshape(len(self.images), -1)


def _digest(array: NDArray[np.generic], dtype: str) -> str:
    content = hashlib.sha256(f"{dtype}{array.shape}".encode())
    content.update(np.ascontiguousarray(array, dtype=np.dtype(dtype)).tobytes())
    return content.hexdigest()
