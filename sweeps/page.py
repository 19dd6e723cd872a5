"""What stands on the report's page, as plain texts for the template: tables, troubles, sources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps import __version__
from sweeps.answer import Answer
from sweeps.diagnoses import diagnoses
from sweeps.results import SCORED, Results
from sweeps.sheet import Sheet
from sweeps.stability import t_interval
from sweeps.vary import words
from sweeps.wording import (
    DASH,
    LOSSES,
    METRICS,
    Baselines,
    Row,
    Subject,
    between,
    fixed,
    notes,
    p_value,
    percent,
    place_of,
    protocol,
    ranked,
    ranked_baselines,
    shown_metrics,
    signed,
    spread_of,
    variances,
)

MOST_TROUBLES = 200
MOST_DIGESTS = 2  # that the page lists, where every seed has its own
OF_DATA = ("dataset_digest", "label_digest", "score_id")
COUNTS = ("planned", "scored", "collapsed", "diverged", "failed")
TROUBLES = COUNTS[2:]
COMPARISON = (
    *("cell", "pairs", "difference", "95 % interval", "p (Holm)"),
    *("ln variance ratio", "95 % interval", "p spread (Holm)", "P(best > other)"),
)


@dataclass(frozen=True)
class Entry:
    """One number of a table: its text, a smaller text below it, and the value it is sorted by."""

    text: str
    key: float | None
    small: str = ""
    look: str = ""


@dataclass(frozen=True)
class Column:
    """A column's head, in lines; `group` columns of the same group stand under one head."""

    lines: tuple[str, ...]
    group: str = "statistics"


@dataclass(frozen=True)
class MetricTable:
    """The stability of one metric: a row a cell, best mean first, and the baselines."""

    metric: str
    place: str  # of its figure and its part of the page; a foreign metric may have any name
    meaning: str
    rising: bool  # the first row has the lowest mean
    columns: tuple[Column, ...]
    rows: list[tuple[str, list[Entry]]]
    foot: list[tuple[str, str]]


def content(study: Subject, results: Results, baselines: Baselines, answer: Answer) -> Row:
    """Return everything that the template shows but the figures."""
    troubles = _troubles(results)
    return {
        "study": study,
        "kind": "table of runs" if isinstance(study, Sheet) else "study",
        "answer": {
            "sentence": answer.sentence,
            "counts": "" if isinstance(study, Sheet) else _summary(results),
            "best": answer.comparisons[0]["best"] if answer.comparisons else "",
            "comparisons": [_comparison(row) for row in answer.comparisons],
        },
        "comparison_heads": COMPARISON,
        "tables": [
            metric_table(study, results, baselines, metric)
            for metric in shown_metrics(study, results)
        ],
        "diagnoses": [] if isinstance(study, Sheet) else diagnoses(study, results, baselines),
        "notes": notes(study, results),
        "protocol": protocol(study, baselines),
        "troubles": troubles[:MOST_TROUBLES],
        "untold": max(0, len(troubles) - MOST_TROUBLES),
        "provenance": _provenance(study, results),
    }


def _comparison(row: Row) -> list[str]:
    """Return the texts of one comparison, under the heads of COMPARISON."""
    return [
        row["other"],
        str(row["n"]),
        signed(row["difference"]),
        between(row["ci_low"], row["ci_high"]),
        p_value(row["p_holm"]),
        signed(row["ln_ratio"], 2),
        between(row["ln_ratio_low"], row["ln_ratio_high"], 2),
        p_value(row["p_spread_holm"]),
        fixed(row["greater"], 2),
    ]


def metric_table(
    study: Subject, results: Results, baselines: Baselines, metric: str
) -> MetricTable:
    """Return the stability of one metric in texts, with the values that they are sorted by."""
    rows = ranked(study, results, metric)
    loss = metric in LOSSES
    values: dict[str, list[float]] = {row["cell_id"]: [] for row in rows}
    for run in results.runs.to_pylist():
        if run["status"] in SCORED and run[metric] is not None:
            values[run["cell_id"]].append(run[metric])
    spread = variances([row[f"{metric}_variance"] for row in rows])
    body = []
    for row, variance in zip(rows, spread, strict=True):
        own = {
            n.removeprefix(f"{metric}_"): v for n, v in row.items() if n.startswith(f"{metric}_")
        }
        entries = [
            *_entries(own, variance, values[row["cell_id"]]),
            *([] if loss else _shares(own, study)),
        ]
        body.append((row["cell"], [*entries, *_counts(row)]))
    basin = () if study.low is None else (Column((f"below {study.low:g}", "95 % interval")),)
    beaten = () if isinstance(study, Sheet) else (Column(("beats", "baseline")),)
    shares = (*basin, *beaten)
    columns = (
        Column(("mean", "95 % interval")),
        *(Column((name,)) for name in ("variance", "sd", "median", "IQM", "min")),
        Column(("lowest" if loss else "worst", "quarter")),
        *(() if loss else shares),
        *(Column((name,), "runs") for name in COUNTS),
    )
    known = ranked_baselines(study, baselines, metric)
    if isinstance(study, Sheet):
        meaning = "as it stands in the table"
    else:
        meaning = {**METRICS, **LOSSES}.get(metric, "as recorded").format(covariate=study.orient_by)
    return MetricTable(
        metric=metric,
        place=place_of(metric),
        meaning=meaning,
        rising=loss,
        columns=columns,
        rows=body,
        foot=[
            (name, fixed(value, 4) + _over_draws(spread_of(baselines, name, metric)))
            for name, value in known
            if value is not None
        ],
    )


def _over_draws(sd: float | None) -> str:
    return "" if sd is None else f" (sd {fixed(sd, 4)})"


def _entries(own: Row, variance: str, values: Sequence[float]) -> list[Entry]:
    """Return mean, variance, sd and the order statistics."""
    method = _method(values, own["ci_low"], own["ci_high"])
    interval = f"{between(own['ci_low'], own['ci_high'], 4)} {method}" if method else ""
    plain = ("sd", "median", "iqm", "min", "worst_quarter")
    return [
        Entry(fixed(own["mean"], 4), own["mean"], interval, "mean"),
        Entry(variance, own["variance"]),
        *(Entry(fixed(own[name], 4), own[name]) for name in plain),
    ]


def _shares(own: Row, study: Subject) -> list[Entry]:
    """Return the shares of seeds in the low basin and above the best baseline, as far as known."""
    share, beats = own["low_basin_share"], own["beats_baseline_share"]
    wilson = _percents(own["low_basin_low"], own["low_basin_high"])
    basin = [] if study.low is None else [Entry(percent(share), share, wilson)]
    return basin if isinstance(study, Sheet) else [*basin, Entry(percent(beats), beats)]


def _counts(row: Row) -> list[Entry]:
    found = {name: row[f"n_{name}"] for name in COUNTS}
    return [
        Entry(str(count), count, look="some" if name in TROUBLES and count else "")
        for name, count in found.items()
    ]


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


def _method(values: Sequence[float], low: float | None, high: float | None) -> str:
    """Return which interval this is: BCa gives way to t below ten seeds, and where it fails."""
    if low is None:
        return ""
    return "t" if t_interval(values) == (low, high) else "BCa"


def _percents(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"{100 * low:.0f}{DASH}{100 * high:.0f} %"


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
        found = sorted({str(run[name]) for run in runs if run[name] is not None})
        if name in OF_DATA and len(found) > MOST_DIGESTS:
            return f"{len(found)} different ones, a seed each: {name} in results.parquet"
        return ", ".join(found) or DASH

    dataset = study.dataset.model_dump(mode="json")
    finished = sorted(run["finished_at"] for run in runs if run["finished_at"] is not None)
    when = [f"{time:%Y-%m-%d %H:%M:%S} UTC" for time in (*finished[:1], *finished[-1:])]
    return [
        ("Dataset", ", ".join(f"{key}: {_short(value)}" for key, value in dataset.items())),
        ("Images, SHA-256", all_of("dataset_digest")),
        ("Labels, SHA-256", all_of("label_digest")),
        ("A seed redraws", words(study.vary)),
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
