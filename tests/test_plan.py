"""Cells x seeds is total and deterministic; packs hold one cell each, interleaved over cells."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from studies import tiny, write

from models.datasets import Digits
from sweeps.estimate import estimate
from sweeps.plan import all_runs, packs_of
from sweeps.study import load_study

DATASET = Digits(classes=(1, 8)).load()
with tempfile.TemporaryDirectory() as name:
    STUDY = load_study(write(Path(name), tiny(seeds=40)))[0]


def test_every_cell_has_every_seed_once() -> None:
    runs = all_runs(STUDY, DATASET)
    assert len(runs) == 5 * 40 == len({run.run_id for run in runs})
    assert {(run.cell.label, run.seed) for run in runs} == {
        (cell.label, seed) for cell in STUDY.cells for seed in range(40)
    }


@given(st.integers(1, 200), st.integers(1, 64), st.one_of(st.none(), st.integers(1, 50)))
def test_packs_hold_each_run_once_and_one_cell(count: int, slots: int, width: int | None) -> None:
    runs = all_runs(STUDY, DATASET)[:count]
    packs = packs_of(runs, slots, width)
    packed = [run for pack in packs for run in pack.runs]
    assert sorted(run.run_id for run in packed) == sorted(run.run_id for run in runs)
    assert all(len({run.cell_id for run in pack.runs}) == 1 for pack in packs)
    widest = max(len(pack.runs) for pack in packs)
    assert widest <= (width or 16)
    if width is None and count >= slots:
        assert len(packs) >= min(slots, count), "no slot idles while runs wait"
    assert packs_of(runs, slots, width) == packs


@given(st.integers(1, 40), st.integers(1, 100))
def test_a_stopped_sweep_is_balanced(width: int, stop: int) -> None:
    """After any number of packs, no cell is more than one pack ahead of another."""
    packs = packs_of(all_runs(STUDY, DATASET), 2, width)
    done = {cell.label: 0 for cell in STUDY.cells}
    for pack in packs[:stop]:
        done[pack.cell.label] += len(pack.runs)
    assert max(done.values()) - min(done.values()) <= width


def test_a_pack_is_named_by_its_members_alone() -> None:
    runs = all_runs(STUDY, DATASET)
    (whole,) = packs_of(runs[:4], 1, 4)
    (again,) = packs_of([dataclasses.replace(r) for r in runs[:4]], 9, 4)
    (other,) = packs_of(runs[:3], 1, 4)
    assert whole.pack_id == again.pack_id != other.pack_id


def test_the_estimate_grows_with_the_work_and_shrinks_with_slots() -> None:
    packs = packs_of(all_runs(STUDY, DATASET), 1, 8)
    one = estimate(packs, DATASET.images.shape, 1, 0.5)
    four = estimate(packs, DATASET.images.shape, 4, 0.5)
    assert 0 < four.seconds < one.seconds
    assert one.gpu_hours > 0
    assert estimate([], DATASET.images.shape, 1, 0).seconds == 0
