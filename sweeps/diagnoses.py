"""Step 11: what the diagnostics say, in words and tables, for the page and for JSON."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from models.diagnostics.table import MEDIAN_FILTER, NAMES
from sweeps.comparison import compare
from sweeps.evidence import scored
from sweeps.results import Results
from sweeps.study import Study
from sweeps.wording import DASH, Baselines, Row, fixed, ranked

GROUPS = {"code": "Code", "denoising": "Denoising", "generation": "Generation"}
MEANINGS = {
    "active_units": "units of the code, style units too, with a variance above 0.01",
    "code_spread": "sd of the class unit, averaged where there are several",
    "minority_share": (
        "share of the codes on the prior's rarest peak, or on the lesser side of the valley"
    ),
    "valley_depth": "how deep the density dips between two modes, 0 for one mode, 1 for a gap",
    "prior_distance": "Wasserstein distance of the codes from the prior, in its sd",
    "normal_distance": (
        "the same of the standardised codes from one Gaussian, prior or not; two points: 0.54"
    ),
    "hot_suppression": (
        "how much of a hot pixel's excess is gone, median; 1 is all, 0 is none; a code that tells "
        "nothing has 1 too, so look at the error beside it"
    ),
    "elsewhere_error": (
        "root mean square error of all other pixels; an image's own noise, left out, counts too"
    ),
    "two_sample_auc": (
        "how well a classifier of ten principal components tells samples from images; 0.5: not"
    ),
    "density": "in how many images' neighbourhoods a sample lies, of k; 1 as among images",
    "coverage": "share of the images with a sample in their neighbourhood",
    "class_gap": "how far the samples' classes are from the images', by a reference classifier",
    "decoder_jump": "longest step of the decoded image over the mean step, along the code",
}
SOURCES = {"prior": "prior", "expost": "ex post"}
DRAWN = (
    "where samples come from: the prior, or a mixture of Gaussians fitted to the codes afterwards"
)
COUNTED = ("active_units",)  # whole numbers, but for a median between two
OBJECTIVES = ("ae", "vae")


@dataclass(frozen=True)
class Number:
    """A median over seeds as text, what it is sorted by, and the range in smaller letters."""

    text: str
    key: float | None
    small: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """One group's table: heads in lines, what they mean, a row a cell, baselines, sentences."""

    group: str
    title: str
    columns: tuple[tuple[str, ...], ...]
    meanings: list[tuple[str, str]]
    rows: list[tuple[str, list[Number]]]
    foot: list[tuple[str, list[str]]]
    sentences: list[str]


def diagnoses(study: Study, results: Results, baselines: Baselines) -> list[Diagnosis]:
    """Return the tables that have anything to say: columns that no run defines are left out."""
    found = []
    for group in ("code", *study.diagnostics.names):
        names = [name for name in NAMES[group] if _defined(results, name)]
        if not names:
            continue
        rows = [
            (row["cell"], [_number(results, row, name) for name in names])
            for row in ranked(study, results)
        ]
        foot = [
            (label, [fixed(scores.get(name)) for name in names])
            for label, scores in baselines.items()
            if any(scores.get(name) is not None for name in names)
        ]
        columns = tuple(_head(name) for name in names)
        said = sentences(study, results, baselines).get(group)
        told = [said] if said else []
        title, means = GROUPS[group], _meanings(names)
        found.append(Diagnosis(group, title, columns, means, rows, foot, told))
    return found


def sentences(study: Study, results: Results, baselines: Baselines) -> dict[str, str]:
    """Return what the diagnostics on request say, by group; nothing where there is nothing."""
    both = {
        "denoising": denoising_sentence(results, baselines),
        "generation": generation_sentence(study, results),
    }
    return {name: text for name, text in both.items() if text and name in study.diagnostics.names}


def denoising_sentence(results: Results, baselines: Baselines) -> str | None:
    """Return which is better against hot pixels: the best cell, by median suppression, or a filter.

    None without figures of both.
    """
    names = "hot_suppression", "elsewhere_error"
    cells = [row for row in results.summary.to_pylist() if all(_median(row, n) for n in names)]
    usual = baselines.get(MEDIAN_FILTER, {})
    hot, elsewhere = (usual.get(name) for name in names)
    if not cells or hot is None or elsewhere is None:
        return None
    best = max(cells, key=lambda row: row["hot_suppression_median"])
    own, error = best["hot_suppression_median"], best["elsewhere_error_median"]
    text = (
        f"Of a hot pixel's excess {best['cell']}, which is best at it, takes away {_share(own)} "
        f"(median of its seeds' medians), the {MEDIAN_FILTER} {_share(hot)}; elsewhere the errors "
        f"are {fixed(error)} and {fixed(elsewhere)}"
    )
    wins = (own > hot) + (error < elsewhere), (own < hot) + (error > elsewhere)
    if wins[0] == wins[1]:
        return f"{text}: neither is better in both."
    better = "the autoencoder" if wins[0] > wins[1] else "the median filter"
    return f"{text}: {better} is better{' in both' if max(wins) == 2 else ''}."  # noqa: PLR2004


def generation_sentence(study: Study, results: Results) -> str | None:
    """Return how the autoencoder's samples compare with the VAE's, both drawn ex post.

    Of each objective the cell that covers most; over the seeds that both have. None without both.
    """
    metric = "expost_coverage"
    objective = {cell.label: cell.spec.objective for cell in study.cells}
    best: dict[str, Row] = {}
    for row in results.summary.to_pylist():
        name, value = objective[row["cell"]], row.get(f"{metric}_mean")
        if value is not None and value > best.get(name, {}).get(f"{metric}_mean", -1.0):
            best[name] = row
    if any(name not in best for name in OBJECTIVES):
        return None
    ae, vae = (best[name] for name in OBJECTIVES)
    found = compare(_values(results, ae, metric), _values(results, vae, metric))
    text = (
        f"On one ruler, samples of a density fitted to the codes afterwards, {ae['cell']} covers "
        f"{_share(ae[f'{metric}_mean'])} of the images and {vae['cell']} "
        f"{_share(vae[f'{metric}_mean'])}"
    )
    if vae.get("prior_coverage_mean") is not None:
        text += f" ({_share(vae['prior_coverage_mean'])} from its own prior)"
    text += (
        "; a classifier tells samples from images with an AUC of "
        f"{fixed(ae['expost_two_sample_auc_mean'])} and {fixed(vae['expost_two_sample_auc_mean'])}"
    )
    mean, low, high = found.difference, found.ci_low, found.ci_high
    if mean is None or low is None or high is None:
        return f"{text}. One pair of seeds says nothing of a difference."
    pairs = f"{found.n} pairs of seeds"
    if low <= 0 <= high:
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        words = f"{100 * mean:+.1f} points (95 % interval {interval}, {pairs})"
        return f"{text}. These seeds do not tell which covers more: {words}."
    who = "autoencoder" if low > 0 else "VAE"
    low, high = sorted((abs(low), abs(high)))
    words = f"{100 * abs(mean):.1f} points (95 % interval {100 * low:.1f} to"
    return f"{text}. The {who} covers more, by {words} {100 * high:.1f}, {pairs})."


def _values(results: Results, row: Row, metric: str) -> Mapping[Hashable, float]:
    runs = scored(results.runs.to_pylist(), row["cell_id"])
    return {run["seed"]: run[metric] for run in runs if run[metric] is not None}


def _defined(results: Results, name: str) -> bool:
    return any(_median(row, name) is not None for row in results.summary.to_pylist())


def _median(row: Row, name: str) -> float | None:
    return row.get(f"{name}_median")


def _number(results: Results, row: Row, name: str) -> Number:
    values = list(_values(results, row, name).values())
    if not values:
        return Number(DASH, None)
    digits = (1, 0) if name in COUNTED else (3, 2)
    low, high = fixed(min(values), digits[1]), fixed(max(values), digits[1])
    small = low if low == high else f"{low}{DASH}{high}"
    return Number(fixed(median(values), digits[0]), median(values), small)


def _head(name: str) -> tuple[str, ...]:
    """Return a column's head in lines: where samples come from, and the number's own name."""
    source, own = _parts(name)
    return (*((SOURCES[source],) if source else ()), *own.split("_"))


def _parts(name: str) -> tuple[str, str]:
    """Return where the samples come from that a number is of, if any, and its own name."""
    for source in SOURCES:
        if name not in MEANINGS and name.startswith(f"{source}_"):
            return source, name.removeprefix(f"{source}_")
    return "", name


def _meanings(names: Sequence[str]) -> list[tuple[str, str]]:
    own = dict.fromkeys(_parts(name)[1] for name in names)
    found = [(name.replace("_", " "), MEANINGS[name]) for name in own]
    drawn = any(_parts(name)[0] for name in names)
    return [*([("ex post, prior", DRAWN)] if drawn else []), *found]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
