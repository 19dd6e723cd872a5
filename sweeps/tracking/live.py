"""A study's view while it trains: what its records say so far, in small portions."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sweeps.folder.packfiles import RECORDS, listed
from sweeps.folder.places import place
from sweeps.folder.seal import Damaged
from sweeps.folder.storage import read_parquet
from sweeps.states import DONE, that_count
from sweeps.tracking.outline import Outline
from sweeps.tracking.problems import sentence
from sweeps.tracking.view import View, quiet
from sweeps.tracking.wanted import curve, history, running_cell, running_study, seed_run

PORTION = 2  # seconds of writing, then a pause
SHARE = 9  # a look is at most a tenth of the time: it is followed by nine times its length
LONGEST = 30  # seconds between two looks

Record = dict[str, Any]


class Parts:
    """The records of a folder; a file is read again where it has changed."""

    def __init__(self, folder: Path) -> None:
        """Take the study folder."""
        self.folder = folder
        self.known: dict[Path, tuple[object, list[Record]]] = {}

    def records(self) -> dict[str, Record]:
        """Return the record that counts of each run; a file that cannot be read has none."""
        paths = listed(self.folder, RECORDS)
        self.known = {path: known for path, known in self.known.items() if path in paths}
        for path in paths:
            try:
                facts = path.stat()
                mark = facts.st_mtime_ns, facts.st_size, facts.st_ino
                if path not in self.known or self.known[path][0] != mark:
                    self.known[path] = mark, read_parquet(path).to_pylist()
            except (OSError, Damaged):
                self.known.pop(path, None)
        return that_count(row for _, rows in self.known.values() for row in rows)


class Live:
    """One study's experiment while it trains."""

    def __init__(self, outline: Outline, uri: str) -> None:
        """Take the study; nothing is read or written before the first look."""
        self.outline, self.uri, self.folder = outline, uri, place(outline.folder)
        self.cells = {cell.cell_id: cell for cell in outline.cells}
        self.parts = Parts(self.folder)
        self.problem: str | None = None  # why the last look failed
        self._forget()

    def _forget(self) -> None:
        """Begin anew: the store may be another one when it is back."""
        self.view: View | None = None
        self.open: dict[str, str] = {}  # MLflow's ids of the cells' runs
        self.seeds: dict[str, object] = {}  # which record of a run was written

    def look(self, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Write records that are new; a portion of them, or until `stop` says so. Raise nothing."""
        until = time.monotonic() + PORTION
        try:
            with quiet():
                self._look(lambda: stop() or time.monotonic() > until)
            self.problem = None
        except Exception as failure:  # noqa: BLE001 - whatever it is, the store is tried again
            self._forget()
            self.problem = sentence(self.uri, failure)

    def _look(self, enough: Callable[[], bool]) -> None:
        records = self.parts.records()
        missing = {
            run.cell_id
            for run in self.outline.runs
            if records.get(run.run_id, {}).get("status") not in DONE
        }
        if not missing:  # nothing is trained: the whole view follows
            return
        if self.view is None:
            self.view = View(self.uri, self.outline)
            self.view.delete_doubles()
        self._write(self.view, records, missing, enough)

    def _write(
        self,
        view: View,
        records: dict[str, Record],
        missing: AbstractSet[str],
        enough: Callable[[], bool],
    ) -> None:
        """Show what trains as running, and the seeds that are new."""
        # Reads that run again, and so notices a store that was emptied meanwhile.
        study = view.put(running_study(self.outline), partly=True)
        for cell_id in missing - self.open.keys():
            if enough():
                return
            self.open[cell_id] = view.put(running_cell(self.cells[cell_id], study), partly=True)
        histories = lru_cache(maxsize=4)(partial(history, self.folder))
        for run in self.outline.runs:
            record, cell = records.get(run.run_id), self.cells[run.cell_id]
            if record is None or self.seeds.get(run.run_id) == _mark(record):
                continue
            if enough():
                return
            if cell.cell_id not in self.open:  # trained before; what its run shows stays
                known = view.find("cell", cell.cell_id)
                self.open[cell.cell_id] = known or view.put(running_cell(cell, study), partly=True)
            wanted = seed_run(self.outline, run, cell, record, self.open[cell.cell_id])
            view.put(wanted, partial(curve, histories, record), partly=True)
            self.seeds[run.run_id] = _mark(record)


def _mark(record: Record) -> object:
    return record["status"], record["finished_at"]


def pause(seconds: float, failures: int, shortest: float) -> float:
    """Return how long to wait after a look that took some seconds, or after failures in a row."""
    if failures:
        return float(min(LONGEST, shortest * 2**failures))
    return min(LONGEST, max(shortest, SHARE * seconds))
