"""Step 4: rounds. Plan what is missing, execute it, reconcile, and go round again.

Resume is round one. A run is finished when its record says so; what Ray says of a trial is never
believed on its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from models.agreement import agreements
from models.baselines import BASELINES, fit_all
from models.datasets import Dataset
from models.datasets.split import training_rows
from models.scores import Scorer
from sweeps import results
from sweeps.answer import Answer, answer
from sweeps.launch import Launcher, Watch, open_launcher
from sweeps.mistakes import Refused
from sweeps.plan import Pack, Run, all_runs, as_json, packs_of
from sweeps.report import write_report
from sweeps.results import DONE, Record, Results, read_records, write_part
from sweeps.storage import write_whole
from sweeps.study import Study, read_yaml
from sweeps.trial import Data, Job, score_code

ROUNDS = 2
Baselines = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Sweep:
    """A study with its data, runs and folder: what every command works on."""

    study: Study
    dataset: Dataset
    runs: tuple[Run, ...]
    folder: Path

    @cached_property
    def scorer(self) -> Scorer:
        """Return what scores codes: labels, and the covariate that orients, if any."""
        name = self.study.orient_by
        covariate = self.dataset.covariates[name] if name else None
        held_out = None
        if self.rows is not None:
            held_out = np.setdiff1d(np.arange(len(self.dataset.images)), self.rows)
        return Scorer(self.dataset.labels, self.dataset.label_digest or "", covariate, held_out)

    @cached_property
    def rows(self) -> NDArray[np.int64] | None:
        """Return the places of the images to train on, None for all."""
        return None if self.study.split is None else training_rows(self.dataset, self.study.split)

    def missing(self, records: Mapping[str, Record]) -> list[Run]:
        """Return the planned runs without a finished record."""
        return [
            run
            for run in self.runs
            if run.run_id not in records or records[run.run_id]["status"] not in DONE
        ]


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did: `trained` runs got a record in it, `skipped` had one before."""

    trained: int
    skipped: int
    interrupted: bool


def open_sweep(study: Study, dataset: Dataset, folder: Path) -> Sweep:
    """Return the sweep; Refused where the folder holds another study."""
    kept = folder / "study.yaml"
    if kept.is_file():
        name = read_yaml(kept).get("name")
        if name != study.name:
            text = f"{folder}: holds the study '{name}', not '{study.name}'; choose another --out"
            raise Refused([text])
    return Sweep(study, dataset, tuple(all_runs(study, dataset)), folder)


def train_missing(sweep: Sweep, *, launcher: str, width: int | None, display: Any) -> Outcome:
    """Train what is missing, in rounds, and keep every finished record.

    `display(total_steps, total_runs)` gives the context manager that watches. Failed packs go round
    again in packs half as wide. An interrupt ends the rounds; Refused passes through.
    """
    records = read_records(sweep.folder)
    missing = sweep.missing(records)
    skipped = len(sweep.runs) - len(missing)
    if not missing:
        write_plan(sweep, [])
        return Outcome(0, skipped, interrupted=False)
    interrupted = False
    try:
        with open_launcher(launcher, sweep.study.resources, sweep.folder) as place:
            packs = packs_of(missing, place.slots, width)
            write_plan(sweep, packs)
            total = sum(pack.steps for pack in packs)
            with display(total, len(missing)) as watch:
                for _ in range(ROUNDS):
                    _round(sweep, packs, place, watch)
                    missing = sweep.missing(read_records(sweep.folder))
                    narrower = max(1, max(len(pack.runs) for pack in packs) // 2)
                    packs = packs_of(missing, place.slots, narrower)
                    if not packs:
                        break
    except KeyboardInterrupt:
        interrupted = True
    now = read_records(sweep.folder)
    done = [run for run in sweep.runs if run.run_id in now]
    return Outcome(len(done) - skipped, skipped, interrupted)


def _round(sweep: Sweep, packs: Sequence[Pack], place: Launcher, watch: Watch) -> None:
    """Execute the packs; where one left no record, write what is known of its end."""
    data = Data(sweep.dataset.pixels, sweep.dataset.image_digest, sweep.scorer, sweep.rows)
    commit = _git_commit()
    jobs = [_job(sweep, pack, commit) for pack in packs]
    start = datetime.now(UTC)
    errors = place.execute(jobs, data, watch)
    records = read_records(sweep.folder)
    for pack in packs:
        lost = [
            run
            for run in pack.runs
            if run.run_id not in records
            or (records[run.run_id]["status"] == "failed" and pack.pack_id in errors)
        ]
        if lost:
            reason = errors.get(pack.pack_id, "the worker ended without a record")
            _write_failed(sweep, pack, lost, reason, start)


def _job(sweep: Sweep, pack: Pack, commit: str | None) -> Job:
    return Job(
        folder=str(sweep.folder.resolve()),
        pack_id=pack.pack_id,
        cell_id=pack.runs[0].cell_id,
        spec=pack.cell.spec,
        seeds=tuple(run.seed for run in pack.runs),
        run_ids=tuple(run.run_id for run in pack.runs),
        device="cpu",
        git_commit=commit,
    )


def _write_failed(
    sweep: Sweep, pack: Pack, lost: Sequence[Run], reason: str, start: datetime
) -> None:
    """Write the records that a dead worker could not."""
    now = datetime.now(UTC)
    rows = [
        {
            "run_id": run.run_id,
            "cell_id": run.cell_id,
            "seed": run.seed,
            "status": "failed",
            "error": reason.strip().splitlines()[-1][:500],
            "traceback": reason,
            "pack": pack.pack_id,
            "seconds": (now - start).total_seconds() / len(pack.runs),
            "dataset_digest": sweep.dataset.image_digest,
            "finished_at": now,
        }
        for run in lost
    ]
    write_part(sweep.folder, pack.pack_id, rows)


def rescore(sweep: Sweep) -> int:
    """Score again, from the kept codes, every record whose labels or scoring rules have changed.

    Nothing is trained. Returns how many records changed.
    """
    scorer, changed = sweep.scorer, 0
    specs = {run.cell_id: run.cell.spec for run in sweep.runs}
    for path in results.parts(sweep.folder):
        records = results.read_part(path)
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
                score_code(specs[record["cell_id"]], code, scorer),
                label_digest=sweep.dataset.label_digest,
                score_id=scorer.identity(),
            )
        write_part(sweep.folder, path.stem, records)
        changed += len(stale)
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
    what = f"{sweep.dataset.image_digest} {sweep.study.split} {scorer.identity()}"
    key = f"{what} {','.join(BASELINES)}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # derived: made anew
        content = json.loads(kept.read_text())
        if content["key"] == key:
            known: dict[str, dict[str, float | None]] = content["scores"]
            return known
    found = fit_all(sweep.dataset.pixels, sweep.rows, scorer.classes)
    scores = {name: scorer.scores(evidence) for name, evidence in found.items()}
    text = json.dumps({"key": key, "scores": scores}, indent=1)
    write_whole(kept, text.encode())
    return scores


@dataclass(frozen=True)
class Review:
    """What follows from a study's records: tables, baselines, and what they answer."""

    results: Results
    baselines: Baselines
    answer: Answer
    rescored: int


def review(sweep: Sweep) -> Review:
    """Bring scores up to date and write the tables; train nothing, draw nothing."""
    rescored = rescore(sweep)
    baselines = score_baselines(sweep)
    records = read_records(sweep.folder)
    together = agreement(sweep, records)
    tables = results.gather(sweep.study, sweep.runs, records, baselines, together)
    results.write_tables(sweep.folder, tables)
    found = answer(sweep.study, tables, baselines)
    return Review(tables, baselines, found, rescored)


def write_page(sweep: Sweep, done: Review) -> Path:
    """Write the report and its figures of what was reviewed; return the page's path."""
    study, dataset, folder = sweep.study, sweep.dataset, sweep.folder
    return write_report(study, dataset, folder, done.results, done.baselines, done.answer)


def count_states(tables: Results) -> Counter[str]:
    """Count the planned runs by status."""
    return Counter(str(status) for status in tables.runs["status"].to_pylist())


def write_plan(sweep: Sweep, packs: Sequence[Pack]) -> None:
    """Write study.yaml as resolved, and plan.json; Refused where the folder cannot be written."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(sweep.study.resolved(), text)
    plan = as_json(sweep.study, sweep.dataset, sweep.runs, packs)
    try:
        write_whole(sweep.folder / "study.yaml", text.getvalue().encode())
        write_whole(sweep.folder / "plan.json", plan.encode())
    except OSError as failure:
        reason = f"{sweep.folder}: the study folder cannot be written: {failure.strerror}"
        raise Refused([f"{reason}; choose another with --out"]) from None


def _git_commit() -> str | None:
    """Return the commit of our own source tree; None where it is installed without one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        call = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return call.stdout.strip()
