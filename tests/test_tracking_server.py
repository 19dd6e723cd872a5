"""A real MLflow server on loopback shows what a file does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracked import assert_equal_to_tables, content, level, planned, shown, train

from sweeps.cli import main
from sweeps.tracking import Tracked, tracking_uri


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real MLflow server on loopback, and end it."""
    tmp_path = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "backend-store-uri": f"sqlite:///{tmp_path}/server.db",
        "artifacts-destination": str(tmp_path / "artifacts"),
        "host": "127.0.0.1",
        "port": str(port),
        "workers": "1",
    }
    command = [sys.executable, "-m", "mlflow", "server"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "server.log")
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server and its worker, all of them ours
        process.wait(20)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address once it answers."""
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 - loopback
                return address
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(log.read_text())


def test_a_server_shows_the_same(
    server: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small, uri = train(folder / "small"), tracking_uri()
    (small.folder / "figures").mkdir()
    (small.folder / "figures" / "seeds.svg").write_text("<svg/>")
    small.track(uri)
    assert small.track(server) == Tracked(server, "written", None)
    assert capfd.readouterr() == ("", ""), "MLflow would print a link for each run"
    assert content(server) == content(uri)
    assert_equal_to_tables(server, small)
    (top,) = level(shown(server), "study").values()
    client = MlflowClient(server)
    files = {item.path for item in client.list_artifacts(top.info.run_id)}
    assert files == {"figures", "results.parquet", "summary.parquet"}
    before = content(server)
    assert small.track(server).state == "written"
    assert content(server) == before


def test_the_ui_of_a_server_is_its_own(
    server: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = planned(folder / "other", name="other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", "//me:s3cret@"))
    assert main(["ui"]) == 0
    assert capfd.readouterr() == (f"{server}/#/experiments\n", "")
    assert main(["ui", "other/x.yaml"]) == 2
    assert capfd.readouterr() == (
        "",
        f"MLflow at {server} has no study 'other'; "
        "first: sweeps run, or where it has run before: sweeps track\n",
    )
    other.track(server)
    experiment = MlflowClient(server).get_experiment_by_name("other")
    assert experiment is not None
    assert main(["ui", "other/x.yaml"]) == 0
    out, err = capfd.readouterr()
    runs = f"{server}/#/experiments/{experiment.experiment_id}/runs"
    runs += "?workflowType=machine_learning&viewStateShareKey="
    assert out == f"{runs}cells\n"
    assert err == f"its seeds, grouped by cell: {runs}seeds\n"
