"""Who trains what, what was interrupted, and what `run` would do: told from the folder alone."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import io
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from safetensors.numpy import save
from studies import tiny, write

from sweeps import overview, results, status
from sweeps.cli import main
from sweeps.folder import traces
from sweeps.folder.storage import write_whole
from sweeps.mistakes import Refused
from sweeps.plan import Run, all_runs, as_json
from sweeps.study import load_study

# tiny: ae, vae normal, vae bimodal, wae relu, wae leaky_relu; here eight seeds each, 20 steps
NOW = datetime(2026, 1, 2, 20, 55, tzinfo=UTC)
HOLDER = {"host": "HOST", "pid": 4242, "since": NOW.isoformat(), "command": "sweeps run x.yaml"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Run]]:
    study, dataset = load_study(write(tmp_path_factory.mktemp("study"), tiny(seeds=8)))
    runs = all_runs(study, dataset)
    return as_json(study, dataset, runs, []), runs


class Left:
    """A study folder as a sweep leaves it at some moment, written file by file."""

    def __init__(self, folder: Path, runs: list[Run]) -> None:
        self.folder, self.runs = folder, runs

    def cell(self, place: int, seeds: range) -> list[Run]:
        return [self.runs[8 * place + seed] for seed in seeds]

    def records(self, runs: list[Run], state: str = "ok", **others: Any) -> None:
        kind = results.RECORD
        kind = kind if "log" in kind.names else kind.append(pa.field("log", pa.string()))
        row = {"status": state, "finished_at": NOW, **others}
        rows = [row | {"run_id": r.run_id, "cell_id": r.cell_id, "seed": r.seed} for r in runs]
        table = pa.Table.from_pylist(rows, schema=kind)
        write_whole(
            self.folder / "records" / f"{runs[0].run_id}.parquet", results.to_parquet(table)
        )

    def checkpoint(self, runs: list[Run], *steps: int) -> Path:
        members = [
            {"run_id": run.run_id, "seed": run.seed, "step": step}
            | {"resumed": [], "diverged": False}
            for run, step in zip(runs, steps, strict=True)
        ]
        tensors = {f"{run.run_id}/values": np.zeros(9, np.float32) for run in runs}
        path = self.folder / "checkpoints" / f"{runs[0].run_id}.safetensors"
        write_whole(path, save(tensors, {"members": json.dumps(members)}))
        return path

    def progress(self, *packs: dict[str, Any], **others: Any) -> None:
        content = {"state": "training", "ended": None, "launcher": "local", "round": 1}
        content |= {"updated_at": NOW.isoformat(), "running": list(packs), **others}
        write_whole(self.folder / "progress.json", json.dumps(content).encode())

    def pack(self, runs: list[Run], done: int, **others: Any) -> dict[str, Any]:
        pack = {"pack": runs[0].run_id, "cell": runs[0].cell.label}
        pack |= {"seeds": [r.seed for r in runs], "run_ids": [r.run_id for r in runs]}
        pack |= {"done": done, "steps": 20 * len(runs), "host": "HOST", "pid": 99, "log": "/l/9"}
        return pack | others

    @contextlib.contextmanager
    def held(self, content: Any = HOLDER) -> Iterator[None]:
        """Hold the folder as a driver does; None leaves what stands in the file."""
        with (self.folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if content is not None:
                file.truncate(0)
                file.write(content if isinstance(content, str) else json.dumps(content))
                file.flush()
            yield

    def content(self) -> dict[str, Any]:
        return status.status(self.folder, status.read_plan(self.folder))

    def lines(self, width: int = 80) -> list[str]:
        text = io.StringIO()
        console = Console(file=text, width=width)
        overview.print_status(self.content(), console, "sweeps run runs/tiny")
        return text.getvalue().splitlines()

    def after_table(self) -> list[str]:
        lines = self.lines()
        blank = lines.index("", 2)
        return [line for line in lines[blank:] if line and not line.startswith("newest record")]


@pytest.fixture
def left(
    folder: Path, planned: tuple[str, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Left]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert folder == Path.cwd()
    path = Path("runs/tiny")
    write_whole(path / "plan.json", planned[0].encode())
    yield Left(path, planned[1])
    monkeypatch.undo()
    time.tzset()


def running(left: Left) -> None:
    """Cell 0 is done, one run of cell 1 failed and is tried again beside its first neighbours."""
    left.records(left.cell(0, range(8)))
    left.records(left.cell(1, range(3, 4)), "failed", error="OSError: no memory", log="/logs/7")
    tail = {"host": None, "pid": None}
    left.progress(
        left.pack(left.cell(1, range(1, 4)), 37),
        left.pack(left.cell(2, range(1)), 0, **tail),
    )
    left.checkpoint(left.cell(1, range(1, 4)), 10, 10, 12)
    left.checkpoint(left.cell(0, range(2)), 15, 15)  # done meanwhile


def test_a_study_that_is_running(left: Left) -> None:
    running(left)
    with left.held():
        content, lines, rest = left.content(), left.lines(), left.after_table()
    assert (content["state"], content["driver"], content["interrupted"]) == ("running", HOLDER, [])
    assert [pack["seeds"] for pack in content["running"]] == [[1, 2, 3], [0]]
    assert (content["missing"], content["failed"]) == (31, 1), "by their records"
    assert [cell["running"] for cell in content["cells"]] == [0, 3, 1, 0, 0]
    assert content["next"] == {"train": 32, "resume": 3, "retry": 1}
    normal, bimodal = (left.runs[8 * place].cell.label for place in (1, 2))
    first = "tiny: 8 of 40 runs scored, running since 2026-01-02 20:55 (process 4242 on HOST)"
    assert " ".join(lines[:2]).strip() == first
    rows = [line.split() for line in lines]
    head = rows.index(["cell", "planned", "ok", "running", "missing"])
    numbers = [row[-4:] for row in rows[head + 1 : head + 6]]
    assert numbers[:3] == [["8", "8", "–", "–"], ["8", "–", "3", "5"], ["8", "–", "1", "7"]]
    assert rest == [
        "running now:",
        f"  {normal} seeds 1-3: 61 % on HOST, process 99",
        f"  {bimodal} seed 0: starting",
        f"failed, OSError: no memory: {normal} seed 3",
        "  log: /logs/7",
        "next: it goes on by itself; until it ends, another sweeps run here is refused",
    ]


def test_the_same_files_without_a_driver_are_an_interrupted_study(left: Left) -> None:
    running(left)
    (left.folder / ".lock").write_text(json.dumps(HOLDER))  # its holder died
    content = left.content()
    assert (content["state"], content["driver"], content["running"]) == ("interrupted", None, [])
    assert [pack["seeds"] for pack in content["interrupted"]] == [[1, 2, 3], [0]]
    assert {cell["running"] for cell in content["cells"]} == {0}
    cell, ids = left.runs[8].cell.label, [run.run_id for run in left.cell(1, range(1, 4))]
    assert content["resumable"] == [
        {"cell": cell, "seed": seed, "run_id": run_id, "step": step, "steps": 20}
        for seed, run_id, step in zip((1, 2, 3), ids, (10, 10, 12), strict=True)
    ]
    assert left.lines()[0] == "tiny: 8 of 40 runs scored, interrupted at 2026-01-02 20:55"
    assert left.after_table() == [
        "3 runs were interrupted and go on from steps 10 to 12 of 20",
        "1 run was interrupted before a first checkpoint and starts again",
        f"failed, OSError: no memory: {cell} seed 3",
        "  log: /logs/7",
        "next: sweeps run runs/tiny trains 32 runs (3 from a checkpoint, 1 that failed)",
    ]


def test_one_run_at_one_step(left: Left) -> None:
    left.checkpoint(left.cell(3, range(1)), 1200)
    plan = json.loads((left.folder / "plan.json").read_text())
    for cell in plan["cells"]:
        cell["steps"] = 6000
    (left.folder / "plan.json").write_text(json.dumps(plan))
    left.progress(state="ended", ended="interrupted")
    said = left.after_table()
    assert said[0] == "1 run was interrupted and goes on from step 1,200 of 6,000"
    assert said[-1] == "next: sweeps run runs/tiny trains 40 runs (1 from a checkpoint)"
    for cell in plan["cells"]:
        del cell["steps"]  # as older plans
    (left.folder / "plan.json").write_text(json.dumps(plan))
    assert left.after_table()[0] == "1 run was interrupted and goes on from step 1,200"


@pytest.mark.parametrize(
    ("progress", "recorded", "state", "first", "last"),
    [
        (None, 0, "never run", "0 of 40 runs scored, not run yet", "trains 40 runs"),
        ({"state": "ended", "ended": "refused"}, 0, "never run", "not run yet", "trains 40 runs"),
        ({"state": "training"}, 0, "interrupted", "interrupted at 2026", "trains 40 runs"),
        (None, 3, "incomplete", "24 of 40 runs scored, incomplete", "trains 16 runs"),
        ({"state": "ended", "ended": "incomplete"}, 3, "incomplete", "incomplete", "16 runs"),
        ({"state": "ended", "ended": "interrupted"}, 3, "interrupted", "20:55", "16 runs"),
        ({"state": "ended", "ended": "complete"}, 3, "incomplete", "incomplete", "16 runs"),
        ({"state": "ended", "ended": "complete"}, 5, "complete", "complete", "nothing is left"),
        ({"state": "writing"}, 5, "interrupted", "interrupted at", "writes tables and report"),
        ({"state": "ended", "launcher": "a:1"}, 3, "incomplete", "incomplete", "16 runs"),
    ],
)
def test_a_state_follows_from_records_and_how_the_last_call_ended(
    left: Left, progress: dict[str, Any] | None, recorded: int, state: str, first: str, last: str
) -> None:
    for cell in range(recorded):
        left.records(left.cell(cell, range(8)))
    if progress:
        left.progress(**progress)
    assert left.content()["state"] == state
    assert first in left.lines()[0]
    assert last in left.after_table()[-1]


def test_what_nobody_trains_yet_and_what_is_being_written(left: Left) -> None:
    left.progress(left.pack(left.cell(0, range(8)), 80), updated_at="2026-01-02T20:54:59+00:00")
    with left.held():
        assert left.content()["running"] == [], "told by the driver before this one"
        starts = "no run is being trained at this moment: it starts up, or is about to end"
        assert left.after_table()[0] == starts
        left.progress(state="writing")
        assert left.after_table()[0] == "its tables and report are being written"
    with left.held("?"):
        unknown = dict.fromkeys(("host", "pid", "since", "command"))
        assert left.content()["driver"] == unknown
        assert left.lines()[0] == "tiny: 0 of 40 runs scored, running"


def test_who_only_writes_a_report_trains_nothing(left: Left) -> None:
    left.progress(left.pack(left.cell(0, range(2)), 30))
    with left.held(HOLDER | {"command": "sweeps report tiny"}):
        content = left.content()
        assert (content["state"], content["driver"]["pid"]) == ("interrupted", 4242)
        assert len(content["interrupted"]) == 1
        said = left.after_table()
    assert said == [
        "in use by sweeps report tiny since 2026-01-02 20:55 (process 4242 on HOST)",
        "2 runs were interrupted before a first checkpoint and start again",
        "next: sweeps run runs/tiny trains 40 runs",
    ]


def test_a_sweep_that_has_no_plan_yet_is_starting(
    left: Left, capfd: pytest.CaptureFixture[str]
) -> None:
    (left.folder / "plan.json").unlink()
    with left.held():
        assert main(["status", "runs/tiny"]) == 2
    where = "a sweep is starting here (process 4242 on HOST); look again in a moment"
    assert capfd.readouterr().err == f"runs/tiny: {where}\n"


def test_a_time_of_today_is_a_clock_time(left: Left) -> None:
    assert left.folder.is_dir()
    now = datetime.now(UTC)
    assert overview.clock(now) == f"{now:%H:%M}"
    assert overview.clock(NOW) == "2026-01-02 20:55"


def test_a_record_wins_over_what_progress_said_before(left: Left) -> None:
    left.progress(left.pack(left.cell(0, range(2)), 30))
    left.records(left.cell(0, range(1)))
    with left.held():
        (pack,) = left.content()["running"]
        assert pack["seeds"] == [1]
        left.records(left.cell(0, range(1, 2)), "diverged")
        assert left.content()["running"] == []


def test_a_checkpoint_that_is_cut_short_is_none(left: Left) -> None:
    path = left.checkpoint(left.cell(0, range(2)), 10, 10)
    assert len(left.content()["resumable"]) == 2
    path.write_bytes(path.read_bytes()[:-1])
    assert left.content()["resumable"] == []


def test_many_lines_become_few(left: Left) -> None:
    left.progress(*(left.pack([run], 3) for run in left.runs[:30]))
    for place in range(7):
        (left.folder / "records").mkdir(exist_ok=True)
        (left.folder / "records" / f"{place}.parquet").write_bytes(b"")
    with left.held():
        said = left.after_table()
        assert max(map(len, left.lines(40))) <= 40
    assert said[9:] == [
        "  and 22 runs more",
        *(f"damaged: records/{n}.parquet: it is cut off, or no Parquet at all" for n in range(5)),
        "and 2 other damaged files",
        "the next sweeps run sets them aside and trains their runs again",
        "next: it goes on by itself; until it ends, another sweeps run here is refused",
    ]


def test_the_call_that_goes_on_is_the_one_that_was_meant(
    left: Left, capfd: pytest.CaptureFixture[str]
) -> None:
    left.records(left.cell(0, range(8)))
    left.progress(state="ended", ended="incomplete", launcher="10.0.0.1:6379")
    assert main(["status", "runs/tiny"]) == 1
    line = "next: sweeps run runs/tiny --launcher 10.0.0.1:6379 trains 32 runs"
    assert capfd.readouterr().out.splitlines()[-1] == line
    write(Path(), tiny(seeds=8), "a b.yaml")
    assert main(["status", "a b.yaml", "--out", "elsewhere"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "tiny: 0 of 40 runs scored, not run yet"
    assert lines[-1] == "next: sweeps run 'a b.yaml' --out elsewhere trains 40 runs"


def test_seeds_are_said_in_ranges() -> None:
    assert overview.seeds([4]) == "seed 4"
    assert overview.seeds([0, 1, 2, 3, 4, 5, 6, 7]) == "seeds 0-7"
    assert overview.seeds([9, 3, 4, 0, 11]) == "seeds 0, 3-4, 9, 11"


# Values that a file's own could be replaced by.
DEEP = "[" * 20_000
ODD = ['{"a": 1}', "[]", "[[]]", "null", "true", "-1", "1e400", "9" * 400, '""', '"\\ud800"', DEEP]


def spoiled(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield what may become of a file: nothing, a part of it, other bytes, other values."""
    yield b""
    yield b"\0" * len(data)
    for _ in range(6):
        yield data[: chance.randrange(len(data))]
        place = chance.randrange(len(data))
        yield data[:place] + chance.randbytes(8) + data[place + 8 :]
    with contextlib.suppress(ValueError):
        content = json.loads(data)
        for odd in ODD:
            yield odd.encode()
            for path in chance.sample(list(places(content)), 2):
                yield replaced(content, path, odd).encode()


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(content: Any, path: tuple[Any, ...], odd: str) -> str:
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "HERE"
    return json.dumps(content).replace('"HERE"', odd, 1)


FILES = ("plan.json", "progress.json", ".lock", "records/*", "checkpoints/*")


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("pattern", FILES)
def test_no_file_however_garbled_is_an_error_of_ours(
    left: Left, pattern: str, capfd: pytest.CaptureFixture[str], held: bool
) -> None:
    running(left)
    (left.folder / ".lock").write_text(json.dumps(HOLDER))
    path = min(left.folder.glob(pattern))
    chance = random.Random(f"{pattern} {held}")  # noqa: S311 - the same files each time
    for data in spoiled(path.read_bytes(), chance):
        path.write_bytes(data)
        with left.held(None) if held else contextlib.nullcontext():
            if pattern == "plan.json" and not readable(left):
                continue
            content = left.content()
            assert (content["state"] == "running") is held
            assert content["planned"] == 40 or pattern == "plan.json", data
            assert json.loads(json.dumps(content, allow_nan=False)) == content
            assert left.lines()
            assert main(["status"]) == 1, data
    capfd.readouterr()


def readable(left: Left) -> bool:
    try:
        status.read_plan(left.folder)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("pattern", ["progress.json", ".lock", "records/*", "checkpoints/*"])
def test_a_folder_where_a_file_should_be(left: Left, pattern: str) -> None:
    running(left)
    (left.folder / ".lock").write_text(json.dumps(HOLDER))
    path = min(left.folder.glob(pattern))
    path.unlink()
    path.mkdir()
    assert left.content()["planned"] == 40
    if pattern == "records/*":
        (found,) = left.content()["damaged"]
        assert found == {"file": f"records/{path.name}", "reason": "it is a folder"}


def test_what_is_read_of_progress_has_its_types(left: Left) -> None:
    good = left.pack(left.cell(0, range(2)), 50)
    bad = [{**good, key: "x"} for key in ("seeds", "run_ids", "done", "steps")]
    left.progress(*bad, good, {**good, "seeds": [0]}, {**good, "cell": 3}, "pack", None)
    told = traces.read_progress(left.folder)
    assert told is not None
    assert told.packs == ({**good, "done": 40},), "no further than its steps"
