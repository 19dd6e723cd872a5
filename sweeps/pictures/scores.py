"""Pictures of scores and losses: every seed, mean against spread, learning curves."""

from __future__ import annotations

from typing import Any

from sweeps.evidence import curves_of, scored
from sweeps.figures.curves import MOST_CURVES, MOST_PANELS, learning_curves
from sweeps.figures.scores import (
    MOST_NUMBERED,
    MOST_ROWS,
    mean_against_spread,
    quartiles,
    strip_plot,
)
from sweeps.pictures.base import Material, Picture, Trained
from sweeps.wording import LOSSES, place_of, ranked, ranked_baselines

Row = dict[str, Any]


def seeds(material: Material, metric: str) -> Picture:
    """Return every seed's value of a metric, a row a cell."""
    study = material.study
    rows, runs = ranked(study, material.results, metric), material.results.runs.to_pylist()
    known = ranked_baselines(study, material.baselines, metric)
    low = None if metric in LOSSES else study.low
    table: list[Row] = []
    for row in rows:
        own = [r for r in scored(runs, row["cell_id"]) if r[metric] is not None]
        table += [
            {
                "cell": row["cell"],
                "what": "seed",
                "seed": run["seed"],
                "status": run["status"],
                metric: run[metric],
            }
            for run in own
        ]
        if own:
            box = quartiles([run[metric] for run in own])
            names = ("mean", "ci_low", "ci_high")
            marks = dict(zip(("first quartile", "median", "third quartile"), box, strict=True))
            marks |= {name: row[f"{metric}_{name}"] for name in names}
            table += [{"cell": row["cell"], "what": w, metric: v} for w, v in marks.items()]
    note = f"Shown: the first {MOST_ROWS} cells." if len(rows) > MOST_ROWS else ""
    figure = strip_plot(rows, runs, metric, low, known)
    return Picture(f"seeds-{place_of(metric)}", figure, table, note)


def spread(material: Material) -> Picture:
    """Return each cell's mean against its spread."""
    metric = material.study.metric
    rows = ranked(material.study, material.results)
    known = [row for row in rows if row[f"{metric}_sd"] is not None]
    if not known:
        return Picture("spread", None, note="No cell has two scored seeds, so none has a spread.")
    best = next(iter(ranked_baselines(material.study, material.baselines)), ("", None))
    line = None if best[1] is None else (best[0], best[1])
    table = [
        {
            "number": place,
            "cell": row["cell"],
            "mean": row[f"{metric}_mean"],
            "sd": row[f"{metric}_sd"],
        }
        for place, row in enumerate(known, start=1)
    ]
    note = (
        f"Only the first {MOST_NUMBERED} cells are numbered." if len(known) > MOST_NUMBERED else ""
    )
    return Picture("spread", mean_against_spread(rows, metric, line), table, note)


def curves(material: Trained) -> Picture:
    """Return every seed's loss over the steps."""
    rows = ranked(material.study, material.results)
    records = material.results.runs.to_pylist()
    cells: list[tuple[str, list[Row]]] = []
    for row in rows[:MOST_PANELS]:
        own = [record for record in records if record["cell_id"] == row["cell_id"]]
        own = sorted(own, key=lambda record: record["seed"])[:MOST_CURVES]
        found = curves_of(material.folder, own)
        kept = [record for record in own if record["run_id"] in found]
        runs = [{**found[r["run_id"]], "status": r["status"], "seed": r["seed"]} for r in kept]
        cells.append((row["cell"], runs))
    if not any(runs for _, runs in cells):
        return Picture("curves", None, note="No learning curves were kept.")
    table = [
        {
            "cell": label,
            "seed": run["seed"],
            "status": run["status"],
            "step": step,
            "loss": loss,
        }
        for label, runs in cells
        for run in runs
        for step, loss in zip(run["step"], run["loss"], strict=True)
    ]
    left_out = []
    if len(rows) > MOST_PANELS:
        left_out.append(f"the first {MOST_PANELS} cells")
    if any(row["n_planned"] > MOST_CURVES for row in rows):
        left_out.append(f"the first {MOST_CURVES} seeds of each")
    note = f"Shown: {', '.join(left_out)}." if left_out else ""
    return Picture("curves", learning_curves(cells), table, note)
