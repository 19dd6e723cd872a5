"""What the figures' tables hold is what the study folder holds, however much of it there is."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from reports import DIVERGING, Finished, Page, small, write
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from models.restore import restored
from models.spec import Spec
from sweeps.evidence import codes_of, curves_of, evenly, median_run, member_of, prior_of, scored


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a study with a failed pack, and its report."""
    folder = tmp_path_factory.mktemp("study")
    done = small(folder, ("seeds: 11", "seeds: 4"), (DIVERGING, ""))
    write(done)
    return done


def table(done: Finished, name: str, folder: Path | None = None) -> list[dict[str, str]]:
    with ((folder or done.folder) / "figures" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def kept_codes(done: Finished) -> dict[str, NDArray[np.float64]]:
    """Read every code of the folder, one plain value after the other."""
    found = {}
    for path in (done.folder / "codes").iterdir():
        for row in pq.read_table(path).to_pylist():
            found[row["run_id"]] = np.array(row["code"]).reshape(-1, row["units"])
    return found


def runs_of(done: Finished, cell: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = done.results.runs.to_pylist()
    return [run for run in runs if run["cell"] == cell and run["status"] in {"ok", "collapsed"}]


def cells(done: Finished) -> list[str]:
    rows = done.results.summary.to_pylist()
    return [row["cell"] for row in rows if row["n_scored"]]


def test_codes_and_curves_are_the_kept_ones(done: Finished) -> None:
    runs = done.results.runs.to_pylist()
    expected = kept_codes(done)
    found = codes_of(done.folder, runs)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[run_id], code) for run_id, code in expected.items())
    one = codes_of(done.folder, runs[:1])
    assert list(one) == [runs[0]["run_id"]]
    curve = curves_of(done.folder, runs[:1])[runs[0]["run_id"]]
    assert curve["step"][-1] == 60
    assert len(curve["step"]) == len(curve["loss"]) == 50


def test_the_median_run_is_the_lower_of_two_in_the_middle() -> None:
    def runs(*values: float | None) -> list[dict[str, Any]]:
        return [
            {"seed": n, "status": "ok", "m": v, "reconstruction": 10.0 - n}
            for n, v in enumerate(values)
        ]

    def chosen(*values: float | None) -> int | None:
        run = median_run(runs(*values), "m")
        return None if run is None else run["seed"]

    assert chosen(0.9, 0.1, 0.5) == 2
    assert chosen(0.9, 0.1, 0.5, 0.7) == 2
    assert chosen(0.5, 0.5, 0.5) == 1
    assert chosen(None, 0.3, None) == 1
    assert chosen(None, None, None) == 1  # by reconstruction
    assert chosen() is None
    assert median_run([{**runs(0.5)[0], "status": "diverged"}], "m") is None


def test_images_are_evenly_spaced_over_every_class() -> None:
    labels = np.array([0] * 50 + [1] * 4 + [2] * 500)
    chosen = evenly(labels, len(labels), 8)
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 2]
    assert chosen == [8, 25, 41, 50, 52, 53, 179, 429]
    assert evenly(None, 16, 4) == [2, 6, 10, 14]
    assert evenly(None, 2, 8) == [0, 1]
    assert len(evenly(np.arange(20), 20, 8)) == 8


def test_seeds_csv_holds_every_score_and_numpys_quartiles(done: Finished) -> None:
    rows = table(done, "seeds-auc_split")
    for cell in cells(done):
        own = [row for row in rows if row["cell"] == cell]
        values = [run["auc_split"] for run in runs_of(done, cell)]
        seeds = [float(row["auc_split"]) for row in own if row["what"] == "seed"]
        assert seeds == pytest.approx(values, rel=1e-8)
        marks = {row["what"]: row["auc_split"] for row in own}
        box = [float(marks[name]) for name in ("first quartile", "median", "third quartile")]
        assert box == pytest.approx(np.percentile(values, [25, 50, 75]), rel=1e-8)
        assert float(marks["mean"]) == pytest.approx(np.mean(values), rel=1e-8)


def test_roc_csv_has_the_area_of_each_seed(done: Finished) -> None:
    rows, codes, labels = table(done, "roc"), kept_codes(done), done.dataset.labels
    for cell in cells(done):
        for run in runs_of(done, cell):
            own = [r for r in rows if (r["cell"], r["seed"]) == (cell, str(run["seed"]))]
            false = [float(row["false_positive_rate"]) for row in own]
            true = [float(row["true_positive_rate"]) for row in own]
            assert false == pytest.approx(np.linspace(0, 1, 101))
            area = roc_auc_score(labels, codes[run["run_id"]][:, 0])
            # A grid of a hundredth, on a curve that rises by up to its whole height in a step.
            assert np.trapezoid(true, false) == pytest.approx(max(area, 1 - area), abs=0.01)
            assert max(area, 1 - area) == pytest.approx(run["auc_oracle"])
        names = {row["seed"] for row in rows if row["cell"] == cell}
        assert names == {str(r["seed"]) for r in runs_of(done, cell)} | {"10 %", "median", "90 %"}


def test_codes_csv_counts_every_image_of_the_median_seed_once(done: Finished) -> None:
    rows, codes, labels = table(done, "codes"), kept_codes(done), done.dataset.labels
    assert labels is not None
    for cell in cells(done):
        own = [row for row in rows if row["cell"] == cell]
        (seed,) = {int(row["seed"]) for row in own}
        (run,) = [run for run in runs_of(done, cell) if run["seed"] == seed]
        ordered = sorted(run["auc_split"] for run in runs_of(done, cell))
        assert run["auc_split"] == ordered[(len(ordered) - 1) // 2]
        code = codes[run["run_id"]][:, 0]
        for place, name in enumerate(done.dataset.class_names):
            bins = [row for row in own if row["series"] == name]
            edges = [float(row["low"]) for row in bins] + [float(bins[-1]["high"])]
            counts = [int(row["count"]) for row in bins]
            assert sum(counts) == np.count_nonzero(labels == place)
            assert counts == np.histogram(code[labels == place], edges)[0].tolist()
        prior = [row for row in own if row["series"] == "prior"]
        assert (len(prior) > 0) == cell.startswith("wae")


def test_reconstructions_are_what_the_member_makes(done: Finished) -> None:
    rows = table(done, "reconstructions")
    originals = [row for row in rows if row["cell"] == "original"]
    numbers = [int(row["image"].removeprefix("image ")) for row in originals]
    assert [row["class"] for row in originals] == ["1"] * 4 + ["8"] * 4
    pixels = done.dataset.pixels[numbers]
    assert values(originals) == pytest.approx(pixels, abs=1e-5)
    specs = {cell.label: cell.spec for cell in done.study.cells}
    for cell in cells(done):
        own = [row for row in rows if row["cell"] == cell]
        (run,) = [run for run in runs_of(done, cell) if str(run["seed"]) == own[0]["seed"]]
        weights = load_file(done.folder / "members" / f"{run['pack']}.safetensors")
        start = f"{run['run_id']}/"
        tensors = {n.removeprefix(start): a for n, a in weights.items() if n.startswith(start)}
        member = restored(specs[cell], tensors, (64,))
        back = member.decode(kept_codes(done)[run["run_id"]][numbers].astype(np.float32))
        assert values(own) == pytest.approx(back, abs=1e-5)


def values(rows: list[dict[str, str]]) -> NDArray[np.float64]:
    return np.array([[float(row[f"pixel_{n}"]) for n in range(64)] for row in rows])


def test_samples_go_through_the_prior_or_the_codes(done: Finished) -> None:
    rows = table(done, "samples")
    assert {row["from"] for row in rows if row["cell"].startswith("wae")} == {
        "quantiles of the prior"
    }
    assert {row["from"] for row in rows if row["cell"].startswith("ae")} == {
        "quantiles of its codes"
    }
    assert [row["at"] for row in rows[:9]] == [f"{0.02 + 0.12 * n:.2f}" for n in range(9)]


def test_a_prior_is_its_density_its_quantiles_and_its_samples() -> None:
    spec = Spec.model_validate({"objective": "wae", "prior": "bimodal"})
    prior = prior_of(spec)
    assert prior is not None
    assert prior.quantile is not None
    line = np.linspace(-6, 6, 4001)
    density = prior.density(line[:, None])
    assert np.trapezoid(density, line) == pytest.approx(1, abs=1e-6)
    shares = np.array([0.1, 0.5, 0.9])
    at = prior.quantile(shares)
    below = [np.trapezoid(density[line <= x], line[line <= x]) for x in at]
    assert below == pytest.approx(shares, abs=5e-3)
    drawn = prior.sample(4000)
    assert drawn.shape == (4000, 1)
    assert np.quantile(drawn, [0.1, 0.9]) == pytest.approx(at[[0, 2]], abs=0.06)
    assert np.array_equal(drawn, prior.sample(4000))
    assert prior_of(Spec.model_validate({"objective": "ae"})) is None


@pytest.mark.parametrize(
    ("what", "how"), [("codes", "damaged"), ("history", "missing"), ("members", "damaged")]
)
def test_what_is_not_there_is_left_out_with_a_sentence(
    done: Finished, tmp_path: Path, what: str, how: str
) -> None:
    for name in ("codes", "history", "members"):
        shutil.copytree(done.folder / name, tmp_path / name)
    for path in (tmp_path / what).iterdir():
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:40])
    page = Page(write(done, tmp_path).read_text())
    figures = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    sentence, lost = {
        "codes": ("No run kept its code, so there is nothing to draw.", {"roc", "codes"}),
        "history": ("No learning curves were kept.", {"curves"}),
        "members": (
            "There are no reconstructions: the weights of no scored run can be read.",
            {"reconstructions", "samples"},
        ),
    }[what]
    assert sentence in page.text
    whole = {path.stem for path in (done.folder / "figures").glob("*.svg")}
    assert whole - figures == lost


def test_one_lost_pack_leaves_the_others(done: Finished, tmp_path: Path) -> None:
    for name in ("codes", "history", "members"):
        shutil.copytree(done.folder / name, tmp_path / name)
    runs = runs_of(done, "ae")
    for name in ("codes/{}.parquet", "members/{}.safetensors"):
        (tmp_path / name.format(runs[0]["pack"])).unlink()
    write(done, tmp_path)
    shown = {row["cell"] for row in table(done, "codes", tmp_path)}
    assert shown == {row["cell"] for row in table(done, "codes")} - {"ae"}
    shown = {row["cell"] for row in table(done, "reconstructions", tmp_path)}
    assert shown == {row["cell"] for row in table(done, "reconstructions")} - {"ae"}


def test_weights_of_another_specification_are_left_out(done: Finished) -> None:
    (run, *_) = scored(done.results.runs.to_pylist(), done.results.runs["cell_id"][0].as_py())
    spec = done.study.cells[0].spec
    assert member_of(done.folder, run, spec, (64,)) is not None
    assert member_of(done.folder, run, spec, (63,)) is None
    assert member_of(done.folder, {**run, "run_id": "0" * 16}, spec, (64,)) is None
