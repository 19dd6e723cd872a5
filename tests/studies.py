"""Small studies for tests: real ones, seconds long."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits", "classes": [1, 8]},
    "seeds": 3,
    "spec": {"network": {"hidden": [16]}, "training": {"steps": 20, "batch_size": 32}},
    "cells": [
        {"objective": "ae"},
        {"objective": "vae", "prior": ["normal", "bimodal"]},
        {"objective": "wae", "activation": ["relu", "leaky_relu"]},
    ],
}


def tiny(**changes: Any) -> dict[str, Any]:
    """Return the tiny study with other top-level keys; None removes one."""
    study = {**copy.deepcopy(TINY), **changes}
    return {key: value for key, value in study.items() if value is not None}


def as_yaml(study: Any) -> str:
    """Return YAML text."""
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(study, text)
    return text.getvalue()


def write(folder: Path, study: Any, name: str = "x.yaml") -> Path:
    """Write a study file and return its path."""
    path = folder / name
    path.write_text(study if isinstance(study, str) else as_yaml(study))
    return path
