"""Studies from Python, for notebooks: the same steps as the command's, the same numbers.

>>> import sweeps.api as api
>>> study = api.load("smoke")            # a path, a study folder or a shipped name
>>> study.plan().runs
9
>>> result = study.run(launcher="inline", progress=False)
>>> result.summary.num_rows, result.runs.num_rows
(3, 9)
>>> result.codes("ae", seed=0).shape     # (images, units of the code)
(356, 1)
>>> prediction = result.predict(study.dataset.images[:2], cell="ae")
>>> prediction.table.column_names
['image', 'score', 'spread', 'class']

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from sweeps.folder.places import place
from sweeps.mistakes import Refused

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from models.datasets import Dataset
    from sweeps.predict import Prediction
    from sweeps.review import Review
    from sweeps.session import Finished
    from sweeps.sweep import Sweep

__all__ = ["Plan", "Refused", "Result", "Study", "load", "read"]


def load(study: str | Path) -> Study:
    """Load a study by its path, its folder or a shipped name, with its images.

    Raises Refused, whose text has a line for every mistake.
    """
    from sweeps.session import open_study  # noqa: PLC0415 - seconds of imports

    return Study(open_study(str(study)))


def read(folder: str | Path) -> Result:
    """Bring scores and tables of a study folder up to date; train nothing.

    Raises Refused where the folder holds no study or no records.
    """
    from sweeps.session import open_recorded, reviewed  # noqa: PLC0415

    sweep = open_recorded(str(folder))
    return Result(sweep, reviewed(sweep))


@dataclass(frozen=True)
class Plan:
    """What a run would do: `missing` of `runs` are to train, in `packs`, `slots` at a time.

    `vary` is what a seed redraws.
    """

    study: str
    cells: int
    seeds: int
    runs: int
    packs: int
    vary: tuple[str, ...]
    done: int
    missing: int
    slots: int
    estimate_seconds: float
    estimate_gpu_hours: float
    out: str
    warnings: tuple[str, ...]


@final
class Study:
    """A study that was read without a mistake, with its images."""

    def __init__(self, sweep: Sweep) -> None:
        """Take an opened study; `load` makes one."""
        self._sweep = sweep

    def __repr__(self) -> str:
        """Return name, size and question."""
        study = self._sweep.study
        size = f"{len(study.cells)} cells x {len(study.seeds)} seeds"
        return f"<study {study.name}: {size}; {study.question}>"

    @property
    def name(self) -> str:
        """Return the study's name."""
        return self._sweep.study.name

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the label of every cell, in the file's order."""
        return tuple(cell.label for cell in self._sweep.study.cells)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds that every cell gets."""
        return self._sweep.study.seeds

    @property
    def dataset(self) -> Dataset:
        """Return images (N, C, H, W) as members see them, labels (N,) or None, covariates.

        Where seeds redraw the data, those of seed 0; `dataset_of` returns any seed's.
        """
        return self._sweep.dataset

    def dataset_of(self, seed: int) -> Dataset:
        """Return a seed's data: the study's, or where seeds redraw it the seed's own draw."""
        return self._sweep.draws.of(seed).dataset

    def plan(self, *, seeds: int | None = None, out: str | Path | None = None) -> Plan:
        """Return what `run` would do, and about how long it takes; train nothing."""
        from sweeps.session import planned  # noqa: PLC0415

        content = planned(self._with(seeds, out))
        lists = {name: tuple(content[name]) for name in ("vary", "warnings")}
        return Plan(**{**content, **lists})

    def run(
        self,
        *,
        launcher: str = "local",
        seeds: int | None = None,
        out: str | Path | None = None,
        pack_width: int | None = None,
        progress: bool = True,
    ) -> Result:
        """Train what is missing and return what there is; also writes tables, report and MLflow.

        `seeds` stands for 0 ... seeds - 1 instead of the study's own, `out` for another folder.
        Diverged and failed runs are rows, no exceptions. An interrupt keeps what was finished:
        then `interrupted` is true. Raises Refused.
        """
        from rich.console import Console  # noqa: PLC0415

        from sweeps import session  # noqa: PLC0415

        session.check_run(launcher, pack_width)
        sweep, console = self._with(seeds, out), Console(stderr=True, quiet=not progress)
        done = session.run(sweep, launcher=launcher, width=pack_width, console=console)
        return Result(sweep, done.review, done)

    def _with(self, seeds: int | None, out: str | Path | None) -> Sweep:
        from sweeps.sweep import open_sweep  # noqa: PLC0415

        sweep = self._sweep
        folder = sweep.folder if out is None else place(str(out))
        return open_sweep(sweep.study.with_seeds(seeds), sweep.dataset, folder)


@final
class Result:
    """A study's records as tables, and its trained members."""

    def __init__(self, sweep: Sweep, review: Review, finished: Finished | None = None) -> None:
        """Take what was reviewed; `Study.run` and `read` make one."""
        self._sweep, self._review, self._finished = sweep, review, finished

    def __repr__(self) -> str:
        """Return name, counts and folder."""
        scored = sum(row["n_scored"] for row in self.summary.to_pylist())
        total = len(self._sweep.runs)
        return f"<result {self._sweep.study.name}: {scored} of {total} runs scored; {self.folder}>"

    def _repr_html_(self) -> str:
        """Return the stability table, as notebooks show it."""
        from sweeps.terminal import html_table  # noqa: PLC0415

        done = self._review
        return html_table(self._sweep.study, done.results, done.baselines)

    @property
    def folder(self) -> Path:
        """Return the study folder."""
        return self._sweep.folder

    @cached_property
    def report(self) -> Path:
        """Return the path of the page, written now where `read` made this result."""
        from sweeps.review import write_page  # noqa: PLC0415

        if self._finished is not None:
            return self._finished.page
        return write_page(self._sweep, self._review)

    @property
    def answer(self) -> str:
        """Return in a sentence what the study answers."""
        return self._review.answer.sentence

    @property
    def summary(self) -> pa.Table:
        """Return a row a cell, as in summary.parquet; `.to_pandas()` gives a frame."""
        return self._review.results.summary

    @property
    def runs(self) -> pa.Table:
        """Return a row a run, as in results.parquet; `.to_pandas()` gives a frame."""
        return self._review.results.runs

    @property
    def complete(self) -> bool:
        """Return whether every planned run has a score."""
        from sweeps.session import complete  # noqa: PLC0415

        return complete(self._sweep, self._review)

    @property
    def interrupted(self) -> bool:
        """Return whether an interrupt ended the training; run again to go on."""
        return self._finished is not None and self._finished.outcome.interrupted

    @property
    def stopped(self) -> str | None:
        """Return why training ended before its time, a full disk for example; None: it did not."""
        return None if self._finished is None else self._finished.outcome.stopped

    @property
    def tracking(self) -> tuple[str, str] | None:
        """Return MLflow's address and `written` or `pending`; None where nothing was run."""
        done = self._finished
        return None if done is None else (done.tracked.uri, done.tracked.state)

    def statistics(self) -> dict[str, Any]:
        """Return what `sweeps report --json` says."""
        from sweeps.report import as_json  # noqa: PLC0415

        done = self._review
        return as_json(self._sweep.study, done.results, done.baselines, done.answer)

    def codes(self, cell: str | None = None, *, seed: int) -> NDArray[np.float32]:
        """Return the code (N, units) that a seed gave its images, class units first.

        `cell` is a label or cell_id, None where the study has one. Raises Refused.
        """
        from sweeps.predict import kept_code  # noqa: PLC0415

        return kept_code(self._sweep, cell, seed)

    def predict(
        self,
        images: NDArray[Any] | str | Path,
        *,
        cell: str | None = None,
        seed: int | None = None,
    ) -> Prediction:
        """Score new images by all members of a cell that did not collapse, or by one seed.

        `images` are an array (M, H, W) or (M, C, H, W) or a path, as they were before the study's
        preprocessing. `.table` has a row an image, `.naming` says what it means. Raises Refused.
        """
        from sweeps.predict import predict  # noqa: PLC0415

        return predict(self._sweep, images, cell=cell, seed=seed)
