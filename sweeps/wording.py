"""Step 11: what a study says in words and numbers: order, formats, notes and protocol.

The terminal and the page say the same. Nothing here names a winner: the order is by mean, and means
of a few seeds differ by chance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.look import many
from sweeps.results import OUTCOMES, SCORED, Results, correlations, summarised
from sweeps.sheet import Sheet
from sweeps.stability import LEAST_FOR_BOOTSTRAP
from sweeps.study import Study
from sweeps.vary import sentence as redraws

Subject = Study | Sheet
Baselines = Mapping[str, Mapping[str, float | None]]
Row = dict[str, Any]

HUGE = 1e5  # a loss that ran away; its decimals would push the table apart
DASH = "–"  # noqa: RUF001 - an en dash: no number, and from ... to
# A cell's runs have equal bits where these are equal, and may differ where one is not.
CIRCUMSTANCES = (
    *("device", "cpu_capability", "torch_version", "threads", "kernel_settings", "trainer_version"),
)
HALVES = "each half of the labelled images takes its sign from the other; then the mean of both"
CLUSTERS = (
    "an image's cluster is the prior's peak of highest posterior (k-means of all codes, without "
    "labels, where the prior has fewer peaks than there are classes), and clusters are matched to "
    "classes by the Hungarian method"
)
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
    "auc_matched": f"AUC of each class against the others, by its cluster, averaged; {CLUSTERS}",
    "accuracy": f"share of the images that lie in their class's cluster; {CLUSTERS}",
    "ari": f"adjusted Rand index of clusters and classes; {CLUSTERS}",
    "nmi": f"normalised mutual information of clusters and classes; {CLUSTERS}",
    "agreement": (
        "how much a seed's code says the same as the other seeds' codes of its cell: the mean "
        "|Spearman correlation| of their class units; it reads no labels"
    ),
}
LOSSES = {
    "reconstruction": "half the squared error of an image, summed over its pixels; lower is better",
    "divergence_value": (
        "the divergence of the class units' codes from the prior, without its weight; lower is "
        "nearer; different divergences do not compare"
    ),
}


def outcomes(study: Subject) -> tuple[str, ...]:
    """Return the metrics that the study's tables hold."""
    return (study.metric,) if isinstance(study, Sheet) else OUTCOMES


def numbers(study: Subject, results: Results) -> tuple[str, ...]:
    """Return everything that the summary has statistics of: metrics, diagnostics, covariates."""
    if isinstance(study, Sheet):
        return outcomes(study)
    return (*summarised(study), *correlations(results))


def shown_metrics(study: Subject, results: Results) -> list[str]:
    """Return the study's metric and every other outcome that some cell defines."""
    rows: list[Row] = results.summary.to_pylist()
    others = [
        name for name in outcomes(study) if any(row[f"{name}_mean"] is not None for row in rows)
    ]
    return list(dict.fromkeys([study.metric, *others]))


def ranked(study: Subject, results: Results, metric: str | None = None) -> list[Row]:
    """Return the summary's rows by a metric, the study's own if none is named.

    Best mean first: the highest score, the lowest loss; rows without a mean last.
    """
    rows: list[Row] = results.summary.to_pylist()
    name = metric or study.metric
    return sorted(rows, key=lambda row: _falling(row[f"{name}_mean"], name))


def ranked_baselines(
    study: Subject, baselines: Baselines, metric: str | None = None
) -> list[tuple[str, float | None]]:
    """Return each baseline's value of a metric, the study's own if none is named, best first."""
    named = metric or study.metric
    values = [(name, scores.get(named)) for name, scores in baselines.items()]
    return sorted(values, key=lambda pair: _falling(pair[1], named))


def spread_of(baselines: Baselines, name: str, metric: str) -> float | None:
    """Return the sd of a baseline over the data that seeds redraw; None where all have the same."""
    return baselines[name].get(f"{metric}_sd")


def defined_baselines(study: Subject, baselines: Baselines) -> list[tuple[str, float]]:
    """Return the baselines that have a value of the study's metric, best first."""
    return [(name, v) for name, v in ranked_baselines(study, baselines) if v is not None]


def _falling(value: float | None, metric: str) -> float:
    return math.inf if value is None else value if metric in LOSSES else -value


def fixed(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals, fewer where it is huge; a dash for None."""
    if value is None:
        return DASH
    return f"{value:.{digits}f}" if abs(value) < HUGE else f"{value:.{digits - 1}e}"


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign; a dash for None."""
    return DASH if value is None else f"{value:+.{digits}f}"


def p_value(value: float | None) -> str:
    """Return a p-value with three decimals, or that it is below them; a dash for None."""
    if value is None:
        return DASH
    return "<0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004


def place_of(metric: str) -> str:
    """Return a metric's name as a file and a page may hold it; a foreign one may be any text."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", metric).strip("-")[:60] or "metric"


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


def notes(study: Subject, results: Results) -> list[str]:
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
            "without a score" if isinstance(study, Sheet) else "failed": row["n_failed"],
            "not trained yet": row["n_planned"] - recorded,
            f"scored without a value of {study.metric}": unscored,
        }
        text = ", ".join(f"{count} {what}" for what, count in parts.items() if count > 0)
        if text:
            found.append(f"{row['cell']}: of {row['n_planned']} runs {text}")
    warned = [sentence for cell in study.cells for sentence in cell.warnings()]
    noted = study.notes if isinstance(study, Sheet) else ()
    return [*noted, *found, *warned, *mixed_cells(results)]


def protocol(study: Subject, baselines: Baselines) -> list[str]:
    """Return how the numbers came about, a sentence each."""
    best = next(iter(ranked_baselines(study, baselines)), ("", None))
    known = "" if best[1] is None else f" ({best[0]}, {fixed(best[1])})"
    words = (
        f"95 % interval of the mean: Student's t below {LEAST_FOR_BOOTSTRAP} seeds, BCa "
        f"bootstrap from {LEAST_FOR_BOOTSTRAP}. Worst quarter: mean of the lowest quarter of "
        "the seeds."
    )
    if study.low is not None:
        words += f" Below {study.low:g}: share of seeds in the low basin."
    if isinstance(study, Study) and study.redraws_data:
        words += (
            " Beats baseline: share of seeds above the best baseline of their own data; the "
            f"baselines shown are means over the data of {many(len(study.seeds), 'seed')}."
        )
    elif not isinstance(study, Sheet):
        words += f" Beats baseline: share of seeds above the best baseline{known}."
    return [*_origin(study), words, COMPARED]


COMPARED = (
    "Compared is the best mean with each other cell, over the seeds that both have scored: a "
    "sign-flip test of the difference and Brown-Forsythe's of the spread, no p-value below six "
    "pairs, Holm's correction over the table."
)


def _origin(study: Subject) -> list[str]:
    """Return what was scored, and how."""
    if isinstance(study, Sheet):
        return list(study.protocol)
    meaning = METRICS.get(study.metric, "as recorded").format(covariate=study.orient_by)
    return [
        f"{study.metric}: {meaning}.",
        f"Training reads no labels; {_parts(study)}. {redraws(study.vary)}",
        *([ALONE] if study.redraws_data else []),
        "Collapsed runs count in every number; diverged and failed ones have none.",
    ]


ALONE = (
    "Each seed has a draw of the data of its own, the same in every cell; agreement is not "
    "defined: no two seeds of a cell have codes of the same images."
)


def _parts(study: Study) -> str:
    whose = " of its seed's draw" if study.redraws_data else ""
    if study.split is None:
        return f"every run is trained and scored on all images{whose}"
    part = f"{'' if study.redraws_data else 'the same '}{study.split:.4g} of the images{whose}"
    return f"every run is trained on {part} and scored on the others"


def minutes(seconds: float) -> str:
    """Return a duration such as 0:24 or 1:02:03; a started second counts."""
    minutes, rest = divmod(math.ceil(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
