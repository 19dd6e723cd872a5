"""New images, read and preprocessed as those of a study were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.datasets import DatasetSettings
from models.datasets.base import BadData
from models.datasets.preprocess import fitted
from models.datasets.simulated import Simulated
from models.datasets.source import DataFile, Source, all_of, by, check_shape
from models.datasets.steps import Shift, Standardise, Step

OF_ITS_OWN = {"path", "classes", "labels", "label", "covariates", "preprocess"}


@dataclass(frozen=True)
class Unseen:
    """Images (M, C, H, W) as a trained member takes them, and the file of each where it has one."""

    images: NDArray[np.float32]
    names: tuple[str, ...]


def unseen(
    settings: DatasetSettings, given: str | Path | NDArray[Any], shape: tuple[int, ...]
) -> Unseen:
    """Return new images after the preprocessing of a study's dataset.

    `given` is a file or folder of any form that a study can name, read with the study's settings
    where the form is the study's, or an array (M, H, W) or (M, C, H, W). Labels in it are not read.
    `standardise` takes mean and deviation of the study's images. `shape` (C, H, W) is that of the
    study's images. Raises BadData, and ValidationError where the path's form is not known.
    """
    source = _of_array(given) if isinstance(given, np.ndarray) else _of_path(settings, str(given))
    images = all_of(source, _steps(settings))
    if images.shape[1:] != shape:
        text = f"{source.path}: images of {by(images.shape[1:])}"
        raise BadData(
            "path", f"{text} (channels x height x width), where the study's are {by(shape)}"
        )
    return Unseen(images, source.names)


def _steps(settings: DatasetSettings) -> list[Step | Shift]:
    """Return the study's steps; its raw images are read again only where a step must see them."""
    steps: tuple[Step, ...] = settings.preprocess
    if isinstance(settings, Simulated):
        steps = settings.steps
    if not any(isinstance(step, Standardise) for step in steps):
        return list(steps)
    return fitted(steps, settings.model_copy(update={"preprocess": ()}).load().images)


def _of_path(settings: DatasetSettings, path: str) -> Source:
    chosen = TypeAdapter(DatasetSettings).validate_python({"path": path})
    if not isinstance(chosen, DataFile):
        raise BadData("path", f"{path}: expected a file or folder of images")
    if type(chosen) is type(settings):
        own = {key: getattr(settings, key) for key in type(settings).model_fields}
        kept = {key: value for key, value in own.items() if key not in OF_ITS_OWN}
        chosen = chosen.model_copy(update=kept)
    return chosen.source()


def _of_array(images: NDArray[Any]) -> Source:
    where = Path("images")
    if images.dtype.kind not in "iufb" or images.ndim not in (3, 4):
        text = f"images: expected numbers N x H x W or N x C x H x W, got {by(images.shape)}"
        raise BadData("path", f"{text} of type {images.dtype}")
    shaped = images.reshape(-1, *check_shape(images.shape[1:], str(where)))
    return Source(where, "an array", len(shaped), lambda: iter([shaped]), "")
