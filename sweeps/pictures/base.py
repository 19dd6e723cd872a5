"""What a picture of the report is, and what all of them are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.datasets import Dataset
from models.spec import Spec
from sweeps.draws import Draws
from sweeps.evidence import scored
from sweeps.results import Results
from sweeps.study import Study
from sweeps.wording import Baselines, Subject, ranked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A figure, its data (a row a mark), and a sentence: what it leaves out, or why it is not."""

    name: str
    figure: Figure | None
    table: Sequence[Row] = ()
    note: str = ""


@dataclass(frozen=True)
class Material:
    """What every report's figures are made from: what it is of, its folder, its tables."""

    study: Subject
    folder: Path
    results: Results
    baselines: Baselines


@dataclass(frozen=True)
class Trained(Material):
    """What more there is of a study than of anyone's table: images and trained members."""

    study: Study
    dataset: Dataset

    @cached_property
    def draws(self) -> Draws:
        """Return which images, labels and covariates each seed has."""
        return Draws(self.study, self.dataset)

    @property
    def whose(self) -> str:
        """Return what to say of images where each seed has its own; else nothing."""
        return "Images are those of the seed that is shown." if self.study.redraws_data else ""

    def cells(self) -> list[tuple[Row, Spec, list[Row]]]:
        """Return (row of the summary, specification, scored runs) of each cell, best mean first."""
        specs = {cell.label: cell.spec for cell in self.study.cells}
        runs = self.results.runs.to_pylist()
        rows = ranked(self.study, self.results)
        return [(row, specs[row["cell"]], scored(runs, row["cell_id"])) for row in rows]


def as_csv(table: Sequence[Row]) -> bytes:
    """Return a table as CSV, columns in the order in which they first appear, numbers exact."""
    sink = io.StringIO()
    names = list(dict.fromkeys(name for row in table for name in row))
    writer = csv.DictWriter(sink, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return sink.getvalue().encode()
