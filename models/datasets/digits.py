"""Handwritten digits of 8x8 pixels, shipped with scikit-learn: no download."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from sklearn.datasets import load_digits

from models.datasets.base import Dataset
from models.datasets.preprocess import preprocess
from models.datasets.steps import Steps
from models.settings import Settings, mistakes_of

GREY_LEVELS = 16.0


@final
class Digits(Settings):
    """1,797 images of ten digits (Alpaydin and Kaynak 1998, UCI), scaled to 0 ... 1."""

    form: ClassVar[str] = "digits"

    name: Literal["digits"] = "digits"
    classes: tuple[Annotated[int, Field(ge=0, le=9)], ...] = Field(
        default=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), strict=False, min_length=1
    )
    preprocess: Steps = ()

    @model_validator(mode="after")
    def _no_class_twice(self) -> Self:
        twice = sorted({one for one in self.classes if self.classes.count(one) > 1})
        if twice:
            raise mistakes_of([("classes", f"class {twice[0]} is named twice")])
        return self

    def load(self) -> Dataset:
        """Return the images of the chosen classes in the published order; labels follow `classes`.

        Covariates: `ink`, the sum of the pixels; `slant`, the covariance of row and column under
        the ink; `width`, the ink's spread along the row.
        """
        source = load_digits()
        chosen = np.isin(source.target, self.classes)
        images = (source.images[chosen] / GREY_LEVELS).astype(np.float32)
        place = {digit: index for index, digit in enumerate(self.classes)}
        labels = np.array([place[int(digit)] for digit in source.target[chosen]], dtype=np.int64)
        return Dataset(
            name=self.name,
            images=preprocess(self.preprocess, images[:, None]),
            labels=labels,
            class_names=tuple(str(digit) for digit in self.classes),
            covariates=_covariates(images.astype(np.float64)),
            description="8x8 handwritten digits of scikit-learn",
        )


def _covariates(images: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    ink = images.sum((1, 2))
    rows, columns = np.indices(images.shape[1:])
    row = (images * rows).sum((1, 2)) / ink
    column = (images * columns).sum((1, 2)) / ink
    across = columns - column[:, None, None]
    down = rows - row[:, None, None]
    return {
        "ink": ink,
        "slant": (images * across * down).sum((1, 2)) / ink,
        "width": np.sqrt((images * across**2).sum((1, 2)) / ink),
    }
