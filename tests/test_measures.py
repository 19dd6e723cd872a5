"""A worker's diagnostics are the review's: the same numbers, made up for where they are missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats
from studies import tiny, write

from models.diagnostics.request import Requested
from models.diagnostics.table import DIAGNOSTICS, MEDIAN_FILTER, NAMES
from sweeps import results, trial
from sweeps.measures import identities_of
from sweeps.physics import columns, correspond
from sweeps.progress import Display
from sweeps.report import as_json
from sweeps.results import Record, read_codes, read_records
from sweeps.review import remeasure, review
from sweeps.run import train_missing
from sweeps.study import load_study
from sweeps.sweep import Sweep, open_sweep

BOTH = {"denoising": {"images": 60}, "generation": {"images": 80}}
CELLS = [
    {"objective": "ae"},
    {"objective": "vae", "code": {"class_units": 1, "style_units": 2, "style": "normal"}},
    {"objective": "wae", "prior": "normal", "code": {"class_units": 2, "style_units": 1}},
    {"objective": "wae", "prior": "bimodal"},
]


def opened(folder: Path, **changes: Any) -> Sweep:
    study, dataset = load_study(write(folder, tiny(**{"cells": CELLS, "seeds": 2} | changes)))
    return open_sweep(study, dataset, folder / "out")


def trained(sweep: Sweep) -> Sweep:
    def display(steps: int, runs: int) -> Display:
        return Display(Console(quiet=True), "x", steps, runs)

    train_missing(sweep, launcher="inline", width=None, display=display)
    return sweep


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return trained(opened(tmp_path_factory.mktemp("measures"), diagnostics=BOTH))


@pytest.fixture
def copy(done: Sweep, tmp_path: Path) -> Sweep:
    shutil.copytree(done.folder, tmp_path / "out")
    return replace(done, folder=tmp_path / "out")


def diagnostics(records: dict[str, Record]) -> dict[str, dict[str, float | None]]:
    return {key: {name: one[name] for name in DIAGNOSTICS} for key, one in records.items()}


def changed(sweep: Sweep, **values: Any) -> None:
    for path in results.parts(sweep.folder):
        rows = [row | values for row in results.read_part(path)]
        results.write_part(sweep.folder, path.stem, rows)


def asking(sweep: Sweep, requested: Any) -> Sweep:
    study = replace(sweep.study, diagnostics=Requested.model_validate(requested))
    return Sweep(study, sweep.dataset, sweep.runs, sweep.folder)


def test_a_worker_leaves_every_number_that_applies(done: Sweep) -> None:
    for record in read_records(done.folder).values():
        spec = next(r.cell.spec for r in done.runs if r.run_id == record["run_id"])
        missing = {name for name in DIAGNOSTICS if record[name] is None}
        without = (
            {n for n in DIAGNOSTICS if n.startswith("prior_")} if spec.prior is None else set()
        )
        assert missing - {"minority_share"} == without
        assert set(identities_of(record)) == set(NAMES)


def test_a_review_makes_up_for_all_of_them_to_the_last_bit(copy: Sweep) -> None:
    before = diagnostics(read_records(copy.folder))
    assert remeasure(copy) == 0, "nothing is out of date"
    changed(copy, diagnostics_id=None, **dict.fromkeys(DIAGNOSTICS))
    assert remeasure(copy) == len(copy.runs)
    assert diagnostics(read_records(copy.folder)) == before
    assert remeasure(copy) == 0


def test_a_study_may_ask_later_and_for_something_else(copy: Sweep) -> None:
    before = read_records(copy.folder)
    assert remeasure(asking(copy, [])) == 0, "what is there stays, asked for or not"
    other = asking(copy, {"denoising": {"images": 60, "level": 5.0}})
    assert remeasure(other) == len(copy.runs)
    after = read_records(copy.folder)
    for run_id, record in after.items():
        assert record["hot_suppression"] != before[run_id]["hot_suppression"]
        kept = [n for n in DIAGNOSTICS if n not in NAMES["denoising"]]
        assert all(record[name] == before[run_id][name] for name in kept)


def test_records_of_before_are_read_and_measured(copy: Sweep) -> None:
    before = diagnostics(read_records(copy.folder))
    for path in results.parts(copy.folder):
        table = pq.read_table(path).drop_columns([*DIAGNOSTICS, "diagnostics_id"])
        path.write_bytes(results.to_parquet(table.replace_schema_metadata(None)))
    assert set(diagnostics(read_records(copy.folder)).popitem()[1].values()) == {None}
    assert remeasure(copy) == len(copy.runs)
    assert diagnostics(read_records(copy.folder)) == before


def test_lost_weights_leave_what_needs_none(copy: Sweep) -> None:
    changed(copy, diagnostics_id=None, **dict.fromkeys(DIAGNOSTICS))
    shutil.rmtree(copy.folder / "members")
    assert remeasure(copy) == 0
    assert remeasure(asking(copy, [])) == len(copy.runs)
    for record in read_records(copy.folder).values():
        assert record["code_spread"] is not None
        assert record["hot_suppression"] is None
    shutil.rmtree(copy.folder / "codes")
    changed(copy, diagnostics_id=None)
    assert remeasure(copy) == 0


def test_a_diagnostic_that_raises_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raised(*_: Any) -> None:
        message = "a mistake of ours"
        raise ZeroDivisionError(message)

    sweep = opened(tmp_path, cells=[{"objective": "ae"}], seeds=1)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "measured", raised)
        trained(sweep)
    (record,) = read_records(sweep.folder).values()
    assert record["status"] in results.SCORED
    assert record["code_spread"] is None
    assert remeasure(sweep) == 1
    (record,) = read_records(sweep.folder).values()
    assert record["code_spread"] is not None


def test_tables_json_and_baselines_have_them(copy: Sweep) -> None:
    found = review(copy)
    told = as_json(copy.study, found.results, found.baselines, found.answer)
    json.dumps(told, allow_nan=False)
    runs = found.results.runs.to_pylist()
    for cell, row in zip(told["cells"], found.results.summary.to_pylist(), strict=True):
        for name in (*DIAGNOSTICS, "spearman_ink"):
            own = [r[name] for r in runs if r["cell"] == cell["cell"] and r[name] is not None]
            expected = float(np.mean(own)) if own else None
            assert cell["metrics"][name]["mean"] == pytest.approx(expected)
            assert row[f"{name}_mean"] == cell["metrics"][name]["mean"]
    usual = found.baselines[MEDIAN_FILTER]
    assert set(usual) == set(NAMES["denoising"])
    beaten = [r["hot_suppression"] > usual["hot_suppression"] for r in runs]
    shares = [
        row["hot_suppression_beats_baseline_share"] for row in found.results.summary.to_pylist()
    ]
    assert np.mean(shares) == pytest.approx(np.mean(beaten))
    plain = review(asking(copy, []))
    assert MEDIAN_FILTER not in plain.baselines
    assert "hot_suppression_mean" not in plain.results.summary.column_names
    assert "code_spread_mean" in plain.results.summary.column_names


def test_physics_is_scipys_and_rebuilt_when_it_is_gone_or_of_other_labels(copy: Sweep) -> None:
    labels = copy.dataset.labels
    assert labels is not None
    records = read_records(copy.folder)
    found = correspond(copy, records)
    table = pq.read_table(copy.folder / "physics.parquet")
    rows = table.to_pylist()
    assert len(rows) == sum(
        (r.cell.spec.code.class_units + r.cell.spec.code.style_units) * 9 for r in copy.runs
    )
    for row in rows[::7]:
        code = read_codes(copy.folder, records[row["run_id"]]["pack"])[row["run_id"]]
        chosen = slice(None)
        if row["class"] is not None:
            chosen = labels == copy.dataset.class_names.index(row["class"])
        values = code[chosen, row["unit"]], copy.dataset.covariates[row["covariate"]][chosen]
        assert row["n"] == len(values[0])
        assert row["spearman"] == pytest.approx(stats.spearmanr(*values).statistic)
    for run_ in copy.runs:
        own = [
            abs(row["spearman"])
            for row in rows
            if (row["run_id"], row["class"], row["covariate"]) == (run_.run_id, None, "ink")
            and row["unit"] < run_.cell.spec.code.class_units
        ]
        assert found["spearman_ink"][run_.run_id] == max(own)
    (copy.folder / "physics.parquet").unlink()
    assert correspond(copy, records) == found
    assert pq.read_table(copy.folder / "physics.parquet").equals(table)
    (copy.folder / "physics.parquet").write_bytes(b"damaged")
    assert correspond(copy, records) == found
    swapped = replace(copy, dataset=replace(copy.dataset, labels=1 - labels))
    correspond(swapped, records)
    other = pq.read_table(copy.folder / "physics.parquet").to_pylist()
    inside = [r["spearman"] for r in other if r["class"] == "8"]
    assert inside == [r["spearman"] for r in rows if r["class"] == "1"]
    none = replace(copy, dataset=replace(copy.dataset, covariates={}))
    assert correspond(none, records) == {}


def test_a_covariates_column_has_a_name_that_mlflow_can_hold() -> None:
    assert columns(["flux", "S/N (r)", "S N [r]"]) == {
        "flux": "spearman_flux",
        "S/N (r)": "spearman_S-N-r-",
        "S N [r]": "spearman_S-N-r-_",
    }


def test_a_split_is_diagnosed_on_the_part_that_is_scored(tmp_path: Path) -> None:
    sweep = trained(opened(tmp_path, cells=[{"objective": "ae"}], seeds=1, split=0.8))
    (record,) = read_records(sweep.folder).values()
    code = read_codes(sweep.folder, record["pack"])[record["run_id"]]
    rows = sweep.draws.own.scorer.rows
    assert record["code_spread"] == pytest.approx(code[rows].std(), rel=1e-5)
    correspond(sweep, read_records(sweep.folder))
    table = pq.read_table(sweep.folder / "physics.parquet").to_pylist()
    assert {row["n"] for row in table if row["class"] is None} == {len(rows)}  # type: ignore[arg-type]
