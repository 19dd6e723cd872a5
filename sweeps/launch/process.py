"""Ray in a process of its own, as its driver sees it: whatever becomes of Ray, the driver lives.

Ray ends its process when its cluster is gone (gcs_server dies, `ray stop`); here that costs a round
and not the sweep. It also keeps what Ray needs of environment variables out of a notebook.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

from sweeps.folder.storage import write_whole
from sweeps.freshness import source_digest
from sweeps.launch import Watch
from sweeps.launch.environment import TOKEN, environment
from sweeps.mistakes import Refused
from sweeps.study import Resources
from sweeps.trial import Data, Job

LAST_WORDS = 10.0  # seconds for Ray to end its own processes
ENDED = "Ray ended while it was starting; SEEDSWEEP_DEBUG=1 shows what it says"


@final
class RayProcess:
    """A launcher whose packs are Ray Tune trials."""

    def __init__(self, address: str, resources: Resources, folder: Path) -> None:
        """Take `local`, `auto` or a cluster's HOST:PORT; nothing is started yet."""
        self.slots = 0
        self._address, self._resources, self._folder = address, resources, folder.resolve()
        self._child: subprocess.Popen[bytes] | None = None
        self._data: Data | None = None

    def start(self) -> None:
        """Start Ray, or connect to it; Refused where that cannot be."""
        self.close()
        token = secrets.token_hex(16)
        if self._address != "local":
            with _written(self._folder):
                write_whole(self._folder / TOKEN, token.encode())
        # A group of its own: Ctrl-C in a terminal reaches the driver, which says what to do.
        # -P: a models/ or sweeps/ folder where the user stands is not imported in place of ours.
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweeps.launch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SEEDSWEEP_DEBUG") else subprocess.DEVNULL,
            env=environment(local=self._address == "local"),
            process_group=0,
        )
        self._send(
            {
                "address": self._address,
                "resources": self._resources,
                "folder": str(self._folder),
                "token": token,
                "source": source_digest(),
            }
        )
        said: dict[str, Any] = next(self._messages(), {"refused": [ENDED]})
        if "refused" in said:
            self.close()
            raise Refused(said["refused"])
        self.slots = said["slots"]

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack as a trial, as many at a time as fit."""
        if self._child is None:
            self.start()
        if self._data is not data:
            self._send(data)
            self._data = data
        self._send(list(jobs))
        errors: dict[str, str] = {}
        left = {job.pack_id for job in jobs}
        for message in self._messages():
            if "refused" in message:  # no node is left that sees the folder
                self.close()
                raise Refused(message["refused"])
            if message["event"] == "end":
                if message["broken"]:
                    self.close()
                return errors | dict.fromkeys(left, message["error"] or "the trial did not run")
            if message["event"] == "lost":
                errors[message["pack"]] = message["error"]
            if message["event"] in ("finished", "lost"):
                left.discard(message["pack"])
            _pass_on(message, watch)
        self.close()
        for pack in left:
            watch.lost(pack)
        return errors | dict.fromkeys(left, "Ray's own processes ended while the pack was training")

    def close(self) -> None:
        """End Ray's process and what it started; nothing where there is none."""
        child, self._child, self._data = self._child, None, None
        if child is None:
            return
        assert child.stdin is not None  # noqa: S101 - as it was opened
        assert child.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):
            child.stdin.close()  # it takes this for good-bye
        try:
            child.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        finally:
            child.stdout.close()
            (self._folder / TOKEN).unlink(missing_ok=True)

    def _send(self, what: object) -> None:
        assert self._child is not None  # noqa: S101 - started before
        assert self._child.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # then its messages end, which is noticed
            pickle.dump(what, self._child.stdin, protocol=5)
            self._child.stdin.flush()

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Return what the child says, until it ends."""
        assert self._child is not None  # noqa: S101
        assert self._child.stdout is not None  # noqa: S101
        for line in self._child.stdout:
            with contextlib.suppress(ValueError):  # cut off by its death
                yield json.loads(line)


def _pass_on(message: dict[str, Any], watch: Watch) -> None:
    match message["event"]:
        case "steps":
            watch.steps(message["pack"], message["done"], message["where"])
        case "finished":
            watch.finished(message["pack"])
        case "lost":
            watch.lost(message["pack"])
        case "note":
            watch.note(message["text"])


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        reason = f"{folder}: the study folder cannot be written: {failure.strerror}"
        raise Refused([f"{reason}; choose another with --out"]) from None
