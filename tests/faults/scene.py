"""What faults act upon: the processes of one campaign, its folder, its MLflow server, its hours.

Only processes that the campaign itself has started are found, and they are ended by their id.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from processes import COMMAND, Family, Process
from servers import Server

ROOT = os.geteuid() == 0
MARK = "SEEDSWEEP_FAULTS"
TMPFS = "64m"
# The first process of a namespace: it takes in orphans and lays them to rest.
REST = ["sh", "-c", "while :; do sleep 1; done"]
KINDS_OF_FILES = ("records", "codes", "history", "members", "checkpoints")


class Scene:
    """One campaign's surroundings; `confined` in a PID namespace, `small` on a small tmpfs."""

    def __init__(
        self, place: Path, server: Server, dice: random.Random, *, confined: bool, small: bool
    ) -> None:
        """Make the folder and what surrounds it."""
        self.place, self.server, self.dice = place, server, dice
        self.confined, self.small = confined, small
        self.study = place / "study"
        self.study.mkdir(parents=True)
        self.temporary = Path(tempfile.mkdtemp(prefix="f-"))  # short: Unix sockets lie below
        self.mark = secrets.token_hex(8)
        self.family = Family(f"{MARK}={self.mark}")
        self.call: subprocess.Popen[bytes] | None = None
        self.calls = 0
        self.kills = 0  # of the driver, in this call
        self.extra: dict[str, str] = {}  # environment of the next call
        self.others: list[subprocess.Popen[bytes]] = []  # that run beside the driver
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._hands = ThreadPoolExecutor(1)  # for what takes long: one thing after the other
        self._busy: list[Future[object]] = []
        self._rest: subprocess.Popen[bytes] | None = None
        if small:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "faults", str(self.study)]
            subprocess.run(mount, check=True)
        if confined:
            inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *REST]
            self._rest = subprocess.Popen(inside, start_new_session=True)

    def close(self, keep: Path | None) -> None:
        """End what still runs; `keep` is where to leave a copy of the study folder."""
        for one in self.family.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        for process in (self.call, *self.others, self._rest):
            if process is not None:
                process.kill()
                process.wait()
        self._later.clear()
        self._hands.shutdown()
        if keep is not None:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(self.study, keep)
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.study)], check=True)

    def inside(self) -> list[str]:
        """Return the words before a command that take it into the namespace."""
        if self._rest is None:
            return []
        children = Path(f"/proc/{self._rest.pid}/task/{self._rest.pid}/children")
        (first,) = _soon(lambda: children.read_text().split())
        return ["nsenter", "--target", first, "--pid", "--mount", "--"]

    def begin(self, log: str) -> subprocess.Popen[bytes]:
        """Start the command on the study, in a session of its own."""
        extra, self.extra = self.extra, {}
        study = self.place / "x.yaml"
        with (
            (self.place / f"{log}.out").open("wb") as out,
            (self.place / f"{log}.err").open("wb") as err,
        ):
            return subprocess.Popen(
                [*self.inside(), COMMAND, "run", study, "--json", "--out", self.study],
                cwd=self.place,  # which nsenter leaves
                env={**os.environ, **self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def environment(self) -> dict[str, str]:
        """Return what the command is told by its environment."""
        return {
            MARK: self.mark,
            "MLFLOW_TRACKING_URI": self.server.address,
            "SEEDSWEEP_CHECKPOINT_SECONDS": "0.5",
            **dict.fromkeys(("RAY_TMPDIR", "TMPDIR"), str(self.temporary)),
            "PYTHONFAULTHANDLER": "1",  # a driver that hangs is asked where
        }

    def driver(self) -> int | None:
        """Return the driver's process id, if it runs."""
        if self.call is None or self.call.poll() is not None:
            return None
        if not self.confined:
            return self.call.pid
        ours = [one for one in self.family.living() if one.parent == self.call.pid]
        return ours[0].pid if ours else None

    def processes(self, *words: str) -> list[Process]:
        """Return the family's processes whose command has one of the words."""
        living = self.family.living()
        return [one for one in living if any(word in one.command for word in words)]

    def kill(self, *words: str) -> str | None:
        """Kill one of those processes; return which, None where there is none."""
        found = self.processes(*words)
        if not found:
            return None
        one = self.dice.choice(found)
        os.kill(one.pid, signal.SIGKILL)
        return f"{one.command[:60]} ({one.pid})"

    def files(self) -> list[Path]:
        """Return what packs have left."""
        return sorted(
            path
            for kind in KINDS_OF_FILES
            for path in (self.study / kind).glob("*.*")
            if not path.name.startswith(".")
        )

    def state(self) -> dict[str, Any]:
        """Return what progress.json says; nothing where there is none."""
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads((self.study / "progress.json").read_bytes())
            return content
        return {}

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something when so many seconds have passed."""
        self._later.append((time.monotonic() + seconds, what))

    def hand_over(self, what: Callable[[], object]) -> None:
        """Do something that takes long, without waiting for it."""
        self._busy.append(self._hands.submit(what))

    def due(self, *, all_of_it: bool = False) -> None:
        """Do what is due."""
        now = time.monotonic()
        for pair in list(self._later):
            if all_of_it or pair[0] <= now:
                self._later.remove(pair)
                pair[1]()

    def calm(self) -> None:
        """Undo every fault that lasts, and wait until it is."""
        self.due(all_of_it=True)
        for future in self._busy:
            future.result()
        self._busy.clear()
        for process in self.others:
            process.wait(120)


def _soon(look: Callable[[], list[str]]) -> list[str]:
    """Return the first answer that is not empty."""
    for _ in range(500):
        if found := look():
            return found
        time.sleep(0.02)
    msg = "the namespace has no first process"
    raise RuntimeError(msg)
