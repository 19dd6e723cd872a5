"""The command that opens MLflow's UI: on the right store, without secrets, and gone afterwards."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient
from processes import LOOPBACK, listening

from sweeps import cli
from sweeps.cli import main
from sweeps.mistakes import Refused
from sweeps.tracking.view import quiet
from sweeps.ui import check_store, served


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "sqlite:///none.db",
            "sqlite:///none.db: no such file, so there is nothing to show; "
            "first: sweeps run STUDY, in this folder, or set MLFLOW_TRACKING_URI",
        ),
        (
            "gopher://me:s3cret@host/x",
            "MLFLOW_TRACKING_URI: gopher://host/x is no store that has a UI; "
            "expected http(s)://, sqlite:///, postgresql://, mysql:// or mssql://",
        ),
        (
            "./files",
            "MLFLOW_TRACKING_URI: ./files is no store that has a UI; "
            "expected http(s)://, sqlite:///, postgresql://, mysql:// or mssql://",
        ),
    ],
)
def test_what_has_no_ui_is_refused(
    folder: Path,
    uri: str,
    said: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["ui"]) == 2
    assert capfd.readouterr() == ("", f"{said}\n")
    assert list(folder.iterdir()) == []


def test_a_database_server_needs_no_file() -> None:
    check_store("postgresql://me:s3cret@host/db")
    check_store("mysql+pymysql://host/db")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        with pytest.raises(Refused) as refused, served(uri, "127.0.0.1", port):
            pass
    expected = f"--port {port}: cannot be listened on: Address already in use"
    assert refused.value.mistakes == [expected]


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, " * 100)
    uri = f"sqlite:///{tmp_path}/text.db"
    with pytest.raises(Refused) as refused, served(uri, "127.0.0.1", None):
        pass
    (said,) = refused.value.mistakes
    assert said.startswith("the MLflow UI did not start: ")


def processes(session: int) -> dict[int, str]:
    """Return the command of each process of a session."""
    call = subprocess.run(
        ["ps", "-o", "pid=,args=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    rows = (line.split(maxsplit=1) for line in call.stdout.splitlines())
    return {int(pid): command for pid, command in rows}


def test_a_database_is_served_and_nothing_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's address, which may hold a password, is in no process's arguments."""
    uri = f"sqlite:///{folder}/mlflow.db"
    with quiet():
        client = MlflowClient(uri)
        run = client.create_run(client.create_experiment("small"))
        client.log_text(run.info.run_id, "<svg/>", "figures/seeds.svg")
    monkeypatch.setenv("MLFLOW_STATIC_PREFIX", "/of-another-server")
    with served(uri, "127.0.0.1", None) as (address, process):
        found = processes(process.pid)
        assert len(found) >= 2, "the server and its worker"
        assert "mlflow.db" not in " ".join(found.values())
        assert b"mlflow.db" in Path(f"/proc/{process.pid}/environ").read_bytes()
        name = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=small"
        with urllib.request.urlopen(name) as answer:  # noqa: S310 - loopback
            assert json.load(answer)["experiment"]["name"] == "small"
        file = f"{address}/get-artifact?path=figures/seeds.svg&run_uuid={run.info.run_id}"
        with urllib.request.urlopen(file) as answer:  # noqa: S310 - loopback
            assert answer.read() == b"<svg/>"
    until = time.monotonic() + 10
    while processes(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert processes(process.pid) == {}


def store_in(folder: Path) -> str:
    with quiet():
        MlflowClient(f"sqlite:///{folder}/mlflow.db").create_experiment("small")
    return f"sqlite:///{folder}/mlflow.db"


EVERYWHERE = "00000000"  # 0.0.0.0 as the kernel writes it


@pytest.mark.parametrize(("host", "where"), [(None, "0100007F"), ("0.0.0.0", EVERYWHERE)])  # noqa: S104
def test_it_listens_where_it_is_asked_to(host: str | None, where: str, folder: Path) -> None:
    """Loopback unless somebody asks for more."""
    default = cli._parser().parse_args(["ui"]).host
    assert default == "127.0.0.1"
    with served(store_in(folder), host or default, None) as (_, process):
        assert listening(process.pid) == {where}
    assert "0100007F" in LOOPBACK


def test_a_host_for_others_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(folder))
    command = [Path(sys.executable).parent / "sweeps", "ui", "--host", "0.0.0.0"]  # noqa: S104
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as call:
        assert call.stdout is not None
        assert call.stdout.readline().startswith("http://127.0.0.1:")
        call.send_signal(signal.SIGINT)
        _, err = call.communicate(timeout=60)
    assert err.splitlines()[0] == (
        "--host 0.0.0.0: the UI asks for no password: whoever reaches it can read and change "
        "every run; for others see docs/operations.md"
    )
