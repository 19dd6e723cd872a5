"""A CSV or Parquet file with a row a run, read with suspicion: every mistake is a sentence.

Nothing of the file is executed: columns are read as text or numbers. A run without a score (empty,
NaN, Inf) is there and is counted; it enters no average.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from sweeps.mistakes import Refused, did_you_mean

KINDS = (".csv", ".parquet")
MOST_ROWS = 100_000  # the page has a dot for each
MOST_CELLS = 300
MOST_TOLD = 5  # mistakes of one kind
LONGEST = 60  # characters of a value in a message
EMPTY = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none"})
WHOLE = re.compile(r"[+-]?\d{1,18}")

Key = tuple[str, ...]
Runs = dict[Hashable, float | str]  # seed -> score, or why there is none


@dataclass(frozen=True)
class Columns:
    """Which columns make a cell, and which hold seed and metric.

    `measure` names the column that says what a value measures, where that differs: cells of
    different measures are not compared. `low` is in the metric's unit.
    """

    cell: tuple[str, ...] = ()
    seed: str = ""
    metric: str = ""
    measure: str = ""
    low: float | None = None


@dataclass(frozen=True)
class Table:
    """Each cell's runs by the values of its columns; what each cell measures; how many rows."""

    cells: dict[Key, Runs]
    measures: tuple[str, ...]
    rows: int


def read_table(path: Path, columns: Columns, taken: Collection[str] = ()) -> Table:
    """Read the runs of a table; a metric under a `taken` name is refused.

    Raises Refused with what is wrong: the file, the names of columns, values, pairs of cell and
    seed that occur twice.
    """
    _check_columns(path, columns, taken)
    return _group(path, columns)


def _check_columns(path: Path, columns: Columns, taken: Collection[str]) -> None:
    """Refuse names that the file does not have, has twice, or that cannot be what they are for."""
    header = _header(path)
    roles = [*(("cell", name) for name in columns.cell), ("seed", columns.seed)]
    roles += [("metric", columns.metric), ("measure", columns.measure)]
    missing = [f"--{role}" for role in ("cell", "seed", "metric") if not getattr(columns, role)]
    if missing:
        text = f"{path.name}: a table needs {', '.join(missing)} as well; its columns: "
        raise Refused([text + ", ".join(header)])
    found = []
    for role, name in roles:
        if name and name not in header:
            found.append(
                f"{path.name}: --{role}: unknown column '{name}'{did_you_mean(name, header)}"
            )
        elif header.count(name) > 1:
            found.append(f"{path.name}: --{role}: {header.count(name)} columns are called '{name}'")
    names = [name for role, name in roles if name and role != "measure"]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    found += [f"{path.name}: column '{name}' is named for two purposes" for name in twice]
    if columns.metric in taken and columns.metric in header:
        text = f"{path.name}: --metric: '{columns.metric}' is a word of the report itself"
        found.append(f"{text}; rename the column")
    if columns.low is not None and not math.isfinite(columns.low):
        found.append(f"--low: expected a finite number, got {columns.low}")
    if found:
        raise Refused(found)


def _header(path: Path) -> list[str]:
    """Return the names of the columns, as often as they occur."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise Refused([f"{path}: {what}; expected a table, {' or '.join(KINDS)}"])
    if path.suffix.lower() not in KINDS:
        raise Refused([f"{path}: expected a table whose name ends in {' or '.join(KINDS)}"])
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                if file.metadata.num_rows > MOST_ROWS:
                    raise Refused([_too_long(path)])
                header = list(file.schema_arrow.names)
        else:
            with pacsv.open_csv(path, parse_options=_csv_rules()) as reader:
                header = list(reader.schema.names)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as failure:
        raise Refused([_unreadable(path, failure)]) from None
    (only, *more) = header or [""]
    if not more and (";" in only or "\t" in only):
        raise Refused(
            [f"{path.name}: one column, '{only[:LONGEST]}'; expected commas between columns"]
        )
    return header


def _csv_rules() -> Any:
    return pacsv.ParseOptions(newlines_in_values=True)


def _unreadable(path: Path, failure: Exception) -> str:
    reason = str(failure).partition("\n")[0]
    return f"{path.name}: cannot be read as {path.suffix.lower()[1:]}: {reason}"


def _too_long(path: Path) -> str:
    return f"{path.name}: more than {MOST_ROWS:,} rows; expected a row a run"


def _values(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the wanted columns: text of a CSV, whatever a Parquet file holds."""
    try:
        if path.suffix.lower() == ".parquet":
            # Its folder's name is no column, whatever it looks like.
            table = pq.read_table(path, columns=list(names), partitioning=None)
            return {name: table[name].to_pylist() for name in names}
        options = pacsv.ConvertOptions(
            include_columns=list(names), column_types={name: pa.string() for name in names}
        )
        values: dict[str, list[Any]] = {name: [] for name in names}
        with pacsv.open_csv(path, parse_options=_csv_rules(), convert_options=options) as reader:
            for batch in reader:
                for name in names:
                    values[name] += batch.column(name).to_pylist()
                if len(values[names[0]]) > MOST_ROWS:
                    raise Refused([_too_long(path)])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as failure:
        raise Refused([_unreadable(path, failure)]) from None
    return values


def _group(path: Path, columns: Columns) -> Table:
    """Return the runs, cells in the order of their first rows."""
    names = list(dict.fromkeys([*columns.cell, columns.seed, columns.metric, columns.measure]))
    values = _values(path, [name for name in names if name])
    count = len(values[columns.seed])
    if count == 0:
        raise Refused([f"{path.name}: no rows; expected a row a run"])
    trouble = _Trouble(path.name)
    seeds = _seeds(values[columns.seed], trouble)
    scores = [
        _score(value, f"row {row}: {columns.metric}", trouble)
        for row, value in enumerate(values[columns.metric], 1)
    ]
    keys = list(zip(*([_text(v) for v in values[name]] for name in columns.cell), strict=True))
    kinds = [_text(v) for v in values[columns.measure]] if columns.measure else [""] * count
    cells: dict[Key, Runs] = {}
    first: dict[tuple[Key, Hashable], int] = {}
    measures: dict[Key, dict[str, None]] = {}
    for row, (key, seed, score, kind) in enumerate(zip(keys, seeds, scores, kinds, strict=True), 1):
        if not any(key):
            trouble.note("cell", f"row {row}: no value of {', '.join(columns.cell)}")
        earlier = first.setdefault((key, seed), row)
        if earlier != row and seed is not None:
            what = f"'{' '.join(filter(None, key))[:LONGEST]}', seed {seed}"
            fix = "expected a row a run; is a column missing in --cell?"
            trouble.note("twice", f"row {row}: {what} stands in row {earlier} already; {fix}")
        cells.setdefault(key, {})[seed] = score
        measures.setdefault(key, {})[kind] = None
        if len(cells) > MOST_CELLS:
            text = (
                f"more than {MOST_CELLS:,} cells; is each of {', '.join(columns.cell)} a setting?"
            )
            raise Refused([f"{path.name}: --cell: {text}"])
    for key, found in measures.items():
        if len(found) > 1:
            what = f"'{' '.join(filter(None, key))[:LONGEST]}' has {' and '.join(found)}"
            trouble.note("measure", f"--measure: {what}; expected one; add the column to --cell")
    trouble.refuse()
    return Table(cells, tuple(next(iter(found)) for found in measures.values()), count)


class _Trouble:
    """Mistakes of a file, the first few of each kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: dict[str, list[str]] = {}

    def note(self, kind: str, sentence: str) -> None:
        self._found.setdefault(kind, []).append(sentence)

    def refuse(self) -> None:
        """Raise Refused where anything was noted."""
        told = []
        for found in self._found.values():
            told += [f"{self._name}: {sentence}" for sentence in found[:MOST_TOLD]]
            if len(found) > MOST_TOLD:
                told.append(f"{self._name}: and {len(found) - MOST_TOLD:,} more rows like these")
        if told:
            raise Refused(told)


def _text(value: Any) -> str:
    """Return a cell's value as it is shown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _seeds(values: Sequence[Any], trouble: _Trouble) -> list[Hashable]:
    """Return seeds: whole numbers where all are, else text; None was noted."""
    texts = [str(int(v)) if isinstance(v, float) and v.is_integer() else _text(v) for v in values]
    for row, text in enumerate(texts, 1):
        if not text:
            trouble.note("seed", f"row {row}: no seed")
    if all(WHOLE.fullmatch(text) for text in texts if text):
        return [int(text) if text else None for text in texts]
    return [text or None for text in texts]


def _score(value: Any, where: str, trouble: _Trouble) -> float | str:
    """Return a finite number, or why there is none."""
    text = _text(value)
    if text.lower() in EMPTY:
        return f"no score: {text or 'empty'}"
    try:
        number = math.nan if isinstance(value, bool) or "_" in text else float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        trouble.note("score", f"{where}: expected a number, got '{text[:LONGEST]}'")
    return number if math.isfinite(number) else f"no score: {text}"
