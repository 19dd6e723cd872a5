"""What follows from a study's records: scores brought up to date, tables, baselines, the page."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.agreement import agreements
from models.baselines import fit_all, names
from models.diagnostics.table import MEDIAN_FILTER
from sweeps import results
from sweeps.answer import Answer, answer
from sweeps.evidence import UNREADABLE
from sweeps.folder.storage import write_whole
from sweeps.measures import Weights, as_identities, examination, measured, missing, one_thread
from sweeps.mistakes import Refused
from sweeps.physics import correspond
from sweeps.plan import Run
from sweeps.report import write_report
from sweeps.results import Record, Results, read_records, write_part
from sweeps.sweep import Sweep
from sweeps.trial import score_code

Baselines = Mapping[str, Mapping[str, float | None]]


def rescore(sweep: Sweep) -> int:
    """Score again, from the kept codes, every record whose labels or scoring rules have changed.

    Nothing is trained. Returns how many records changed.
    """
    scorer, changed = sweep.scorer, 0
    specs = {run.cell_id: run.cell.spec for run in sweep.runs}
    for path in results.parts(sweep.folder):
        try:
            records = results.read_part(path)
        except Refused:  # damaged since the start: the next `run` sets it aside
            continue
        stale = [
            record
            for record in records
            if record["status"] in results.SCORED
            and record["score_id"] != scorer.identity()
            and record["cell_id"] in specs
        ]
        if not stale:
            continue
        codes = results.read_codes(sweep.folder, path.stem)
        for record in stale:
            code = codes[record["run_id"]]
            record.update(
                score_code(specs[record["cell_id"]], code, scorer, record["learned_prior"]),
                label_digest=sweep.dataset.label_digest,
                score_id=scorer.identity(),
            )
        write_part(sweep.folder, path.stem, records)
        changed += len(stale)
    return changed


def remeasure(sweep: Sweep) -> int:
    """Take the diagnostics again that a scored record lacks, or that the study wants otherwise.

    From the kept weights and codes; what cannot be read stays as it is. Returns how many records
    changed.
    """
    exam, changed = examination(sweep.dataset.images, sweep.scorer, sweep.study.diagnostics), 0
    wanted = exam.identities()
    specs = {run.cell_id: run.cell.spec for run in sweep.runs}
    for path in results.parts(sweep.folder):
        try:
            records = results.read_part(path)
            stale = [r for r in records if r["cell_id"] in specs and missing(r, wanted)]
            codes = results.read_codes(sweep.folder, path.stem) if stale else {}
        except Refused:
            continue
        weights, done = Weights(sweep.folder, path.stem), 0
        for record in stale:
            run_id, spec = record["run_id"], specs[record["cell_id"]]
            groups = missing(record, wanted)
            with contextlib.suppress(*UNREADABLE), one_thread():
                tensors = functools.partial(weights.of, run_id)
                found = measured(
                    spec,
                    record["seed"],
                    codes[run_id],
                    tensors,
                    groups,
                    exam,
                    record["learned_prior"],
                )
                record.update(found, diagnostics_id=as_identities(record, groups, wanted))
                done += 1
        if done:
            write_part(sweep.folder, path.stem, records)
            changed += done
    return changed


def agreement(sweep: Sweep, records: Mapping[str, Record]) -> dict[str, float | None]:
    """Return each scored run's agreement with the other seeds of its cell, from the kept codes."""
    found: dict[str, float | None] = {}
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


def score_baselines(sweep: Sweep) -> Baselines:
    """Fit the baselines without labels, score them as the codes are, keep that in the folder."""
    scorer, kept = sweep.scorer, sweep.folder / "baselines.json"
    scalar = sweep.dataset.own_scalar
    what = f"{sweep.dataset.image_digest} {sweep.study.split} {scorer.identity()}"
    key = f"{what} {','.join(names(sweep.dataset.scalar))}"
    if scalar is not None:  # of all that the baselines look at, it alone is no function of pixels
        key = f"{key} {hashlib.sha256(scalar[1].tobytes()).hexdigest()[:16]}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # derived: made anew
        content = json.loads(kept.read_text())
        if content["key"] == key:
            known: dict[str, dict[str, float | None]] = content["scores"]
            return known
    found = fit_all(sweep.dataset.pixels, sweep.rows, scorer.classes, scalar)
    scores = {name: scorer.scores(evidence) for name, evidence in found.items()}
    text = json.dumps({"key": key, "scores": scores}, indent=1)
    write_whole(kept, text.encode())
    return scores


def _median_filter(sweep: Sweep) -> Baselines:
    """Return what a median filter makes of the hot pixels, where the study asks for denoising."""
    if sweep.study.diagnostics.denoising is None:
        return {}
    exam = examination(sweep.dataset.images, sweep.scorer, sweep.study.diagnostics)
    return {MEDIAN_FILTER: exam.median_filter()}


@dataclass(frozen=True)
class Review:
    """What follows from a study's records: tables, baselines, and what they answer."""

    results: Results
    baselines: Baselines
    answer: Answer
    rescored: int


def review(sweep: Sweep, *, rescored: bool = True) -> Review:
    """Bring scores up to date and write the tables; train nothing, draw nothing.

    Without `rescored` the records stay as they are: another process writes them.
    """
    changed = rescore(sweep) if rescored else 0
    if rescored:
        remeasure(sweep)
    baselines = {**score_baselines(sweep), **_median_filter(sweep)}
    records = read_records(sweep.folder)
    together = agreement(sweep, records)
    physics = correspond(sweep, records)
    tables = results.gather(sweep.study, sweep.runs, records, baselines, together, physics)
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
