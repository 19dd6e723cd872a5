"""How every unit of every code follows every covariate: physics.parquet, and a column a covariate.

Derived from the kept codes and made anew at any time; rows of what has not changed are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from models.diagnostics.physics import Physics
from sweeps import results
from sweeps.folder import storage
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.plan import Run
from sweeps.results import SPEARMAN, Record, read_codes
from sweeps.sweep import Sweep

FILE = "physics.parquet"
VERSION = 1  # raised whenever a definition changes
_MADE_FROM = b"made_from"
_TEXT: pa.DataType = pa.string()
_FLOAT: pa.DataType = pa.float64()
_INT: pa.DataType = pa.int64()
COLUMNS = pa.schema(
    [
        ("run_id", _TEXT),
        ("unit", _INT),  # from 0; class units first
        ("covariate", _TEXT),
        ("class", _TEXT),  # null: over all images
        ("spearman", _FLOAT),
        ("mutual_information", _FLOAT),  # nats
        ("n", _INT),
    ]
)

Row = dict[str, Any]
Values = dict[str, dict[str, float | None]]


def correspond(sweep: Sweep, records: Mapping[str, Record]) -> Values:
    """Write physics.parquet of every scored run; return the largest |Spearman| of its class units.

    By column name, a covariate each, and run_id: over all images, None where none is defined. No
    covariates: no file and no column.
    """
    covariates = sweep.dataset.covariates
    if not covariates:
        return {}
    key = _key(sweep)
    known = _known(sweep, key)
    scored = [
        run.run_id
        for run in sweep.runs
        if records.get(run.run_id, {}).get("status") in results.SCORED
    ]
    made = _made(sweep, records, [run_id for run_id in scored if run_id not in known])
    rows = [row for run_id in scored for row in (known | made).get(run_id, ())]
    if made or known.keys() - set(scored):
        table = pa.Table.from_pylist(rows, schema=COLUMNS.with_metadata({_MADE_FROM: key}))
        write_whole(sweep.folder / FILE, storage.to_parquet(table))
    return _largest(sweep, rows)


def columns(covariates: Iterable[str]) -> dict[str, str]:
    """Return each covariate's column: its name in letters that every table and MLflow can hold."""
    found: dict[str, str] = {}
    for name in covariates:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
        column = f"{SPEARMAN}{plain}"
        while column in found.values():
            column += "_"
        found[name] = column
    return found


def _key(sweep: Sweep) -> bytes:
    """Return the digest of what the rows depend on but the codes.

    Where seeds draw their own data, that of the study's own: the others follow from its settings,
    and a run_id from its images.
    """
    rows = sweep.draws.own.scorer.rows
    content = hashlib.sha256(json.dumps([VERSION, *sweep.dataset.class_names]).encode())
    content.update((sweep.dataset.label_digest or "").encode())
    content.update(b"" if rows is None else rows.tobytes())
    for name, values in sweep.dataset.covariates.items():
        content.update(name.encode() + np.ascontiguousarray(values, dtype="<f8").tobytes())
    return content.hexdigest().encode()


def _known(sweep: Sweep, key: bytes) -> dict[str, list[Row]]:
    """Return the rows of the file by run_id, none where it was made from something else."""
    found: dict[str, list[Row]] = {}
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        table = storage.read_parquet(sweep.folder / FILE)
        if (table.schema.metadata or {}).get(_MADE_FROM) == key:
            for row in table.select(COLUMNS.names).to_pylist():
                found.setdefault(row["run_id"], []).append(row)
    return found


def _made(
    sweep: Sweep, records: Mapping[str, Record], run_ids: Iterable[str]
) -> dict[str, list[Row]]:
    """Return the rows of runs whose codes can be read, those of a seed's data after each other."""
    wanted = set(run_ids)
    by_data: dict[int | None, list[Run]] = {}
    for run in sweep.runs:
        if run.run_id in wanted:
            by_data.setdefault(sweep.draws.key(run.seed), []).append(run)
    found: dict[str, list[Row]] = {}
    for runs in by_data.values():
        found |= _rows_of(sweep, records, runs)
    return found


def _rows_of(
    sweep: Sweep, records: Mapping[str, Record], runs: Sequence[Run]
) -> dict[str, list[Row]]:
    """Return the rows of runs that have the same data."""
    wanted = {run.run_id for run in runs}
    draw = sweep.draws.of(runs[0].seed)
    dataset, places = draw.dataset, draw.scorer.rows
    every = slice(None) if places is None else places
    labels = None if dataset.labels is None else dataset.labels[every]
    physics = Physics({name: v[every] for name, v in dataset.covariates.items()}, labels)
    found: dict[str, list[Row]] = {}
    for pack in sorted({str(records[run_id]["pack"]) for run_id in wanted}):
        with contextlib.suppress(Refused):
            for run_id, code in read_codes(sweep.folder, pack).items():
                if run_id in wanted:
                    rows = [asdict(one) for one in physics.of(code[every])]
                    found[run_id] = [
                        {**row, "run_id": run_id, "class": _class_name(sweep, row.pop("label"))}
                        for row in rows
                    ]
    return found


def _class_name(sweep: Sweep, label: int | None) -> str | None:
    return None if label is None else sweep.dataset.class_names[label]


def _largest(sweep: Sweep, rows: Iterable[Row]) -> Values:
    named = columns(sweep.dataset.covariates)
    units = {run.run_id: run.cell.spec.code.class_units for run in sweep.runs}
    found: Values = {column: {} for column in named.values()}
    for row in rows:
        known = row["class"] is None and row["spearman"] is not None
        if known and row["unit"] < units[row["run_id"]]:
            own = found[named[row["covariate"]]]
            own[row["run_id"]] = max(abs(row["spearman"]), own.get(row["run_id"]) or 0.0)
    return found
