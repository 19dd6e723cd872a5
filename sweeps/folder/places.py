"""Where a study folder is: on this machine's disks, or in a store of objects."""

from __future__ import annotations

from pathlib import Path


def place(text: str) -> Path:
    """Return the path that a text names; Refused for a store that is unknown or cannot be used."""
    if "://" not in text:
        return Path(text)
    from sweeps.folder.objects import object_at  # noqa: PLC0415 - pyarrow, 0.1 s of each command

    return object_at(text)
