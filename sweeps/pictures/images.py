"""Pictures of images: what trained members make of them, and of points of the prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    dataset, pixels = material.dataset, material.dataset.pixels
    shape, labels = dataset.images.shape[1:], dataset.labels
    which = evenly(labels, len(pixels), IMAGES)
    chosen = pixels[which]
    kinds = [""] * len(which) if labels is None else [dataset.class_names[labels[n]] for n in which]
    rows = [Sheet("original", "", chosen.reshape(-1, *shape).astype(np.float64))]
    marks: list[list[Row]] = [_heads([f"image {n}" for n in which], kinds)]
    made, made_marks, heads = list[Sheet](), list[list[Row]](), set[tuple[str, ...]]()
    for row, spec, runs in material.cells()[:MOST_SHEETS]:
        run = median_run(runs, material.study.metric)
        member = run and member_of(material.folder, run, spec, dataset.images.shape[1:])
        if not run or not member:
            continue
        back = member.decode(member.encode(chosen))
        rows.append(Sheet(row["cell"], f"seed {run['seed']}", _images(back, shape)))
        start = {"cell": row["cell"], "seed": run["seed"]}
        marks.append([mark | start for mark in marks[0]])
        known = codes_of(material.folder, [run]).get(run["run_id"])
        points, names, words = _points(spec, run, known)
        if points is not None:
            images = _images(member.decode(points), shape)
            made.append(Sheet(row["cell"], f"seed {run['seed']}, {words}", images))
            made_marks.append([start | {"from": words, "at": name} for name in names])
            heads.add(names)
    if len(rows) == 1:
        why = "the weights of no scored run can be read"
        yield Picture("reconstructions", None, note=f"There are no reconstructions: {why}.")
        yield Picture("samples", None, note=f"There are no decoded samples: {why}.")
        return
    name = "images and their reconstructions, a row a cell"
    yield Picture("reconstructions", contact_sheet(rows, kinds, name), _pixels(rows, marks))
    if made:
        shown = next(iter(heads)) if len(heads) == 1 else ()
        name = "decoded points of the prior, a row a cell"
        yield Picture("samples", contact_sheet(made, shown, name), _pixels(made, made_marks))


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
