"""Studies from Python: what a notebook sees is what the command writes."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from studies import tiny, write

from sweeps import api
from sweeps.cli import main

HEAVY = ("torch", "ray", "mlflow", "sklearn", "scipy", "pyarrow", "matplotlib", "pandas", "rich")
WAE = {"objective": "wae", "prior": "bimodal"}
LOOK = "import sys; import sweeps.api; print([m for m in sys.argv[1:] if m in sys.modules])"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, api.Result]:
    """Return a folder in which the tiny study was run, as a notebook does, and the result."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        study = api.load(write(folder, tiny(seeds=2, cells=[{"objective": "ae"}, WAE])))
        return folder, study.run(launcher="inline", out=folder / "out", progress=False)


def test_the_example_of_the_page_runs(folder: Path) -> None:
    """Of the module's docstring: trains `smoke`, in a folder of its own."""
    assert folder == Path.cwd()
    result = doctest.testmod(api, raise_on_error=False)
    assert result.attempted >= 7
    assert result.failed == 0
    assert (folder / "runs" / "smoke" / "report.html").is_file()


def test_nothing_heavy_is_imported_before_it_is_used(tmp_path: Path) -> None:
    call = subprocess.run(
        [sys.executable, "-c", LOOK, *HEAVY],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (call.stdout, call.stderr) == ("[]\n", "")


def test_tables_and_numbers_are_those_of_the_files_and_the_command(
    made: tuple[Path, api.Result], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, result = made
    assert pq.read_table(folder / "out" / "results.parquet").equals(result.runs)
    assert pq.read_table(folder / "out" / "summary.parquet").equals(result.summary)
    assert main(["report", str(folder / "out"), "--json"]) == (0 if result.complete else 1)
    assert json.loads(capfd.readouterr().out) == result.statistics()
    assert result.report == folder / "out" / "report.html"
    assert result.report.is_file()
    assert result.folder == folder / "out"
    assert (result.complete, result.interrupted) == (True, False)
    assert result.tracking == (f"sqlite:///{folder}/mlflow.db", "written")
    frame = result.runs.to_pandas()
    assert list(frame["seed"]) == [0, 1, 0, 1]
    assert repr(result) == f"<result tiny: 4 of 4 runs scored; {folder / 'out'}>"


def test_a_folder_is_read_without_training(made: tuple[Path, api.Result]) -> None:
    folder, result = made
    before = {path: path.read_bytes() for path in (folder / "out" / "records").iterdir()}
    again = api.read(folder / "out")
    assert again.runs.equals(result.runs)
    assert again.statistics() == result.statistics()
    assert again.tracking is None
    assert {p: p.read_bytes() for p in (folder / "out" / "records").iterdir()} == before
    plan = api.load(folder / "out").plan()
    assert (plan.runs, plan.done, plan.missing, plan.packs) == (4, 4, 0, 0)
    more = api.load(folder / "out").plan(seeds=5)
    assert (more.seeds, more.runs, more.done, more.missing) == (5, 10, 4, 6)


def test_codes_and_predictions_of_a_seed_agree(made: tuple[Path, api.Result]) -> None:
    folder, result = made
    dataset = api.load(folder / "out").dataset
    label = api.load(folder / "out").cells[1]
    code = result.codes(label, seed=1)
    assert code.shape == (len(dataset.images), 1)
    assert code.dtype == np.float32
    raw = result.predict(dataset.images, cell=label, seed=1)
    assert raw.table["score"].to_numpy().astype(np.float32).tobytes() == code.tobytes()
    assert repr(raw).startswith(f"tiny, {label}: {len(dataset.images)} images, 1 seed\n")
    with pytest.raises(api.Refused, match="has 2 cells, and labels must not choose one"):
        result.codes(seed=1)


class Rows(HTMLParser):
    """Reads the texts of a table's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, _: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data


def test_a_notebook_shows_the_stability_table(made: tuple[Path, api.Result]) -> None:
    _, result = made
    shown = Rows()
    shown.feed(result._repr_html_())
    assert shown.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    head, *body = shown.rows
    assert head[:4] == ["cell", "n", "mean", "95 % interval"]
    assert {len(row) for row in body} == {len(head)}
    table = {row[0]: row for row in body}
    for row in result.summary.to_pylist():
        assert table[row["cell"]][1:3] == ["2/2", f"{row['auc_split_mean']:.3f}"]
    baselines = result.statistics()["baselines"]
    for name, scores in baselines.items():
        assert table[f"baseline: {name}"][2] == f"{scores['auc_split']:.3f}"
    assert len(body) == 2 + len(baselines)


def test_every_mistake_is_a_line_of_what_is_raised(tmp_path: Path) -> None:
    path = write(tmp_path, tiny(low=2, seeds=0))
    with pytest.raises(api.Refused) as refusal:
        api.load(path)
    assert sorted(str(refusal.value).splitlines()) == [
        "x.yaml: low: expected at most 1, got 2",
        "x.yaml: seeds: expected 1 to 100000 seeds, got 0",
    ]
    study = api.load(write(tmp_path, tiny()))
    with pytest.raises(api.Refused, match="--pack-width: expected at least 1, got 0"):
        study.run(launcher="inline", pack_width=0)
    with pytest.raises(api.Refused, match="no records; first: sweeps run"):
        api.read(write(tmp_path, tiny(name="other"), "study.yaml").parent)


def test_a_study_says_what_it_is(tmp_path: Path) -> None:
    study = api.load(write(tmp_path, tiny(question="Which?")))
    assert repr(study) == "<study tiny: 5 cells x 3 seeds; Which?>"
    assert (study.name, study.seeds, len(study.cells)) == ("tiny", (0, 1, 2), 5)
    assert study.dataset.images.shape[1:] == (1, 8, 8)
