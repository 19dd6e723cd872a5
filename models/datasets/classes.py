"""Which images a study takes and what their labels are, from the labels as a file has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field

from models.datasets.base import BadData
from models.settings import did_you_mean, mistake

MOST_CLASSES = 1000
MOST_SHOWN = 20


def _as_classes(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        text = "expected a list of classes, by name or number"
        raise mistake(text)
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | str):
            text = "expected classes by name or number; put a name in quotes"
            raise mistake(text)
    return tuple(value)


def no_class_twice(classes: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
    """Return the classes; a validator's complaint where one is named twice."""
    names = [str(one) for one in classes or ()]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        text = f"class {twice[0]} is named twice"
        raise mistake(text)
    return classes


Classes = Annotated[
    tuple[int | str, ...],
    Field(min_length=1, max_length=MOST_CLASSES),
    BeforeValidator(_as_classes),
    AfterValidator(no_class_twice),
]


@dataclass(frozen=True)
class Labels:
    """Labels (N,) as a file has them, integers or text, and the names of classes 0, 1, ..., if any.

    `setting` and `what` say in a complaint where they came from.
    """

    values: NDArray[Any]
    names: tuple[str, ...] | None = None
    setting: str = "path"
    what: str = "labels"

    def complain(self, sentence: str) -> BadData:
        """Return the complaint."""
        return BadData(self.setting, f"{self.what}: {sentence}")


@dataclass(frozen=True)
class Chosen:
    """The rows to take, ascending, with labels from 0 in the order of `names`."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]


def choose(count: int, labels: Labels | None, asked: Sequence[int | str] | None) -> Chosen:
    """Return which of `count` images to take: all, or those of the classes that are asked for.

    Raises BadData on labels of another length or type, and on classes that are not there.
    """
    if labels is None:
        if asked is not None:
            text = "the images have no labels to choose classes by"
            raise BadData("classes", text)
        return Chosen(np.arange(count), None, ())
    codes, names = _codes(count, labels)
    if asked is None:
        return Chosen(np.arange(count), codes, names)
    wanted = _places(asked, names, by_number=labels.names is not None)
    place_of = np.full(len(names), -1)
    place_of[wanted] = np.arange(len(wanted))
    new = place_of[codes]
    rows = np.flatnonzero(new >= 0)
    return Chosen(rows, new[rows], tuple(names[place] for place in wanted))


def _codes(count: int, labels: Labels) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return every image's class as a number from 0, and the names in that order."""
    values = labels.values
    if values.ndim != 1 or len(values) != count:
        given = f"{len(values):,} labels" if values.ndim == 1 else f"the shape {values.shape}"
        raise labels.complain(f"expected one label for each of {count:,} images, got {given}")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "iubU":
        text = f"expected whole numbers or text, got {values.dtype}"
        raise labels.complain(f"{text}; save them as integers")
    if labels.names is not None:
        return _numbered(labels, values, labels.names)
    found, codes = np.unique(values, return_inverse=True)
    if len(found) > MOST_CLASSES:
        text = f"{len(found):,} different values, more than {MOST_CLASSES:,}; are they classes?"
        raise labels.complain(text)
    return codes.astype(np.int64), tuple(str(value) for value in found)


def _numbered(
    labels: Labels, values: NDArray[Any], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise labels.complain(f"class_names holds '{twice}' twice")
    if values.dtype.kind == "U":
        known = {name: place for place, name in enumerate(names)}
        strange = sorted({str(value) for value in np.unique(values)} - set(names))
        if strange:
            raise labels.complain(f"'{strange[0]}' is not in class_names")
        return np.array([known[str(value)] for value in values], dtype=np.int64), names
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        text = f"expected numbers from 0 to {len(names) - 1}, one a name of class_names"
        raise labels.complain(f"{text}, got {values.min()} to {values.max()}")
    return values.astype(np.int64), names


def _places(
    asked: Sequence[int | str], names: tuple[str, ...], *, by_number: bool
) -> NDArray[np.int64]:
    """Return where the asked classes stand; numbers are names first, places in names otherwise."""
    known = {name: place for place, name in enumerate(names)}
    if by_number and all(isinstance(one, int) and 0 <= one < len(names) for one in asked):
        named = all(str(one) in known for one in asked)
        if not named:
            return np.array(asked, dtype=np.int64)
    for place, one in enumerate(asked):
        if str(one) not in known:
            shown = names if len(names) <= MOST_SHOWN else (*names[:MOST_SHOWN], "...")
            text = f"no class '{one}' in the labels{did_you_mean(str(one), shown)}"
            raise BadData(f"classes[{place}]", text)
    return np.array([known[str(one)] for one in asked], dtype=np.int64)
