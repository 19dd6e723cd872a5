"""What a sweep left in its study folder, whoever wrote it and however that ended.

Nothing here believes a file: what cannot be read is left out, or named as damaged, and never an
error. Neither data nor torch is loaded, and of the records only what is counted is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from sweeps.folder import damage, kept, lock
from sweeps.folder.packfiles import COUNTED, RECORDS, listed, read_rows
from sweeps.folder.seal import Damaged
from sweeps.mistakes import Refused
from sweeps.states import DONE, that_count

Content = dict[str, Any]

OTHERS = ("sweeps report", "sweeps track")  # they hold a folder too, and train nothing
ENDINGS = ("complete", "incomplete", "interrupted", "refused")
_READ = pa.schema([*COUNTED, ("error", pa.string()), ("log", pa.string())])
_MOST = 2**53  # counts beyond are none of ours
_YEARS = range(1971, 9999)  # what every time zone can show


@dataclass(frozen=True)
class Progress:
    """What a driver last said of itself in progress.json."""

    state: str  # training, writing, ended
    ended: str | None
    launcher: str | None
    updated_at: datetime | None
    packs: tuple[Content, ...]


@dataclass(frozen=True)
class Traces:
    """A study folder's content, as far as it can be read."""

    driver: Content | None  # who holds the folder: host, pid, since, command
    progress: Progress | None
    steps: Mapping[str, int]  # of a run_id, where its checkpoint is
    records: Mapping[str, Content]  # of a run_id, the record that counts
    damaged: tuple[Content, ...]  # file, reason

    @property
    def is_running(self) -> bool:
        """Return whether it is a `run` that holds the folder: a `report` does so for a moment."""
        if self.driver is None:
            return False
        return not (self.driver["command"] or "").startswith(OTHERS)


def read_traces(folder: Path) -> Traces:
    """Read a study folder; nothing is raised, whatever it holds.

    The lock comes first: what a driver wrote last is read after it has let go, not before. And a
    checkpoint is removed after its records are written, so it is read before them.
    """
    driver = holder(folder)
    progress = read_progress(folder)
    if driver is None and progress is not None and progress.state != "ended":
        driver = holder(folder)  # one may have begun in between
    checkpoints = kept.index(folder)
    damaged, apart = _damaged(folder)
    steps = {key: one.step for key, one in checkpoints.items() if one.path not in apart}
    rows: list[Content] = []
    for path in listed(folder, RECORDS):
        if path not in apart:
            try:
                rows += _rows(path)
            except FileNotFoundError:  # taken away just now
                continue
            except (Damaged, OSError) as failure:
                reason = getattr(failure, "strerror", None) or str(failure)
                damaged.append({"file": f"{RECORDS}/{path.name}", "reason": reason})
    return Traces(driver, progress, steps, that_count(rows), tuple(damaged))


def holder(folder: Path) -> Content | None:
    """Return who holds a study folder, with what it says of itself; None where nobody does."""
    try:
        found = lock.holder(folder)
    except OSError:  # not for us to read
        return None
    if found is None:
        return None
    since = found.since.isoformat(timespec="seconds") if found.since else None
    return {"host": found.host, "pid": found.pid, "since": since, "command": found.command}


def _damaged(folder: Path) -> tuple[list[Content], set[Path]]:
    """Return what is damaged, and the records and checkpoints that do not count for it."""
    try:
        found = damage.find(folder)
    except (Refused, OSError):  # not for us to read: the records' own reading says so
        return [], set()
    named = [
        {"file": one.path.relative_to(folder).as_posix(), "reason": one.reason} for one in found
    ]
    return named, {one.part or one.path for one in found}


def _rows(path: Path) -> list[Content]:
    """Return what is used of one part; Damaged or OSError where it cannot be read."""
    rows = read_rows(path, _READ)
    for row in rows:
        if row["status"] not in (*DONE, "failed"):
            msg = f"it has a run in a state that is not known: {row['status']}"
            raise Damaged(msg)
    return rows


def read_progress(folder: Path) -> Progress | None:
    """Return what progress.json says; None where it says nothing that can be read."""
    content = _json(folder / "progress.json")
    state, ended, launcher = (content.get(key) for key in ("state", "ended", "launcher"))
    if state not in ("training", "writing", "ended"):
        return None
    listed = content.get("running")
    return Progress(
        state=state,
        ended=ended if ended in ENDINGS else None,
        launcher=launcher if isinstance(launcher, str) else None,
        updated_at=time_of(content.get("updated_at")),
        packs=tuple(filter(None, map(_pack, listed if isinstance(listed, list) else []))),
    )


def time_of(text: Any) -> datetime | None:
    """Return an ISO time, as UTC where it does not say; None for anything else."""
    try:
        time = datetime.fromisoformat(text)
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return time if time.year in _YEARS else None


def _pack(found: Any) -> Content | None:
    """Return one running pack with every key in its type; None where it is no pack."""
    if not isinstance(found, dict):
        return None
    seeds, run_ids = found.get("seeds"), found.get("run_ids")
    right = (
        isinstance(seeds, list)
        and isinstance(run_ids, list)
        and len(seeds) == len(run_ids) > 0
        and all(map(_is_count, seeds))
        and all(isinstance(run_id, str) for run_id in run_ids)
        and _is_count(found.get("done"))
        and _is_count(found.get("steps"))
        and isinstance(found.get("cell"), str)
    )
    if not right:
        return None
    return {
        "pack": _typed(found.get("pack"), str),
        "cell": found["cell"],
        "seeds": seeds,
        "run_ids": run_ids,
        "done": min(found["done"], found["steps"]),
        "steps": found["steps"],
        "host": _typed(found.get("host"), str),
        "pid": _typed(found.get("pid"), int),
        "log": _typed(found.get("log"), str),
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _typed(value: Any, kind: type) -> Any:
    """Return a text or a count, None for anything else."""
    right = _is_count(value) if kind is int else isinstance(value, kind)
    return value if right else None


def _json(path: Path) -> Content:
    """Return a JSON object; an empty one where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
