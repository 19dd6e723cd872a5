"""A study runs to its tables: nothing is trained twice, and labels change nothing but scores."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from studies import tiny, write

from models.baselines import fit_all
from models.datasets import Dataset
from models.datasets.split import training_rows
from models.scores import OF_TWO_CLASSES
from sweeps import launch, run
from sweeps.launch.nodes import slots_of
from sweeps.mistakes import Refused
from sweeps.results import NOT_DETERMINISTIC, RECORD, read, read_part, read_records
from sweeps.review import agreement, review
from sweeps.run import Outcome, train_missing
from sweeps.study import Resources, load_study
from sweeps.sweep import Sweep, open_sweep


class Silent:
    """Watches and says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def steps(self, pack_id: str, done: int) -> None:
        pass

    def finished(self, pack_id: str, runs: int, steps: int) -> None:
        pass

    def lost(self, *_: object) -> None:
        pass


def opened(folder: Path, raw: dict[str, Any], seeds: int | None = None) -> Sweep:
    study, dataset = load_study(write(folder, raw))
    return open_sweep(study.with_seeds(seeds), dataset, folder / "out")


def trained(sweep: Sweep, width: int | None = None) -> Outcome:
    return train_missing(sweep, launcher="inline", width=width, display=lambda *_: Silent())


def numbers(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the deterministic columns of every record."""
    return {
        run_id: {key: value for key, value in record.items() if key not in NOT_DETERMINISTIC}
        for run_id, record in read_records(folder).items()
    }


def test_again_trains_nothing_and_more_seeds_train_only_those(tmp_path: Path) -> None:
    first = opened(tmp_path, tiny())
    assert trained(first) == Outcome(trained=15, skipped=0, interrupted=False)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.safetensors")}
    assert trained(first) == Outcome(0, 15, interrupted=False)
    more = opened(tmp_path, tiny(), seeds=5)
    assert trained(more) == Outcome(10, 15, interrupted=False)
    after = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.safetensors")}
    assert {path: after[path] for path in before} == before
    fewer = opened(tmp_path, tiny(), seeds=2)
    assert trained(fewer) == Outcome(0, 10, interrupted=False)
    assert review(fewer).results.runs.num_rows == 10, "records outside the plan enter no table"
    assert len(read_records(fewer.folder)) == 25, "and stay"


def test_a_changed_cell_is_all_that_is_trained(tmp_path: Path) -> None:
    trained(opened(tmp_path, tiny()))
    cells = tiny()["cells"]
    cells[0] = {"objective": "ae", "training": {"steps": 21}}
    changed = opened(tmp_path, tiny(cells=cells))
    assert trained(changed) == Outcome(3, 12, interrupted=False)


def test_a_new_width_or_order_of_packs_changes_no_number(tmp_path: Path) -> None:
    folders = []
    for width in (1, 2, 3, None):
        place = tmp_path / str(width)
        place.mkdir()
        sweep = opened(place, tiny())
        trained(sweep, width)
        folders.append(numbers(sweep.folder))
    assert all(other == folders[0] for other in folders[1:])
    assert len(folders[0]) == 15


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of weights."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "members").iterdir())
    }


def with_labels(sweep: Sweep, labels: Any) -> Sweep:
    dataset = dataclasses.replace(sweep.dataset, labels=labels)
    return open_sweep(sweep.study, dataset, sweep.folder)


def test_labels_change_scores_and_nothing_else(tmp_path: Path) -> None:
    """Must hold 5: permuted or removed labels rescore from codes/; no weight, no run_id moves."""
    sweep = opened(tmp_path, tiny())
    trained(sweep)
    original = review(sweep).results.runs.to_pylist()
    weights = digests(sweep.folder)
    labels = sweep.dataset.labels
    assert labels is not None
    permuted = with_labels(sweep, np.random.default_rng(0).permutation(labels))
    assert trained(permuted) == Outcome(0, 15, interrupted=False)
    shuffled = review(permuted)
    assert shuffled.rescored == 15
    rows = shuffled.results.runs.to_pylist()
    assert [row["run_id"] for row in rows] == [row["run_id"] for row in original]
    assert all(a["auc_split"] != b["auc_split"] for a, b in zip(rows, original, strict=True))
    assert [row["reconstruction"] for row in rows] == [row["reconstruction"] for row in original]
    none = review(with_labels(sweep, None)).results.runs.to_pylist()
    assert all(row["auc_split"] is None and row["label_digest"] is None for row in none)
    assert digests(sweep.folder) == weights
    assert review(sweep).results.runs.to_pylist() == original, "the old labels, the old numbers"
    assert review(sweep).rescored == 0


THREE = tiny(
    dataset={"name": "digits", "classes": [0, 1, 7]},
    seeds=2,
    cells=[
        {"objective": "ae"},
        {
            "objective": "wae",
            "code": {"class_units": 2, "style_units": 1, "style": "normal"},
            "prior": {"kind": "mixture", "means": [[-2, 0], [2, 0], [0, 3]], "scales": 0.5},
            "divergence": ["mmd", "wasserstein"],
        },
        {"objective": "vae", "prior": "mixture"},
    ],
)


def test_three_classes_from_study_to_tables(tmp_path: Path) -> None:
    """Every class metric has a value, those of two classes none; agreement is that of the codes."""
    sweep = opened(tmp_path, THREE)
    trained(sweep)
    done = review(sweep)
    rows = read(sweep.folder).runs.to_pylist()
    assert len(rows) == 8
    for row in rows:
        for metric in ("auc_matched", "accuracy", "ari", "nmi", "agreement"):
            assert row[metric] is not None, (row["cell"], metric)
        assert {row[metric] for metric in OF_TWO_CLASSES} == {None}
        assert 1 / 3 <= row["accuracy"] <= 1
    by_cell = [
        [row["agreement"] for row in rows if row["cell"] == c.label] for c in sweep.study.cells
    ]
    assert all(len(pair) == 2 and pair[0] == pytest.approx(pair[1]) for pair in by_cell)
    code = {
        row["run_id"]: np.array(row["code"]).reshape(-1, row["units"])
        for row in pq.read_table(sweep.folder / "codes").to_pylist()
    }
    own = [code[row["run_id"]][:, 0] for row in rows if row["objective"] == "ae"]
    assert by_cell[0][0] == pytest.approx(abs(spearmanr(*own).statistic))
    summary = read(sweep.folder).summary.to_pylist()
    assert sweep.study.metric == "auc_matched"
    assert all(row["auc_matched_mean"] is not None for row in summary)
    assert all(row["agreement_mean"] is not None for row in summary)
    assert all(scores["auc_matched"] is not None for scores in done.baselines.values())


def test_labels_move_no_agreement_and_no_memberships_of_baselines(tmp_path: Path) -> None:
    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}], split=0.8))
    trained(sweep)
    labels = sweep.dataset.labels
    assert labels is not None
    other = with_labels(sweep, np.random.default_rng(1).permutation(labels))
    assert other.draws.own.rows is not None
    assert np.array_equal(other.draws.own.rows, sweep.draws.own.rows)
    ours, theirs = (agreement(one, read_records(one.folder)) for one in (sweep, other))
    assert ours == theirs
    assert None not in ours.values()
    before, after = (
        fit_all(one.dataset.pixels, one.draws.own.rows, one.draws.own.scorer.classes)
        for one in (sweep, other)
    )
    for name, one in before.items():
        assert np.array_equal(one.memberships, after[name].memberships), name  # type: ignore[arg-type]
    assert review(sweep).baselines != review(other).baselines, "only the scores"


def test_a_split_scores_what_was_held_out(tmp_path: Path) -> None:
    """By hand from the kept codes; another split is another set of runs in the same folder."""
    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}], split=0.8))
    assert trained(sweep).trained == 3
    review(sweep)
    held_out = np.setdiff1d(np.arange(356), training_rows(sweep.dataset, 0.8))
    labels = sweep.dataset.labels
    assert labels is not None
    codes = {
        row["run_id"]: np.array(row["code"])
        for row in pq.read_table(sweep.folder / "codes").to_pylist()
    }
    for row in read(sweep.folder).runs.to_pylist():
        auc = roc_auc_score(labels[held_out], codes[row["run_id"]][held_out])
        assert row["auc_oracle"] == max(auc, 1 - auc)
        assert len(codes[row["run_id"]]) == 356
    whole = opened(tmp_path, tiny(cells=[{"objective": "ae"}]))
    assert not {one.run_id for one in whole.runs} & {one.run_id for one in sweep.runs}
    assert trained(whole) == Outcome(3, 0, interrupted=False)


def test_training_never_sees_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer is called with pixels that no permutation of labels can reach."""
    sweep = opened(tmp_path, tiny())
    seen: list[Any] = []
    real = launch.run_pack

    def spy(job: Any, data: Any, progress: Any) -> Any:
        seen.append(data.images)
        return real(job, data, progress)

    monkeypatch.setattr(launch, "run_pack", spy)
    trained(sweep)
    assert len(seen) == 5
    assert all(np.array_equal(images, sweep.dataset.images) for images in seen)


class Breaking:
    """A launcher whose worker dies in every pack that holds seed 1."""

    slots = 1

    def __init__(self, inner: launch.Launcher) -> None:
        self.inner, self.widths = inner, []  # type: ignore[var-annotated]

    def execute(self, jobs: Any, data: Any, watch: Any) -> dict[str, str]:
        self.widths.append(max(len(job.seeds) for job in jobs))
        alive = [job for job in jobs if 1 not in job.seeds]
        self.inner.execute(alive, data, watch)
        for job in jobs:
            if 1 in job.seeds:
                watch.steps(job.pack_id, 0, {"host": "far", "log": "/far/away.log"})
                watch.lost(job.pack_id)
        return {job.pack_id: "Traceback ...\nThe worker died." for job in jobs if 1 in job.seeds}


def test_a_dead_worker_costs_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launchers: list[Breaking] = []

    @contextlib.contextmanager
    def breaking(*_: object) -> Iterator[Breaking]:
        launchers.append(Breaking(launch.Inline()))
        yield launchers[-1]

    sweep = opened(tmp_path, tiny(seeds=2))
    with monkeypatch.context() as patch:
        patch.setattr(run, "open_launcher", breaking)
        trained(sweep)
    again = "once more as it was, then in halves, then alone until it is given up"
    assert launchers[0].widths == [2, 2, 1, 1, 1, 1], again
    rows = {(row["cell"], row["seed"]): row for row in review(sweep).results.runs.to_pylist()}
    assert len(rows) == 10
    for (_, seed), row in rows.items():
        assert (row["status"] == "failed") == (seed == 1)
        assert (row["error"] == "The worker died.") == (seed == 1)
        assert (row["log"] == "/far/away.log") == (seed == 1)
    counts = review(sweep).results.summary.to_pylist()[0]
    assert (counts["n_planned"], counts["n_failed"], counts["n_scored"]) == (2, 1, 1)
    assert trained(sweep).trained == 5, "a failed run is tried again, and only that"
    assert {row["status"] for row in review(sweep).results.runs.to_pylist()} <= {"ok", "collapsed"}


class Ending:
    """A launcher that finishes a round's first pack and ends, as Ray may, in its last."""

    slots = 1

    def __init__(self) -> None:
        self.inner, self.rounds = launch.Inline(), []  # type: ignore[var-annotated]

    def execute(self, jobs: Any, data: Any, watch: Any) -> dict[str, str]:
        self.rounds.append(len(jobs))
        if len(jobs) == 1:
            return self.inner.execute(jobs, data, watch)
        watch.steps(jobs[-1].pack_id, 0, {"host": "here"})
        self.inner.execute(jobs[:1], data, watch)
        return dict.fromkeys((job.pack_id for job in jobs[1:]), "Ray ended")


def test_packs_that_never_began_are_charged_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending()
    sweep = opened(tmp_path, tiny(seeds=1))
    monkeypatch.setattr(run, "open_launcher", lambda *_: contextlib.nullcontext(ending))
    trained(sweep)
    assert len(sweep.runs) == 5
    assert {row["status"] for row in review(sweep).results.runs.to_pylist()} <= {"ok", "collapsed"}
    assert ending.rounds == [5, 4, 3, 2, 1]


def test_a_fault_in_training_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "out of luck"
        raise RuntimeError(msg)

    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}]))
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.trial.train", broken)
        assert trained(sweep).trained == 3
    (row, *_) = review(sweep).results.runs.to_pylist()
    assert (row["status"], row["error"]) == ("failed", "RuntimeError: out of luck")
    assert "in broken" in row["traceback"]


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = launch.run_pack, []  # type: ignore[var-annotated]

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    sweep = opened(tmp_path, tiny())
    with monkeypatch.context() as patch:
        patch.setattr(launch, "run_pack", interrupted)
        assert trained(sweep) == Outcome(6, 0, interrupted=True)
    assert trained(sweep) == Outcome(9, 6, interrupted=False)


def test_tables_hold_what_the_contract_names(tmp_path: Path) -> None:
    sweep = opened(tmp_path, tiny(orient_by="ink"))
    trained(sweep)
    review(sweep)
    tables = read(sweep.folder)
    for column in [
        "study",
        "cell_id",
        "cell",
        "run_id",
        "seed",
        "status",
        "error",
        "auc_oracle",
        "auc_split",
        "auc_covariate",
        "average_precision",
        "balanced_accuracy",
        "reconstruction",
        "divergence_value",
        "seconds",
        "pack",
        "host",
        "device",
        "cpu_capability",
        "torch_version",
        "trainer_version",
        "git_commit",
        "dataset_digest",
        "label_digest",
        "finished_at",
        "objective",
        "prior",
        "divergence",
        "activation",
    ]:
        assert column in tables.runs.column_names, column
    assert all(value is not None for value in tables.runs["auc_covariate"].to_pylist())
    for statistic in [
        "mean",
        "variance",
        "sd",
        "ci_low",
        "ci_high",
        "median",
        "iqm",
        "min",
        "worst_quarter",
        "low_basin_share",
        "beats_baseline_share",
    ]:
        assert f"auc_split_{statistic}" in tables.summary.column_names, statistic
    history = pq.read_table(sweep.folder / "history")
    assert set(history["run_id"].to_pylist()) == set(tables.runs["run_id"].to_pylist())
    parts = pq.read_table(sweep.folder / "records", schema=RECORD)
    assert parts.num_rows == tables.runs.num_rows


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    trained(opened(tmp_path, tiny(cells=[{"objective": "ae"}])))
    with pytest.raises(Refused) as refused:
        opened(tmp_path, tiny(name="other"))
    folder = tmp_path / "out"
    expected = f"{folder}: holds the study 'tiny', not 'other'; choose another --out"
    assert refused.value.mistakes == [expected]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(Refused) as refused:
        trained(opened(tmp_path, tiny()))
    (mistake,) = refused.value.mistakes
    assert mistake.startswith(f"{tmp_path / 'out'}: the study folder cannot be written: ")
    assert mistake.endswith("; choose another with --out")


def test_an_unknown_launcher_is_refused(tmp_path: Path) -> None:
    opening = launch.open_launcher("locale", Resources(), tmp_path)
    with pytest.raises(Refused) as refused:
        opening.__enter__()
    assert refused.value.mistakes == [
        "--launcher: unknown launcher 'locale'; did you mean 'local'? known: inline, local; "
        "or a running Ray cluster: auto, or its HOST:PORT"
    ]


def test_datasets_carry_their_digests() -> None:
    images = np.zeros((2, 1, 2, 2), dtype=np.float32)
    plain = Dataset("x", images, None, ())
    same = Dataset("y", images.copy(), np.array([0, 1]), ("a", "b"))
    other = Dataset("x", images.reshape(2, 1, 1, 4), None, ())
    assert plain.image_digest == same.image_digest != other.image_digest
    assert plain.label_digest is None
    expected = hashlib.sha256(b"<f4(2, 1, 2, 2)" + images.tobytes()).hexdigest()
    assert plain.image_digest == expected


def test_a_part_that_cannot_be_read_is_named_with_the_fix(tmp_path: Path) -> None:
    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}]))
    trained(sweep)
    (part,) = (sweep.folder / "records").iterdir()
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused) as refused:
        read_part(part)
    (mistake,) = refused.value.mistakes
    assert mistake.startswith(f"{part}: cannot be read as a part of records: ")
    assert mistake.endswith("; move it away, and run the study again to train its runs anew")
    assert read_records(sweep.folder) == {}, "what is damaged counts for nothing"
    assert trained(sweep) == Outcome(3, 0, interrupted=False)


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        ({}, 8),
        ({"cpus": 3}, 2),
        ({"gpus": 0.5}, 4),
        ({"gpus": 1, "cpus": 0.5}, 2),
        ({"max_concurrent": 3}, 3),
        ({"max_concurrent": 30}, 8),
    ],
)
def test_as_many_packs_at_a_time_as_resources_fit(resources: dict[str, Any], slots: int) -> None:
    have = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert slots_of([have], Resources.model_validate(resources)) == slots


def test_a_pack_lies_on_one_node() -> None:
    nodes = [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 1.0}]
    assert slots_of(nodes, Resources(cpus=2)) == 2


def test_what_ray_has_not_is_refused_by_name() -> None:
    wanted = Resources(cpus=2, gpus=0.5)
    with pytest.raises(Refused) as refused:
        slots_of([{"CPU": 1.0}, {"CPU": 1.0}], wanted)
    assert refused.value.mistakes == [
        "resources.cpus: a pack asks for 2, no node of Ray's has more than 1",
        "resources.gpus: a pack asks for 0.5, no node of Ray's has more than 0",
    ]


def test_codes_that_are_gone_are_named_with_the_fix(tmp_path: Path) -> None:
    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}]))
    trained(sweep)
    (path,) = (sweep.folder / "codes").iterdir()
    path.unlink()
    assert review(sweep).rescored == 0, "not needed while the labels are the same"
    with pytest.raises(Refused) as refused:
        review(with_labels(sweep, None))
    (mistake,) = refused.value.mistakes
    assert mistake.startswith(f"{path}: no codes to score again: ")
    assert f"; move records/{path.name} away, and run the study again" in mistake


def test_a_damaged_baselines_file_is_made_anew(tmp_path: Path) -> None:
    sweep = opened(tmp_path, tiny(cells=[{"objective": "ae"}]))
    trained(sweep)
    baselines = review(sweep).baselines
    (sweep.folder / "baselines.json").write_text("{")
    assert review(sweep).baselines == baselines


def test_values_that_are_nearly_equal_keep_their_own_labels(tmp_path: Path) -> None:
    rates = [0.002, 0.0020000001, 1e-5]
    cell = {"objective": "wae", "training": {"learning_rate": rates}}
    priors = [{"kind": "bimodal", "m": m} for m in (2, 2.00000001)]
    study, _ = load_study(write(tmp_path, tiny(cells=[{**cell, "prior": priors}])))
    assert len({cell.label for cell in study.cells}) == 6
    assert study.cells[0].label == "wae bimodal(m=2) learning_rate=0.002"


def test_unlabelled_data_has_no_label_digest(tmp_path: Path) -> None:
    sweep = with_labels(opened(tmp_path, tiny(cells=[{"objective": "ae"}])), None)
    trained(sweep)
    assert {record["label_digest"] for record in read_records(sweep.folder).values()} == {None}
