"""A study with its data, runs and folder: what every command works on."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ruamel.yaml import YAML

from models.datasets import BadData, Dataset
from sweeps.draws import Draws
from sweeps.folder.storage import write_whole
from sweeps.look import many
from sweeps.mistakes import Refused
from sweeps.plan import Pack, Run, all_runs, as_json
from sweeps.results import DONE, Record
from sweeps.study import Study, read_yaml


@dataclass(frozen=True)
class Sweep:
    """A study with its data, runs and folder: what every command works on.

    `dataset` is the one that the study names; which data a seed has is for `draws` to say.
    """

    study: Study
    dataset: Dataset
    runs: tuple[Run, ...]
    folder: Path

    @cached_property
    def draws(self) -> Draws:
        """Return which data each seed has."""
        return Draws(self.study, self.dataset)

    def missing(self, records: Mapping[str, Record]) -> list[Run]:
        """Return the planned runs without a finished record."""
        return [
            run
            for run in self.runs
            if run.run_id not in records or records[run.run_id]["status"] not in DONE
        ]


def open_sweep(
    study: Study, dataset: Dataset, folder: Path, say: Callable[[str], None] | None = None
) -> Sweep:
    """Return the sweep; Refused where the folder holds another study.

    Also where the data of a seed cannot be drawn. `say` hears of what will take a while.
    """
    check_folder(folder, study.name)
    draws = Draws(study, dataset)
    try:
        new = draws.undrawn()
        if new and say:
            say(f"{study.name}: drawing the data of {many(new, 'seed')}, once")
        return Sweep(study, dataset, tuple(all_runs(study, dataset)), folder)
    except BadData as bad:
        raise Refused([f"{study.name}: dataset.{bad.setting}: {bad.sentence}"]) from None


def check_folder(folder: Path, study: str) -> None:
    """Raise Refused where the folder holds another study."""
    kept = folder / "study.yaml"
    if kept.is_file():
        name = read_yaml(kept).get("name")
        if name != study:
            text = f"{folder}: holds the study '{name}', not '{study}'; choose another --out"
            raise Refused([text])


def write_plan(sweep: Sweep, packs: Sequence[Pack]) -> None:
    """Write study.yaml as resolved, and plan.json; Refused where the folder cannot be written."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(sweep.study.resolved(), text)
    plan = as_json(sweep.study, sweep.dataset, sweep.runs, packs)
    try:
        write_whole(sweep.folder / "study.yaml", text.getvalue().encode())
        write_whole(sweep.folder / "plan.json", plan.encode())
    except OSError as failure:
        reason = f"{sweep.folder}: the study folder cannot be written: {failure.strerror}"
        raise Refused([f"{reason}; choose another with --out"]) from None
