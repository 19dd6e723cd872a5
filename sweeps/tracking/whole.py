"""The whole view: written from a study's tables until a fresh look has nothing to add."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from sweeps.folder.places import place
from sweeps.tracking.outline import Outline
from sweeps.tracking.place import Tracked, pending, written
from sweeps.tracking.problems import sentence
from sweeps.tracking.view import View, quiet
from sweeps.tracking.wanted import cell_run, curve, history, seed_run, study_run

ARTIFACTS = (
    *("results.parquet", "summary.parquet", "physics.parquet", "report.html"),
    *("figures/*.svg", "figures/*.png"),
)
PASSES = 3

Rows = list[dict[str, Any]]


def bring_in_line(
    outline: Outline, uri: str, records: Rows, summary: Rows, table: str, *, running: bool
) -> Tracked:
    """Bring an experiment in line with a study's tables; `table` describes the study's run.

    `running` where another driver still works on the folder. Raises nothing: whatever MLflow does,
    the records are written and the view can wait.
    """
    try:
        with quiet():
            for _ in range(PASSES):
                view = View(uri, outline)
                view.delete_doubles()
                _write(view, outline, records, summary, table, running=running)
                # A create that timed out here may have been carried out there: look once more.
                if not view.created:
                    break
    except Exception as failure:  # noqa: BLE001 - the view must not change how a sweep ends
        return pending(uri, outline.folder, sentence(uri, failure))
    return written(uri)


def _write(
    view: View, outline: Outline, records: Rows, summary: Rows, table: str, *, running: bool
) -> None:
    def status(rows: int, planned: int) -> str:
        if rows == planned:
            return "FINISHED"
        return "RUNNING" if running else "KILLED"

    known = {row["run_id"]: row for row in records}
    cells = {cell.cell_id: cell for cell in outline.cells}
    top = status(len(records), len(outline.runs))
    study = view.put(study_run(outline, records, summary, table, top))
    parents: dict[str, str] = {}
    for row in summary:
        cell = cells[row["cell_id"]]
        members = [record for record in records if record["cell_id"] == cell.cell_id]
        state = status(len(members), cell.planned)
        parents[cell.cell_id] = view.put(cell_run(cell, row, members, study, state))
    folder = place(outline.folder)
    histories = lru_cache(maxsize=4)(partial(history, folder))
    for run in outline.runs:
        if record := known.get(run.run_id):
            wanted = seed_run(outline, run, cells[run.cell_id], record, parents[run.cell_id])
            view.put(wanted, partial(curve, histories, record))
    files = (path for pattern in ARTIFACTS for path in sorted(folder.glob(pattern)))
    view.attach(study, {path.relative_to(folder).as_posix(): path for path in files})
    view.save(outline.views)
    if not running:  # else another driver's seeds may be newer than these tables
        view.retire_the_rest()
