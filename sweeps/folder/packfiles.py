"""The files that packs leave in a study folder: where they lie, and what a row of records must be.

Known without torch, so that `status` is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from sweeps.folder.seal import Damaged
from sweeps.folder.storage import read_parquet, read_safetensors
from sweeps.mistakes import Refused

RECORDS, CHECKPOINTS = "records", "checkpoints"
SIDECARS = ("codes", "history", "members")
ENDINGS = {"members": ".safetensors", CHECKPOINTS: ".safetensors"}
_TEXT: pa.DataType = pa.string()
COUNTED = pa.schema(  # by which a row counts; every part has these
    [
        ("run_id", _TEXT),
        ("status", _TEXT),
        ("finished_at", pa.timestamp("us", tz="UTC")),
        ("pack", _TEXT),
    ]
)
NEVER_NULL = ("run_id", "status", "finished_at")

Row = dict[str, Any]


def file_of(folder: Path, kind: str, pack: str) -> Path:
    """Return where a pack's file of one kind lies."""
    return folder / kind / f"{pack}{ENDINGS.get(kind, '.parquet')}"


def listed(folder: Path, kind: str) -> list[Path]:
    """Return the files of one kind by name; what else lies there, hidden files too, is not ours."""
    found = (folder / kind).glob(f"*{ENDINGS.get(kind, '.parquet')}")
    return sorted(path for path in found if not path.name.startswith("."))


def read_rows(path: Path, schema: pa.Schema = COUNTED) -> list[Row]:
    """Return the rows of a part of records; a column that it lacks, as older ones may, is null.

    Raises Damaged, also where it is a table of something else; OSError where the file is not there
    or may not be read.
    """
    table = read_parquet(path, schema.names)
    if lacking := [name for name in COUNTED.names if name not in table.column_names]:
        msg = f"it is a table of something else, without the column '{lacking[0]}'"
        raise Damaged(msg)
    try:
        columns = [
            table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in schema
        ]
    except pa.ArrowException as failure:
        msg = f"it is a table of something else: {str(failure).partition(chr(10))[0]}"
        raise Damaged(msg) from None
    if any(table[name].null_count for name in NEVER_NULL):
        msg = "it has rows that belong to no run"
        raise Damaged(msg)
    rows: list[Row] = pa.table(columns, schema=schema).to_pylist()
    return rows


def run_ids(path: Path) -> set[str]:
    """Return the runs that a file of codes, history or members holds something of.

    Raises Damaged and OSError as `read_rows`.
    """
    if path.suffix == ".safetensors":
        return {name.partition("/")[0] for name in read_safetensors(path)}
    table = read_parquet(path, ["run_id"])
    if not table.column_names:
        msg = "it is a table of something else, without the column 'run_id'"
        raise Damaged(msg)
    return set(map(str, table["run_id"].unique().to_pylist()))


def not_readable(path: Path, failure: OSError) -> Refused:
    """Return the refusal for a file that is there but may not be read: no damage, so it stays."""
    fix = "make it readable, or move it away and run the study again to train its runs anew"
    return Refused([f"{path}: cannot be read: {failure.strerror or failure}; {fix}"])
