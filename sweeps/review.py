"""What follows from a study's records: scores brought up to date, tables, baselines, the page."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.agreement import agreements
from models.diagnostics.table import Examination
from sweeps import results
from sweeps.answer import Answer, answer
from sweeps.baselines import Baselines, Say, baselines_by_seed, over_draws
from sweeps.evidence import UNREADABLE
from sweeps.measures import Weights, as_identities, examination, measured, missing, one_thread
from sweeps.mistakes import Refused
from sweeps.physics import correspond
from sweeps.plan import Run
from sweeps.report import write_report
from sweeps.results import Record, Results, read_records, write_part
from sweeps.sweep import Sweep
from sweeps.trial import score_code


def rescore(sweep: Sweep) -> int:
    """Score again, from the kept codes, every record whose labels or scoring rules have changed.

    Nothing is trained. Returns how many records changed.
    """
    changed = 0
    specs = {run.cell_id: run.cell.spec for run in sweep.runs}
    for path, records in _parts(sweep):
        stale = [
            (record, draw)
            for record in records
            if record["status"] in results.SCORED and record["cell_id"] in specs
            if (draw := sweep.draws.of_record(record["seed"], record["dataset_digest"]))
            if record["score_id"] != draw.scorer.identity()
        ]
        if not stale:
            continue
        codes = results.read_codes(sweep.folder, path.stem)
        for record, draw in stale:
            code, spec = codes[record["run_id"]], specs[record["cell_id"]]
            record.update(
                score_code(spec, code, draw.scorer, record["learned_prior"]),
                label_digest=draw.dataset.label_digest,
                score_id=draw.scorer.identity(),
            )
        write_part(sweep.folder, path.stem, records)
        changed += len(stale)
    return changed


def _parts(sweep: Sweep) -> list[tuple[Path, list[Record]]]:
    """Return the parts of records that can be read; those of a seed's data one after the other."""
    found = []
    for path in results.parts(sweep.folder):
        with contextlib.suppress(Refused):  # damaged since the start: the next `run` sets it aside
            found.append((path, results.read_part(path)))
    if sweep.study.redraws_data:
        found.sort(key=lambda part: min((record["seed"] for record in part[1]), default=-1))
    return found


def remeasure(sweep: Sweep) -> int:
    """Take the diagnostics again that a scored record lacks, or that the study wants otherwise.

    From the kept weights and codes; what cannot be read stays as it is. Returns how many records
    changed.
    """
    changed = 0
    specs = {run.cell_id: run.cell.spec for run in sweep.runs}

    @functools.lru_cache(maxsize=1)
    def examined(digest: str, key: int | None) -> tuple[Examination, dict[str, str]] | None:
        draw = sweep.draws.of_record(key or 0, digest)
        if draw is None:
            return None
        exam = examination(draw.dataset.images, draw.scorer, sweep.study.diagnostics)
        return exam, exam.identities()

    for path, records in _parts(sweep):
        stale = [
            (record, *found)
            for record in records
            if record["status"] in results.SCORED and record["cell_id"] in specs
            if (found := examined(record["dataset_digest"], sweep.draws.key(record["seed"])))
            if missing(record, found[1])
        ]
        if not stale:
            continue
        try:
            codes = results.read_codes(sweep.folder, path.stem)
        except Refused:
            continue
        weights, done = Weights(sweep.folder, path.stem), 0
        for record, exam, wanted in stale:
            run_id = record["run_id"]
            groups = missing(record, wanted)
            with contextlib.suppress(*UNREADABLE), one_thread():
                numbers = measured(
                    specs[record["cell_id"]],
                    record["seed"],
                    codes[run_id],
                    functools.partial(weights.of, run_id),
                    groups,
                    exam,
                    record["learned_prior"],
                )
                record.update(numbers, diagnostics_id=as_identities(record, groups, wanted))
                done += 1
        if done:
            write_part(sweep.folder, path.stem, records)
            changed += done
    return changed


def agreement(sweep: Sweep, records: Mapping[str, Record]) -> dict[str, float | None]:
    """Return each scored run's agreement with the other seeds of its cell, from the kept codes.

    None of any where seeds have images of their own: no two codes are of the same ones.
    """
    found: dict[str, float | None] = {}
    if sweep.study.redraws_data:
        return found
    by_cell: dict[str, list[Run]] = {}
    for run in sweep.runs:
        if records.get(run.run_id, {}).get("status") in results.SCORED:
            by_cell.setdefault(run.cell_id, []).append(run)
    for runs in by_cell.values():
        packs = {str(records[run.run_id]["pack"]) for run in runs}
        codes: dict[str, Any] = {}
        for pack in sorted(packs):
            with contextlib.suppress(Refused):  # a pack without codes has no say in it
                codes |= results.read_codes(sweep.folder, pack)
        kept = [run.run_id for run in runs if run.run_id in codes]
        units = runs[0].cell.spec.code.class_units
        own = agreements([codes[run_id][:, :units] for run_id in kept])
        found |= dict(zip(kept, own, strict=True))
    return found


@dataclass(frozen=True)
class Review:
    """What follows from a study's records: tables, baselines, and what they answer."""

    results: Results
    baselines: Baselines
    answer: Answer
    rescored: int


def review(sweep: Sweep, *, rescored: bool = True, say: Say | None = None) -> Review:
    """Bring scores up to date and write the tables; train nothing, make no figure.

    Without `rescored` the records stay as they are: another process writes them. `say` is told of
    what takes long.
    """
    changed = rescore(sweep) if rescored else 0
    if rescored:
        remeasure(sweep)
    by_seed = baselines_by_seed(sweep, say)
    baselines = over_draws(by_seed)
    records = read_records(sweep.folder)
    together = agreement(sweep, records)
    physics = correspond(sweep, records)
    own = by_seed if sweep.study.redraws_data else None
    tables = results.gather(sweep.study, sweep.runs, records, baselines, together, physics, own)
    results.write_tables(sweep.folder, tables)
    found = answer(sweep.study, tables, baselines)
    return Review(tables, baselines, found, changed)


def write_page(sweep: Sweep, done: Review) -> Path:
    """Write the report and its figures of what was reviewed; return the page's path."""
    study, dataset, folder = sweep.study, sweep.dataset, sweep.folder
    return write_report(study, dataset, folder, done.results, done.baselines, done.answer)


def count_states(tables: Results) -> Counter[str]:
    """Count the planned runs by status."""
    return Counter(str(status) for status in tables.runs["status"].to_pylist())
