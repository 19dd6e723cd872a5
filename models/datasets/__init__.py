"""Datasets: images with, for scoring alone, labels and covariates.

A study names a shipped one (`name`) or a file (`path`), whose form its ending says. To add one: a
file here with a settings class that has `load`, and its place in `SHIPPED` and `DatasetSettings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from models.datasets.base import BadData, Dataset
from models.datasets.digits import Digits
from models.datasets.folder import Folder
from models.datasets.idx import Idx, looks_like_idx
from models.datasets.ising import Ising
from models.datasets.npz import Npz
from models.datasets.parquet import Parquet
from models.datasets.source import DataFile, absolute, reading
from models.datasets.stargalaxy import StarGalaxy
from models.settings import did_you_mean, mistakes_of

SHIPPED = (Digits, StarGalaxy, Ising)
NAMES = tuple(kind.form for kind in SHIPPED)
FORMS: dict[type[DataFile], str] = {
    Npz: ".npz",
    Parquet: ".parquet, .pq",
    Idx: ".idx, -ubyte, each also with .gz",
    Folder: "a folder",
}
PATHS = ("path", "labels")  # settings that name files
IDX_NAME = re.compile(r".*(-ubyte|[.-]idx\d?)(\.gz)?")


def form_of(name: str) -> str:
    """Return which form of file a path names; BadData where neither name nor content says it."""
    path = Path(name)
    with reading(path, "data"):
        if path.is_dir():
            return Folder.form
        if path.suffix.lower() == ".npz":
            return Npz.form
        if path.suffix.lower() in (".parquet", ".pq"):
            return Parquet.form
        if IDX_NAME.fullmatch(path.name.lower()):
            return Idx.form
        if not path.exists():
            raise BadData("path", f"no such file or folder: {path}")
        if path.is_file() and looks_like_idx(path):
            return Idx.form
    fix = "; save it with numpy.savez(name, images=...)" if path.suffix == ".npy" else ""
    known = ", ".join(FORMS.values())
    raise BadData("path", f"{path}: its form is not known from its name{fix}; known: {known}")


def _as_settings(value: Any) -> Any:
    """Read a bare name as a shipped dataset; refuse a name or path that names nothing."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping) and "name" in value and value["name"] not in NAMES:
        raise mistakes_of([("name", _unknown(value["name"]))])
    if isinstance(value, Mapping) and isinstance(value.get("path"), str) and "name" not in value:
        try:
            form_of(value["path"])
        except BadData as bad:
            raise mistakes_of([(bad.setting, bad.sentence)]) from None
    return value


def _unknown(name: Any) -> str:
    if isinstance(name, str):
        return f"unknown name '{name}'{did_you_mean(name, NAMES)}"
    return f"expected the name of a dataset, got {name!r}; known: {', '.join(sorted(NAMES))}"


def _tag(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(getattr(value, "form", Digits.form))
    if "path" not in value or "name" in value:
        return str(value.get("name", Digits.form))
    return form_of(value["path"]) if isinstance(value["path"], str) else Npz.form


def with_absolute_paths(settings: Any, folder: Path) -> Any:
    """Return a dataset's settings with paths below the folder written out."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("path"), str):
        return settings
    named = {key: settings[key] for key in PATHS if isinstance(settings.get(key), str)}
    return {**settings, **{key: absolute(folder, name) for key, name in named.items() if name}}


DatasetSettings = Annotated[
    Annotated[Digits, Tag(Digits.form)]
    | Annotated[StarGalaxy, Tag(StarGalaxy.form)]
    | Annotated[Ising, Tag(Ising.form)]
    | Annotated[Npz, Tag(Npz.form)]
    | Annotated[Parquet, Tag(Parquet.form)]
    | Annotated[Idx, Tag(Idx.form)]
    | Annotated[Folder, Tag(Folder.form)],
    Discriminator(_tag),
    BeforeValidator(_as_settings),
]

__all__ = ["FORMS", "SHIPPED", "BadData", "Dataset", "DatasetSettings", "with_absolute_paths"]
