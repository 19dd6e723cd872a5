"""Step 8: records as Parquet, the truth that everything else is derived from.

A part file a pack holds its members' records; `results.parquet` joins those that the plan asks for
with the study's axes, `summary.parquet` has a row a cell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.diagnostics.table import DIAGNOSTICS, NAMES
from models.scores import METRICS
from sweeps import states
from sweeps.folder import packfiles, storage
from sweeps.folder.places import place
from sweeps.folder.seal import Damaged
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.plan import Run
from sweeps.stability import stability
from sweeps.study import Study

DONE, SCORED = states.DONE, states.SCORED
RECORDED = (*METRICS, "reconstruction", "divergence_value")
OUTCOMES = (*METRICS, "agreement", *RECORDED[len(METRICS) :])  # the one that seeds have together
NUMBERS = (*OUTCOMES, *DIAGNOSTICS)
LOWER_IS_BETTER = ("reconstruction", "divergence_value", "elsewhere_error")
SPEARMAN = "spearman_"  # and a covariate: the class units' largest |Spearman| with it
IN_UNIT_RANGE = (*METRICS, "agreement")  # 0 ... 1, higher is better

_TEXT: pa.DataType = pa.string()
_FLOAT: pa.DataType = pa.float64()
_INT: pa.DataType = pa.int64()
RECORD = pa.schema(
    [
        ("run_id", _TEXT),
        ("cell_id", _TEXT),
        ("seed", _INT),
        ("status", _TEXT),
        ("error", _TEXT),
        ("traceback", _TEXT),
        ("log", _TEXT),  # of the worker, where the run failed
        *((name, _FLOAT) for name in RECORDED),
        ("learned_prior", _TEXT),  # as JSON, where the prior is one that members learn
        *((name, _FLOAT) for name in DIAGNOSTICS),
        ("seconds", _FLOAT),
        ("pack", _TEXT),
        ("host", _TEXT),
        ("device", _TEXT),
        ("cpu_capability", _TEXT),
        ("threads", _INT),
        ("kernel_settings", _TEXT),
        ("torch_version", _TEXT),
        ("trainer_version", _INT),
        ("git_commit", _TEXT),
        ("dataset_digest", _TEXT),
        ("label_digest", _TEXT),
        ("score_id", _TEXT),
        ("diagnostics_id", _TEXT),  # JSON: what each group of diagnostics was made with
        ("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)
NOT_DETERMINISTIC = ("log", "seconds", "pack", "host", "git_commit", "finished_at")

_CODES = ("run_id", "units", "code")

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A study's tables: `runs` is results.parquet, `summary` is summary.parquet."""

    runs: pa.Table
    summary: pa.Table


def to_parquet(table: pa.Table) -> bytes:
    """Serialise in memory, sealed, so that a file is written in one piece."""
    return storage.to_parquet(table)


def write_part(folder: Path, pack_id: str, records: Sequence[Record]) -> None:
    """Write the records of one pack; this is what makes its runs finished."""
    table = pa.Table.from_pylist(list(records), schema=RECORD)
    write_whole(folder / "records" / f"{pack_id}.parquet", to_parquet(table))


def read_records(folder: Path) -> dict[str, Record]:
    """Return each run's record by run_id, the one that counts; damaged parts are left out.

    Raises Refused where a part may not be read.
    """
    return states.that_count(record for path in parts(folder) for record in _undamaged(path))


def _undamaged(path: Path) -> list[Record]:
    try:
        return packfiles.read_rows(path, RECORD)
    except (Damaged, FileNotFoundError):  # or just set aside by a `run`
        return []
    except OSError as failure:
        raise packfiles.not_readable(path, failure) from None


def parts(folder: Path) -> list[Path]:
    """Return the part files of a study folder, by name."""
    return packfiles.listed(folder, packfiles.RECORDS)


def read_part(path: Path) -> list[Record]:
    """Return the records of one part file; Refused where it is damaged or cannot be read."""
    try:
        return packfiles.read_rows(path, RECORD)
    except Damaged as damaged:
        fix = "move it away, and run the study again to train its runs anew"
        text = f"{path}: cannot be read as a part of records: {damaged}; {fix}"
        raise Refused([text]) from None
    except OSError as failure:
        raise packfiles.not_readable(path, failure) from None


def read_codes(folder: Path, pack_id: str) -> dict[str, NDArray[np.float32]]:
    """Return the codes (N, units) of one pack by run_id; Refused where they cannot be read."""
    path = folder / "codes" / f"{pack_id}.parquet"
    try:
        table = storage.read_parquet(path, _CODES)
        codes = {
            str(run_id): code.values.to_numpy(zero_copy_only=False).reshape(-1, units.as_py())
            for run_id, units, code in zip(*(table[name] for name in _CODES), strict=True)
        }
    except (OSError, KeyError, ValueError, pa.ArrowException) as failure:
        reason = getattr(failure, "strerror", None) or str(failure).partition("\n")[0]
        fix = f"move records/{path.name} away, and run the study again to train its runs anew"
        raise Refused([f"{path}: no codes to score again: {reason}; {fix}"]) from None
    return codes


def gather(
    study: Study,
    runs: Sequence[Run],
    records: Mapping[str, Record],
    baselines: Mapping[str, Mapping[str, float | None]],
    agreement: Mapping[str, float | None],
    physics: Mapping[str, Mapping[str, float | None]] | None = None,
    own_baselines: Mapping[int, Mapping[str, Mapping[str, float | None]]] | None = None,
) -> Results:
    """Join the planned runs with their records and summarise each cell over its seeds.

    `agreement` is each scored run's with the other seeds of its cell, by run_id; `physics` gives
    further columns by their names, each by run_id. `own_baselines` are those of each seed's own
    data, by which it is then judged.
    """
    physics = physics or {}
    axes = list(study.cells[0].axes)
    rows = [
        {"study": study.name, "cell": run.cell.label, **records[run.run_id], **run.cell.axes}
        | {"agreement": agreement.get(run.run_id)}
        | {name: values.get(run.run_id) for name, values in physics.items()}
        for run in runs
        if run.run_id in records
    ]
    leading = [pa.field(name, _TEXT) for name in ("study", "cell_id", "cell")]
    others = [field for field in RECORD if field.name != "cell_id"]
    others.insert(others.index(RECORD.field("reconstruction")), pa.field("agreement", _FLOAT))
    further = [pa.field(name, _FLOAT) for name in physics]
    schema = pa.schema([*leading, *others, *further, *_axis_fields(study, axes)])
    table = pa.Table.from_pylist(rows, schema=schema)
    names = (*summarised(study), *physics)
    return Results(table, _summary(study, runs, rows, baselines, names, own_baselines))


def summarised(study: Study) -> tuple[str, ...]:
    """Return the numbers whose statistics a study's summary has: with the diagnostics it wants."""
    wanted = [name for group in ("code", *study.diagnostics.names) for name in NAMES[group]]
    return (*OUTCOMES, *wanted)


def correlations(results: Results) -> tuple[str, ...]:
    """Return the names of the columns that say how the class units follow the covariates."""
    return tuple(name for name in results.runs.column_names if name.startswith(SPEARMAN))


def _axis_fields(study: Study, axes: Iterable[str]) -> list[pa.Field[Any]]:
    """Type each axis by the values it has in this study."""
    fields = []
    for axis in axes:
        values = [cell.axes[axis] for cell in study.cells if cell.axes[axis] is not None]
        fields.append(pa.field(axis, pa.array(values).type if values else _TEXT))
    return fields


def _summary(
    study: Study,
    runs: Sequence[Run],
    rows: Sequence[Record],
    baselines: Mapping[str, Mapping[str, float | None]],
    names: Sequence[str],
    own_baselines: Mapping[int, Mapping[str, Mapping[str, float | None]]] | None,
) -> pa.Table:
    by_cell: dict[str, list[Record]] = {run.cell_id: [] for run in runs}
    for row in rows:
        by_cell[row["cell_id"]].append(row)
    cells = {run.cell_id: run.cell for run in runs}
    planned = len(study.seeds)
    summary = [
        {"study": study.name, "cell_id": cell_id, "cell": cells[cell_id].label}
        | cells[cell_id].axes
        | _counts(members, planned)
        | _statistics(members, study, baselines, names)
        | _beaten(members, names, own_baselines)
        for cell_id, members in by_cell.items()
    ]
    # Every column has values in some cell or is a number that no cell defines.
    table = pa.Table.from_pylist(summary)
    types = [pa.field(f.name, _FLOAT if pa.types.is_null(f.type) else f.type) for f in table.schema]
    fixed = {field.name: field for field in _axis_fields(study, study.cells[0].axes)}
    return table.cast(pa.schema([fixed.get(field.name, field) for field in types]))


def _counts(members: Sequence[Record], planned: int) -> dict[str, int]:
    found = [record["status"] for record in members]
    return {
        "n_planned": planned,
        "n_scored": sum(state in SCORED for state in found),
        **{f"n_{state}": found.count(state) for state in (*DONE, "failed")},
    }


def _statistics(
    members: Sequence[Record],
    study: Study,
    baselines: Mapping[str, Mapping[str, float | None]],
    names: Sequence[str],
) -> dict[str, float | None]:
    """Return METRIC_STATISTIC over every scored run, the collapsed ones among them."""
    found: dict[str, float | None] = {}
    for metric in names:
        scored = [m[metric] for m in members if m["status"] in SCORED and m[metric] is not None]
        best = _best(baselines, metric)
        low = study.low if metric in IN_UNIT_RANGE else None
        # Dozens of numbers in each of dozens of cells: a bootstrap each would take half a minute.
        main = metric in OUTCOMES
        statistics = asdict(stability(scored, low=low, baseline=best, bootstrap=main))
        statistics.pop("n")
        found |= {f"{metric}_{name}": value for name, value in statistics.items()}
    return found


def _best(baselines: Mapping[str, Mapping[str, float | None]], metric: str) -> float | None:
    known = [value for row in baselines.values() if (value := row.get(metric)) is not None]
    return None if metric in LOWER_IS_BETTER else max(known, default=None)


def _beaten(
    members: Sequence[Record],
    names: Sequence[str],
    own_baselines: Mapping[int, Mapping[str, Mapping[str, float | None]]] | None,
) -> dict[str, float | None]:
    """Return the shares of scored runs above the best baseline of their own data.

    None where a run's data has no baseline: its seed could be on neither side.
    """
    if own_baselines is None:
        return {}
    found: dict[str, float | None] = {}
    for metric in names:
        scored = [m for m in members if m["status"] in SCORED and m[metric] is not None]
        best = [_best(own_baselines[member["seed"]], metric) for member in scored]
        above = [b is not None and m[metric] > b for m, b in zip(scored, best, strict=True)]
        whole = above and None not in best
        found[f"{metric}_beats_baseline_share"] = sum(above) / len(above) if whole else None
    return found


def write_tables(folder: Path, results: Results) -> None:
    """Write results.parquet and summary.parquet."""
    write_whole(folder / "results.parquet", to_parquet(results.runs))
    write_whole(folder / "summary.parquet", to_parquet(results.summary))


def read(folder: str | Path) -> Results:
    """Read a study folder's tables.

    Raises FileNotFoundError where the folder has none, Refused where one is damaged.
    """
    return Results(
        *(_table(place(str(folder)) / f"{name}.parquet") for name in ("results", "summary"))
    )


def _table(path: Path) -> pa.Table:
    try:
        return storage.read_parquet(path)
    except Damaged as damaged:
        fix = f"write it again with: sweeps report {shlex.quote(str(path.parent))}"
        raise Refused([f"{path}: {damaged}; {fix}"]) from None
