"""Step 1: a study's YAML file becomes a `Study`, or every mistake in it at once, with its place."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from models.datasets import BadData, Dataset, DatasetSettings, with_absolute_paths
from models.datasets.digits import Digits
from models.datasets.split import training_rows
from models.diagnostics.request import Requested
from models.scores import METRICS, OF_TWO_CLASSES, Metric
from models.settings import Settings, mistake
from models.spec import Spec, combination_mistakes
from models.streams import LARGEST_SEED
from sweeps import grid
from sweeps.bounded import Bounded
from sweeps.cells import Cell, name_cells
from sweeps.folder.places import place
from sweeps.mistakes import NAME_RULE, Mistake, Refused, did_you_mean, sentences, shown
from sweeps.vary import USUAL, Part, Vary, asks_for_data, data_mistakes

MOST_SEEDS = 100_000
NAME = "[a-z0-9][a-z0-9-]*"  # of a folder and an experiment: it leads nowhere else
Note = Callable[[str, str], None]
ChosenMetric = Literal[Metric, "agreement"]


class Resources(Settings):
    """What one pack asks of Ray, and how many packs may run at a time (null: as many as fit)."""

    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    max_concurrent: int | None = Field(default=None, ge=1)

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        """Ray shares one GPU between packs, or gives whole ones."""
        if gpus > 1 and gpus != int(gpus):
            text = f"expected a part of one GPU or a whole number of them, got {gpus:g}"
            raise mistake(text)
        return gpus


def _seed_list(value: Any) -> Any:
    """Read a count as the list 0 ... count - 1."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_SEEDS:
            text = f"expected 1 to {MOST_SEEDS} seeds, got {value}"
            raise mistake(text)
        return tuple(range(value))
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, tuple):
        return value
    text = f"expected a number of seeds or a list of seeds, got {shown(value)}"
    raise mistake(text)


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1}) if len(seeds) < 1000 else []  # noqa: PLR2004
    if twice or len(set(seeds)) != len(seeds):
        text = f"seed {twice[0]} is listed twice" if twice else "a seed is listed twice"
        raise mistake(text)
    return tuple(sorted(seeds))


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Seeds = Annotated[
    tuple[Seed, ...], Field(min_length=1), AfterValidator(_distinct), BeforeValidator(_seed_list)
]


class StudyFile(Settings):
    """The keys of a study file; `spec` and `cells` are read by `grid`."""

    name: str = Field(pattern=f"^{NAME}$", max_length=100)
    question: str = ""
    dataset: DatasetSettings
    seeds: Seeds = tuple(range(30))
    spec: Any = None
    cells: Any = None
    metric: ChosenMetric | None = None
    split: float | None = Field(default=None, gt=0, lt=1)
    vary: Vary = USUAL
    low: float = Field(default=0.8, ge=0, le=1)
    orient_by: str | None = None
    diagnostics: Requested = Requested()
    resources: Resources = Resources()


@dataclass(frozen=True)
class Study:
    """A validated study: cells and seeds are explicit lists."""

    name: str
    question: str
    dataset: DatasetSettings
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    metric: str
    split: float | None
    low: float
    orient_by: str | None
    resources: Resources
    diagnostics: Requested = field(default_factory=Requested)
    vary: tuple[Part, ...] = USUAL

    @property
    def redraws_data(self) -> bool:
        """Return whether each seed has a draw of the data of its own."""
        return asks_for_data(self.vary)

    def resolved(self) -> dict[str, Any]:
        """Return the study with every default written out, itself a valid study file."""
        return {
            "name": self.name,
            "question": self.question,
            "dataset": self.dataset.model_dump(mode="json"),
            "seeds": list(self.seeds),
            "cells": [cell.spec.model_dump(mode="json") for cell in self.cells],
            "metric": self.metric,
            "split": self.split,
            "vary": list(self.vary),
            "low": self.low,
            "orient_by": self.orient_by,
            "diagnostics": self.diagnostics.model_dump(mode="json"),
            "resources": self.resources.model_dump(mode="json"),
        }

    def with_seeds(self, seeds: int | None) -> Study:
        """Return the study with seeds 0 ... seeds - 1 instead of the file's; None keeps those."""
        check_seeds(seeds)
        return self if seeds is None else replace(self, seeds=tuple(range(seeds)))


def check_seeds(seeds: int | None) -> None:
    """Raise Refused where a call's number of seeds is none."""
    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise Refused([f"--seeds: expected 1 to {MOST_SEEDS} seeds, got {seeds}"])


def find_study(name: str) -> Path:
    """Return the file of a path or of a shipped study; Refused where there is none."""
    path = place(name)
    if path.is_dir() and (path / "study.yaml").is_file():
        return path / "study.yaml"
    if path.is_file():
        return path
    shipped = importlib.resources.files("sweeps.studies")
    known = sorted(item.name[:-5] for item in shipped.iterdir() if item.name.endswith(".yaml"))
    if name in known:
        return Path(str(shipped / f"{name}.yaml"))
    what = "a folder without a study.yaml" if path.is_dir() else "no such file"
    raise Refused([f"{name}: {what}, and no study of that name{did_you_mean(name, known)}"])


def load_study(path: Path) -> tuple[Study, Dataset]:
    """Read a study file and its dataset.

    Raises Refused with every mistake that the schema can see: `file: place: sentence`.
    """
    raw = read_yaml(path)
    if "dataset" in raw:  # its paths are relative to the file, wherever one works
        raw["dataset"] = with_absolute_paths(raw["dataset"], path.parent)
    mistakes: list[str] = []
    note = _noting(path, mistakes)
    file = _file(raw, note)
    points = _cells(raw, note)
    dataset = _dataset(raw, note)
    if dataset is not None:
        _check_networks(dataset, points, note)
    if mistakes or file is None or dataset is None:
        raise Refused(mistakes)
    chosen = {name: getattr(file, name) for name in StudyFile.model_fields if name != "spec"}
    metric = file.metric or usual_metric(dataset)
    cells = name_cells([spec for _, spec in points])
    return Study(**{**chosen, "cells": cells, "metric": metric}), dataset


def check_without_data(path: Path) -> StudyFile:
    """Read a study whose dataset lies on another machine; Refused with what is wrong beside it."""
    mistakes: list[str] = []
    note, raw = _noting(path, mistakes), read_yaml(path)
    file = _file({**raw, "dataset": Digits.form}, note)
    _cells(raw, note)
    if mistakes or file is None:
        raise Refused(mistakes)
    return file


def _noting(path: Path, mistakes: list[str]) -> Note:
    """Return what notes a mistake of a file, with its place."""

    def note(where: str, sentence: str) -> None:
        place = f"{path.name}: {where}" if where else path.name
        mistakes.append(f"{place}: {sentence}")

    return note


def _file(raw: dict[str, Any], note: Note) -> StudyFile | None:
    try:
        return StudyFile.model_validate(raw)
    except ValidationError as failure:
        for wrong in sentences(failure, StudyFile):
            note(place_of(wrong), wrong.sentence)
    return None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML 1.2 document that is a mapping of plain values; Refused otherwise."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = Bounded
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise Refused([f"{path}: cannot be read: {failure.strerror}"]) from None
    except UnicodeDecodeError:
        raise Refused([f"{path.name}: not a text file in UTF-8"]) from None
    except MarkedYAMLError as failure:
        mark = failure.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = (failure.problem or failure.context or "cannot be read as YAML").split("\n")[0]
        raise Refused([f"{path.name}: {line}{problem}"]) from None
    except (YAMLError, RecursionError, ValueError) as failure:
        reason = str(failure).split("\n")[0]
        raise Refused([f"{path.name}: cannot be read as YAML: {reason}"]) from None
    if not isinstance(raw, dict):
        raise Refused([f"{path.name}: expected a mapping of a study's keys, got {shown(raw)}"])
    return raw


def name_in(path: Path) -> str:
    """Return the name that a study's file gives it; Refused where that is none."""
    name = read_yaml(path).get("name")
    if isinstance(name, str) and re.fullmatch(NAME, name):
        return name
    raise Refused([f"{path.name}: name: expected {NAME_RULE}, got {shown(name)}"])


def place_of(wrong: Mistake) -> str:
    """Return where a mistake is, as a reader of the file would write it: `cells[1].prior`."""
    place = _dotted(wrong.path)
    return place.rpartition(".")[0] if wrong.at_owner else place


def _dotted(path: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _cells(raw: dict[str, Any], note: Note) -> list[tuple[grid.Point, Spec]]:
    """Return each configuration as written and as specification; note every mistake."""
    shared, blocks = raw.get("spec"), raw.get("cells")
    shared = {} if shared is None else shared
    blocks = [{}] if blocks is None else blocks
    if not isinstance(shared, Mapping):
        note("spec", f"expected a mapping of settings, got {shown(shared)}")
        shared = {}
    if not isinstance(blocks, list) or not blocks:
        note("cells", f"expected a list of blocks, got {'none' if blocks == [] else shown(blocks)}")
        return []
    found: list[tuple[grid.Point, Spec]] = []
    total = 0
    for number, block in enumerate(blocks):
        where = f"cells[{number}]"
        if not isinstance(block, Mapping):
            note(where, f"expected a mapping of settings, got {shown(block)}")
            continue
        size = grid.count(shared, block)
        total += size
        if size == 0:
            note(where, "an empty list leaves nothing to run")
        if total > grid.MOST_CELLS:
            note(where, f"more than {grid.MOST_CELLS} configurations")
            return found
        found += _block_cells(shared, block, where, note)
    first: dict[str, str] = {}
    for point, spec in found:
        where = point.block
        if where == first.setdefault(spec.canonical_json(), where):
            continue
        note(where, f"a configuration that {first[spec.canonical_json()]} already has; remove one")
    return found


def _block_cells(
    shared: Mapping[str, Any], block: Mapping[str, Any], where: str, note: Note
) -> list[tuple[grid.Point, Spec]]:
    found, seen = [], set()
    for point in grid.points(shared, block, where):
        try:
            found.append((point, Spec.model_validate(point.settings)))
        except ValidationError as failure:
            # A wrong field hides what its neighbours make of each other: look at those as well.
            hidden = [Mistake((f,), text) for f, text in combination_mistakes(point.settings)]
            for wrong in [*sentences(failure, Spec), *hidden]:
                place = point.where(wrong.path)
                message = (place.rpartition(".")[0] if wrong.at_owner else place, wrong.sentence)
                if message not in seen:
                    seen.add(message)
                    note(*message)
    return found


def _dataset(raw: dict[str, Any], note: Note) -> Dataset | None:
    """Load the dataset; note what the study asks of it that it has not."""
    try:
        settings = TypeAdapter(DatasetSettings).validate_python(raw.get("dataset"))
        for where, sentence in data_mistakes(raw, settings):
            note(where, sentence)
        dataset: Dataset = settings.load()
    except ValidationError:
        return None  # noted already, with the file's other keys
    except BadData as bad:
        note(f"dataset.{bad.setting}", bad.sentence)
        return None
    orient_by, metric = raw.get("orient_by"), raw.get("metric")
    if isinstance(orient_by, str) and orient_by not in dataset.covariates:
        known = did_you_mean(orient_by, dataset.covariates)
        note("orient_by", f"unknown covariate '{orient_by}'{known}")
    if metric == "auc_covariate" and orient_by is None:
        note("metric", "auc_covariate needs orient_by: the covariate that gives the code its sign")
    _check_classes(dataset, raw, note)
    return dataset


def _check_networks(dataset: Dataset, points: list[tuple[grid.Point, Spec]], note: Note) -> None:
    """Note each network that images of the dataset's shape do not fit."""
    noted = set()
    for point, spec in points:
        found = spec.network.misfit(dataset.images.shape[1:])
        if found is None:
            continue
        kind = point.where(("network", "kind")).removesuffix(".kind")
        message = (point.origins.get(("network", found[0]), kind), found[1])
        if message not in noted:
            noted.add(message)
            note(*message)


def usual_metric(dataset: Dataset) -> str:
    """Return what a study is about that does not say: by what its dataset can tell."""
    if dataset.labels is None:
        return "agreement"
    return "auc_split" if len(dataset.class_names) == 2 else "auc_matched"  # noqa: PLR2004


def _check_classes(dataset: Dataset, raw: dict[str, Any], note: Note) -> None:
    """Note what the labels cannot give: a single class, or a metric of two that has three."""
    metric, split, classes = raw.get("metric"), raw.get("split"), len(dataset.class_names)
    if dataset.labels is None:
        if metric in METRICS:
            note("metric", f"{metric} needs labels, and the dataset has none; use agreement")
        return
    if classes < 2:  # noqa: PLR2004
        text = "expected two classes or more, or no labels at all"
        note("dataset.classes", f"{text}, got {classes}")
        return
    if metric in OF_TWO_CLASSES and classes > 2:  # noqa: PLR2004
        others = ", ".join(one for one in METRICS if one not in OF_TWO_CLASSES)
        text = f"{metric} compares two classes, and the dataset has {classes}"
        note("metric", f"{text}; choose one of: {others}")
    if isinstance(split, float) and 0 < split < 1:
        lacking = lacks_class(dataset, split)
        if lacking:
            note("split", f"{lacking}; lower it")


def lacks_class(dataset: Dataset, split: float) -> str | None:
    """Return a sentence where the images that a split leaves to be scored lack a class."""
    if dataset.labels is None:
        return None
    held_out = np.delete(dataset.labels, training_rows(dataset, split))
    if len(np.unique(held_out)) == len(dataset.class_names):
        return None
    count = f"{len(held_out)} of {len(dataset.labels)} images"
    return f"the part that is scored lacks a class: {count}"
