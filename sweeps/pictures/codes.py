"""Pictures of codes: ROC curves of every seed, and where each class lies against the prior."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.spec import Spec
from sweeps.evidence import class_value, codes_of, median_run, prior_of
from sweeps.figures.codes import (
    CENTRAL,
    MOST_PANELS,
    Codes,
    code_densities,
    histogram,
    prior_line,
)
from sweeps.figures.curves import GRID, MOST_CURVES, Roc, roc_curve, roc_curves
from sweeps.pictures.base import Picture, Trained
from sweeps.wording import fixed

Row = dict[str, Any]


def code_pictures(material: Trained) -> Iterator[Picture]:
    """Yield the ROC curves and the codes' densities, reading each cell's codes once."""
    cells = material.cells()
    rocs, panels, unscored = [], [], False
    every = material.dataset.labels
    two = every is not None and len(np.unique(every)) == 2  # noqa: PLR2004 - a ROC curve's
    labels_of = _labels(material)
    for row, spec, runs in cells[:MOST_PANELS]:
        codes = codes_of(material.folder, runs)
        kept = [run for run in runs if run["run_id"] in codes]
        if two and kept:
            rocs += [roc for roc in [_roc(row, spec, kept, codes, labels_of)] if roc is not None]
        run = median_run(kept, material.study.metric)
        if run is not None:
            unscored = unscored or run[material.study.metric] is None
            panels.append((_panel(material, row, spec, run, codes[run["run_id"]]), run["seed"]))
    first = f"Shown: the first {MOST_PANELS} cells." if len(cells) > MOST_PANELS else ""
    if not rocs:
        why = "no run kept a code of one unit" if two else "they need labels of two classes"
        yield Picture("roc", None, note=f"There are no ROC curves: {why}.")
    else:
        most = max(len(roc.seeds) for roc in rocs)
        thin = f"Thin lines: the first {MOST_CURVES} seeds." if most > MOST_CURVES else ""
        own = "Each seed by the labels of its own images." if material.whose else ""
        yield Picture("roc", roc_curves(rocs), _roc_table(rocs), _joined(first, thin, own))
    if not panels:
        yield Picture("codes", None, note="No run kept its code, so there is nothing to draw.")
        return
    names = material.dataset.class_names
    figure = code_densities([codes for codes, _ in panels], names)
    table = [line for codes, seed in panels for line in _codes_table(codes, seed, names)]
    how = "Where no seed has that value, the median reconstruction error chose." if unscored else ""
    yield Picture("codes", figure, table, _joined(first, how, material.whose))


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _labels(material: Trained) -> Callable[[int], NDArray[np.integer[Any]]]:
    """Return a function from a seed to the labels of its images, which are kept in short.

    So that cells, each with all seeds, need not load every seed's images again.
    """
    draws = material.draws

    @functools.cache
    def short(key: int | None) -> NDArray[np.integer[Any]]:
        labels = draws.of(key or 0).dataset.labels
        assert labels is not None  # noqa: S101 - asked for where there are two classes
        return labels if key is None else labels.astype(np.min_scalar_type(int(labels.max())))

    return lambda seed: short(draws.key(seed))


def _roc(
    row: Row,
    spec: Spec,
    runs: Sequence[Row],
    codes: Mapping[str, NDArray[np.float32]],
    labels_of: Callable[[int], NDArray[np.integer[Any]]],
) -> Roc | None:
    found = []
    for run in runs:
        value, labels = class_value(codes[run["run_id"]], spec, run), labels_of(run["seed"])
        if value is not None:
            found.append((run["seed"], *roc_curve(labels == labels.max(), value)))
    if not found:
        return None
    seeds, curves, areas = zip(*found, strict=True)
    return Roc(row["cell"], seeds, np.array(curves), areas)


def _roc_table(rocs: Sequence[Roc]) -> list[Row]:
    lines = [
        (roc.label, name, curve)
        for roc in rocs
        for name, curve in (
            *zip(roc.seeds, roc.curves, strict=True),
            *zip(("10 %", "median", "90 %"), roc.band, strict=True),
        )
    ]
    return [
        {
            "cell": label,
            "seed": name,
            "false_positive_rate": round(float(x), 6),
            "true_positive_rate": round(float(y), 6),
        }
        for label, name, curve in lines
        for x, y in zip(GRID, curve, strict=True)
    ]


def _panel(material: Trained, row: Row, spec: Spec, run: Row, code: NDArray[np.float32]) -> Codes:
    units = code[:, : spec.code.class_units].astype(np.float64)
    prior, metric = prior_of(spec, run), material.study.metric
    reach = None
    if prior is not None and prior.quantile is not None:
        reach = prior.quantile(np.array(CENTRAL))[:, None]
    elif prior is not None:
        reach = np.quantile(prior.sample(10_000), CENTRAL, axis=0)
    score = "" if run[metric] is None else f" · {fixed(run[metric])}"
    return Codes(
        label=row["cell"],
        note=f"seed {run['seed']}{score}",
        units=units,
        classes=material.draws.of(run["seed"]).dataset.labels,
        density=None if prior is None else prior.density,
        reach=reach,
    )


def _codes_table(codes: Codes, seed: int, class_names: Sequence[str]) -> list[Row]:
    """Return the counts and the prior's density of a code of one unit, the points of another."""
    names = ["all images"] if codes.classes is None else list(class_names)
    start = {"cell": codes.label, "seed": seed}
    if codes.units.shape[1] > 1:
        which = np.zeros(len(codes.units), int) if codes.classes is None else codes.classes
        return [
            start
            | {"series": names[place]}
            | {f"unit_{unit}": float(value) for unit, value in enumerate(values, start=1)}
            for place, values in zip(which, codes.units, strict=True)
        ]
    edges, counts = histogram(codes, len(names))
    width = len(codes.units) * (edges[1] - edges[0])
    rows = [
        start
        | {
            "series": name,
            "low": float(edges[bin_]),
            "high": float(edges[bin_ + 1]),
            "count": int(count),
            "density": float(count / width),
        }
        for name, line in zip(names, counts, strict=True)
        for bin_, count in enumerate(line)
    ]
    points, heights = prior_line(codes) or ((), ())
    return rows + [
        start | {"series": "prior", "low": float(x), "high": float(x), "density": float(y)}
        for x, y in zip(points, heights, strict=True)
    ]
