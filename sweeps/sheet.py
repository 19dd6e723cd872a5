"""Anyone's table of runs where a study would be: what a report says of it, and its tables."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from sweeps.results import DONE, NUMBERS, RECORD, Results
from sweeps.stability import stability
from sweeps.table import KINDS, Columns, Key, Runs, read_table

# What the report reads of a run under these names cannot be a metric as well.
TAKEN = {"study", "cell", *RECORD.names} - {*NUMBERS, "seconds"}


@dataclass(frozen=True)
class Group:
    """One cell of a table: its label, and its columns' values."""

    label: str
    axes: dict[str, Any]

    def warnings(self) -> list[str]:
        """Return nothing: of how a foreign table's runs were made nothing is known."""
        return []


@dataclass(frozen=True)
class Sheet:
    """What a report says of a table, where a study would say it of itself."""

    name: str
    question: str
    metric: str
    low: float | None
    seeds: tuple[int | str, ...]
    cells: tuple[Group, ...]
    measures: Mapping[str, str]
    notes: tuple[str, ...]
    protocol: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shipped:
    """A table that comes along: its columns, and what to say of it."""

    columns: Columns
    question: str
    notes: tuple[str, ...]


SHIPPED = {
    "published": Shipped(
        Columns(cell=("configuration",), seed="seed", metric="value", measure="metric"),
        "How steady was a published separation of stars and galaxies without labels?",
        (
            "single Gaussian prior: said to be 22 runs, 24 are listed; all 24 count here",
            "runs as published in 2017, of Sloan Digital Sky Survey cut-outs; a seed is a place",
        ),
    )
}


def is_table(name: str) -> bool:
    """Say whether a name is that of a table file or of a table that is shipped."""
    path = Path(name)
    return path.suffix.lower() in KINDS or (name in SHIPPED and not path.exists())


def read_sheet(name: str, columns: Columns) -> tuple[Sheet, Results]:
    """Read a table of runs; the second is what `gather` makes of a study.

    A shipped table's own columns stand in for those that are not named. Raises Refused with what is
    wrong: the file, the names of columns, values, pairs of cell and seed that occur twice.
    """
    path, shipped = Path(name), None
    if name in SHIPPED and not path.exists():
        shipped = SHIPPED[name]
        path = Path(str(importlib.resources.files("sweeps.examples").joinpath(f"{name}.csv")))
        given = {
            key: value for key, value in asdict(columns).items() if value not in {"", None, ()}
        }
        columns = replace(shipped.columns, **given)
    table = read_table(path, columns, TAKEN)
    labels = _labels(list(table.cells), columns.cell)
    if len(set(table.measures)) > 1:
        pairs = zip(labels, table.measures, strict=True)
        labels = [f"{label}, {measure}" for label, measure in pairs]
    named = dict(zip(labels, table.cells.values(), strict=True))
    groups = tuple(
        Group(label, dict(zip(columns.cell, key, strict=True)))
        for label, key in zip(labels, table.cells, strict=True)
    )
    sheet = Sheet(
        name=path.stem.strip(".") or "table",  # a folder is named so: never .. itself
        question=shipped.question if shipped else "",
        metric=columns.metric,
        low=columns.low,
        seeds=tuple(dict.fromkeys(s for runs in named.values() for s in runs)),  # type: ignore[misc]
        cells=groups,
        measures=dict(zip(labels, table.measures, strict=True)),
        notes=(shipped.notes if shipped else ()),
        protocol=(
            f"{columns.metric}: a column of {path.name}, as it stands there; higher is better.",
            "How the runs were made, and what a seed redrew, is not known here.",
            "A run without a score (empty, NaN or Inf) is counted and enters no number.",
        ),
        provenance=_provenance(path, columns, table.rows),
    )
    return sheet, _tables(sheet, named)


def _labels(keys: Sequence[Key], names: Sequence[str]) -> list[str]:
    """Return the values in a row; with their columns' names where two cells would look alike."""
    labels = [" ".join(filter(None, key)) for key in keys]
    if len(set(labels)) == len(labels):
        return labels
    return [" ".join(f"{n}={v}" for n, v in zip(names, key, strict=True)) for key in keys]


def _tables(sheet: Sheet, named: Mapping[str, Runs]) -> Results:
    """Return a row a run and a row a cell, as `gather` would; what is not known is null."""
    ids = {label: hashlib.sha256(label.encode()).hexdigest()[:16] for label in named}
    seed = pa.int64() if all(isinstance(one, int) for one in sheet.seeds) else pa.string()
    own = [pa.field("study", pa.string()), pa.field("cell", pa.string()), pa.field("seed", seed)]
    left = {"seed", sheet.metric, *NUMBERS, "diagnostics_id"}
    others = [field for field in RECORD if field.name not in left]
    schema = pa.schema([*own, *others, pa.field(sheet.metric, pa.float64())])
    runs = [
        {"study": sheet.name, "cell": label, "cell_id": ids[label], "seed": one}
        | ({"status": "failed", "error": v} if isinstance(v, str) else {"status": "ok"})
        | {sheet.metric: None if isinstance(v, str) else v}
        for label, cell in named.items()
        for one, v in cell.items()
    ]
    summary = [
        {**group.axes, "study": sheet.name, "cell_id": ids[group.label], "cell": group.label}
        | dict(_numbers(sheet, list(named[group.label].values())))
        for group in sheet.cells
    ]
    table = pa.Table.from_pylist(summary)
    types = [
        pa.field(f.name, pa.float64() if pa.types.is_null(f.type) else f.type) for f in table.schema
    ]
    return Results(pa.Table.from_pylist(runs, schema=schema), table.cast(pa.schema(types)))


def _numbers(sheet: Sheet, values: Sequence[float | str]) -> Iterator[tuple[str, Any]]:
    """Yield a cell's counts and statistics under their names in summary.parquet."""
    scored = [value for value in values if not isinstance(value, str)]
    yield "n_planned", len(values)
    yield "n_scored", len(scored)
    for state in (*DONE, "failed"):
        yield f"n_{state}", {"ok": len(scored), "failed": len(values) - len(scored)}.get(state, 0)
    for name, value in asdict(stability(scored, low=sheet.low)).items():
        if name != "n":
            yield f"{sheet.metric}_{name}", value


def _provenance(path: Path, columns: Columns, count: int) -> tuple[tuple[str, str], ...]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    words = f"cell: {', '.join(columns.cell)}; seed: {columns.seed}; metric: {columns.metric}"
    words += f"; measure: {columns.measure}" if columns.measure else ""
    return (
        ("Table", path.name),
        ("SHA-256", digest),
        ("Rows", f"{count:,}"),
        ("Columns", words),
    )
