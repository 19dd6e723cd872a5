"""New images scored by a study's trained members: one seed alone, or all of a cell joined.

No label chooses anything here: the cell is named, the members are those that did not collapse, and
they are aligned by their codes of the training images. Labels only name what came out.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from pydantic import ValidationError

from models.datasets import BadData, DatasetSettings
from models.datasets.unseen import Unseen, unseen
from models.restore import Restored
from models.settings import Settings
from sweeps.evidence import read_member
from sweeps.folder.storage import write_whole
from sweeps.joined import Known, Member, said
from sweeps.mistakes import Refused, sentences
from sweeps.plan import Run
from sweeps.results import SCORED, Record, read_codes, read_records, to_parquet
from sweeps.sweep import Sweep

MOST_LISTED = 30
FORMS = (".csv", ".parquet")
CodesOf = Callable[[str], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True, repr=False)
class Prediction:
    """A row an image in `table`; which members said so, and what its names mean.

    `left_out` counts the cell's planned seeds that had no say by status, `missing` where one is not
    trained.
    """

    table: pa.Table
    study: str
    cell: str
    cell_id: str
    seeds: tuple[int, ...]
    left_out: dict[str, int]
    naming: str

    def as_json(self) -> dict[str, Any]:
        """Return the summary: counts, members, meaning, and how many images each class got."""
        kind = next((name for name in ("class", "cluster") if name in self.table.column_names), "")
        found = Counter(self.table[kind].to_pylist()) if kind else Counter[Any]()
        return {
            "study": self.study,
            "cell": self.cell,
            "cell_id": self.cell_id,
            "seeds": list(self.seeds),
            "left_out": self.left_out,
            "images": self.table.num_rows,
            "naming": self.naming,
            "counts": {str(name): found[name] for name in sorted(found, key=str)},
        }

    def __repr__(self) -> str:
        """Return the summary, as a notebook shows it."""
        return "\n".join(self.words())

    def words(self) -> list[str]:
        """Return the summary in sentences."""
        content = self.as_json()
        seeds = f"{len(self.seeds)} seed{'' if len(self.seeds) == 1 else 's'}"
        out = ", ".join(f"{count} {status}" for status, count in self.left_out.items())
        counts = ", ".join(f"{name}: {count:,}" for name, count in content["counts"].items())
        lines = [f"{self.study}, {self.cell}: {self.table.num_rows:,} images, {seeds}"]
        lines += [f"left out: {out}"] if out else []
        return [*lines, self.naming, *([f"images of each: {counts}"] if counts else [])]


def predict(
    sweep: Sweep,
    images: str | Path | NDArray[Any],
    *,
    cell: str | None = None,
    seed: int | None = None,
) -> Prediction:
    """Score new images by one seed of a cell, or by all of its members that did not collapse.

    `images` is what `models.datasets.unseen` takes; `cell` a label or cell_id, None where the study
    has one cell. Raises Refused.
    """
    runs = _cell(sweep, cell)
    records = read_records(sweep.folder)
    chosen, left_out = _members(sweep, runs, records, seed)
    _check_join(sweep, runs, seed)
    draw = sweep.draws.of(chosen[0].seed)
    new = _images(sweep, images, chosen[0].seed)
    codes_of = lru_cache(maxsize=1)(partial(read_codes, sweep.folder))
    found = said(
        [_coded(sweep, run, records[run.run_id], new.images, codes_of) for run in chosen],
        runs[0].cell.spec,
        Known.of_study(draw.dataset, draw.rows, sweep.study.orient_by),
        joined=seed is None,
    )
    table = {"image": new.names or np.arange(len(new.images)), **found.columns}
    return Prediction(
        table=pa.table({name: _column(values) for name, values in table.items()}),
        study=sweep.study.name,
        cell=runs[0].cell.label,
        cell_id=runs[0].cell_id,
        seeds=tuple(run.seed for run in chosen),
        left_out=left_out,
        naming=found.naming,
    )


def _column(values: Any) -> pa.Array[Any]:
    """Return a column in which NaN is no value."""
    column: pa.Array[Any] = pa.array(values, from_pandas=True)
    return column


def _cell(sweep: Sweep, asked: str | None) -> list[Run]:
    """Return the planned runs of the cell that was asked for; of the only one where none was."""
    labels = [cell.label for cell in sweep.study.cells]
    if asked is None and len(labels) > 1:
        text = f"{sweep.study.name}: has {len(labels)} cells, and labels must not choose one"
        raise Refused([f"{text}; choose one with --cell: {_listed(labels)}"])
    found = [run for run in sweep.runs if asked in (None, run.cell.label, run.cell_id)]
    if not found:
        text = f"--cell: {sweep.study.name} has no cell '{asked}'"
        raise Refused([f"{text}; known: {_listed(labels)}"])
    return found


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_LISTED} more" if len(labels) > MOST_LISTED else ""
    return ", ".join(f"'{label}'" for label in labels[:MOST_LISTED]) + more


def _members(
    sweep: Sweep, runs: Sequence[Run], records: dict[str, Record], seed: int | None
) -> tuple[list[Run], dict[str, int]]:
    """Return the runs to ask, and how many of which status are left out.

    Joined: those that are ok. A seed that is named may have collapsed.
    """
    states = {
        run.seed: str(records[run.run_id]["status"]) if run.run_id in records else "missing"
        for run in runs
    }
    label = runs[0].cell.label
    if seed is None:
        chosen = [run for run in runs if states[run.seed] == "ok"]
        left = dict(sorted(Counter(s for s in states.values() if s != "ok").items()))
        if not chosen:
            counts = ", ".join(f"{count} {status}" for status, count in left.items())
            text = f"'{label}': none of its {len(runs)} seeds can be joined ({counts})"
            raise Refused([f"{text}; first: sweeps run, or choose a collapsed one with --seed"])
        return chosen, left
    if seed not in states:
        known = ", ".join(map(str, sweep.study.seeds[:MOST_LISTED]))
        raise Refused([f"--seed: {sweep.study.name} has no seed {seed}; known: {known}"])
    (run,) = (run for run in runs if run.seed == seed)
    if states[seed] == "missing":
        raise Refused([f"--seed: seed {seed} of '{label}' is not trained; first: sweeps run"])
    if states[seed] not in SCORED:
        reason = records[run.run_id]["error"] or "no reason was recorded"
        text = f"--seed: seed {seed} of '{label}' {states[seed]}, so it has no weights"
        raise Refused([f"{text}: {reason}"])
    return [run], {}


def _check_join(sweep: Sweep, runs: Sequence[Run], seed: int | None) -> None:
    """Raise Refused where members have no images in common that could align their codes."""
    if seed is None and sweep.study.redraws_data and len(runs) > 1:
        text = f"the seeds of '{runs[0].cell.label}' cannot be joined: each was trained on a draw"
        fix = "of the data of its own, so no codes of the same images align them; choose one with"
        raise Refused([f"{text} {fix} --seed"])


class _Asked(Settings):
    """A dataset's settings alone."""

    dataset: DatasetSettings


def _images(sweep: Sweep, images: str | Path | NDArray[Any], seed: int) -> Unseen:
    """Return new images after a seed's preprocessing; Refused where they are not of its kind."""
    settings, shape = sweep.draws.settings(seed), sweep.dataset.images.shape[1:]
    what = "images" if isinstance(images, np.ndarray) else str(images)
    try:
        return unseen(settings, images, shape)
    except ValidationError as failure:
        found = [wrong.sentence for wrong in sentences(failure, _Asked)]
    except BadData as bad:
        own = bad.sentence if bad.setting == "path" else f"{bad.setting}: {bad.sentence}"
        found = [own if what in own else f"{what}: {own}"]
    raise Refused(found)


def _coded(
    sweep: Sweep,
    run: Run,
    record: Record,
    images: NDArray[np.float32],
    codes_of: CodesOf,
) -> Member:
    """Return one member's class units of its training images, and of new ones."""
    units = run.cell.spec.code.class_units
    kept = _kept(run, record, codes_of)
    rows = sweep.draws.of(run.seed).rows
    training = (kept if rows is None else kept[rows])[:, :units]
    new = restore(sweep, run, record).encode(images.reshape(len(images), -1))[:, :units]
    prior = run.cell.spec.prior_of(record["learned_prior"])
    return Member(training.astype(np.float64), new.astype(np.float64), prior)


def _kept(run: Run, record: Record, codes_of: CodesOf) -> NDArray[np.float32]:
    pack = str(record["pack"])
    kept = codes_of(pack).get(run.run_id)
    if kept is None:
        raise Refused([f"codes/{pack}.parquet: holds no codes of seed {run.seed}; {_anew(pack)}"])
    return kept


def kept_code(sweep: Sweep, cell: str | None, seed: int) -> NDArray[np.float32]:
    """Return the code (N, units) that a seed of a cell gave its images, class units first.

    `cell` is a label or cell_id, None where the study has one cell. Raises Refused.
    """
    records = read_records(sweep.folder)
    ((run,), _) = _members(sweep, _cell(sweep, cell), records, seed)
    return _kept(run, records[run.run_id], partial(read_codes, sweep.folder))


def restore(sweep: Sweep, run: Run, record: Record) -> Restored:
    """Return the trained member of a run that has weights; reads no other member's.

    Raises Refused where its file is missing, damaged or not that of the run.
    """
    path = sweep.folder / "members" / f"{record['pack']}.safetensors"
    try:
        return read_member(sweep.folder, record, run.cell.spec, sweep.dataset.images.shape[1:])
    except FileNotFoundError:
        text = f"{path}: no such file: the weights of seed {run.seed} are gone"
    except (OSError, ValueError) as failure:
        reason = str(failure).partition("\n")[0]
        text = f"{path}: the weights of seed {run.seed} cannot be read: {reason}"
    raise Refused([f"{text}; {_anew(record['pack'])}"])


def _anew(pack: str) -> str:
    return f"move records/{pack}.parquet away, and run the study again to train its runs anew"


def check_out(path: Path | None) -> None:
    """Raise Refused where a table cannot be written in the form that a name asks for."""
    if path is not None and path.suffix not in FORMS:
        raise Refused([f"--out: expected a file ending in {' or '.join(FORMS)}, got {path}"])


def as_csv(table: pa.Table) -> bytes:
    """Return the table as CSV, a header first; no value is an empty field."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def write(prediction: Prediction, path: Path) -> None:
    """Write the table as CSV or Parquet, by the name's ending; Refused where that fails."""
    check_out(path)
    table = prediction.table
    try:
        write_whole(path, to_parquet(table) if path.suffix == ".parquet" else as_csv(table))
    except OSError as failure:
        raise Refused([f"{path}: cannot be written: {failure.strerror or failure}"]) from None
