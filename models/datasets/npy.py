"""The header of a NumPy array, read with limits: numbers and text only, nothing is executed."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.datasets.base import BadData
from models.datasets.source import exactly

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
KNOWN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[US]\d{1,6})")
DEPTH = 32  # axes that NumPy can have


@dataclass(frozen=True)
class Header:
    """What an array is, and how many bytes precede its values."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def size(self) -> int:
        """Return the bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any, path: Path, what: str) -> Header:
    """Read the header of an array of format 1, 2 or 3 (NumPy enhancement proposal 1).

    Raises BadData on pickled objects and on anything else that is no array of numbers or text.
    """
    start = exactly(file, 8, path)
    if start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise BadData("path", f"{path}: {what} is not a NumPy array")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(exactly(file, width, path), "little")
    if length > LONGEST_HEADER:
        raise BadData("path", f"{path}: {what} has a header of {length:,} bytes, which none needs")
    text = exactly(file, length, path).decode("latin-1")
    try:
        content = ast.literal_eval(text.strip())
        descr, fortran, shape = (content[key] for key in ("descr", "fortran_order", "shape"))
        fine = isinstance(shape, tuple) and len(shape) <= DEPTH and isinstance(fortran, bool)
        fine = fine and all(type(side) is int and 0 <= side < 2**62 for side in shape)
    except (SyntaxError, ValueError, TypeError, KeyError, MemoryError, RecursionError):
        fine = False
    if not fine:
        raise BadData("path", f"{path}: {what} has a header that says no type and shape")
    if isinstance(descr, str) and "O" in descr:
        reason = f"{path}: {what} holds pickled Python objects, which are never loaded"
        fix = "save one array of numbers (images of one size), or of text"
        raise BadData("path", f"{reason}; {fix}")
    if not isinstance(descr, str) or not KNOWN.fullmatch(descr):
        raise BadData("path", f"{path}: {what} is of type {descr!s:.40}, not of numbers or text")
    return Header(np.dtype(descr), shape, fortran, 8 + width + length)
