"""What is damaged in a study folder, set aside so that its runs are trained again.

Nothing here deletes the only record of a finished run. `find` may be called at any time; the others
change the folder, and only a `run` that holds its lock calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sweeps.folder.packfiles import (
    CHECKPOINTS,
    RECORDS,
    SIDECARS,
    file_of,
    listed,
    not_readable,
    read_rows,
    run_ids,
)
from sweeps.folder.seal import Damaged
from sweeps.folder.storage import TEMPORARY, read_parquet, read_safetensors, to_parquet, write_whole
from sweeps.mistakes import Refused
from sweeps.states import DONE, SCORED, that_count

ASIDE = "damaged"
WRITTEN_TO = (".", RECORDS, *SIDECARS, CHECKPOINTS, "figures")

Row = dict[str, Any]
Content = TypeVar("Content")


@dataclass(frozen=True)
class Damage:
    """A file that is damaged; `part` are the scored records that need it, if any."""

    path: Path
    reason: str
    part: Path | None = None


@dataclass(frozen=True)
class _Need:
    """What a part's scored rows need of the files beside it."""

    part: Path
    pack: str
    runs: frozenset[str]


def find(folder: Path) -> list[Damage]:
    """Return what is damaged among the files that packs left; whole files are read.

    Raises Refused where one may not be read.
    """
    found: list[Damage] = []
    needs: list[_Need] = []
    for path, rows in _each(listed(folder, RECORDS), read_rows, found):
        needs += _needs(path, rows)
    for kind in SIDECARS:
        bad: list[Damage] = []
        held = dict(_each(listed(folder, kind), run_ids, bad))
        reasons = {damage.path: damage.reason for damage in bad}
        for need in needs:
            path = file_of(folder, kind, need.pack)
            reason = reasons.get(path) or _lack(need, held.get(path))
            if reason:
                found.append(Damage(path, reason, need.part))
        needed = {file_of(folder, kind, need.pack) for need in needs}
        found += [damage for damage in bad if damage.path not in needed]
    for _ in _each(listed(folder, CHECKPOINTS), read_safetensors, found):
        pass
    return found


def _each(
    paths: Iterable[Path], read: Callable[[Path], Content], found: list[Damage]
) -> Iterator[tuple[Path, Content]]:
    """Yield what can be read with its path; note the others, pass over those that just went."""
    for path in paths:
        try:
            yield path, read(path)
        except Damaged as damaged:
            found.append(Damage(path, str(damaged)))
        except FileNotFoundError:
            continue
        except OSError as failure:
            raise not_readable(path, failure) from None


def _needs(part: Path, rows: Sequence[Row]) -> list[_Need]:
    runs: dict[str, set[str]] = {}
    for row in rows:
        if row["status"] in SCORED:
            runs.setdefault(_pack(part, row), set()).add(row["run_id"])
    return [_Need(part, pack, frozenset(ids)) for pack, ids in runs.items()]


def _pack(part: Path, row: Row) -> str:
    """Return the pack whose files a row needs: a copy of a part still names the first one's."""
    return str(row["pack"] or part.stem)


def _lack(need: _Need, held: Collection[str] | None) -> str | None:
    """Return what a file beside the records lacks of what they need."""
    if held is None:  # somebody has removed it: what is recorded stays so
        return None
    lost = need.runs.difference(held)
    return f"it holds nothing of the run {min(lost)}" if lost else None


def set_aside(folder: Path, found: Sequence[Damage]) -> list[str]:
    """Move what is damaged below damaged/, the records that need it too; return a sentence each.

    Raises Refused where the folder cannot be written.
    """
    moved: dict[Path, Path] = {}
    reasons = {damage.path: damage.reason for damage in found}
    parts = [damage.part for damage in found if damage.part]
    for path in dict.fromkeys([*parts, *reasons]):  # records first: they vouch for the others
        try:
            moved[path] = _away(folder, path)
        except FileNotFoundError:
            continue
        except OSError as failure:
            text = f"{path}: {reasons.get(path, 'what it needs is damaged')}, and it cannot be set "
            fix = "make the study folder writable, or move the file away"
            raise Refused([f"{text}aside: {failure.strerror or failure}; {fix}"]) from None
    return [_sentence(damage, moved) for damage in found]


def _away(folder: Path, path: Path) -> Path:
    """Move a file below damaged/ and return where it lies; never over an earlier one."""
    first = folder / ASIDE / path.relative_to(folder)
    first.parent.mkdir(parents=True, exist_ok=True)
    place, count = first, 1
    while place.exists() or place.is_symlink():
        place, count = first.with_name(f"{first.stem}.{count}{first.suffix}"), count + 1
    return path.rename(place)


def _sentence(damage: Damage, moved: Mapping[Path, Path]) -> str:
    path, kind = damage.path, damage.path.parent.name
    start, to = f"{path}: {damage.reason}", moved.get(path, path)
    if damage.part and path not in moved:
        to = moved.get(damage.part, damage.part)
        return f"{start}; its records set aside as {to}, its runs are trained again"
    if damage.part:
        return f"{start}; set aside as {to} with its records, its runs are trained again"
    if kind == RECORDS:
        return f"{start}; set aside as {to}, its runs are trained again"
    if kind == CHECKPOINTS:
        return f"{start}; set aside as {to}, its runs begin anew or from an earlier checkpoint"
    return f"{start}; set aside as {to}, no scored run needs it"


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that killed writers left; return how many."""
    paths = [path for name in WRITTEN_TO for path in (folder / name).glob(".*")]
    left = [path for path in paths if TEMPORARY.fullmatch(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def settle(folder: Path) -> int:
    """Take the rows that do not count out of the parts, so that no run is recorded twice.

    A part without rows is removed with its other files, and so are files whose records were never
    written once all their runs are finished elsewhere. Returns how many rows were taken out. Raises
    OSError where the folder cannot be written, Refused where a part may not be read.
    """
    parts = dict(_each(listed(folder, RECORDS), read_rows, []))
    places = [
        row | {"part": path, "place": place}
        for path in sorted(parts, key=lambda path: not _is_own(path, parts[path]))
        for place, row in enumerate(parts[path])
    ]
    counted = that_count(places)
    needed = {_pack(row["part"], row) for row in counted.values()}
    kept: dict[Path, list[int]] = {path: [] for path in parts}
    for row in counted.values():
        kept[row["part"]].append(row["place"])
    for path, rows in parts.items():
        if not kept[path]:
            _remove(folder, path, needed)
        elif len(kept[path]) < len(rows):
            table = read_parquet(path)
            write_whole(path, to_parquet(table.take(sorted(kept[path]))))
    finished = {run_id for run_id, row in counted.items() if row["status"] in DONE}
    _remove_unneeded(folder, needed, finished)
    return len(places) - len(counted)


def _is_own(path: Path, rows: Sequence[Row]) -> bool:
    """Return whether a part is its pack's own, not a copy: of equal rows the first one counts."""
    return all(_pack(path, row) == path.stem for row in rows)


def _remove(folder: Path, part: Path, needed: Collection[str]) -> None:
    """Remove a part without rows, then the files beside it that no other part's rows need."""
    part.unlink(missing_ok=True)
    if part.stem not in needed:
        for kind in SIDECARS:
            file_of(folder, kind, part.stem).unlink(missing_ok=True)


def _remove_unneeded(folder: Path, needed: Collection[str], finished: Collection[str]) -> None:
    """Remove files that no records vouch for, where all their runs are finished elsewhere."""
    recorded = {path.stem for path in listed(folder, RECORDS)}  # damaged parts among them
    for kind in SIDECARS:
        alone = [p for p in listed(folder, kind) if p.stem not in recorded and p.stem not in needed]
        for path, runs in _each(alone, run_ids, []):
            if runs.issubset(finished):
                path.unlink(missing_ok=True)
