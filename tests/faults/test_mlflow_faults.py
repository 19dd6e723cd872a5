"""MLflow's view while a sweep runs, through every fault of a store: real stores, real processes."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from servers import Server
from studies import tiny, write
from tracked import CELLS, TABLE, Finished, content, level, shown, train

from sweeps import results
from sweeps.tracking import Follower, Tracked, track
from sweeps.tracking.live import Live, pause
from sweeps.tracking.outline import Outline, outline_of
from sweeps.tracking.view import quiet

LATER = "; then: sweeps track {}"
SILENT = "does not answer: start it, or correct MLFLOW_TRACKING_URI"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return train(tmp_path_factory.mktemp("trained") / "small")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store once: its eighty migrations take seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with quiet():
        MlflowClient(f"sqlite:///{path}").get_experiment_by_name("small")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"))
    one.empty(empty_store)
    try:
        yield one
    finally:
        one.end(signal.SIGKILL)


@pytest.fixture
def ready(server: Server, trained: Finished) -> Server:
    """Return the server, running, and without what other tests have shown there."""
    if server.process is None:
        server.start()
    client = MlflowClient(server.address)
    if found := client.get_experiment_by_name(trained.study.name):
        client.rename_experiment(found.experiment_id, f"old-{time.monotonic_ns()}")
    return server


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def sweep(trained: Finished, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # as a user may: tests are quick
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    shutil.copytree(trained.folder, folder / "small")
    (folder / "small" / "records").rename(folder / "records to come")
    done = dataclasses.replace(trained, folder=folder / "small")
    return Sweep(done, sorted((folder / "records to come").iterdir()))


@dataclasses.dataclass
class Sweep:
    """A study whose packs, trained before, are recorded when a test says so."""

    done: Finished
    to_come: list[Path]

    @property
    def outline(self) -> Outline:
        done = self.done
        return outline_of(done.study, done.dataset, done.runs, done.folder)

    @property
    def later(self) -> str:
        return LATER.format(self.done.folder)

    def renamed(self, name: str) -> Sweep:
        """Return a copy, the study of another name."""
        folder = self.done.folder.with_name(name)
        shutil.copytree(self.done.folder, folder)
        to_come = [Path(shutil.copy(path, folder)) for path in self.to_come]
        study = dataclasses.replace(self.done.study, name=name)
        return Sweep(dataclasses.replace(self.done, study=study, folder=folder), to_come)

    def follower(self, uri: str) -> Follower:
        done = self.done
        return Follower(done.study, done.dataset, done.runs, done.folder, uri, pace=0.1)

    def record(self, packs: int | None = None) -> None:
        """Have some packs finished, or all."""
        (self.done.folder / "records").mkdir(exist_ok=True)
        for path in self.to_come[:packs]:
            path.rename(self.done.folder / "records" / path.name)
        self.to_come = self.to_come[packs:] if packs else []

    def tables(self) -> None:
        results.write_tables(self.done.folder, self.done.results)

    def assert_settled(self, uri: str, peace: str) -> None:
        """Compare with a store that was written in peace, in another file, by one call."""
        assert self.done.track(peace).state == "written"
        name = self.done.study.name
        assert settled(uri, name) == settled(peace, name)


def settled(uri: str, study: str) -> dict[str, Any]:
    """Return what a store shows, but for when the study and its cells were first shown."""
    runs = shown(uri, study)
    for name in ("study", "cell", "seed"):
        level(runs, name)
    assert "RUNNING" not in {run.info.status for run in runs}
    found = content(uri, study)
    assert len(found) == len(runs)
    for name, (*others, (status, start, end), inputs) in found.items():
        began = start if name.startswith("seed ") else None
        found[name] = (*others, (status, began, end), inputs)
    return found


def until(true: Callable[[], Any], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def states(uri: str, study: str = "small") -> dict[str, list[str]]:
    """Return the states of the runs of each level; {} while there is no store."""
    try:
        runs = shown(uri, study)
    except (AssertionError, MlflowException):
        return {}
    names = ("study", "cell", "seed")
    return {name: sorted(run.info.status for run in level(runs, name).values()) for name in names}


def test_a_sweep_in_peace(sweep: Sweep, ready: Server, uri: str) -> None:
    """Live while it runs; no secret in an argument or the environment; whole at the end.

    A user's own folders are not imported in place of ours.
    """
    for name in ("models", "sweeps"):
        Path(name).mkdir()
        Path(name, "__init__.py").write_text("raise ImportError('a user's own')")
    secret = ready.address.replace("//", "//me:s3cret@")
    start = time.monotonic()
    with sweep.follower(secret) as follower:
        assert time.monotonic() - start < 2, "the driver does not wait for it"
        assert follower.process is not None
        pid = follower.process.pid
        assert os.getsid(pid) == pid, "Ctrl-C in a terminal does not reach it"
        sweep.record(2)
        first = {"study": ["RUNNING"], "cell": ["RUNNING"] * 3, "seed": ["FINISHED"] * 3}
        until(lambda: states(ready.address) == first)
        for place in ("cmdline", "environ"):
            assert b"s3cret" not in Path(f"/proc/{pid}/{place}").read_bytes()
        sweep.record()
        sweep.tables()
        tracked = follower.finish(TABLE)
    assert tracked == Tracked(ready.address, "written", None)
    assert follower.process.returncode == 0
    sweep.assert_settled(ready.address, uri)
    before = content(ready.address)
    assert sweep.done.track(ready.address).state == "written"
    assert content(ready.address) == before


def test_a_server_that_is_down_at_the_start_dies_and_comes_back_empty(
    sweep: Sweep, ready: Server, empty_store: Path, uri: str
) -> None:
    longer = sweep.renamed("longer")
    ready.end()
    live = Live(sweep.outline, ready.address)
    sweep.record(1)
    live.look()
    assert live.problem == f"MLflow at {ready.address} {SILENT}"
    ready.start()
    live.look()
    assert live.problem is None
    assert states(ready.address)["seed"] == ["FINISHED"] * 2
    ready.end(signal.SIGKILL)
    sweep.record(1)
    live.look()
    assert live.problem == f"MLflow at {ready.address} {SILENT}"
    with longer.follower(ready.address) as follower:  # a sweep that is shorter than this
        longer.record()
        longer.tables()
        tracked = follower.finish(TABLE)
    problem = f"MLflow at {ready.address} {SILENT}{longer.later}"
    assert tracked == Tracked(ready.address, "pending", problem)
    ready.empty(empty_store)
    ready.start()
    assert longer.done.track(ready.address) == Tracked(ready.address, "written", None)
    longer.assert_settled(ready.address, uri)
    other = MlflowClient(ready.address).create_experiment("another study, with the same number")
    live.look()
    live.look()
    assert live.problem is None
    assert states(ready.address)["seed"] == ["FINISHED"] * 3, "all of them are there again"
    assert MlflowClient(ready.address).search_runs([other]) == []
    sweep.record()
    assert sweep.done.track(ready.address).state == "written"
    sweep.assert_settled(ready.address, uri)


def test_a_file_that_is_removed_between_two_looks(
    sweep: Sweep, uri: str, tmp_path: Path, empty_store: Path
) -> None:
    """MLflow would go on to write to the removed one."""
    with sweep.follower(uri) as follower:
        sweep.record(1)
        until(lambda: states(uri).get("seed") == ["FINISHED"] * 2)
        (tmp_path / "mlflow.db").unlink()
        shutil.copy(empty_store, tmp_path / "mlflow.db")
        sweep.record()
        sweep.tables()
        assert follower.finish(TABLE) == Tracked(uri, "written", None)
    shutil.copy(empty_store, tmp_path / "peace.db")
    sweep.assert_settled(uri, f"sqlite:///{tmp_path}/peace.db")


def test_a_server_that_is_frozen(sweep: Sweep, ready: Server, uri: str) -> None:
    """Its end is waited for, but not for long; what it does afterwards is there once."""
    with sweep.follower(ready.address) as follower:
        sweep.record(1)
        until(lambda: states(ready.address).get("seed") == ["FINISHED"] * 2)
        ready.send(signal.SIGSTOP)
        sweep.record()
        sweep.tables()
        start = time.monotonic()
        tracked = follower.finish(TABLE, patience=1)
        assert time.monotonic() - start < 3
        assert follower.process is not None
        pid = follower.process.pid
    words = "is slow: not all was written in 1 s"
    problem = f"MLflow at {ready.address} {words}{sweep.later}"
    assert tracked == Tracked(ready.address, "pending", problem)
    assert not Path(f"/proc/{pid}").exists()
    live = Live(sweep.outline, ready.address)
    (sweep.done.folder / "records").rename(sweep.done.folder / "other")
    live.look()
    assert live.problem == f"MLflow at {ready.address} {SILENT}"
    (sweep.done.folder / "other").rename(sweep.done.folder / "records")
    ready.send(signal.SIGCONT)
    until(lambda: states(ready.address).get("study"))
    assert sweep.done.track(ready.address).state == "written"
    sweep.assert_settled(ready.address, uri)


class Failing(BaseHTTPRequestHandler):
    """Answer everything with 500."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the name that it is asked by

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_answers_500(sweep: Sweep) -> None:
    failing = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=failing.serve_forever)
    thread.start()
    where = f"http://127.0.0.1:{failing.server_address[1]}"
    live = Live(sweep.outline, where)
    sweep.record(1)
    live.look()
    problem = f"MLflow at {where} answers every request with an error: its log tells which"
    assert live.problem == problem
    assert sweep.done.track(where) == Tracked(where, "pending", problem + sweep.later)
    failing.shutdown()
    thread.join()
    failing.server_close()


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold a SQLite store as another writer does."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_file_that_is_locked_for_a_while(
    sweep: Sweep, uri: str, tmp_path: Path, empty_store: Path
) -> None:
    with sweep.follower(uri) as follower:
        with locked(uri):
            sweep.record(1)
            time.sleep(2)
        until(lambda: states(uri).get("seed") == ["FINISHED"] * 2)
        sweep.record()
        sweep.tables()
        assert follower.finish(TABLE) == Tracked(uri, "written", None)
    shutil.copy(empty_store, tmp_path / "peace.db")
    sweep.assert_settled(uri, f"sqlite:///{tmp_path}/peace.db")


def test_a_file_that_is_locked_for_ever(
    sweep: Sweep, uri: str, tmp_path: Path, empty_store: Path
) -> None:
    words = f"MLflow at {uri} is locked by another program: wait for it, or end it{sweep.later}"
    with sweep.follower(uri) as follower, locked(uri):
        sweep.record()
        sweep.tables()
        assert follower.finish(TABLE) == Tracked(uri, "pending", words)
    assert sweep.done.track(uri).state == "written"
    shutil.copy(empty_store, tmp_path / "peace.db")
    sweep.assert_settled(uri, f"sqlite:///{tmp_path}/peace.db")


def test_a_process_that_is_killed_is_said_to_be(sweep: Sweep, uri: str) -> None:
    with sweep.follower(uri) as follower:
        assert follower.process is not None
        follower.process.kill()
        tracked = follower.finish(TABLE)
    words = f"MLflow at {uri}: the process that writes to it was ended by SIGKILL{sweep.later}"
    assert tracked == Tracked(uri, "pending", words)


def test_tables_that_are_not_there(sweep: Sweep, uri: str) -> None:
    with sweep.follower(uri) as follower:
        tracked = follower.finish(TABLE)
    assert tracked.state == "pending"
    assert tracked.problem is not None
    assert tracked.problem.startswith(f"MLflow at {uri} failed (FileNotFoundError: ")


def test_an_interrupt_ends_the_wait_and_the_process(sweep: Sweep, uri: str) -> None:
    before = signal.signal(signal.SIGALRM, _interrupt)
    with sweep.follower(uri) as follower:
        assert follower.process is not None
        follower.process.send_signal(signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            follower.finish(TABLE)
    signal.signal(signal.SIGALRM, before)
    assert follower.process.returncode == -signal.SIGKILL


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_sweep_runs_no_more(sweep: Sweep, uri: str) -> None:
    """What is there is FINISHED, what is not there KILLED; but where another driver is at work."""
    live = Live(sweep.outline, uri)
    sweep.record(2)
    live.look()
    before = states(uri)
    done = sweep.done
    sweep.tables()
    assert done.track(uri, running=True).state == "written"
    assert states(uri) == before
    assert done.track(uri).state == "written"
    assert states(uri) == {
        "study": ["KILLED"],
        "cell": ["KILLED"] * 3,
        "seed": ["FINISHED"] * 3,
    }
    sweep.record()
    assert done.track(uri).state == "written"
    assert {run.info.status for run in shown(uri)} == {"FINISHED"}


def test_what_stands_for_the_same_is_there_once(
    sweep: Sweep, uri: str, tmp_path: Path, empty_store: Path
) -> None:
    """As after a create that a server carried out although it had timed out here."""
    live = Live(sweep.outline, uri)
    sweep.record(2)
    live.look()
    client = MlflowClient(uri)
    for run in shown(uri):
        tags = {name: text for name, text in run.data.tags.items() if "seedsweep" in name}
        client.create_run(run.info.experiment_id, tags=tags)
    kept = {run.info.run_id for run in shown(uri) if run.data.params}
    with pytest.raises(AssertionError, match="a run is there twice"):
        level(shown(uri), "seed")
    sweep.record()
    assert sweep.done.track(uri).state == "written"
    assert kept <= {run.info.run_id for run in shown(uri)}, "the ones with content"
    shutil.copy(empty_store, tmp_path / "peace.db")
    sweep.assert_settled(uri, f"sqlite:///{tmp_path}/peace.db")


def test_a_double_that_is_made_while_all_is_written(
    sweep: Sweep, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def twice(client: MlflowClient, *arguments: Any) -> Any:
        create(client, *arguments)  # carried out, but the answer was lost
        return create(client, *arguments)

    sweep.record()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", twice)
        assert sweep.done.track(uri).state == "written"
    runs = shown(uri)
    assert len(runs) == 13
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_finished_study_is_not_begun_again(sweep: Sweep, uri: str) -> None:
    sweep.record()
    assert sweep.done.track(uri).state == "written"
    before = content(uri)
    live = Live(sweep.outline, uri)
    live.look()
    assert (live.view, live.problem) == (None, None)
    more = sweep.done.with_seeds(2)
    live = Live(outline_of(more.study, more.dataset, more.runs, more.folder), uri)
    live.look()
    assert content(uri) == before


def test_numbers_that_seeds_have_together_stay_while_others_train(sweep: Sweep, uri: str) -> None:
    """A live view knows no agreement yet; that is no reason to write a run anew."""
    sweep.record(2)
    records = {row["run_id"]: 0.9 for row in results.read_records(sweep.done.folder).values()}
    tables = results.gather(
        sweep.done.study, sweep.done.runs, results.read_records(sweep.done.folder), {}, records
    )
    done = sweep.done
    arguments = (done.study, done.dataset, done.runs, done.folder, tables, TABLE)
    assert track(*arguments, uri=uri).state == "written"
    before = {key: run.to_dictionary() for key, run in level(shown(uri), "seed").items()}
    assert all("agreement" in run["data"]["metrics"] for run in before.values())
    live = Live(sweep.outline, uri)
    live.look()
    live.look()
    assert live.problem is None
    after = {key: run.to_dictionary() for key, run in level(shown(uri), "seed").items()}
    assert after == before


def test_a_part_that_cannot_be_read_is_left_out(sweep: Sweep, uri: str) -> None:
    live = Live(sweep.outline, uri)
    sweep.record(2)
    (sweep.done.folder / "records" / "torn.parquet").write_bytes(b"torn")
    live.look()
    assert live.problem is None
    assert states(uri)["seed"] == ["FINISHED"] * 3


@pytest.mark.parametrize(
    ("seconds", "failures", "expected"),
    [(0.1, 0, 2), (1, 0, 9), (60, 0, 30), (0.1, 1, 4), (0.1, 3, 16), (50, 9, 30)],
)
def test_pauses(seconds: float, failures: int, expected: float) -> None:
    assert pause(seconds, failures, 2) == expected


DRIVER = """
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "mlflow":
            os._exit(3)

sys.meta_path.insert(0, Watch())
from sweeps.cli import main
sys.exit(main(["run", "x.yaml", "--launcher", "inline"]))
"""


def test_a_driver_imports_no_mlflow_and_takes_its_process_along(folder: Path) -> None:
    """Killed where it waits at the end."""
    write(folder, tiny(cells=CELLS[:1]))
    driver = subprocess.Popen([sys.executable, "-P", "-c", DRIVER], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _children(driver.pid))
        (child,) = _children(driver.pid)
        os.kill(child, signal.SIGSTOP)
        until((folder / "runs" / "tiny" / "report.html").exists)
        time.sleep(0.2)
        assert driver.poll() is None, "it waits"
    finally:
        driver.kill()
    assert driver.wait() == -signal.SIGKILL, "3 where it had imported MLflow"
    os.kill(child, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{child}").exists(), 10)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for path in tasks for word in path.read_text().split()]
    return [one for one in found if b"child.py" in Path(f"/proc/{one}/cmdline").read_bytes()]
