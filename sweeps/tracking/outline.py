"""A study as MLflow is to show it: plain values, which go through a pipe as JSON.

So that the process which writes them needs neither images nor torch, whose import takes seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # seconds of imports
    from models.datasets import Dataset
    from sweeps.plan import Run
    from sweeps.study import Study


@dataclass(frozen=True)
class Input:
    """A run's dataset: its name, SHA-256, and as JSON where it is from and its size."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class Member:
    """One planned run; `data` where its dataset is not that of the study."""

    run_id: str
    cell_id: str
    seed: int
    data: Input | None = None


@dataclass(frozen=True)
class Group:
    """One cell: its label, axes, settings by dotted path, and how many runs are planned."""

    cell_id: str
    label: str
    axes: dict[str, Any]
    params: dict[str, str]
    planned: int


@dataclass(frozen=True)
class Outline:
    """What is planned and how it is called; `views` are the UI's, `outcomes` names of metrics."""

    study: str
    question: str
    metric: str
    low: float
    seeds: tuple[int, ...]
    data: Input
    cells: tuple[Group, ...]
    runs: tuple[Member, ...]
    views: dict[str, str]
    outcomes: tuple[str, ...]
    folder: str
    redraws: str = ""  # what a seed redraws, in a sentence

    def as_json(self) -> str:
        """Return it on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` wrote."""
        content = json.loads(text)
        content["data"] = Input(**content["data"])
        content["cells"] = tuple(Group(**one) for one in content["cells"])
        content["runs"] = tuple(
            Member(**{**one, "data": one["data"] and Input(**one["data"])})
            for one in content["runs"]
        )
        return cls(**content)


def outline_of(study: Study, dataset: Dataset, runs: Sequence[Run], folder: Path) -> Outline:
    """Return a study's outline; MLflow is given no image and computes nothing.

    Its own digest of the images would read the first 10,000 values only.
    """
    from sweeps.draws import Draws  # noqa: PLC0415 - seconds, which the driver has spent
    from sweeps.physics import columns  # noqa: PLC0415
    from sweeps.results import NUMBERS  # noqa: PLC0415
    from sweeps.tracking.saved import saved_views  # noqa: PLC0415
    from sweeps.vary import sentence as redraws  # noqa: PLC0415

    size = {"num_rows": len(dataset.images), "num_elements": int(dataset.images.size)}
    draws, known = Draws(study, dataset), json.dumps(size)

    def data_of(seed: int, digest: str) -> Input:
        settings = draws.settings(seed).model_dump(mode="json")
        return Input(dataset.name, digest, json.dumps(settings), known)

    own = data_of(0, dataset.image_digest)
    cells = {run.cell_id: run.cell for run in runs}
    planned = Counter(run.cell_id for run in runs)
    return Outline(
        study.name,
        study.question,
        study.metric,
        study.low,
        tuple(study.seeds),
        own,
        tuple(
            Group(
                key, cell.label, cell.axes, _flat(cell.spec.model_dump(mode="json")), planned[key]
            )
            for key, cell in cells.items()
        ),
        tuple(
            Member(
                run.run_id,
                run.cell_id,
                run.seed,
                data_of(run.seed, run.image_digest) if study.redraws_data and run.seed else None,
            )
            for run in runs
        ),
        saved_views(study),
        (*NUMBERS, *columns(dataset.covariates).values()),
        str(folder),
        redraws(study.vary),
    )


def as_text(value: Any) -> str:
    """Return a value as MLflow's tags and parameters hold it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str) else json.dumps(value)


def _flat(settings: dict[str, Any], path: str = "") -> dict[str, str]:
    """Return nested settings as texts by dotted path."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        found |= _flat(value, f"{path}{name}.") if inner else {f"{path}{name}": as_text(value)}
    return found
