"""Where a study folder is: on this machine's disks, or in a store of objects."""

from __future__ import annotations

from pathlib import Path

from sweeps.mistakes import Refused

SCHEMES = ("s3", "gs")


def place(text: str) -> Path:
    """Return the path that a text names; Refused for a store that is unknown or cannot be used."""
    if "://" not in text:
        return Path(text)
    from sweeps.folder.objects import object_at  # noqa: PLC0415 - pyarrow, 0.1 s of each command

    return object_at(*in_store(text))


def in_store(text: str) -> tuple[str, str]:
    """Return scheme and BUCKET/KEY of an address; Refused where it is none, without a look."""
    scheme, _, key = text.partition("://")
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise Refused([f"{text}: unknown kind of storage '{scheme}://'; known: a path, {known}"])
    bucket = key.strip("/").partition("/")[0]
    if not bucket or "@" in bucket:
        what = "credentials have no place in it" if "@" in bucket else "it names no bucket"
        raise Refused([f"{scheme}://...: {what}; expected {scheme}://BUCKET/PATH"])
    return scheme, key.strip("/")
