"""The MLflow UI on the store that studies are written to, as a child process of the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sweeps.mistakes import Refused
from sweeps.tracking.problems import scrubbed, sentence, without_credentials
from sweeps.tracking.view import experiment_of, quiet

PATIENCE = 120  # seconds for the server's start: imports alone take ten on a slow disk
LAST_WORDS = 5  # seconds for its end
DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://")
SERVER = re.compile(r"https?://")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a user may ask for; the default is loopback
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def check_store(uri: str) -> None:
    """Refuse a store that no UI can show: a file that is not there, an address of another kind."""
    where = without_credentials(uri)
    if not DATABASE.match(uri) and not SERVER.match(uri):
        expected = "expected http(s)://, sqlite:///, postgresql://, mysql:// or mssql://"
        raise Refused([f"MLFLOW_TRACKING_URI: {where} is no store that has a UI; {expected}"])
    scheme, _, rest = uri.partition(":///")
    if scheme.startswith("sqlite") and not Path(rest.partition("?")[0]).is_file():
        fix = "first: sweeps run STUDY, in this folder, or set MLFLOW_TRACKING_URI"
        raise Refused([f"{where}: no such file, so there is nothing to show; {fix}"])


def places_of(uri: str, study: str | None) -> list[str]:
    """Return where a UI shows the cells of a study, and its seeds: what follows its address.

    Raises Refused where the store cannot be read or does not have the study.
    """
    if study is None:
        return ["/#/experiments"]
    try:
        with quiet():
            found = experiment_of(uri, study)
    except Exception as failure:  # noqa: BLE001 - MLflow's and its drivers' many
        raise Refused([sentence(uri, failure)]) from None
    if found is None:
        fix = "first: sweeps run, or where it has run before: sweeps track"
        raise Refused([f"MLflow at {without_credentials(uri)} has no study '{study}'; {fix}"])
    runs = f"/#/experiments/{found}/runs?workflowType=machine_learning&viewStateShareKey="
    return [f"{runs}{view}" for view in ("cells", "seeds")]


@contextmanager
def served(uri: str, host: str, port: int | None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve a database's UI while the context lasts; give its address and process.

    Raises Refused where the port is taken or the server does not start.
    """
    port = _port(host, port)
    named = {"host": host, "port": str(port), "workers": "1"}
    named["default-artifact-root"] = str(Path.cwd() / "mlruns")  # as clients of a database have it
    command = [sys.executable, "-m", "mlflow", "server", "--no-serve-artifacts"]
    command += [word for name, value in named.items() for word in (f"--{name}", value)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own command; its arguments are no shell's
            command, env=_environment(uri), stdout=log, stderr=log, start_new_session=True
        )
        try:
            shown = "127.0.0.1" if host in EVERYWHERE else host
            address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
            _wait(address, process, log, uri)
            yield address, process
        finally:
            _end(process)


def _port(host: str, port: int | None) -> int:
    """Return the port that was asked for, if it can be had, or a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port or 0))
        except OSError as failure:
            what = f"--port {port}" if port else f"--host {host}"
            raise Refused([f"{what}: cannot be listened on: {failure.strerror}"]) from None
        except OverflowError:
            raise Refused([f"--port {port}: expected 1 to 65535"]) from None
        return int(trial.getsockname()[1])


def _environment(uri: str) -> dict[str, str]:
    """Return the child's: the store's address there alone, as a process list shows arguments.

    Nothing that the user has set for another server decides; only what secures one stays.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MLFLOW_") or name.startswith("MLFLOW_SERVER_")
    }
    return {**kept, **SETTINGS, "MLFLOW_BACKEND_STORE_URI": uri}


def _wait(address: str, process: subprocess.Popen[bytes], log: IO[bytes], uri: str) -> None:
    """Return once the server answers; Refused where it ends before, or never does."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 - our own
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["without a word"]
    raise Refused([f"the MLflow UI did not start: {scrubbed(lines[-1], uri)}"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its worker, which are alone in their session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(LAST_WORDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
