"""A file's own checksum inside the file, so that no reader takes damage for numbers.

The writer puts `PLACEHOLDER` into the file's own metadata, where other readers pass over it, and
`stamp` replaces its zeros by the SHA-256 of the whole file with them. A file that was written
before there were seals has no trace of one and passes. A seal that was damaged itself leaves one:
its mark and its key are looked for in halves, and what would take all four away takes the
structure around them away too.
"""

from __future__ import annotations

import hashlib
import re

KEY = "whole-file seal"
_MARK = b"seedsweep-sha256:"
_ZEROS = b"0" * 64
PLACEHOLDER = _MARK + _ZEROS
_SEAL = re.compile(_MARK + rb"([0-9a-f]{64})")
_TRACES = (b"whole-fil", b"ile seal", b"sweep-sha", b"p-sha256:")


class Damaged(ValueError):  # noqa: N818 - what happened, as Refused says it
    """A file is not what was written; the text says how that was seen."""


def stamp(data: bytes) -> bytes:
    """Return a serialised file with its seal in place of its placeholder.

    Raises ValueError where it has none or several.
    """
    if data.count(PLACEHOLDER) != 1:
        msg = f"expected one placeholder for the seal, found {data.count(PLACEHOLDER)}"
        raise ValueError(msg)
    place = data.index(PLACEHOLDER) + len(_MARK)
    return data[:place] + _digest(data, place) + data[place + len(_ZEROS) :]


def check(data: bytes) -> None:
    """Raise Damaged where a file is not what was sealed; one without any seal passes."""
    # Any of them: a traceback among the records may quote another file's seal.
    if any(found[1] == _digest(data, found.start(1)) for found in _SEAL.finditer(data)):
        return
    if any(trace in data for trace in _TRACES):
        msg = "its checksum differs"
        raise Damaged(msg)


def _digest(data: bytes, place: int) -> bytes:
    """Return the digest, as 64 hex digits, of the data with zeros from that place."""
    view = memoryview(data)
    content = hashlib.sha256(view[:place])
    content.update(_ZEROS)
    content.update(view[place + len(_ZEROS) :])
    return content.hexdigest().encode()
