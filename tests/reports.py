"""A small study with every outcome, trained in this process, and its page taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.datasets import Dataset
from models.scores import Scorer
from sweeps import plan, report, results, trial
from sweeps.results import Results
from sweeps.study import Study, load_study

# One cell trains well, one has a failed pack, one diverges at once, one has a prior of one mode.
STUDY = """
name: example
question: Which one is steady?
dataset: {name: digits, classes: [1, 8]}
seeds: 11
spec:
  network: {hidden: [16]}
  training: {steps: 60, batch_size: 32, learning_rate: 0.01}
cells:
  - {objective: ae}
  - {objective: wae, prior: [bimodal, {kind: bimodal, m: 1, s: 1}]}
  - {objective: vae, training: {learning_rate: 10}}
"""
DIVERGES = "{objective: vae, activation: leaky_relu, training: {learning_rate: 10}}"
BASELINES = {
    "k-means": {"auc_split": 0.61, "auc_oracle": 0.62, "auc_covariate": None},
    "first principal component": {"auc_split": 0.55, "auc_oracle": 0.56, "auc_covariate": None},
}
DIVERGING = "  - {objective: vae, training: {learning_rate: 10}}\n"
WAES = "  - {objective: wae, prior: [bimodal, {kind: bimodal, m: 1, s: 1}]}\n"
SCRIPT = "<script>alert('x')</script>"
VOID = {"meta", "br", "link", "img", "hr", "input"}


@dataclass(frozen=True)
class Finished:
    """A study that was trained, with its folder."""

    study: Study
    dataset: Dataset
    runs: Sequence[plan.Run]
    folder: Path
    results: Results


def finish(folder: Path, text: str = STUDY, *, labelled: bool = True) -> Finished:
    """Train a study in this process; the last pack of the second cell fails."""
    (folder / "study.yaml").write_text(text)
    study, dataset = load_study(folder / "study.yaml")
    if not labelled:
        dataset = replace(dataset, labels=None, class_names=())
    data = trial.Data(dataset.images, dataset.image_digest, Scorer(dataset.labels, "0" * 64))
    runs = plan.all_runs(study, dataset)

    def fail(_: int) -> None:
        message = f"no room for {SCRIPT}"
        raise MemoryError(message)

    for pack in plan.packs_of(runs, 1, 9):
        members = pack.runs
        job = trial.Job(
            folder=str(folder),
            pack_id=pack.pack_id,
            cell_id=members[0].cell_id,
            spec=pack.cell.spec,
            seeds=tuple(run.seed for run in members),
            run_ids=tuple(run.run_id for run in members),
            device="cpu",
            git_commit=None,
        )
        last = (
            members[-1].seed == study.seeds[-1] and pack.cell is study.cells[1 % len(study.cells)]
        )
        trial.run_pack(job, data, fail if last and len(study.cells) > 1 else None)
    return Finished(study, dataset, runs, folder, gathered(study, runs, folder))


def gathered(study: Study, runs: Sequence[plan.Run], folder: Path) -> Results:
    return results.gather(study, runs, results.read_records(folder), BASELINES, {})


def relabelled(done: Finished, place: int, label: str) -> Finished:
    """Give one cell another label, in the study and in its tables."""
    cells = list(done.study.cells)
    old = cells[place].label
    cells[place] = replace(cells[place], label=label)

    def renamed(table: pa.Table) -> pa.Table:
        column = pa.array([label if name == old else name for name in table["cell"].to_pylist()])
        return table.set_column(table.schema.get_field_index("cell"), "cell", column)

    tables = Results(renamed(done.results.runs), renamed(done.results.summary))
    return replace(done, study=replace(done.study, cells=tuple(cells)), results=tables)


def small(folder: Path, *changes: tuple[str, str], labelled: bool = True) -> Finished:
    """Train a variant of the study."""
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return finish(folder, text, labelled=labelled)


class Page(HTMLParser):
    """A page's tables, links and balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        elif tag in {"br", "small"}:
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def write(done: Finished, folder: Path | None = None, **more: Any) -> Path:
    """Write the report, into another folder if one is named."""
    target = folder or done.folder
    return report.write_report(done.study, done.dataset, target, done.results, BASELINES, **more)


def page_of(done: Finished, **more: Any) -> Page:
    path = write(done, **more)
    assert path == done.folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))
