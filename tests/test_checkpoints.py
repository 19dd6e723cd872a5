"""Packs that were stopped go on from their checkpoints, whatever the new packs look like."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from studies import tiny, write

from models.diagnostics.request import Requested
from models.saved import Saved
from models.scores import Scorer
from models.train import train
from sweeps import checkpoints
from sweeps.checkpoints import SHARE, Keeper
from sweeps.folder import kept
from sweeps.folder.timeline import Timeline
from sweeps.plan import Pack, all_runs, packs_of
from sweeps.results import read_codes, read_records
from sweeps.study import load_study
from sweeps.trial import Data, Job, run_pack

STEPS = 40
CELL = {"objective": "vae", "prior": "bimodal", "training": {"steps": STEPS}}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a write cost nothing, so that it is always time for one."""
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


class Stop(BaseException):
    """As a kill: nothing of ours catches it."""


class Place:
    """A study of one cell, its data, and jobs on a folder."""

    def __init__(self, tmp_path: Path, seeds: int = 4) -> None:
        study, dataset = load_study(write(tmp_path, tiny(cells=[CELL], seeds=seeds)))
        scorer = Scorer(dataset.labels, dataset.label_digest or "")
        self.data = Data(dataset.images, dataset.image_digest, scorer)
        self.runs = all_runs(study, dataset)

    def job(self, folder: Path, *seeds: int, period: float = 0.0) -> Job:
        pack = Pack(tuple(self.runs[seed] for seed in seeds))
        return Job.of(pack, folder, None, period, Requested())

    def stopped(self, job: Job, step: int) -> None:
        """Run a pack, and kill it in the report of its first point at or after a step."""

        def progress(done: int) -> None:
            if done >= step * len(job.seeds):
                raise Stop

        with pytest.raises(Stop):
            run_pack(job, self.data, progress)


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each run's weights, code and learning curve."""
    found: dict[str, str] = {}
    for path in sorted((folder / "records").glob("*.parquet")):
        members = load_file(folder / "members" / f"{path.stem}.safetensors")
        curves = pq.read_table(folder / "history" / path.name).drop_columns(["attempt"]).to_pylist()
        for run_id, code in read_codes(folder, path.stem).items():
            content = hashlib.sha256(code.tobytes())
            for name in sorted(members):
                if name.startswith(f"{run_id}/"):
                    content.update(name.encode() + members[name].tobytes())
            content.update(repr([row for row in curves if row["run_id"] == run_id]).encode())
            found[run_id] = content.hexdigest()
    return found


@pytest.mark.usefixtures("always")
def test_a_pack_goes_on_in_other_packs_to_the_same_bits(tmp_path: Path) -> None:
    place = Place(tmp_path)
    run_pack(place.job(tmp_path / "calm", 0, 1, 2, 3), place.data)
    folder = tmp_path / "stormy"
    place.stopped(place.job(folder, 0, 1, 2), 20)
    place.stopped(place.job(folder, 3), 30)
    steps = {run_id: one.step for run_id, one in kept.index(folder).items()}
    assert len(steps) == 4
    assert all(step >= 20 for step in steps.values())
    run_pack(place.job(folder, 3, 1), place.data)
    run_pack(place.job(folder, 2, 0), place.data)
    assert digests(folder) == digests(tmp_path / "calm")
    attempts = pq.read_table(folder / "history").to_pylist()
    assert {row["attempt"] for row in attempts} == {0, 1}
    for row in attempts:
        run_id = place.runs[row["seed"]].run_id
        assert row["attempt"] == (row["step"] > steps[run_id]), "no point was trained twice"
    checkpoints.tidy(folder, read_records(folder))
    assert not (folder / "checkpoints").exists()


@pytest.mark.usefixtures("always")
def test_a_finished_pack_leaves_no_checkpoint(tmp_path: Path) -> None:
    place = Place(tmp_path, seeds=1)
    job = place.job(tmp_path / "x", 0)
    run_pack(job, place.data)
    assert not list((tmp_path / "x" / "checkpoints").iterdir())
    timeline = json.loads((tmp_path / "x" / "timeline" / f"{job.pack_id}.json").read_text())
    written = [span for span in timeline["spans"] if span["what"] == "checkpoint"]
    assert len(written) == STEPS, "at every step, where it is always time"
    assert [span["steps"] for span in written] == [[step + 1] for step in range(STEPS)]


@pytest.mark.parametrize("harm", ["cut", "flip", "foreign", "empty"])
def test_a_damaged_checkpoint_costs_steps_and_no_bit(tmp_path: Path, harm: str) -> None:
    place = Place(tmp_path, seeds=2)
    run_pack(place.job(tmp_path / "calm", 0, 1), place.data)
    folder = tmp_path / "x"
    place.stopped(place.job(folder, 0, 1), 20)
    (path,) = (folder / "checkpoints").iterdir()
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 8]) + data[middle + 1 :]
    path.write_bytes({"cut": data[:-9], "flip": flipped, "foreign": b"x" * 99, "empty": b""}[harm])
    run_pack(place.job(folder, 0, 1), place.data)
    assert digests(folder) == digests(tmp_path / "calm")


def test_a_checkpoint_of_other_images_is_not_gone_on_from(tmp_path: Path) -> None:
    """Its run_id would be another; here it is forced, as a clash of names would."""
    place = Place(tmp_path, seeds=1)
    folder = tmp_path / "x"
    place.stopped(place.job(folder, 0), 20)
    fewer = dataclasses.replace(place.data, images=place.data.images[:100])
    fewer = dataclasses.replace(fewer, scorer=Scorer(place.data.scorer.labels[:100], "d"))
    (record,) = run_pack(place.job(folder, 0), fewer)
    assert record["status"] in ("ok", "collapsed")


def test_a_disk_that_is_full_for_checkpoints_stops_no_training(tmp_path: Path) -> None:
    place = Place(tmp_path, seeds=1)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "checkpoints").write_text("a file where the folder would be")
    job = place.job(folder, 0)
    (record,) = run_pack(job, place.data)
    assert record["status"] in ("ok", "collapsed")
    timeline = json.loads((folder / "timeline" / f"{job.pack_id}.json").read_text())
    (first, *_) = [span for span in timeline["spans"] if span["what"] == "checkpoint"]
    assert first["failed"].startswith(("FileExistsError", "NotADirectoryError"))


def test_the_period_is_the_shortest_or_what_the_cost_allows(tmp_path: Path) -> None:
    place = Place(tmp_path, seeds=1)
    job = place.job(tmp_path, 0)
    times = []

    class Spy(Keeper):
        def keep(self, saved: Sequence[Saved]) -> None:
            super().keep(saved)
            times.append((self._since, self._next))

    timeline = Timeline()
    keeper = Spy(tmp_path, job.pack_id, job.run_ids, 0.0, timeline)
    longer = job.spec.training.model_copy(update={"steps": 6000})
    spec = job.spec.model_copy(update={"training": longer})
    train(spec, job.seeds, place.data.images, keeper=keeper)
    assert len(times) >= 2
    for (since, following), span in zip(times, timeline.spans, strict=True):
        assert following - since >= span["seconds"] / SHARE
    for (_, due), (since, _) in itertools.pairwise(times):
        assert since >= due, "not before its time"
    patient = Keeper(tmp_path, job.pack_id, job.run_ids, 1000.0, Timeline())
    assert not patient.due()


@pytest.mark.usefixtures("always")
def test_headers_alone_tell_how_far_runs_are(tmp_path: Path) -> None:
    place = Place(tmp_path, seeds=3)
    folder = tmp_path / "x"
    place.stopped(place.job(folder, 0, 1), 10)
    place.stopped(place.job(folder, 1, 2), 30)
    index = kept.index(folder)
    assert [index[run.run_id].seed for run in place.runs] == [0, 1, 2]
    first, second, third = (index[run.run_id] for run in place.runs)
    assert first.step < second.step == third.step, "of two files the one that got furthest"
    assert second.resumed != ()
    assert kept.index(tmp_path / "nowhere") == {}


def test_checkpoints_are_arrays_and_notes_and_no_pickle(tmp_path: Path) -> None:
    place = Place(tmp_path, seeds=2)
    folder = tmp_path / "x"
    place.stopped(place.job(folder, 0, 1), 20)
    (path,) = (folder / "checkpoints").iterdir()
    tensors = load_file(path)
    names = {name.partition("/")[2] for name in tensors}
    streams = {f"streams/{name}" for name in ("init", "order", "noise", "prior", "evaluation")}
    assert names == {*checkpoints.PARTS, "curve", *streams}
    assert all(isinstance(array, np.ndarray) for array in tensors.values())
    assert len(packs_of(place.runs, 1)) == 1
