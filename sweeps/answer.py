"""Step 11: what a study answers, in one sentence that its numbers bear out, and no further.

The best mean is compared with every other over the seeds that both cells have scored, after Holm's
correction; a difference that chance can make is a tie, and a cell that a cheap baseline reaches is
no winner. Higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeps.comparison import (
    LEVEL,
    Comparison,
    brown_forsythe_p,
    compare_cells,
    least_pairs,
    seeds_to_settle,
)
from sweeps.look import many
from sweeps.results import SCORED, Results
from sweeps.sheet import Sheet
from sweeps.wording import Baselines, Row, Subject, between, fixed, ranked, ranked_baselines

Verdict = Literal[
    "winner",
    "tie",
    "too few seeds",
    "all collapsed",
    "baselines win",
    "nothing scored",
    "one cell",
    "no comparison",
]
Found = Mapping[str, Comparison]
MOST_NAMED = 2
SURE_DIGIT = 0.001


@dataclass(frozen=True)
class Answer:
    """The sentence, its kind, and the best cell against each other one, in the table's order."""

    verdict: Verdict
    sentence: str
    comparisons: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Standing:
    """A cell that has scores: what the summary says of it, and each seed's value."""

    label: str
    mean: float
    low: float | None
    high: float | None
    sd: float | None
    ok: int
    values: Mapping[Any, float]

    @property
    def shown(self) -> str:
        """Return the label with its mean."""
        return f"{self.label} ({fixed(self.mean)})"


def answer(study: Subject, results: Results, baselines: Baselines) -> Answer:
    """Return what the study answers."""
    rows = results.summary.to_pylist()
    planned, scored, ok = (sum(row[f"n_{what}"] for row in rows) for what in _COUNTS)
    cells = _standings(study, results)
    if not cells and (ok or not scored):
        text = f"not one of {many(planned, 'run')} has a value of {study.metric}."
        return Answer("nothing scored", f"Nothing is scored: {text}")
    if ok == 0:
        text = f"All {many(scored, 'scored run')} collapsed, so there is nothing to compare."
        return Answer("all collapsed", text.replace("All 1 ", "The only "))
    if isinstance(study, Sheet) and len(set(study.measures.values())) > 1:
        return Answer("no comparison", _different_measures(study, cells))
    best, *others = cells
    found = {
        other: one
        for (_, other), one in compare_cells({c.label: c.values for c in cells}, best.label).items()
    }
    table = tuple(
        {"best": best.label, "other": other, **asdict(one)} for other, one in found.items()
    )
    known = next(((n, v) for n, v in ranked_baselines(study, baselines) if v is not None), None)
    verdict, text = _verdict(study.metric, best, others, found, known, len(rows))
    steady = _steadier(best, others, found)
    return Answer(verdict, f"{text} {steady}".rstrip(), table)


_COUNTS = ("planned", "scored", "ok")
Baseline = tuple[str, float]


def _standings(study: Subject, results: Results) -> list[Standing]:
    """Return the cells with a score, best mean first."""
    values: dict[str, dict[Any, float]] = {}
    for run in results.runs.to_pylist():
        if run["status"] in SCORED and run[study.metric] is not None:
            values.setdefault(run["cell"], {})[run["seed"]] = run[study.metric]
    metric = study.metric
    return [
        Standing(
            label=row["cell"],
            mean=row[f"{metric}_mean"],
            low=row[f"{metric}_ci_low"],
            high=row[f"{metric}_ci_high"],
            sd=row[f"{metric}_sd"],
            ok=row["n_ok"],
            values=values[row["cell"]],
        )
        for row in ranked(study, results)
        if row["cell"] in values
    ]


def _verdict(
    metric: str,
    best: Standing,
    others: Sequence[Standing],
    found: Found,
    known: Baseline | None,
    planned_cells: int,
) -> tuple[Verdict, str]:
    if known is not None and best.high is not None and known[1] > best.high:
        interval = f"95 % interval {between(best.low, best.high)}, {_seeds(best)}"
        text = (
            f"No cell beats the baseline {known[0]} ({fixed(known[1])}): the best, {best.label}, "
        )
        return "baselines win", f"{text}has a mean {metric} of {fixed(best.mean)} ({interval})."
    if not others:
        return "one cell", _alone(metric, best, known, planned_cells)
    return _compared(metric, best, others, found, known)


def _compared(
    metric: str, best: Standing, others: Sequence[Standing], found: Found, known: Baseline | None
) -> tuple[Verdict, str]:
    """Return what the comparisons of the best mean with each other say."""
    open_ = [
        other
        for other in others
        if (p := found[other.label].p_holm) is None or p > LEVEL or _behind(found[other.label])
    ]
    least = least_pairs(len(open_))  # the others are rejected before them, at Holm's stricter steps
    if open_ and all(found[other.label].n < least for other in open_):
        return "too few seeds", _too_few(metric, best, open_, found)
    if open_:
        return "tie", _tie(metric, best, open_, found, known)
    rival, one = others[0], found[others[0].label]
    worst = max(c.p_holm or 0.0 for c in found.values())
    proof = f"95 % interval {_span(one)}, {many(one.n, 'pair')} of seeds, {_p('Holm p', worst)}"
    text = (
        f"{best.label}: its mean {metric} of {fixed(best.mean)} is {fixed(one.difference)} above "
    )
    text += f"the next, {rival.label} ({proof})"
    if known is None:
        return "winner", f"Best is {text}."
    if best.low is not None and best.low > known[1]:
        return "winner", f"Best is {text}, and above the best baseline, {_baseline(known)}."
    level = f"it cannot be told from the baseline {_baseline(known)}"
    more = _more_than(known, best)
    return "tie", f"Best among the cells is {text}, but {level}; {_advice(more)}."


def _behind(one: Comparison) -> bool:
    """Say whether the best mean is not ahead on the seeds that both have; others may be missing."""
    return one.difference is None or one.difference <= 0


def _too_few(metric: str, best: Standing, open_: Sequence[Standing], found: Found) -> str:
    need = f"at least {least_pairs(len(open_))}"
    need += f" for {len(open_)} comparisons" if len(open_) > 1 else ""
    return (
        f"Too few seeds to tell: {best.label} has the highest mean {metric} ({fixed(best.mean)}), "
        f"but only {_pairs(open_, found)} of seeds with {_names(open_)}; evidence needs {need}."
    )


def _tie(
    metric: str, best: Standing, open_: Sequence[Standing], found: Found, known: Baseline | None
) -> str:
    first = found[open_[0].label]
    detail = f"{_pairs(open_, found)} of seeds"
    if len(open_) == 1:
        between_ = f"{best.shown} and {open_[0].shown} cannot be told apart by mean {metric}"
        detail += f": difference {fixed(first.difference)}, 95 % interval {_span(first)}"
    else:
        between_ = f"{best.shown} cannot be told by mean {metric} from {_names(open_)}"
    counts = [
        None if _behind(one) else seeds_to_settle(one.difference, one.sd, one.n, len(open_))
        for one in (found[other.label] for other in open_)
    ]
    ahead = [other.label for other in open_ if (found[other.label].difference or 0.0) < 0]
    if ahead:
        detail += f"; on the seeds that both have, {ahead[0]} is ahead"
    if known is not None and (best.low is None or best.low <= known[1]):
        detail += f"; nor is it clearly above the baseline {_baseline(known)}"
        counts.append(_more_than(known, best))
    more = None if None in counts else max(count or 0 for count in counts)
    return f"No single best: {between_} ({detail}); {_advice(more)}."


def _more_than(known: Baseline, best: Standing) -> int | None:
    """Return how many more seeds would show that the best cell's mean is above a baseline."""
    above = best.mean - known[1]
    return seeds_to_settle(above, best.sd, len(best.values)) if above > 0 else None


def _advice(more: int | None) -> str:
    if more is None:
        return "more seeds will hardly settle it"
    return f"about {many(max(1, more), 'more seed')} would settle it"


def _alone(metric: str, cell: Standing, known: Baseline | None, planned_cells: int) -> str:
    start = f"{cell.label} has" if planned_cells == 1 else f"Only {cell.label} has scores:"
    worst, n = min(cell.values.values()), len(cell.values)
    if n == 1:
        text = f"a single seed, with {metric} {fixed(cell.mean)}; that says nothing of other seeds"
    else:
        interval = f"95 % interval {between(cell.low, cell.high)}, {_seeds(cell)}"
        text = f"a mean {metric} of {fixed(cell.mean)} ({interval}); its worst seed has "
        text += fixed(worst)
    if known is not None and n > 1:
        above = cell.low is not None and cell.low > known[1]
        words = "it is above" if above else "it cannot be told from"
        text += f", and {words} the best baseline, {_baseline(known)}"
    return f"{start} {text}."


def _steadier(best: Standing, others: Sequence[Standing], found: Found) -> str:
    """Return a sentence where another cell has a smaller spread, with evidence."""
    shown = [
        other
        for other in others
        if other.ok and other.sd is not None and best.sd is not None and other.sd < best.sd
        if (p := found[other.label].p_spread_holm) is not None and p <= LEVEL
    ]
    if not shown:
        return ""
    cell = min(shown, key=lambda other: other.sd or 0.0)
    p = found[cell.label].p_spread_holm or 0.0
    spread = f"sd {fixed(cell.sd)} against {fixed(best.sd)}, {_p('Brown-Forsythe Holm p', p)}"
    return f"Steadier is {cell.label} ({spread}), at a mean of {fixed(cell.mean)}."


def _different_measures(study: Sheet, cells: Sequence[Standing]) -> str:
    names = list(dict.fromkeys(study.measures[cell.label] for cell in cells))
    text = f"{_joined(names)} are different measures and do not compare: give each its own table."
    if len(cells) != 2:  # noqa: PLR2004 - a pair
        return text
    p = brown_forsythe_p(*(list(cell.values.values()) for cell in cells))
    if p is None:
        return text
    kind = "no evidence that either is steadier" if p > LEVEL else "evidence of different spreads"
    return f"{text} There is {kind} (Brown-Forsythe p = {p:.2f})."


def _baseline(known: Baseline) -> str:
    return f"{known[0]} ({fixed(known[1])})"


def _seeds(cell: Standing) -> str:
    return many(len(cell.values), "seed")


def _pairs(open_: Sequence[Standing], found: Found) -> str:
    counts = sorted({found[other.label].n for other in open_})
    if len(counts) == 1:
        return many(counts[0], "pair")
    return f"{counts[0]:,} to {counts[-1]:,} pairs"


def _span(one: Comparison) -> str:
    return f"{fixed(one.ci_low)} to {fixed(one.ci_high)}"


def _p(name: str, p: float) -> str:
    return f"{name} < {SURE_DIGIT}" if p < SURE_DIGIT else f"{name} {p:.3f}"


def _names(cells: Sequence[Standing]) -> str:
    left = len(cells) - MOST_NAMED
    if left <= 1:
        return _joined([cell.shown for cell in cells])
    return _joined([*(cell.shown for cell in cells[:MOST_NAMED]), f"{left:,} others"])


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
