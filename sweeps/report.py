"""Step 11: what a study says: order, numbers, notes and protocol, as JSON and as a page.

`terminal` prints the same. Nothing here names a winner: the order is by mean, and means of a few
seeds differ by chance.
"""

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
from sweeps.plan import Run
from sweeps.results import OUTCOMES, SCORED, Results
from sweeps.stability import LEAST_FOR_BOOTSTRAP, Stability, t_interval
from sweeps.storage import write_whole
from sweeps.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Baselines = Mapping[str, Mapping[str, float | None]]
Row = dict[str, Any]

MOST_TROUBLES = 200
HUGE = 1e5  # a loss that ran away; its decimals would push the table apart
DASH = "–"  # noqa: RUF001 - an en dash: no number, and from ... to
# A cell's runs have equal bits where these are equal, and may differ where one is not.
CIRCUMSTANCES = (
    *("device", "cpu_capability", "torch_version", "threads", "kernel_settings", "trainer_version"),
)
HALVES = "each half of the labelled images takes its sign from the other; then the mean of both"
METRICS = {
    "auc_split": f"AUC of the class unit's code; {HALVES}",
    "auc_oracle": (
        "max(A, 1 - A) for the AUC A of the class unit's code; its sign comes from the labels that "
        "it is scored on, so it is an upper bound, and above 0.5 by chance"
    ),
    "auc_covariate": (
        "AUC of the class unit's code; its sign is that of its correlation with the covariate "
        "{covariate}, named before training"
    ),
    "average_precision": f"average precision of the class unit's code; {HALVES}",
    "balanced_accuracy": (
        f"balanced accuracy at the midpoint of the prior; {HALVES}; undefined without a prior"
    ),
}


def ranked(study: Study, results: Results) -> list[Row]:
    """Return the summary's rows by the study's metric: best mean first, rows without one last."""
    rows: list[Row] = results.summary.to_pylist()
    return sorted(rows, key=lambda row: _falling(row[f"{study.metric}_mean"]))


def ranked_baselines(study: Study, baselines: Baselines) -> list[tuple[str, float | None]]:
    """Return each baseline's value of the study's metric, best first."""
    values = [(name, scores.get(study.metric)) for name, scores in baselines.items()]
    return sorted(values, key=lambda pair: _falling(pair[1]))


def _falling(value: float | None) -> float:
    return math.inf if value is None else -value


def fixed(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals, fewer where it is huge; a dash for None."""
    if value is None:
        return DASH
    return f"{value:.{digits}f}" if abs(value) < HUGE else f"{value:.{digits - 1}e}"


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return an interval by its bounds."""
    return DASH if low is None else f"{fixed(low, digits)}{DASH}{fixed(high, digits)}"


def percent(share: float | None) -> str:
    """Return a share in whole percent; 0 % is none and 100 % is all, never nearly."""
    if share is None:
        return DASH
    if 0 < share < 0.005:  # noqa: PLR2004 - half a percent
        return "<1 %"
    return ">99 %" if 0.995 < share < 1 else f"{share:.0%}".replace("%", " %")  # noqa: PLR2004


def variances(values: Sequence[float | None]) -> list[str]:
    """Return a column of variances in one form: four decimals where those say enough."""
    enough = all(value >= 0.001 for value in values if value)  # noqa: PLR2004
    return [DASH if v is None else f"{v:.4f}" if enough else f"{v:.1e}" for v in values]


def mixed_cells(results: Results) -> list[str]:
    """Return a sentence for each cell whose records mix machines, settings or versions."""
    seen: dict[str, dict[str, set[str]]] = {}
    for row in results.runs.to_pylist():
        cell = seen.setdefault(row["cell"], {name: set() for name in CIRCUMSTANCES})
        for name in CIRCUMSTANCES:
            if row[name] is not None:  # a worker that died left none of these, nor a number
                cell[name].add(str(row[name]))
    mixed = {
        label: [f"{name} ({', '.join(sorted(v))})" for name, v in cell.items() if len(v) > 1]
        for label, cell in seen.items()
    }
    return [
        f"{label}: its runs mix {' and '.join(found)}" for label, found in mixed.items() if found
    ]


def notes(study: Study, results: Results) -> list[str]:
    """Return what to know before believing the table: a sentence a cell and kind of trouble."""
    undefined: dict[str, int] = {}
    for row in results.runs.to_pylist():
        if row["status"] in SCORED and row[study.metric] is None:
            undefined[row["cell"]] = undefined.get(row["cell"], 0) + 1
    found = []
    for row in results.summary.to_pylist():
        unscored = undefined.get(row["cell"], 0)
        recorded = row["n_scored"] + row["n_diverged"] + row["n_failed"]
        parts = {
            "collapsed": row["n_collapsed"],
            "diverged": row["n_diverged"],
            "failed": row["n_failed"],
            "not trained yet": row["n_planned"] - recorded,
            f"scored without a value of {study.metric}": unscored,
        }
        text = ", ".join(f"{count} {what}" for what, count in parts.items() if count > 0)
        if text:
            found.append(f"{row['cell']}: of {row['n_planned']} runs {text}")
    warned = [sentence for cell in study.cells for sentence in cell.warnings()]
    return [*found, *warned, *mixed_cells(results)]


def protocol(study: Study, baselines: Baselines) -> list[str]:
    """Return how the numbers came about, a sentence each."""
    meaning = METRICS.get(study.metric, "as recorded").format(covariate=study.orient_by)
    best = next(iter(ranked_baselines(study, baselines)), ("", None))
    known = "" if best[1] is None else f" ({best[0]}, {fixed(best[1])})"
    return [
        f"{study.metric}: {meaning}.",
        (
            "Training reads no labels; every run is trained and scored on all images. A seed "
            "redraws initialisation, batch order and noise."
        ),
        "Collapsed runs count in every number; diverged and failed ones have none.",
        (
            f"95 % interval of the mean: Student's t below {LEAST_FOR_BOOTSTRAP} seeds, BCa "
            f"bootstrap from {LEAST_FOR_BOOTSTRAP}. Worst quarter: mean of the lowest quarter of "
            f"the seeds. Below {study.low:g}: share of seeds in the low basin. Beats baseline: "
            f"share of seeds above the best baseline{known}."
        ),
    ]


def as_json(study: Study, results: Results, baselines: Baselines) -> dict[str, Any]:
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
                for metric in OUTCOMES
            },
        }
        for row in results.summary.to_pylist()
    ]
    values = {
        name: {metric: _plain(value) for metric, value in scores.items()}
        for name, scores in baselines.items()
    }
    return {"study": study.name, "metric": study.metric, "cells": cells, "baselines": values}


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def write_report(
    study: Study, runs: Sequence[Run], folder: Path, results: Results, baselines: Baselines
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
    inks = ":root{color:#1d1e21}@media(prefers-color-scheme:dark){:root{color:#e6e6e8}}"
    return picture.replace(">", f"><style>{inks}</style>", 1)


def _figures(
    study: Study, runs: Sequence[Run], folder: Path, results: Results, baselines: Baselines
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


def _page(study: Study, results: Results, baselines: Baselines, drawn: Mapping[str, str]) -> str:
    """Fill the template; everything is escaped there but the pictures that `figures` made."""
    text = importlib.resources.files("sweeps").joinpath("report.html").read_text(encoding="utf-8")
    place = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    troubles = _troubles(results)
    return place.from_string(
        text
    ).render(
        study=study,
        summary=_summary(results),
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


def _rows(study: Study, results: Results) -> list[Row]:
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


def _others(study: Study, results: Results, baselines: Baselines) -> Row:
    """Return mean and sd of every other outcome that some cell defines."""
    rows = ranked(study, results)
    defined = [n for n in OUTCOMES if any(row[f"{n}_mean"] is not None for row in rows)]
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


def _ranges(numbers: Iterable[int]) -> str:
    """Return integers in short: 0-4, 7, 9."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}{DASH}{b}" for a, b in spans)


def _provenance(study: Study, results: Results) -> list[tuple[str, str]]:
    """Return where the numbers come from: data, seeds, versions, machines."""
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
