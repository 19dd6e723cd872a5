"""What a sweep left in its study folder, whoever wrote it and however that ended.

Nothing here believes a file: what cannot be read is left out, or named as damaged, and never an
error. Neither data nor torch is loaded, and of the records only what is counted is read.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.states import DONE, that_count

Content = dict[str, Any]

OTHERS = ("sweeps report", "sweeps track")  # they hold a folder too, and train nothing
ENDINGS = ("complete", "incomplete", "interrupted", "refused")
PARTS = ("records", "codes", "history", "members")  # what a finished pack consists of
_TEXT: pa.DataType = pa.string()
_NEEDED = pa.schema(
    [("run_id", _TEXT), ("status", _TEXT), ("finished_at", pa.timestamp("us", tz="UTC"))]
)
_USED = pa.schema([*_NEEDED, ("error", _TEXT), ("log", _TEXT)])  # older parts have no log
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,
)
_NO_RECORDS = "it cannot be read as records"
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
    steps = _steps(folder)
    damaged = _damaged(folder)
    known = {Path(one["file"]).stem for one in damaged if Path(one["file"]).parts[0] in PARTS}
    rows: list[Content] = []
    for path in _files(folder / "records", ".parquet"):
        if path.stem not in known:
            try:
                rows += _rows(path)
            except FileNotFoundError:  # taken away just now
                continue
            except (*_UNREADABLE, pa.ArrowException) as failure:
                reason = getattr(failure, "strerror", None) or _NO_RECORDS
                damaged.append({"file": f"records/{path.name}", "reason": str(reason)})
    return Traces(driver, progress, steps, that_count(rows), tuple(damaged))


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
        return _object(path.read_bytes())
    except _UNREADABLE:
        return {}


def _object(data: bytes) -> Content:
    content = json.loads(data)
    if not isinstance(content, dict):
        raise TypeError
    return content


def _files(folder: Path, suffix: str) -> list[Path]:
    """Return a folder's files by name; none where there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix)
    except OSError:
        return []


def _rows(path: Path) -> list[Content]:
    """Return what is used of one part; ValueError, OSError or an Arrow error where it is none."""
    with pq.ParquetFile(io.BytesIO(path.read_bytes())) as file:
        named = {*_NEEDED.names, *file.schema_arrow.names}
        there = [name for name in _USED.names if name in named]
        table = file.read(columns=there)
    table = table.select(there).cast(pa.schema([_USED.field(name) for name in there]))
    blank = dict.fromkeys(_USED.names)
    rows: list[Content] = [blank | row for row in table.to_pylist()]
    known = (*DONE, "failed")
    if any(row[name] is None for row in rows for name in _NEEDED.names) or any(
        row["status"] not in known for row in rows
    ):
        raise ValueError
    return rows


# The three below know files that others write.


def holder(folder: Path) -> Content | None:
    """Return who holds a study folder, with what it says of itself; None where nobody does."""
    path = folder / ".lock"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = _json(path)
        return {key: _typed(said.get(key), str) for key in ("host", "since", "command")} | {
            "pid": _typed(said.get("pid"), int)
        }
    except OSError:  # a file system without locks cannot tell
        return None
    finally:
        os.close(file)
    return None


def _damaged(folder: Path) -> list[Content]:
    """Return what is damaged, as file (from the study folder) and reason."""
    del folder
    return []


def _steps(folder: Path) -> dict[str, int]:
    """Return the step of every run that a checkpoint holds, by run_id: the furthest."""
    found: dict[str, int] = {}
    for path in _files(folder / "checkpoints", ".safetensors"):
        try:
            members = list(_members(path))
        except (*_UNREADABLE, struct.error):
            continue
        for run_id, step in members:
            found[run_id] = max(step, found.get(run_id, 0))
    return found


def _members(path: Path) -> Iterator[tuple[str, int]]:
    """Return run_id and step of each member of a checkpoint, from its header."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size:
            raise ValueError
        header = _object(file.read(length))
    about = header.pop("__metadata__")
    if max((one["data_offsets"][1] for one in header.values()), default=0) + 8 + length != size:
        raise ValueError  # cut short
    for member in json.loads(about["members"]):
        if isinstance(member["run_id"], str) and _is_count(member["step"]):
            yield member["run_id"], member["step"]
