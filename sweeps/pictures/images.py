"""Pictures of images: what trained members make of them, and of points of the prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets import Dataset
from models.spec import Spec
from sweeps.evidence import codes_of, evenly, median_run, member_of, prior_of
from sweeps.figures.images import Sheet, contact_sheet
from sweeps.pictures.base import Picture, Trained

Row = dict[str, Any]

MOST_SHEETS = 6  # cells with images
IMAGES = 8
SHARES = np.linspace(0.02, 0.98, 9)  # of a prior on the line; as many samples of another


def image_pictures(material: Trained) -> Iterator[Picture]:
    """Yield reconstructions and decoded samples of the first cells, from their median seeds."""
    shape, draws = material.dataset.images.shape[1:], material.draws
    rows, marks, all_kinds = list[Sheet](), list[list[Row]](), set[tuple[str, ...]]()
    chosen, originals, shown = np.empty((0, 0), np.float32), list[Row](), False
    made, made_marks, heads = list[Sheet](), list[list[Row]](), set[tuple[str, ...]]()
    before: int | None = None
    for row, spec, runs in material.cells()[:MOST_SHEETS]:
        run = median_run(runs, material.study.metric)
        member = run and member_of(material.folder, run, spec, shape)
        if not run or not member:
            continue
        key = draws.key(run["seed"])
        if not shown or key != before:  # again wherever the images are those of another seed
            chosen, originals = _originals(draws.of(run["seed"]).dataset, key)
            all_kinds.add(tuple(mark["class"] for mark in originals))
            whose = "" if key is None else f"of seed {key}"
            rows.append(Sheet("original", whose, _images(chosen, shape)))
            marks.append(originals)
            shown, before = True, key
        back = member.decode(member.encode(chosen))
        rows.append(Sheet(row["cell"], f"seed {run['seed']}", _images(back, shape)))
        start = {"cell": row["cell"], "seed": run["seed"]}
        marks.append([mark | start for mark in originals])
        known = codes_of(material.folder, [run]).get(run["run_id"])
        points, names, words = _points(spec, run, known)
        if points is not None:
            images = _images(member.decode(points), shape)
            made.append(Sheet(row["cell"], f"seed {run['seed']}, {words}", images))
            made_marks.append([start | {"from": words, "at": name} for name in names])
            heads.add(names)
    if not rows:
        why = "the weights of no scored run can be read"
        yield Picture("reconstructions", None, note=f"There are no reconstructions: {why}.")
        yield Picture("samples", None, note=f"There are no decoded samples: {why}.")
        return
    name = "images and their reconstructions, a row a cell"
    figure, table = contact_sheet(rows, _common(all_kinds), name), _pixels(rows, marks)
    yield Picture("reconstructions", figure, table, material.whose)
    if made:
        name = "decoded points of the prior, a row a cell"
        sheet = contact_sheet(made, _common(heads), name)
        yield Picture("samples", sheet, _pixels(made, made_marks))


def _originals(dataset: Dataset, seed: int | None) -> tuple[NDArray[np.float32], list[Row]]:
    """Return images as rows, some of every class, and what the table says of each."""
    which = evenly(dataset.labels, len(dataset.images), IMAGES)
    kinds = [""] * len(which)
    if dataset.labels is not None:
        kinds = [dataset.class_names[dataset.labels[place]] for place in which]
    marks = _heads([f"image {place}" for place in which], kinds)
    return dataset.pixels[which], [mark | {"seed": seed} for mark in marks]


def _common(heads: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the heads of the columns where all rows have the same."""
    return next(iter(heads)) if len(heads) == 1 else ()


def _points(
    spec: Spec, run: Row, known: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32] | None, tuple[str, ...], str]:
    """Return codes to decode, a name each, and where they are from; style units are 0."""
    prior, units = prior_of(spec, run), spec.code.class_units
    names = tuple(f"{share:.2f}" for share in SHARES)
    if prior is not None and prior.quantile is not None:
        values, words = prior.quantile(SHARES)[:, None], "quantiles of the prior"
    elif prior is not None:
        values, words = prior.sample(len(SHARES)), "samples of the prior"
        names = tuple(str(place) for place in range(1, len(SHARES) + 1))
    elif known is not None and units == 1:
        values, words = np.quantile(known[:, :1], SHARES, axis=0), "quantiles of its codes"
    else:
        return None, (), ""
    style = np.zeros((len(values), spec.code.style_units))
    return np.hstack([values, style]).astype(np.float32), names, words


def _heads(names: Sequence[str], kinds: Sequence[str]) -> list[Row]:
    start = {"cell": "original", "seed": None}
    return [start | {"image": n, "class": kind} for n, kind in zip(names, kinds, strict=True)]


def _images(rows: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rows.reshape(-1, *shape).astype(np.float64)


def _pixels(sheets: Sequence[Sheet], marks: Sequence[Sequence[Row]]) -> list[Row]:
    """Return a row an image, a column a pixel."""
    return [
        {**mark, **{f"pixel_{n}": round(float(v), 5) for n, v in enumerate(image.ravel())}}
        for sheet, own in zip(sheets, marks, strict=True)
        for mark, image in zip(own, sheet.images, strict=True)
    ]
