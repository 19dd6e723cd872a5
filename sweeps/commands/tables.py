"""The command `report` on anyone's table of runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from sweeps.answer import answer
from sweeps.commands import INCOMPLETE, OK
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.report import as_json, write_report
from sweeps.results import to_parquet
from sweeps.sheet import read_sheet
from sweeps.table import Columns
from sweeps.terminal import print_table


def report(options: argparse.Namespace) -> int:
    """Show statistics and write the page, from the table."""
    cell = tuple(name.strip() for name in (options.cell or "").split(",") if name.strip())
    texts = {name: getattr(options, name) or "" for name in ("seed", "metric", "measure")}
    sheet, tables = read_sheet(options.study, Columns(cell=cell, low=options.low, **texts))
    folder = options.out or Path("runs") / sheet.name
    if (folder / "study.yaml").exists():
        raise Refused([f"{folder}: holds a study, which has its own report; choose another --out"])
    found = answer(sheet, tables, {})
    try:
        write_whole(folder / "summary.parquet", to_parquet(tables.summary))
        page = write_report(sheet, None, folder, tables, {}, found)
    except OSError as failure:
        text = f"{folder}: the report cannot be written: {failure.strerror}"
        raise Refused([f"{text}; choose another with --out"]) from None
    if options.json:
        print(json.dumps(as_json(sheet, tables, {}, found)))
    else:
        print_table(sheet, tables, {}, found, console=Console())
        print(f"\nreport: {page}")
    return OK if tables.runs["status"].to_pylist().count("failed") == 0 else INCOMPLETE
