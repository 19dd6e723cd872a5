"""What a terminal shows: the plan, and the stability table with its notes.

Order, numbers, notes and protocol are the report's.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sweeps.answer import Answer, answer
from sweeps.look import Look, many
from sweeps.look import write as _print
from sweeps.markdown import literal
from sweeps.results import Results
from sweeps.study import Study
from sweeps.vary import words
from sweeps.wording import (
    Baselines,
    Row,
    Subject,
    between,
    defined_baselines,
    fixed,
    minutes,
    notes,
    percent,
    protocol,
    ranked,
    spread_of,
    variances,
)

MOST_LISTED = 30  # cells that a plan names


def _columns(study: Subject, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the table's numbers as texts, a list a column, by the column's full name."""

    def column(name: str) -> list[float | None]:
        return [row[f"{study.metric}_{name}"] for row in rows]

    bounds = zip(column("ci_low"), column("ci_high"), strict=True)
    columns = {
        "n": [f"{row['n_scored']}/{row['n_planned']}" for row in rows],
        "mean": [fixed(value) for value in column("mean")],
        "95 % interval": [between(low, high) for low, high in bounds],
        "sd": [fixed(value) for value in column("sd")],
        "variance": variances(column("variance")),
        "min": [fixed(value) for value in column("min")],
        "worst quarter": [fixed(value) for value in column("worst_quarter")],
    }
    if study.low is not None:
        columns[f"below {study.low:g}"] = [percent(value) for value in column("low_basin_share")]
    if isinstance(study, Study):  # a table has no images that a baseline could be fit to
        columns["beats baseline"] = [percent(v) for v in column("beats_baseline_share")]
    return columns


def _foot(heads: Iterable[str], mean: float, sd: float | None) -> dict[str, str]:
    """Return a baseline's texts by column: its mean, and its sd where seeds redraw the data."""
    known = {"mean": fixed(mean), "sd": "" if sd is None else fixed(sd)}
    return {head: known.get(head, "") for head in heads}


def markdown_table(study: Subject, results: Results, baselines: Baselines) -> str:
    """Return the table as GitHub's markdown; labels stay text whatever they contain."""
    rows = ranked(study, results)
    columns = _columns(study, rows)
    lines = [["cell", *columns], ["---", *("--:" for _ in columns)]]
    numbers = zip(*columns.values(), strict=True)
    lines += [[literal(row["cell"]), *n] for row, n in zip(rows, numbers, strict=True)]
    for name, value in defined_baselines(study, baselines):
        cells = _foot(columns, value, spread_of(baselines, name, study.metric))
        lines.append([f"*baseline: {literal(name)}*", *cells.values()])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def html_table(study: Study, results: Results, baselines: Baselines) -> str:
    """Return the table as HTML without scripts or styles of a page, for a notebook."""
    rows = ranked(study, results)
    columns = _columns(study, rows)
    numbers = zip(*columns.values(), strict=True)
    lines = [[row["cell"], *texts] for row, texts in zip(rows, numbers, strict=True)]
    for name, value in defined_baselines(study, baselines):
        cells = _foot(columns, value, spread_of(baselines, name, study.metric))
        lines.append([f"baseline: {name}", *cells.values()])
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("cell", *columns))
    body = "".join(
        f'<tr><th style="text-align:left">{escape(line[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in line[1:])
        + "</tr>"
        for line in lines
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


# Left out in this order where labels need the room; the first two for the look of it alone.
LEFT_OUT = ("sd", "min", "worst quarter", "beats baseline", "n", "95 % interval", "variance")
EASILY = LEFT_OUT[:2]
SHORT = {"worst quarter": "worst\n1/4", "beats baseline": "beats\nbase"}
SHORT |= {"95 % interval": "95 %\ninterval"}
LEAST_LABEL, MOST_LABEL = 14, 24
LABEL_LINES = 2
PLAIN = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def stability_table(
    study: Subject, results: Results, baselines: Baselines, look: Look | None = None
) -> Table:
    """Return the table of the study's metric, at most `look.width` (80) columns wide.

    Labels wrap, numbers never do: where labels are long, columns are left out, `sd` first.
    """
    look = Look() if look is None else look
    rows = ranked(study, results)
    labels = [row["cell"] for row in rows]
    columns, room = _fit(_columns(study, rows), labels, look.width)
    longest = max(len(label) for label in [*labels, *baselines, " " * LEAST_LABEL])
    airy = room - len(columns) >= longest
    table = Table(
        box=box.SIMPLE_HEAD if look.encoding.startswith("utf") else PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1 if airy else 0, 0, 0),
        header_style="bold" if look.styled else "",
    )
    table.add_column("cell", overflow="fold", min_width=LEAST_LABEL)
    for head in columns:
        table.add_column(_short(head), justify="right", no_wrap=True)
    for label, numbers in zip(labels, zip(*columns.values(), strict=True), strict=True):
        table.add_row(look.text(label), *map(look.text, numbers))
    if defined_baselines(study, baselines):
        table.add_section()
        table.add_row(look.text("baselines", "dim"))
    for name, value in defined_baselines(study, baselines):
        cells = _foot(columns, value, spread_of(baselines, name, study.metric))
        table.add_row(*(look.text(text, "dim") for text in (f"  {name}", *cells.values())))
    return table


def _short(head: str) -> str:
    return SHORT.get(head, head.replace(" ", "\n"))


def _fit(
    columns: dict[str, list[str]], labels: Sequence[str], width: int
) -> tuple[dict[str, list[str]], int]:
    """Return the columns that leave the labels room, and how much."""
    wide = {
        head: max(len(text) for text in [*texts, *_short(head).split("\n")])
        for head, texts in columns.items()
    }
    words = max((len(word) for label in labels for word in label.split()), default=0)
    least = min(MOST_LABEL, max(LEAST_LABEL, words))
    kept = dict(columns)
    for head in LEFT_OUT:
        room = width - sum(wide[name] + 1 for name in kept)
        lines = max((len(textwrap.wrap(label, max(1, room))) for label in labels), default=0)
        if room >= least and (lines <= LABEL_LINES or head not in EASILY):
            break
        del kept[head]
    return kept, width - sum(wide[name] + 1 for name in kept)


def print_table(
    study: Subject,
    results: Results,
    baselines: Baselines,
    found: Answer | None = None,
    *,
    console: Console,
) -> None:
    """Print the answer, the table, what to know before believing it, and how it came about."""
    look = Look.of(console)
    cells = many(results.summary.num_rows, "cell")
    title = f"{study.name}: {study.metric}, {cells}, {_seeds_each(results)} each"
    _print(console, look, look.text(title, "bold"))
    _print(console, look, look.text((found or answer(study, results, baselines)).sentence))
    _print(console, look, Text())
    _print(console, look, stability_table(study, results, baselines, look))
    for mark, sentences in ("!", notes(study, results)), ("-", protocol(study, baselines)):
        listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 1, 0, 0))
        style = "dim" if mark == "-" else ""
        for sentence in sentences:
            listing.add_row(look.text(mark, style or "yellow"), look.text(sentence, style))
        if sentences:
            _print(console, look, Text())
            _print(console, look, listing)


def _seeds_each(results: Results) -> str:
    """Return how many seeds a cell has; a table's cells may differ."""
    counts: list[int] = sorted({row["n_planned"] for row in results.summary.to_pylist()})
    least = f"{counts[0]:,} to " if len(counts) > 1 else ""
    return least + many(counts[-1], "seed")


def print_plan(study: Study, content: Mapping[str, Any], console: Console) -> None:
    """Print what `plan --json` says: how much there is to train, and about how long it takes."""
    look = Look.of(console)
    left = minutes(content["estimate_seconds"])
    hours = content["estimate_gpu_hours"]
    lines = {
        "cells": f"{content['cells']:,}",
        "seeds": f"{content['seeds']:,}",
        "runs": f"{content['runs']:,}, of which {content['done']:,} are done",
        "a seed redraws": words(study.vary),
        "to train": f"{content['missing']:,} in {many(content['packs'], 'pack')}"
        f"{' of one member each' if study.redraws_data else ''}, {content['slots']:,} at a time",
        "estimate": f"{left}{f', {hours:.2f} GPU hours' if hours else ''}",
        "folder": content["out"],
    }
    _print(console, look, look.text(f"{study.name}: {study.question}".rstrip(": "), "bold"))
    listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in lines.items():
        listing.add_row(look.text(name, "dim"), look.text(text))
    _print(console, look, listing)
    for cell in study.cells[:MOST_LISTED]:
        _print(console, look, look.text(f"- {cell.label}", "dim"))
    if len(study.cells) > MOST_LISTED:
        _print(console, look, look.text(f"- and {len(study.cells) - MOST_LISTED} more", "dim"))
    for sentence in content["warnings"]:
        _print(console, look, look.text(f"! {sentence}", "yellow"))
