"""Datasets: images with, for scoring alone, labels and covariates.

To add one: a file here with a settings class that has `load`, and its place in `DatasetSettings`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from models.datasets.base import Dataset
from models.datasets.digits import Digits


def _as_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


DatasetSettings = Annotated[Digits, BeforeValidator(_as_name)]

__all__ = ["Dataset", "DatasetSettings", "Digits"]
