"""A real MLflow server on loopback that a test may kill, freeze, empty and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """A server on a SQLite file in a folder, always at the same address."""

    def __init__(
        self, folder: Path, options: Sequence[str] = (), environment: Mapping[str, str] = QUIET
    ) -> None:
        """Choose a free port; nothing runs yet. MLFLOW_BACKEND_STORE_URI names another store."""
        self.folder, self.options, self.environment = folder, options, {**QUIET, **environment}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self.process is None
        store = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.folder}/server.db"}
        options = {
            "artifacts-destination": str(self.folder / "artifacts"),
            "host": "127.0.0.1",
            "port": str(self.port),
            "workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server"]
        command += [word for name, value in options.items() for word in (f"--{name}", value)]
        command += self.options
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **store, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for _ in range(600):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):  # noqa: S310 - loopback
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        pytest.fail((self.folder / "server.log").read_text())

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the server and its worker, all of them ours."""
        assert self.process is not None
        os.killpg(self.process.pid, what)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):  # it never started
                self.send(how)
            self.process.wait(20)
            self.process = None

    def empty(self, store: Path) -> None:
        """Put a store without an experiment in place of its own, while it does not run."""
        assert self.process is None
        for path in self.folder.glob("server.db*"):
            path.unlink()
        shutil.copy(store, self.folder / "server.db")
