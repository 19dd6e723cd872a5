"""The kinds of fault: a function each, and its row in the table at the end.

A function does its fault to a scene at once and returns what it did, or None where it cannot be
done now. What lasts is undone later, by the scene.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from processes import catches
from scene import ROOT, Scene

# Ray names a process by what it does.
TRAINING, ANY_WORKER = "ray::ImplicitFunc.train", "ray::I"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
TRACKING = ("sweeps/tracking/", "sweeps.tracking")


def kill_worker(scene: Scene) -> str | None:
    """One that trains, or one that is about to."""
    return scene.kill(TRAINING) or scene.kill(ANY_WORKER)


def pause_worker(scene: Scene) -> str | None:
    """As a machine that swaps does."""
    workers = scene.processes(TRAINING)
    if not workers:
        return None
    worker, seconds = scene.dice.choice(workers), scene.dice.uniform(0.5, 6)
    _signal(worker.pid, signal.SIGSTOP)
    scene.later(seconds, partial(_signal, worker.pid, signal.SIGCONT))
    return f"{worker.pid} for {seconds:.1f} s"


def kill_raylet(scene: Scene) -> str | None:
    return scene.kill("/raylet/raylet ")


def kill_gcs_server(scene: Scene) -> str | None:
    return scene.kill("/gcs/gcs_server ")


def kill_agent(scene: Scene) -> str | None:
    return scene.kill(*AGENTS)


def kill_ray_process(scene: Scene) -> str | None:
    return scene.kill("-m sweeps.launch")


def kill_tracking_process(scene: Scene) -> str | None:
    return scene.kill(*TRACKING)


def kill_driver(scene: Scene) -> str | None:
    driver = scene.driver()
    if driver is None:
        return None
    scene.kills += 1
    return _signal(driver, signal.SIGKILL)


def interrupt(scene: Scene) -> str | None:
    return _to_driver(scene, signal.SIGINT)


def terminate(scene: Scene) -> str | None:
    return _to_driver(scene, signal.SIGTERM)


def interrupt_twice(scene: Scene) -> str | None:
    done = _to_driver(scene, signal.SIGINT)
    if done:
        scene.later(scene.dice.uniform(0, 2), lambda: _to_driver(scene, signal.SIGINT))
    return done


def ray_stop(scene: Scene) -> str | None:
    """In a namespace of our own: it ends every Ray process that it sees."""
    if not scene.processes("/gcs/gcs_server "):
        return None
    ray = Path(sys.executable).parent / "ray"
    scene.others.append(
        subprocess.Popen(
            [*scene.inside(), ray, "stop", "--force"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    return "started"


def kill_server(scene: Scene) -> str | None:
    seconds = scene.dice.uniform(0, 8)
    scene.hand_over(partial(scene.server.end, signal.SIGKILL))
    scene.later(seconds, lambda: scene.hand_over(partial(_start, scene)))
    return f"back after {seconds:.1f} s"


def pause_server(scene: Scene) -> str | None:
    seconds = scene.dice.uniform(1, 12)
    scene.hand_over(partial(_send, scene, signal.SIGSTOP))
    scene.later(seconds, lambda: scene.hand_over(partial(_send, scene, signal.SIGCONT)))
    return f"for {seconds:.1f} s"


def empty_server(scene: Scene) -> str | None:
    def empty() -> None:
        scene.server.end(signal.SIGKILL)
        scene.server.empty(scene.server.folder / "empty.db")
        scene.server.start()

    scene.hand_over(empty)
    return "and started again"


def lock_server(scene: Scene) -> str | None:
    """Another program writes to its SQLite file."""
    store, seconds = scene.server.folder / "server.db", scene.dice.uniform(1, 10)
    connection = sqlite3.connect(store, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error:
        connection.close()
        return None
    scene.later(seconds, connection.close)
    return f"for {seconds:.1f} s"


def limit_memory(scene: Scene) -> str | None:
    """A worker gets no more than a megabyte from now on, for a while or for good."""
    workers = scene.processes(TRAINING)
    if not workers:
        return None
    worker = scene.dice.choice(workers)
    try:
        size = (
            int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        )
        before = resource.prlimit(worker.pid, resource.RLIMIT_AS)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + 2**20, before[1]))
    except OSError:
        return None
    if scene.dice.random() < 0.5:
        scene.later(scene.dice.uniform(0.5, 4), partial(_lift, worker.pid, before))
    return f"of worker {worker.pid} at {size >> 20} MiB"


def watch_memory(scene: Scene) -> str | None:
    """Ray's own monitor finds that every worker of the next call uses too much."""
    if scene.call is not None and scene.call.poll() is None:
        return None
    scene.extra |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    return "in the next call"


def fill_disk(scene: Scene) -> str | None:
    filler, seconds = scene.study / "filler", scene.dice.uniform(0.5, 6)
    if filler.exists():
        return None
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 2**16):
            pass
    scene.later(seconds, lambda: filler.unlink(missing_ok=True))
    return f"for {seconds:.1f} s"


def spoil(scene: Scene) -> str | None:
    """Damage one file that packs have left."""
    files = scene.files()
    if not files:
        return None
    path = scene.dice.choice(files)
    how = scene.dice.choice(("flipped", "cut off", "foreign", "of another pack", "emptied"))
    others = [one for one in files if one.parent == path.parent and one != path]
    try:
        data = bytearray(path.read_bytes())
        if how == "flipped" and data:
            for place in scene.dice.sample(range(len(data)), min(4, len(data))):
                data[place] ^= 1 << scene.dice.randrange(8)
            path.write_bytes(data)
        elif how == "cut off":
            path.write_bytes(data[: scene.dice.randrange(len(data) or 1)])
        elif how == "of another pack" and others:
            shutil.copy(scene.dice.choice(others), path)
        elif how == "emptied":
            path.write_bytes(b"")
        else:
            how = "foreign"
            pq.write_table(pa.table({"planet": ["Mars"], "moons": [2]}), path)
    except OSError:  # it has just gone, or the disk is full
        return None
    return f"{path.relative_to(scene.study)} {how}"


def second_driver(scene: Scene) -> str | None:
    """Another `run` on the same folder; the campaign looks at what it answers."""
    if scene.state().get("state") != "training" or scene.driver() is None:
        return None
    if any(process.poll() is None for process in scene.others):
        return None
    process = scene.begin(f"second-{scene.calls:02d}-{len(scene.others)}")
    scene.others.append(process)
    return f"process {process.pid}"


def _to_driver(scene: Scene, number: signal.Signals) -> str | None:
    """Signal the driver, once it says itself what a signal does: Python's start is not ours."""
    driver = scene.driver()
    if driver is None or not catches(driver, signal.SIGTERM):
        return None
    return _signal(driver, number)


def _signal(pid: int, number: signal.Signals) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return f"to {pid}"


def _start(scene: Scene) -> None:
    if scene.server.process is None:
        scene.server.start()


def _send(scene: Scene, number: signal.Signals) -> None:
    if scene.server.process is not None:
        scene.server.send(number)


def _lift(pid: int, before: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_AS, before)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how it is done, how often in a round of all, and what it needs.

    Those that `idle` may come between two calls, too.
    """

    do: Callable[[Scene], str | None]
    cards: int = 1
    idle: bool = False
    needs: str | None = None  # of a scene: confined | small


KINDS = {
    "kill -9 of a worker": Kind(kill_worker, cards=3),
    "pause of a worker": Kind(pause_worker),
    "kill -9 of the raylet": Kind(kill_raylet),
    "kill -9 of the gcs_server": Kind(kill_gcs_server),
    "kill -9 of one of Ray's agents": Kind(kill_agent),
    "kill -9 of the Ray process": Kind(kill_ray_process),
    "kill -9 of the MLflow process": Kind(kill_tracking_process),
    "kill -9 of the driver": Kind(kill_driver),
    "SIGINT": Kind(interrupt),
    "SIGTERM": Kind(terminate),
    "two SIGINTs": Kind(interrupt_twice),
    "ray stop --force": Kind(ray_stop, needs="confined"),
    "MLflow killed and restarted": Kind(kill_server, cards=2, idle=True),
    "MLflow stopped and continued": Kind(pause_server, cards=2, idle=True),
    "MLflow's store emptied": Kind(empty_server, idle=True),
    "MLflow's store locked": Kind(lock_server, idle=True),
    "memory limit on a worker": Kind(limit_memory, cards=2),
    "Ray's memory monitor": Kind(watch_memory, idle=True),
    "full tmpfs": Kind(fill_disk, cards=2, needs="small"),
    "corrupt part": Kind(spoil, cards=3, idle=True),
    "second driver": Kind(second_driver),
}
BY_SPEC = "NaN in a member, by its spec"
WITHOUT_ROOT = tuple(name for name, kind in KINDS.items() if kind.needs)
SKIPPED = () if ROOT else WITHOUT_ROOT
