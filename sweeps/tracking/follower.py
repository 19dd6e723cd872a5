"""The driver's end of the process that writes MLflow's view: training never waits for it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from sweeps.tracking.outline import outline_of
from sweeps.tracking.place import Tracked, pending, tracking_uri
from sweeps.tracking.problems import without_credentials

if TYPE_CHECKING:  # seconds of imports
    from models.datasets import Dataset
    from sweeps.plan import Run
    from sweeps.study import Study

CHILD = Path(__file__).with_name("child.py")
PACE = 2.0  # seconds from one look at the records to the next, at least
PATIENCE, PATIENCE_A_RUN = 120.0, 0.1  # seconds for the whole view
LAST_WORDS = 1  # seconds to leave, then to SIGTERM, then to SIGKILL


class Follower:
    """A process that shows a study in MLflow while the context lasts; raises nothing.

    It has a process session of its own, so that Ctrl-C in a terminal does not reach it, and leaves
    when this process dies.
    """

    def __init__(
        self,
        study: Study,
        dataset: Dataset,
        runs: Sequence[Run],
        folder: Path,
        uri: str | None = None,
        *,
        pace: float = PACE,
    ) -> None:
        """Take what is planned; `uri` may hold a password: it goes through a pipe alone."""
        self.uri, self.folder, self.runs = uri or tracking_uri(), folder, len(runs)
        outline = outline_of(study, dataset, runs, folder).as_json()
        self.begin = {"outline": outline, "uri": self.uri, "folder": str(folder), "pace": pace}
        self.process: subprocess.Popen[bytes] | None = None
        self.words: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start the process; what it is told waits in threads, never here."""
        with suppress(OSError):  # no memory or no process left; `finish` says so
            self.process = subprocess.Popen(  # noqa: S603 - our own file, no arguments
                [sys.executable, "-P", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # MLflow's own words may hold a password
                start_new_session=True,
            )
            self.words.put(self.begin)
            self.threads = [
                threading.Thread(target=_speak, args=(self.process.stdin, self.words), daemon=True),
                threading.Thread(
                    target=_hear, args=(self.process.stdout, self.answers), daemon=True
                ),
            ]
            for thread in self.threads:
                thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process where it has not left."""
        if self.process is None:
            return
        self.words.put(None)  # it leaves where nothing more can follow
        for end in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(LAST_WORDS)
            except subprocess.TimeoutExpired:  # as where it is stopped
                end()
        self.process.wait()
        for thread in self.threads:
            thread.join(LAST_WORDS)

    def finish(
        self, table: str, *, running: bool = False, patience: float | None = None
    ) -> Tracked:
        """Have the whole view written from the study's tables, and wait for it.

        `table` describes the study run; `running` where another driver works on the folder. Waits
        at most `patience` seconds, by default two minutes and a tenth of a second a run.
        """
        if patience is None:
            patience = PATIENCE + PATIENCE_A_RUN * self.runs
        where = f"MLflow at {without_credentials(self.uri)}"
        if self.process is None:
            return pending(self.uri, self.folder, f"{where}: no process could be started for it")
        self.words.put({"table": table, "running": running})
        slow = f"{where} is slow: not all was written in {patience:.0f} s"
        problem: str | None = None
        until = time.monotonic() + patience
        while True:
            try:
                said = self.answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return pending(self.uri, self.folder, problem or slow)
            if said is None:
                return pending(self.uri, self.folder, f"{where}: {_end_of(self.process)}")
            if "tracked" in said:
                return Tracked(**said["tracked"])
            problem = said["problem"]


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Say how the process ended before it was done."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(LAST_WORDS)
    code = process.returncode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "failed"
    return f"the process that writes to it {how}"


def _speak(pipe: IO[bytes], lines: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Write lines until None; then the other end reads that nothing follows."""
    with suppress(OSError, ValueError):
        while (line := lines.get()) is not None:
            pipe.write(json.dumps(line).encode() + b"\n")
            pipe.flush()
    with suppress(OSError):
        pipe.close()


def _hear(pipe: IO[bytes], lines: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Read lines; None where nothing follows."""
    with suppress(OSError, ValueError), pipe:
        for line in pipe:
            lines.put(json.loads(line))
    lines.put(None)
