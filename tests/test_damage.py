"""Damaged files of a study folder: found, set aside by name, and nothing finished is lost."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from studies import tiny, write

from models.spec import Spec
from sweeps import evidence, results
from sweeps.folder import damage, storage
from sweeps.folder.damage import Damage, find, set_aside, settle
from sweeps.folder.packfiles import file_of, listed
from sweeps.folder.seal import Damaged
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.progress import Display
from sweeps.results import read_records, write_part
from sweeps.run import train_missing
from sweeps.study import load_study
from sweeps.sweep import open_sweep

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
KINDS = ("codes", "history", "members")


def row(run_id: str, status: str = "ok", minutes: int = 0, **changes: Any) -> dict[str, Any]:
    finished = NOON + timedelta(minutes=minutes)
    return {"run_id": run_id, "seed": 0, "status": status, "finished_at": finished} | changes


def write_pack(folder: Path, pack: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write a part as a worker does, with what belongs to its scored runs."""
    runs = [one["run_id"] for one in rows if one["status"] in results.SCORED]
    table = pa.table({"run_id": pa.array(runs, pa.string())})
    tensors = {f"{run}/weight": np.full(2, 0.5, np.float32) for run in runs}
    write_whole(file_of(folder, "members", pack), storage.to_safetensors(tensors, {}))
    for kind in ("codes", "history"):
        write_whole(file_of(folder, kind, pack), storage.to_parquet(table))
    write_part(folder, pack, [{"pack": pack} | one for one in rows])


@pytest.fixture
def study(folder: Path) -> Path:  # noqa: ARG001 - the working folder, so that names are short
    """Return a folder of two packs of two runs; the second run of the second one diverged."""
    path = Path("runs/x")
    write_pack(path, "aa", [row("r1"), row("r2")])
    write_pack(path, "bb", [row("r3", "collapsed"), row("r4", "diverged")])
    write_whole(path / "checkpoints" / "cc.safetensors", weights())
    return path


def weights() -> bytes:
    return storage.to_safetensors({"r5/weight": np.ones(9, np.float32)}, {})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def foreign(path: Path) -> None:
    path.write_bytes(storage.to_parquet(pa.table({"x": [1]})))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file by its path inside."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


DIFFERS = "its checksum differs"
NO_PARQUET = "it is cut off, or no Parquet at all"


def test_a_whole_folder_has_no_damage(study: Path) -> None:
    for place, name in (("records", "README"), ("codes", ".DS_Store"), ("members", "aa.bak")):
        (study / place / name).write_text("not ours")
    (study / "records" / "._aa.parquet").write_text("as macOS leaves on foreign disks")
    before = files(study)
    assert find(study) == []
    assert set_aside(study, []) == []
    assert settle(study) == 0
    assert files(study) == before
    assert list(read_records(study)) == ["r1", "r2", "r3", "r4"]
    assert find(study / "nowhere") == []


def test_what_a_real_training_leaves_is_whole(tmp_path: Path) -> None:
    """Two cells in packs of two and one; what diverges has neither codes nor weights."""
    hot = {"objective": "vae", "training": {"learning_rate": 10}}
    study, dataset = load_study(write(tmp_path, tiny(cells=[{"objective": "ae"}, hot])))
    sweep = open_sweep(study, dataset, tmp_path / "out")
    display = partial(Display, Console(quiet=True), study.name)
    train_missing(sweep, launcher="inline", width=2, display=display)
    states = {record["status"] for record in read_records(sweep.folder).values()}
    assert {"ok", "diverged"} <= states
    assert find(sweep.folder) == []
    before = files(sweep.folder)
    assert settle(sweep.folder) == 0
    assert files(sweep.folder) == before


def test_every_reader_passes_over_what_is_damaged(study: Path) -> None:
    """One byte each, in numbers: without a seal they would be read as other numbers."""
    codes = pa.table({"run_id": ["r1"], "units": [1], "code": [[0.5, 0.25]]})
    curve = pa.table({"run_id": ["r1"], "step": [0], "loss": [0.5]})
    write_whole(file_of(study, "codes", "aa"), storage.to_parquet(codes))
    write_whole(file_of(study, "history", "aa"), storage.to_parquet(curve))
    tables = ("results.parquet", "summary.parquet")
    for name in tables:
        write_whole(study / name, storage.to_parquet(curve))
    run = {"run_id": "r1", "pack": "aa"}
    assert evidence.codes_of(study, [run])["r1"].tolist() == [[0.5], [0.25]]
    assert evidence.curves_of(study, [run]) == {"r1": {"step": [0], "loss": [0.5]}}
    assert results.read(study).runs.equals(curve)
    for path in (*(file_of(study, kind, "aa") for kind in KINDS), *(study / n for n in tables)):
        flip(path)
    assert evidence.codes_of(study, [run]) == {}
    assert evidence.curves_of(study, [run]) == {}
    with pytest.raises(Damaged, match=r"^its checksum differs$"):
        evidence.read_member(study, run, Spec(objective="ae"), 64)
    with pytest.raises(Refused) as refused:
        results.read_codes(study, "aa")
    assert refused.value.mistakes == [
        "runs/x/codes/aa.parquet: no codes to score again: its checksum differs; move "
        "records/aa.parquet away, and run the study again to train its runs anew"
    ]
    with pytest.raises(Refused) as refused:
        results.read(study)
    assert refused.value.mistakes == [
        "runs/x/results.parquet: its checksum differs; write it again with: sweeps report runs/x"
    ]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, DIFFERS),
        (cut, NO_PARQUET),
        (foreign, "it is a table of something else, without the column 'run_id'"),
    ],
)
def test_a_damaged_part_is_set_aside_and_its_runs_are_missing(
    study: Path, harm: Callable[[Path], None], reason: str
) -> None:
    part = study / "records" / "aa.parquet"
    harm(part)
    content = part.read_bytes()
    assert list(read_records(study)) == ["r3", "r4"], "left out, before anything is done"
    found = find(study)
    assert found == [Damage(part, reason)]
    aside = "runs/x/damaged/records/aa.parquet"
    assert set_aside(study, found) == [
        f"runs/x/records/aa.parquet: {reason}; set aside as {aside}, its runs are trained again"
    ]
    assert not part.exists()
    assert Path(aside).read_bytes() == content
    assert find(study) == []
    assert list(read_records(study)) == ["r3", "r4"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_beside_scored_records_takes_them_along(study: Path, kind: str) -> None:
    path, part = file_of(study, kind, "bb"), study / "records" / "bb.parquet"
    flip(path)
    found = find(study)
    assert found == [Damage(path, DIFFERS, part)]
    assert set_aside(study, found) == [
        f"{path}: its checksum differs; set aside as runs/x/damaged/{kind}/{path.name} with its "
        "records, its runs are trained again"
    ]
    assert not path.exists()
    assert not part.exists()
    assert (study / "damaged/records/bb.parquet").exists()
    assert find(study) == []
    assert list(read_records(study)) == ["r1", "r2"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_somebody_has_removed_untrains_no_run(study: Path, kind: str) -> None:
    file_of(study, kind, "aa").unlink()
    assert find(study) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_other_runs_is_no_file_of_these(study: Path, kind: str) -> None:
    path = file_of(study, kind, "aa")
    shutil.copy(file_of(study, kind, "bb"), path)
    (one,) = find(study)
    assert one == Damage(path, "it holds nothing of the run r1", study / "records" / "aa.parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_without_scored_records_nothing_is_missed(study: Path, kind: str) -> None:
    write_part(study, "dd", [row("r6", "failed", pack="dd"), row("r7", "diverged", pack="dd")])
    assert find(study) == []
    path = file_of(study, kind, "dd")
    path.write_bytes(b"torn")
    (one,) = found = find(study)
    assert set_aside(study, found) == [
        f"{path}: {one.reason}; set aside as runs/x/damaged/{kind}/{path.name}, "
        "no scored run needs it"
    ]
    assert len(read_records(study)) == 6, "their records stay"


def test_a_damaged_checkpoint_costs_its_steps(study: Path) -> None:
    path = study / "checkpoints" / "cc.safetensors"
    flip(path)
    found = find(study)
    assert set_aside(study, found) == [
        f"{path}: its checksum differs; set aside as runs/x/damaged/checkpoints/cc.safetensors, "
        "its runs begin anew or from an earlier checkpoint"
    ]
    assert find(study) == []


def test_nothing_set_aside_is_ever_written_over(study: Path) -> None:
    part = study / "records" / "aa.parquet"
    for count in range(3):
        part.write_bytes(b"torn %d" % count)
        set_aside(study, find(study))
    aside = files(study / "damaged" / "records")
    names = ("aa.parquet", "aa.1.parquet", "aa.2.parquet")
    assert aside == {name: b"torn %d" % count for count, name in enumerate(names)}


def test_many_at_once_are_each_said(study: Path) -> None:
    for kind in KINDS:
        flip(file_of(study, kind, "aa"))
    flip(study / "records" / "bb.parquet")
    (study / "records" / "folder.parquet").mkdir()
    found = find(study)
    assert [one.path.parent.name for one in found] == ["records", "records", *KINDS]
    assert len(set_aside(study, found)) == 5
    assert find(study) == []
    assert read_records(study) == {}


def test_what_may_not_be_read_is_no_damage(study: Path) -> None:
    """A loop of links: what even root may not read, while the file may be whole."""
    part = study / "records" / "aa.parquet"
    part.unlink()
    part.symlink_to("aa.parquet")
    said = (
        f"{part}: cannot be read: Too many levels of symbolic links; make it readable, or move it "
        "away and run the study again to train its runs anew"
    )
    for read, path in ((find, study), (read_records, study), (results.read_part, part)):
        with pytest.raises(Refused) as refused:
            read(path)
        assert refused.value.mistakes == [said]


def test_a_disk_that_answers_with_an_error_is_damage(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one error that no test can have for real."""
    part = study / "records" / "aa.parquet"
    whole = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == part:
            raise OSError(5, "Input/output error")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert find(study) == [Damage(part, "it cannot be read: Input/output error")]


def test_a_folder_that_cannot_be_written_is_refused(study: Path) -> None:
    flip(study / "records" / "aa.parquet")
    (study / "damaged").write_text("a file where the folder should be")
    with pytest.raises(Refused) as refused:
        set_aside(study, find(study))
    assert refused.value.mistakes == [
        "runs/x/records/aa.parquet: its checksum differs, and it cannot be set aside: "
        "Not a directory; make the study folder writable, or move the file away"
    ]
    assert (study / "records" / "aa.parquet").exists()


@pytest.mark.parametrize("missing", [["log"], ["log", "score_id", "threads"]])
def test_parts_of_before_have_fewer_columns_and_no_seal(study: Path, missing: list[str]) -> None:
    part = study / "records" / "aa.parquet"
    new = results.read_part(part)
    pq.write_table(pq.read_table(part).drop_columns(missing), part)
    assert b"seedsweep-sha256" not in part.read_bytes()
    assert find(study) == []
    assert results.read_part(part) == new
    assert {record["log"] for record in new} == {None}


def test_columns_of_another_type_are_something_else(study: Path) -> None:
    part = study / "records" / "aa.parquet"
    table = pq.read_table(part)
    place = table.column_names.index("finished_at")
    text = pa.array(["yesterday", "today"])
    part.write_bytes(storage.to_parquet(table.set_column(place, "finished_at", text)))
    (one,) = find(study)
    assert one.reason.startswith("it is a table of something else: ")
    part.write_bytes(storage.to_parquet(table.set_column(place, "finished_at", pa.nulls(2))))
    assert find(study) == [Damage(part, "it has rows that belong to no run")]
    assert list(read_records(study)) == ["r3", "r4"]


def test_leftovers_of_killed_writers_go_and_nothing_else(study: Path) -> None:
    left = [
        "records/.aa.parquet.0a1b2c3d",
        "members/.aa.safetensors.00000000",
        "checkpoints/.cc.safetensors.99999999",
        ".plan.json.0123abcd",
        "figures/.scores.svg.0123abcd",
        "figures/..made-from.0123abcd",
    ]
    stays = [
        ".lock",
        "records/.aa.parquet.swp",
        "records/aa.parquet.0a1b2c3d",
        "records/.notes.0a1b2c3d",
        "mine/.aa.parquet.0a1b2c3d",
    ]
    before = files(study)
    for name in (*left, *stays):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_bytes(b"half")
    assert damage.remove_leftovers(study) == len(left)
    assert files(study) == before | dict.fromkeys(stays, b"half")
    assert damage.remove_leftovers(study) == 0


def test_what_write_whole_leaves_when_killed_is_a_leftover(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Killed(BaseException):
        pass

    def die(_descriptor: int) -> None:
        seen.extend(path.name for path in (study / "records").glob(".*"))
        raise Killed

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(Killed):
        write_part(study, "ee", [row("r8")])
    assert len(seen) == 1
    assert storage.TEMPORARY.fullmatch(seen[0])
    assert not (study / "records" / seen[0]).exists(), "an exception leaves none"


def runs_in(folder: Path) -> list[str]:
    return sorted(
        one["run_id"] for path in listed(folder, "records") for one in results.read_part(path)
    )


def test_of_a_run_that_is_recorded_twice_the_one_that_counts_stays(study: Path) -> None:
    """A failure before success, one after it, a newer success, and a part that loses every row."""
    write_pack(study, "dd", [row("r1", "failed", 5), row("r5", minutes=1)])
    write_pack(study, "ee", [row("r5", minutes=2), row("r6")])
    write_pack(study, "ff", [row("r6", "failed", 9, error="later"), row("r7", "failed")])
    write_pack(study, "gg", [row("r7", "failed", 1, error="again")])
    before = read_records(study)
    assert settle(study) == 4
    assert read_records(study) == before
    assert runs_in(study) == [f"r{n}" for n in range(1, 8)]
    names = {path.stem for path in listed(study, "records")}
    assert names == {"aa", "bb", "ee", "gg"}
    for kind in KINDS:
        assert {path.stem for path in listed(study, kind)} == names
    assert find(study) == []
    assert before["r7"]["error"] == "again"
    settled = files(study)
    assert settle(study) == 0
    assert files(study) == settled


def test_every_column_of_the_rows_that_stay_is_as_it_was(study: Path) -> None:
    write_pack(study, "dd", [row("r1", "failed", 5), row("r5", auc_split=0.75, log="x.log")])
    before = results.read_part(study / "records" / "dd.parquet")
    settle(study)
    assert results.read_part(study / "records" / "dd.parquet") == before[1:]


def test_of_a_copy_the_original_stays(study: Path) -> None:
    """As file managers make them; a copy has no codes of its own and would sort first."""
    before = files(study)
    shutil.copy(study / "records" / "aa.parquet", study / "records" / "aa copy.parquet")
    assert find(study) == []
    assert list(read_records(study)) == ["r1", "r2", "r3", "r4"]
    assert settle(study) == 2
    assert files(study) == before


def test_a_part_that_is_its_only_copy_keeps_its_files(study: Path) -> None:
    (study / "records" / "aa.parquet").rename(study / "records" / "aa copy.parquet")
    before = files(study)
    assert settle(study) == 0
    assert files(study) == before
    assert find(study) == []


def test_files_without_records_go_once_their_runs_are_finished_elsewhere(study: Path) -> None:
    """A worker that was killed between weights and records; its runs were grouped anew."""
    write_pack(study, "dd", [row("r1"), row("r9")])
    (study / "records" / "dd.parquet").unlink()
    before = files(study)
    assert settle(study) == 0
    assert files(study) == before, "r9 is nowhere else"
    write_pack(study, "ee", [row("r9")])
    assert settle(study) == 0
    assert not any(file_of(study, kind, "dd").exists() for kind in KINDS)
    assert find(study) == []


def test_damaged_parts_are_not_settled(study: Path) -> None:
    flip(study / "records" / "aa.parquet")
    write_pack(study, "dd", [row("r1", "failed"), row("r2", "failed")])
    before = files(study)
    assert settle(study) == 0
    assert files(study) == before


def test_a_settling_that_is_cut_short_anywhere_loses_nothing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before every single change of a file, and then run again."""
    write_pack(study, "dd", [row("r1", "failed", 5), row("r5", minutes=1)])
    write_pack(study, "ee", [row("r5", minutes=2), row("r6")])
    write_pack(study, "ff", [row("r3", minutes=9)])
    expected = read_records(study)
    unlink, replace = Path.unlink, Path.replace

    class Killed(BaseException):
        pass

    for until in itertools.count():
        copy = tmp_path / f"copy{until}"
        shutil.copytree(study, copy)
        left = until

        def spend() -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda *a, **k: (spend(), unlink(*a, **k)))
            patch.setattr(Path, "replace", lambda *a: (spend(), replace(*a)))
            try:
                settle(copy)
            except Killed:
                whole = False
            else:
                whole = True
        assert read_records(copy) == expected
        settle(copy)
        assert read_records(copy) == expected
        assert runs_in(copy) == ["r1", "r2", "r3", "r4", "r5", "r6"]
        assert find(copy) == []
        if whole:
            break
    assert until == 5, "one part written again, one removed with its three files"
