"""The command `data`: list, describe, export."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from sweeps import data as datasets
from sweeps.commands import OK
from sweeps.mistakes import Refused


def data(options: argparse.Namespace) -> int:
    """Show what datasets there are, or what one holds, or write one out."""
    if options.action != "list" and options.what is None:
        raise Refused([f"data {options.action}: name a dataset, a file or a study; see: data list"])
    if (options.action == "export") != (options.out is not None):
        fix = "export needs --out DIR" if options.out is None else "--out is for export"
        raise Refused([f"data {options.action}: {fix}"])
    content: dict[str, Any]
    if options.action == "list":
        content, show = datasets.catalogue(), datasets.print_catalogue
    else:
        dataset = datasets.open_data(options.what)
        content, show = datasets.describe(dataset), datasets.print_description
        said = datasets.redrawn(options.what)
        content |= {"redraws": said} if said else {}
        if options.action == "export":
            content["files"] = [str(path) for path in datasets.export(dataset, options.out)]
    if options.json:
        print(json.dumps(content))
        return OK
    show(content, Console())
    print("".join(f"written: {path}\n" for path in content.get("files", ())), end="")
    return OK
