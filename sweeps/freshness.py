"""Whether a report is still that of what it was made from: then nothing is drawn again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import models
from sweeps.folder.storage import write_whole

MARK = "figures/.made-from"
READ = ("codes", "history", "members")  # folders that figures are drawn from
FIGURE = re.compile(r"figures/[\w-]+\.(svg|png|csv)")
SOURCES = (".py", ".html", ".css", ".js")


def key_of(folder: Path, parts: Iterable[bytes]) -> str:
    """Return the digest of all that a report is made from.

    The parts that are given, names, sizes and times of the study folder's files that figures read,
    and our own code.
    """
    content = hashlib.sha256(source_digest().encode())
    for part in parts:
        content.update(len(part).to_bytes(8) + part)
    for name in READ:
        for path in sorted((folder / name).glob("*")):
            facts = path.stat()
            content.update(f"{name}/{path.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return content.hexdigest()


@functools.cache
def source_digest() -> str:
    """Return the digest of our sources."""
    content = hashlib.sha256()
    for top in (Path(__file__).parent, Path(str(models.__file__)).parent):
        for path in sorted(top.rglob("*")):
            if path.suffix in SOURCES:
                content.update(path.relative_to(top).as_posix().encode() + path.read_bytes())
    return content.hexdigest()


def is_fresh(folder: Path, key: str) -> bool:
    """Return whether the folder's report was made from this, and every file of it is there."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        files: dict[str, int] = mark["files"]
        same: bool = mark["key"] == key
        return same and all((folder / n).stat().st_size == size for n, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def mark_fresh(folder: Path, key: str, files: Sequence[str]) -> None:
    """Note what the report was made from, and its files; remove those of the one before."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        before = json.loads((folder / MARK).read_text(encoding="utf-8"))["files"]
        for name in {*before} - {*files}:
            if FIGURE.fullmatch(name):
                (folder / name).unlink(missing_ok=True)
    sizes = {name: (folder / name).stat().st_size for name in files}
    write_whole(folder / MARK, json.dumps({"key": key, "files": sizes}, indent=1).encode())
