"""Datasets on their own: which there are, what one holds, and one as a file for others to read."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table

from models.datasets import FORMS, SHIPPED, BadData, Dataset, DatasetSettings, with_absolute_paths
from models.datasets.base import chunks
from models.settings import Settings
from sweeps.folder.storage import write_whole
from sweeps.look import Look
from sweeps.look import write as _print
from sweeps.mistakes import Refused, did_you_mean, sentences
from sweeps.study import find_study, place_of, read_yaml
from sweeps.vary import USUAL, Vary, sentence

ACROSS = 12  # images of a class on the contact sheet
INCH = 0.8  # of one image there
MOST_ROWS = 40
PERCENT = 100
LEFT = 1.6  # inches for the names
EARLIEST = (1980, 1, 1, 0, 0, 0)  # of what a zip file can say: the same data give the same bytes


class _Asked(Settings):
    """A study file's dataset and what a seed redraws, without the rest of the file."""

    dataset: DatasetSettings
    vary: Vary = USUAL


Asked = tuple[dict[str, Any], str, bool]  # settings, the place of mistakes, whether alone


def catalogue() -> dict[str, Any]:
    """Return the shipped datasets and the forms of files, with the keys that a study can set."""
    return {
        "datasets": [
            {"name": kind.form, "what": _summary(kind), "keys": list(kind.model_fields)}
            for kind in SHIPPED
        ],
        "forms": [
            {
                "form": kind.form,
                "path": path,
                "what": _summary(kind),
                "keys": list(kind.model_fields),
            }
            for kind, path in FORMS.items()
        ],
    }


def open_data(what: str) -> Dataset:
    """Load a shipped dataset by name, a file or folder of images, or the dataset of a study.

    Raises Refused with every mistake.
    """
    return _load(*_asked(what))


def redrawn(what: str) -> str | None:
    """Return what a seed of a study redraws, in a sentence; None for a dataset alone."""
    asked, _, alone = _asked(what)
    return None if alone else sentence(_Asked.model_validate(asked).vary)


def _asked(what: str) -> Asked:
    path = Path(what)
    if what in [kind.form for kind in SHIPPED]:
        return {"dataset": what}, what, True
    of_study = path.suffix in (".yaml", ".yml") or (path / "study.yaml").is_file()
    if path.exists() and not of_study:
        return {"dataset": with_absolute_paths({"path": what}, Path())}, what, True
    try:
        file = find_study(what)
    except Refused:
        shipped = did_you_mean(what, [kind.form for kind in SHIPPED])
        text = f"{what}: no such file, and no dataset or study of that name{shipped}"
        raise Refused([f"{text}; see: sweeps data list"]) from None
    raw = read_yaml(file)
    asked = {key: with_absolute_paths(raw[key], file.parent) for key in raw if key == "dataset"}
    return asked | {key: raw[key] for key in raw if key == "vary"}, file.name, False


def _load(asked: dict[str, Any], where: str, alone: bool) -> Dataset:  # noqa: FBT001 - as above
    try:
        return _Asked.model_validate(asked).dataset.load()
    except ValidationError as failure:
        found = [(place_of(wrong), wrong.sentence) for wrong in sentences(failure, _Asked)]
    except BadData as bad:
        found = [(f"dataset.{bad.setting}", bad.sentence)]
    places = [where if alone or not at else f"{where}: {at}" for at, _ in found]
    raise Refused([f"{at}: {text}" for at, (_, text) in zip(places, found, strict=True)])


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return counts, shape, range, digests, shares of classes, ranges of covariates, and size."""
    low, high, total = np.inf, -np.inf, 0.0
    for part in chunks(dataset.images):
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        total += float(part.sum(dtype=np.float64))
    count = len(dataset.images)
    classes = []
    if dataset.labels is not None:
        counts = np.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
        classes = [
            {"name": name, "images": number, "share": number / count}
            for name, number in zip(dataset.class_names, counts, strict=True)
        ]
    return {
        "name": dataset.name,
        "what": dataset.description,
        "images": count,
        "shape": list(dataset.images.shape[1:]),
        "dtype": str(dataset.images.dtype),
        "low": low,
        "high": high,
        "mean": total / dataset.images.size,
        "image_digest": dataset.image_digest,
        "label_digest": dataset.label_digest,
        "classes": classes,
        "covariates": {
            name: {"low": float(v.min()), "high": float(v.max()), "mean": float(v.mean())}
            for name, v in dataset.covariates.items()
        },
        "scalar": dataset.scalar,
        "defective": None if dataset.mask is None else float(dataset.mask.mean()),
        "bytes": dataset.images.nbytes,
        "on_disk": isinstance(dataset.images, np.memmap),
    }


def export(dataset: Dataset, folder: Path) -> list[Path]:
    """Write NAME.npz, which a study can read, and contact-sheet.png; return their paths.

    Raises Refused where the folder cannot be written.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name).strip("-.") or "data"
    paths = [folder / f"{name}.npz", folder / "contact-sheet.png"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_npz(dataset, paths[0])
        write_whole(paths[1], contact_sheet(dataset))
    except OSError as failure:
        reason = f"{folder}: cannot be written: {failure.strerror or failure}"
        raise Refused([f"{reason}; choose another with --out"]) from None
    return paths


def _write_npz(dataset: Dataset, path: Path) -> None:
    """Write the archive row by row: images may be more than fits in memory."""
    arrays: dict[str, NDArray[Any]] = {"images": dataset.images}
    if dataset.labels is not None:
        arrays |= {"labels": dataset.labels, "class_names": np.array(dataset.class_names)}
    arrays |= {f"cov_{name}": values for name, values in dataset.covariates.items()}
    if dataset.mask is not None:
        arrays["mask"] = dataset.mask
    temporary = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy", EARLIEST)
                with archive.open(entry, "w", force_zip64=True) as file:
                    _write_array(file, array)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_array(file: IO[bytes], array: NDArray[Any]) -> None:
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in chunks(array):
        file.write(np.ascontiguousarray(part).tobytes())


def contact_sheet(dataset: Dataset) -> bytes:
    """Return a PNG with a row a class: its name, and images of it, evenly spaced."""
    rows = list(_rows(dataset))[:MOST_ROWS]
    size = (LEFT + INCH * ACROSS, INCH * len(rows) + 0.2)
    with style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name that the face cannot write
        figure = Figure(figsize=size, dpi=100, facecolor="white")
        panels = figure.subplots(len(rows), ACROSS, squeeze=False)
        edges = {"left": LEFT / size[0], "right": 0.995, "top": 0.98, "bottom": 0.02}
        figure.subplots_adjust(**edges, wspace=0.06, hspace=0.06)
        for line, (name, places) in zip(panels, rows, strict=True):
            words = "".join(c if c.isprintable() else "?" for c in name)
            text = "\n".join(textwrap.wrap(words, 16, max_lines=3, placeholder="…"))
            place = {"x": -0.2, "y": 0.5, "ha": "right", "va": "center"}
            line[0].text(
                s=text, **place, transform=line[0].transAxes, parse_math=False, fontsize=10
            )
            for panel, image in zip(line, dataset.images[places], strict=False):
                panel.imshow(_picture(image), cmap="gray", interpolation="nearest")
            for panel in line:
                panel.set_axis_off()
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _rows(dataset: Dataset) -> Iterator[tuple[str, NDArray[np.int64]]]:
    if dataset.labels is None:
        yield "no labels", _evenly(np.arange(len(dataset.images)))
        return
    for number, name in enumerate(dataset.class_names):
        inside = np.flatnonzero(dataset.labels == number)
        yield f"{name} ({len(inside):,})", _evenly(inside)


def _evenly(places: NDArray[np.int64]) -> NDArray[np.int64]:
    wanted = min(ACROSS, len(places))
    chosen: NDArray[np.int64] = places[np.linspace(0, max(0, len(places) - 1), wanted).astype(int)]
    return chosen


def _picture(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return an image as it can be seen: colour from three channels, otherwise their mean."""
    low, high = float(image.min()), float(image.max())
    scaled = (image.astype(np.float64) - low) / ((high - low) or 1.0)
    if len(image) == 3:  # noqa: PLR2004 - red, green, blue
        return np.moveaxis(scaled, 0, -1)
    mean: NDArray[np.float64] = scaled.mean(0)
    return mean


def print_catalogue(content: dict[str, Any], console: Console) -> None:
    """Print what a study's `dataset` can be."""
    look = Look.of(console)
    for title, entries in content.items():
        heads = {"datasets": "shipped", "forms": "files of yours, by the path's ending"}
        _print(console, look, look.text(heads[title], "bold"))
        listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
        for entry in entries:
            first = "name" if "name" in entry else "path"
            listing.add_row(
                look.text("  " + entry.get("name", entry.get("form"))), look.text(entry["what"])
            )
            where = f"{first}: {entry[first]}" if first == "path" else f"name: {entry['name']}"
            others = ", ".join(key for key in entry["keys"] if key != first)
            listing.add_row(look.text(""), look.text(f"{where}; also: {others}", "dim"))
        _print(console, look, listing)


def print_description(content: dict[str, Any], console: Console) -> None:
    """Print what a dataset holds."""
    look = Look.of(console)
    where = "on disk, mapped into memory" if content["on_disk"] else "in memory"
    shape = " x ".join(map(str, content["shape"]))
    rows = {
        "images": f"{content['images']:,} of {shape} (channels, height, width), {content['dtype']}",
        "pixels": f"{content['low']:g} to {content['high']:g}, mean {content['mean']:.4g}",
        "size": f"{content['bytes'] / 2**20:,.1f} MiB {where}",
        "image digest": content["image_digest"],
        "label digest": content["label_digest"] or "no labels",
    }
    if content["defective"] is not None:
        rows["defective"] = f"{PERCENT * content['defective']:.3g} % of the pixels, known by a mask"
    if content["scalar"] is not None:
        rows["own scalar"] = f"{content['scalar']}, a baseline"
    if content.get("redraws"):
        rows["study"] = content["redraws"]
    _print(console, look, look.text(f"{content['name']}: {content['what']}", "bold"))
    listing = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, text in rows.items():
        listing.add_row(look.text(name, "dim"), look.text(text))
    for entry in content["classes"]:
        share = f"{entry['images']:,}, {PERCENT * entry['share']:.1f} %"
        listing.add_row(look.text("class", "dim"), look.text(f"{entry['name']}: {share}"))
    for name, span in content["covariates"].items():
        text = f"{name}: {span['low']:.4g} to {span['high']:.4g}, mean {span['mean']:.4g}"
        listing.add_row(look.text("covariate", "dim"), look.text(text))
    _print(console, look, listing)


def _summary(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
