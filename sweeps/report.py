"""Step 11: a study's statistics as JSON, and as a page that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from models.datasets import Dataset
from sweeps.answer import Answer, answer
from sweeps.diagnoses import sentences
from sweeps.folder.storage import write_whole
from sweeps.freshness import is_fresh, key_of, mark_fresh
from sweeps.page import content
from sweeps.results import Results, to_parquet
from sweeps.sheet import Sheet
from sweeps.stability import Stability
from sweeps.wording import Baselines, Row, Subject, numbers

PAGE = "report.html"


def as_json(
    study: Subject, results: Results, baselines: Baselines, found: Answer | None = None
) -> dict[str, Any]:
    """Return the statistics as plain JSON values, cells in the study's order; None, never NaN."""
    axes = {cell.label: cell.axes for cell in study.cells}
    counts = ("n_planned", "n_scored", "n_ok", "n_collapsed", "n_diverged", "n_failed")
    statistics = [field.name for field in fields(Stability) if field.name != "n"]
    names = numbers(study, results)
    cells = [
        {
            "cell": row["cell"],
            "cell_id": row["cell_id"],
            "axes": axes.get(row["cell"], {}),
            **{count: row[count] for count in counts},
            "metrics": {
                metric: {name: _plain(row[f"{metric}_{name}"]) for name in statistics}
                for metric in names
            },
        }
        for row in results.summary.to_pylist()
    ]
    values = {
        name: {metric: _plain(value) for metric, value in scores.items()}
        for name, scores in baselines.items()
    }
    found = found or answer(study, results, baselines)
    more = {} if isinstance(study, Sheet) else {"diagnoses": sentences(study, results, baselines)}
    return {
        "study": study.name,
        "metric": study.metric,
        "answer": {
            "verdict": found.verdict,
            "sentence": found.sentence,
            "comparisons": list(found.comparisons),
        },
        "cells": cells,
        "baselines": values,
        **more,
    }


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def write_report(
    study: Subject,
    dataset: Dataset | None,
    folder: Path,
    results: Results,
    baselines: Baselines,
    found: Answer | None = None,
) -> Path:
    """Write report.html and figures/NAME.svg, .png and .csv into the study folder.

    `found` is the study's answer, worked out where it is not given; anyone's table has no dataset.
    Returns the page's path. The page loads nothing; its script sorts tables. What was made from the
    same before stays as it is. Raises OSError where the folder cannot be written.
    """
    found = found or answer(study, results, baselines)
    key = key_of(folder, _made_from(study, dataset, results, baselines, found))
    if not is_fresh(folder, key):
        drawn, files = _draw(study, dataset, folder, results, baselines)
        texts = content(study, results, baselines, found)
        write_whole(folder / PAGE, _page(texts, drawn).encode())
        mark_fresh(folder, key, [PAGE, *files])
    return folder / PAGE


def _made_from(
    study: Subject, dataset: Dataset | None, results: Results, baselines: Baselines, found: Answer
) -> Iterator[bytes]:
    yield (repr(study) if isinstance(study, Sheet) else json.dumps(study.resolved())).encode()
    yield json.dumps([baselines, found.sentence, list(found.comparisons)]).encode()
    for table in (results.runs, results.summary):
        yield to_parquet(table)
    if dataset is not None:
        yield f"{dataset.image_digest} {dataset.label_digest} {dataset.class_names}".encode()


def _draw(
    study: Subject,
    dataset: Dataset | None,
    folder: Path,
    results: Results,
    baselines: Baselines,
) -> tuple[dict[str, Row], list[str]]:
    """Write every figure; return what the page shows of each, and the names of the files."""
    from sweeps.figures import svg  # noqa: PLC0415 - matplotlib takes a second, which no table needs
    from sweeps.pictures import Material, Trained, as_csv, pictures  # noqa: PLC0415

    drawn: dict[str, Row] = {}
    files: list[str] = []
    if dataset is None or isinstance(study, Sheet):
        material = Material(study, folder, results, baselines)
    else:
        material = Trained(study, folder, results, baselines, dataset)
    for picture in pictures(material):
        text = ""
        if picture.figure is not None:
            text = svg.svg(picture.figure)
            for ending, data in {
                "svg": svg.alone(text).encode(),
                "png": svg.png(picture.figure),
                "csv": as_csv(picture.table),
            }.items():
                files.append(f"figures/{picture.name}.{ending}")
                write_whole(folder / files[-1], data)
        drawn[picture.name] = {"picture": Markup(text), "note": picture.note}  # noqa: S704 - ours
    return drawn, files


def _page(texts: Row, drawn: Mapping[str, Row]) -> str:
    """Fill the template; everything is escaped there but our own style, script and figures."""
    from sweeps.figures import svg  # noqa: PLC0415 - matplotlib

    colours = {"light": svg.variables(dark=False), "dark": svg.variables(dark=True)}
    parts = importlib.resources.files("sweeps")
    html, css, script = (
        parts.joinpath(f"report.{ending}").read_text(encoding="utf-8").strip()
        for ending in ("html", "css", "js")
    )
    strict = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return strict.from_string(html).render(
        **texts,
        figures=drawn,
        colours=colours,
        style=Markup(css),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        script_digest=digest,
    )
