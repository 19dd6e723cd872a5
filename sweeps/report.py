"""Step 11: a study's statistics as JSON, and as a page that loads nothing and runs nothing."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pyarrow.parquet as pq
from markupsafe import Markup

from sweeps import __version__
from sweeps.answer import answer
from sweeps.plan import Run
from sweeps.results import SCORED, Results
from sweeps.sheet import Sheet
from sweeps.stability import Stability, t_interval
from sweeps.storage import write_whole
from sweeps.wording import (
    DASH,
    Baselines,
    Row,
    Subject,
    between,
    fixed,
    notes,
    outcomes,
    percent,
    protocol,
    ranked,
    ranked_baselines,
    variances,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TROUBLES = 200


def as_json(study: Subject, results: Results, baselines: Baselines) -> dict[str, Any]:
    """Return the statistics as plain JSON values, cells in the study's order; None, never NaN."""
    axes = {cell.label: cell.axes for cell in study.cells}
    counts = ("n_planned", "n_scored", "n_ok", "n_collapsed", "n_diverged", "n_failed")
    names = [field.name for field in fields(Stability) if field.name != "n"]
    cells = [
        {
            "cell": row["cell"],
            "cell_id": row["cell_id"],
            "axes": axes.get(row["cell"], {}),
            **{count: row[count] for count in counts},
            "metrics": {
                metric: {name: _plain(row[f"{metric}_{name}"]) for name in names}
                for metric in outcomes(study)
            },
        }
        for row in results.summary.to_pylist()
    ]
    values = {
        name: {metric: _plain(value) for metric, value in scores.items()}
        for name, scores in baselines.items()
    }
    found = answer(study, results, baselines)
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
    }


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def write_report(
    study: Subject, runs: Sequence[Run], folder: Path, results: Results, baselines: Baselines
) -> Path:
    """Write report.html and figures/*.svg into the study folder; return the page's path.

    The page loads nothing and runs nothing. Raises OSError where the folder cannot be written.
    """
    from sweeps.figures import svg  # noqa: PLC0415 - matplotlib takes a second, which no table needs

    drawn = {
        name: svg(figure) for name, figure in _figures(study, runs, folder, results, baselines)
    }
    for name, picture in drawn.items():
        write_whole(folder / "figures" / f"{name}.svg", _alone(picture).encode())
    page = _page(study, results, baselines, drawn)
    write_whole(folder / "report.html", page.encode())
    return folder / "report.html"


def _alone(picture: str) -> str:
    """Give a picture that no page surrounds an ink for light and dark."""
    light = ":root{color-scheme:light dark;color:#1d1e21}"
    dark = "@media(prefers-color-scheme:dark){:root{color:#e6e6e8}}"
    return picture.replace(">", f"><style>{light}{dark}</style>", 1)


def _figures(
    study: Subject, runs: Sequence[Run], folder: Path, results: Results, baselines: Baselines
) -> Iterable[tuple[str, Figure]]:
    """Yield the name and figure of the seeds' scores and of their learning curves."""
    from sweeps.figures import learning_curves, strip_plot  # noqa: PLC0415

    rows, records = ranked(study, results), results.runs.to_pylist()
    known = ranked_baselines(study, baselines)
    yield "seeds", strip_plot(rows, records, study.metric, study.low, known)
    curves = _curves(folder, records, {run.run_id for run in runs})
    by_cell: dict[str, list[Row]] = {row["cell_id"]: [] for row in rows}
    for record in records:
        if record["run_id"] in curves:
            curve = curves[record["run_id"]]
            by_cell[record["cell_id"]].append({"status": record["status"], **curve})
    if curves:
        yield "curves", learning_curves([(row["cell"], by_cell[row["cell_id"]]) for row in rows])


def _curves(folder: Path, records: Sequence[Row], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Read step and loss of each wanted run that kept them, from the pack that its record names."""
    found: dict[str, dict[str, Any]] = {}
    for pack in sorted({record["pack"] for record in records if record["pack"]}):
        path = folder / "history" / f"{pack}.parquet"
        if path.is_file():
            for point in pq.read_table(path, columns=["run_id", "step", "loss"]).to_pylist():
                if point["run_id"] in wanted:
                    curve = found.setdefault(point["run_id"], {"step": [], "loss": []})
                    curve["step"].append(point["step"])
                    curve["loss"].append(point["loss"])
    return found


def _page(study: Subject, results: Results, baselines: Baselines, drawn: Mapping[str, str]) -> str:
    """Fill the template; everything is escaped there but the pictures that `figures` made."""
    text = importlib.resources.files("sweeps").joinpath("report.html").read_text(encoding="utf-8")
    strict = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template, troubles = strict.from_string(text), _troubles(results)
    return template.render(
        study=study,
        answer=answer(study, results, baselines),
        summary="" if isinstance(study, Sheet) else _summary(results),
        rows=_rows(study, results),
        baselines=[(name, fixed(v, 4)) for name, v in ranked_baselines(study, baselines)],
        others=_others(study, results, baselines),
        figures={name: Markup(picture) for name, picture in drawn.items()},  # noqa: S704 - ours
        notes=notes(study, results),
        protocol=protocol(study, baselines),
        curves_left_out=_left_out(results),
        troubles=troubles[:MOST_TROUBLES],
        untold=max(0, len(troubles) - MOST_TROUBLES),
        provenance=_provenance(study, results),
    )


def _left_out(results: Results) -> str:
    """Return what the learning curves do not show, where that is something."""
    from sweeps.figures import MOST_CURVES, MOST_PANELS  # noqa: PLC0415

    texts = []
    if results.summary.num_rows > MOST_PANELS:
        texts.append(f"the first {MOST_PANELS} cells")
    if any(row["n_planned"] > MOST_CURVES for row in results.summary.to_pylist()):
        texts.append(f"the first {MOST_CURVES} seeds of each")
    return f" Shown: {', '.join(texts)}." if texts else ""


def _summary(results: Results) -> str:
    """Return one sentence of counts: what there is, nothing of what is better."""
    rows = results.summary.to_pylist()
    total = {
        name: sum(row[f"n_{name}"] for row in rows)
        for name in ("planned", "scored", "collapsed", "diverged", "failed")
    }
    open_ = total["planned"] - total["scored"] - total["diverged"] - total["failed"]
    cells = f"{len(rows):,} cell{'' if len(rows) == 1 else 's'}"
    text = f"Of {total['planned']:,} planned runs ({cells}) {total['scored']:,} are scored, "
    text += f"{total['collapsed'] or 'none'} of them collapsed; "
    text += f"{total['diverged'] or 'none'} diverged and {total['failed'] or 'none'} failed"
    return text + (f"; {open_:,} are not trained yet." if open_ else ".")


def _rows(study: Subject, results: Results) -> list[Row]:
    """Return the texts of the page's table, a row a cell."""
    rows = ranked(study, results)
    values: dict[str, list[float]] = {row["cell_id"]: [] for row in rows}
    for run in results.runs.to_pylist():
        if run["status"] in SCORED and run[study.metric] is not None:
            values[run["cell_id"]].append(run[study.metric])
    own = [{n.removeprefix(f"{study.metric}_"): v for n, v in row.items()} for row in rows]
    shown = zip(own, variances([row["variance"] for row in own]), strict=True)
    return [
        {name: row[name] for name in row if name == "cell" or name.startswith("n_")}
        | {name: fixed(row[name], 4) for name in ("mean", "sd", "median", "iqm", "min")}
        | {
            "variance": variance,
            "worst_quarter": fixed(row["worst_quarter"], 4),
            "interval": between(row["ci_low"], row["ci_high"], 4),
            "method": _method(values[row["cell_id"]], row["ci_low"], row["ci_high"]),
            "low": percent(row["low_basin_share"]),
            "low_interval": _percents(row["low_basin_low"], row["low_basin_high"]),
            "beats": percent(row["beats_baseline_share"]),
        }
        for row, variance in shown
    ]


def _method(values: Sequence[float], low: float | None, high: float | None) -> str:
    """Return which interval this is: BCa gives way to t below ten seeds, and where it fails."""
    if low is None:
        return ""
    return "t" if t_interval(values) == (low, high) else "BCa"


def _percents(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"{100 * low:.0f}{DASH}{100 * high:.0f} %"


def _others(study: Subject, results: Results, baselines: Baselines) -> Row:
    """Return mean and sd of every other outcome that some cell defines."""
    rows = ranked(study, results)
    defined = [n for n in outcomes(study) if any(row[f"{n}_mean"] is not None for row in rows)]
    heads = [name for name in defined if name != study.metric]
    body = [
        (row["cell"], [(fixed(row[f"{n}_mean"]), fixed(row[f"{n}_sd"])) for n in heads])
        for row in rows
    ]
    foot = [
        (name, [fixed(baselines[name].get(head)) for head in heads])
        for name, _ in ranked_baselines(study, baselines)
    ]
    return {"heads": heads, "body": body, "foot": foot}


def _troubles(results: Results) -> list[Row]:
    """Return each reason why runs failed, diverged or collapsed, with the seeds it met."""
    found: dict[tuple[str, str, str], Row] = {}
    for run in results.runs.to_pylist():
        if run["status"] != "ok":
            message = run["error"] or "no reason was recorded"
            row = {"message": message, "traceback": run["traceback"], "seeds": []}
            key = (run["cell"], run["status"], message)
            found.setdefault(key, row)["seeds"].append(run["seed"])
    order = ("failed", "diverged", "collapsed")
    return [
        {"cell": cell, "status": status, **row, "seeds": _ranges(row["seeds"])}
        for (cell, status, _), row in sorted(
            found.items(), key=lambda item: order.index(item[0][1])
        )
    ]


def _ranges(seeds: Iterable[int | str]) -> str:
    """Return integers in short: 0-4, 7, 9; seeds that are text as they are."""
    given = list(seeds)
    texts = sorted(one for one in given if isinstance(one, str))
    if texts:
        return ", ".join(texts)
    spans: list[list[int]] = []
    for number in sorted(one for one in given if isinstance(one, int)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}{DASH}{b}" for a, b in spans)


def _provenance(study: Subject, results: Results) -> list[tuple[str, str]]:
    """Return where the numbers come from: data, seeds, versions, machines."""
    if isinstance(study, Sheet):
        return [*study.provenance, ("Seedsweep", __version__)]
    runs = results.runs.to_pylist()

    def all_of(name: str) -> str:
        return ", ".join(sorted({str(run[name]) for run in runs if run[name] is not None})) or DASH

    dataset = study.dataset.model_dump(mode="json")
    finished = sorted(run["finished_at"] for run in runs if run["finished_at"] is not None)
    when = [f"{time:%Y-%m-%d %H:%M:%S} UTC" for time in (*finished[:1], *finished[-1:])]
    return [
        ("Dataset", ", ".join(f"{key}: {_short(value)}" for key, value in dataset.items())),
        ("Images, SHA-256", all_of("dataset_digest")),
        ("Labels, SHA-256", all_of("label_digest")),
        ("Seeds", f"{_ranges(study.seeds)} ({len(study.seeds)})"),
        ("Device", all_of("device")),
        ("CPU capability", all_of("cpu_capability")),
        ("Threads, kernel settings", f"{all_of('threads')}; {all_of('kernel_settings')}"),
        ("Host", all_of("host")),
        ("PyTorch", all_of("torch_version")),
        ("Trainer version", all_of("trainer_version")),
        ("Seedsweep", __version__),
        ("Git commit", all_of("git_commit")),
        ("Scoring", all_of("score_id")),
        ("Trained", " to ".join(dict.fromkeys(when)) or DASH),
        ("Time in training", f"{sum(run['seconds'] or 0 for run in runs):,.1f} s in all"),
    ]


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
