"""Pictures of the diagnostics: hot pixels taken away, samples, and what units correspond to."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.diagnostics.denoising import filtered
from models.diagnostics.generation import SOURCES, Coded, samples
from models.diagnostics.table import MEDIAN_FILTER, Examination
from models.restore import Restored
from models.spec import Spec
from sweeps.diagnoses import SOURCES as WORDS
from sweeps.evidence import codes_of, evenly, median_run, member_of
from sweeps.figures.heat import MOST_ROWS, HeatRow, heat_map
from sweeps.figures.images import Sheet, contact_sheet
from sweeps.folder import storage
from sweeps.measures import examination
from sweeps.pictures.base import Picture, Trained
from sweeps.wording import fixed

Row = dict[str, Any]
Array = NDArray[np.float64]

MOST_SHEETS = 6
IMAGES = 8
DRAWN = 10
MOST_CLASSES = 4  # with columns of their own
NO_WEIGHTS = "the weights of no scored run can be read"


def diagnostic_pictures(material: Trained) -> Iterator[Picture]:
    """Yield the pictures of what the study asks for and its dataset has; no others."""
    asked = material.study.diagnostics
    if asked.denoising is not None:
        yield _denoising(material)
    if asked.generation is not None:
        yield _generated(material)
    found = _physics(material)
    if found is not None:
        yield found


def _examination(material: Trained, seed: int) -> Examination:
    draw = material.draws.of(seed)
    return examination(draw.dataset.images, draw.scorer, material.study.diagnostics)


Shown = tuple[Row, Spec, Row, Restored]


def _members(material: Trained) -> Iterator[Shown]:
    """Yield (row of the summary, specification, median run, member) of the first cells."""
    for row, spec, runs in material.cells()[:MOST_SHEETS]:
        run = median_run(runs, material.study.metric)
        shape = material.dataset.images.shape[1:]
        member = run and member_of(material.folder, run, spec, shape)
        if run and member:
            yield row, spec, run, member


def _by_data(material: Trained) -> Iterator[tuple[str, Examination, list[Shown]]]:
    """Yield members that follow each other on the same images: whose, the images, the members."""
    draws = material.draws
    for key, members in itertools.groupby(_members(material), lambda m: draws.key(m[2]["seed"])):
        whose = "" if key is None else f"of seed {key}"
        yield whose, _examination(material, key or 0), list(members)


def _denoising(material: Trained) -> Picture:
    """Return images as they are, with hot pixels, as members give them back, and filtered."""
    shape = material.dataset.images.shape[1:]
    sheets, columns = list[Sheet](), 0
    for whose, exam, members in _by_data(material):
        defects = exam.defects
        chosen = evenly(None, len(defects.clean), IMAGES)
        noisy, columns = defects.noisy[chosen], len(chosen)
        sheets += [
            _sheet("image", whose, defects.clean[chosen], shape),
            _sheet("with hot pixels", whose, noisy, shape),
        ]
        for row, _, run, member in members:
            made = member.decode(member.encode(noisy.reshape(len(noisy), -1)))
            told = f"seed {run['seed']}: {_figures(run)}"
            sheets.append(_sheet(row["cell"], told, made, shape))
        usual = exam.median_filter() if whose else material.baselines.get(MEDIAN_FILTER, {})
        sheets.append(_sheet(MEDIAN_FILTER, _figures(dict(usual)), filtered(noisy), shape))
    if not sheets:
        return Picture("denoising", None, note=f"There is nothing to show: {NO_WEIGHTS}.")
    name = "images, the same with hot pixels, and what is made of these, a row a cell"
    figure = contact_sheet(sheets, [""] * columns, name)
    return Picture("denoising", figure, _pixels(sheets), material.whose)


def _figures(numbers: Row) -> str:
    gone, error = numbers.get("hot_suppression"), numbers.get("elsewhere_error")
    return f"{fixed(gone, 2)} gone, error {fixed(error, 2)}"


def _generated(material: Trained) -> Picture:
    """Return decoded samples of the prior and of the density fitted afterwards, beside images."""
    shape, names = material.dataset.images.shape[1:], material.dataset.class_names
    sheets, shares, right, drawn = list[Sheet](), list[Row](), list[float](), False
    for whose, exam, members in _by_data(material):
        images = exam.likeness.images[evenly(None, exam.likeness.count, DRAWN)]
        sheets.append(_sheet("images", whose, images, shape))
        reference = exam.likeness.reference
        if reference is not None:
            right.append(reference.accuracy)
            seed = members[0][2]["seed"] if whose else None
            shares += _shares("images", seed, None, reference.own, names)
        for row, spec, run, member in members:
            for source, made in _samples(material, exam, (row, spec, run, member)):
                drawn = True
                told = f"seed {run['seed']}, {WORDS[source]}"
                sheets.append(_sheet(row["cell"], told, made[:DRAWN], shape))
                if reference is not None and np.isfinite(made).all():
                    found = reference.shares(made)
                    shares += _shares(row["cell"], run["seed"], source, found, names)
    if not drawn:
        return Picture("generated", None, note=f"There are no samples: {NO_WEIGHTS}.")
    note = material.whose
    if right:
        low, high = (f"{100 * share:.0f} %" for share in (min(right), max(right)))
        least = f"{low} to " if low != high else ""
        said = f"Shares of classes are by a reference classifier that is right for {least}{high}"
        note = f"{said} of the images; the CSV has them. {note}".rstrip()
    name = "images, and decoded samples of the prior and of a density fitted to the codes"
    figure = contact_sheet(sheets, [""] * DRAWN, name)
    return Picture("generated", figure, [*shares, *_pixels(sheets)], note)


def _samples(
    material: Trained, exam: Examination, shown: Shown
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each source that a member can be drawn from, with its decoded samples."""
    _, spec, run, member = shown
    code = codes_of(material.folder, [run]).get(run["run_id"])
    if code is None:
        return
    normal, prior = spec.code.style == "normal", spec.prior_of(run["learned_prior"])
    coded = Coded(code, spec.code.class_units, prior, normal_style=normal)
    for source in SOURCES:
        drawn = samples(coded, source, exam.likeness.count, run["seed"])
        if drawn is not None:
            yield source, member.decode(drawn)


def _shares(
    cell: str, seed: int | None, source: str | None, shares: Array, names: Sequence[str]
) -> list[Row]:
    return [
        {"cell": cell, "note": "share of a class", "seed": seed, "source": source, "class": name}
        | {"share": round(float(share), 6)}
        for name, share in zip(names, shares, strict=True)
    ]


def _physics(material: Trained) -> Picture | None:
    """Return the median |Spearman| of each cell's class units with each covariate."""
    try:
        rows = storage.read_parquet(material.folder / "physics.parquet").to_pylist()
    except (OSError, ValueError, pa.ArrowException):
        return None
    classes = [None, *dict.fromkeys(row["class"] for row in rows if row["class"] is not None)]
    if len(classes) > MOST_CLASSES + 1:
        classes = [None]
    covariates = list(dict.fromkeys(row["covariate"] for row in rows))
    by_run: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_run[row["run_id"]].append(row)
    columns = [(group, name) for group in classes for name in covariates]
    heat, table = list[HeatRow](), list[Row]()
    for summary, spec, runs in material.cells():
        units = spec.code.class_units
        own = [by_run[run["run_id"]] for run in runs]
        found = [_over_seeds(own, units, group, name) for group, name in columns]
        if any(one["seeds"] for one in found):
            heat.append(HeatRow(summary["cell"], [one["spearman_median"] for one in found]))
            table += [
                {"cell": summary["cell"], "class": group, "covariate": name, **one}
                for (group, name), one in zip(columns, found, strict=True)
            ]
    if not heat:
        return None
    titles = ["all images" if group is None else f"class {group}" for group, _ in columns]
    name = "median |Spearman| of the class units with each covariate, a row a cell"
    figure = heat_map(heat, [name for _, name in columns], titles, name)
    note = f"Shown: the first {MOST_ROWS} cells." if len(heat) > MOST_ROWS else ""
    return Picture("physics", figure, table, note)


def _over_seeds(
    runs: Sequence[Sequence[Row]], units: int, group: str | None, covariate: str
) -> Row:
    """Return median and quartiles over seeds of the class units' largest numbers."""
    found: dict[str, list[float]] = {"spearman": [], "mutual_information": []}
    for rows in runs:
        for name, values in found.items():
            own = [
                abs(row[name])
                for row in rows
                if (row["class"], row["covariate"]) == (group, covariate)
                and row["unit"] < units
                and row[name] is not None
            ]
            values.extend([max(own)] if own else [])
    made: Row = {"seeds": len(found["spearman"])}
    for name, values in found.items():
        quartiles = np.percentile(values, (50, 25, 75)).tolist() if values else [None] * 3
        keys = (f"{name}_median", f"{name}_first_quartile", f"{name}_third_quartile")
        made |= dict(zip(keys, quartiles, strict=True))
    return made


def _sheet(label: str, note: str, rows: NDArray[np.float32], shape: tuple[int, ...]) -> Sheet:
    return Sheet(label, note, rows.reshape(-1, *shape).astype(np.float64))


def _pixels(sheets: Sequence[Sheet]) -> list[Row]:
    """Return a row an image, a column a pixel."""
    return [
        {"cell": sheet.label, "note": sheet.note, "image": place}
        | {f"pixel_{n}": round(float(v), 5) for n, v in enumerate(image.ravel())}
        for sheet in sheets
        for place, image in enumerate(sheet.images)
    ]
