"""Ray's process: reads packs from its driver, runs them as Tune trials, says what becomes of them.

The only room with Ray. It reads pickles from the driver that started it, and nobody else; it writes
a JSON object a line. When its input ends, so does it, and Ray with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import queue
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import ray
from ray import tune

from sweeps.folder.objects import ObjectPath
from sweeps.folder.places import place
from sweeps.freshness import source_digest
from sweeps.launch.devices import device_of
from sweeps.launch.nodes import (
    alive,
    check_nodes,
    roomy_nodes,
    sees_token,
    slots_of,
    unfit_nodes,
)
from sweeps.launch.reach import check_reachable
from sweeps.launch.versions import differences, versions
from sweeps.mistakes import Refused
from sweeps.study import Resources
from sweeps.trial import Data, Job, here, run_pack

REPORT_EVERY = 2.0  # seconds between two reports of a pack: each is a round trip to this process
LAST_WORDS = 8.0  # seconds for Ray's own end
LOOK_EVERY = 0.5
HEADER = re.compile(r"^Failure # \d+ \(occurred at .*\)$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[\d*m")
VITAL = ("raylet", "gcs_server")


class Line:
    """The way back to the driver."""

    def __init__(self) -> None:
        """Keep stdout to ourselves: raylets and Tune print there."""
        self._out: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Send one message."""
        with self._lock, contextlib.suppress(BrokenPipeError):  # the driver died: our input ends
            self._out.write(json.dumps(message) + "\n")


def main() -> None:
    """Serve one driver."""
    line, inbox = Line(), _inbox()
    opening = inbox.get()
    try:
        with _ray(opening["address"]):
            slots = _slots(opening)
            line.say(slots=slots)
            data: Data | None = None
            without: dict[str, str] | None = None  # the first round's nodes are checked
            while (message := inbox.get()) is not None:
                if isinstance(message, Data):
                    data = message
                elif data is not None:
                    without = {} if without is None else _without(opening, without, line)
                    _execute(message, data, opening, slots, line, without)
    except Refused as refusal:
        line.say(refused=refusal.mistakes)
    except KeyboardInterrupt:
        pass


def _inbox() -> queue.Queue[Any]:
    """Return what the driver sends; at its end a trial in progress is interrupted."""
    found: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                found.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - our own driver's
        found.put(None)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(LAST_WORDS)
        os._exit(1)  # Ray's processes notice, and end

    threading.Thread(target=read, daemon=True).start()
    return found


@contextlib.contextmanager
def _ray(address: str) -> Iterator[None]:
    # What Tune says of a trial is no answer of ours: what became of it is in its record.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    found = check_reachable(address)
    with tempfile.TemporaryDirectory(prefix="seedsweep-") as empty:
        # An explicit address, so that RAY_ADDRESS does not decide. Workers start in an empty
        # folder: a user's own models/ or sweeps/ is never imported in place of ours.
        options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(
                address=found,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env={"working_dir": empty},
                **options,
            )
        except Exception as failure:  # noqa: BLE001 - Ray's own words are the best there are
            first = str(failure).strip().partition("\n")[0][:200]
            raise Refused([f"--launcher {address}: Ray cannot be used: {first}"]) from None
        if address == "local":
            threading.Thread(target=_watch_over_ray, daemon=True).start()
        try:
            yield
        finally:
            ray.shutdown()


def _watch_over_ray() -> None:
    """End this process when one of Ray's does that nothing works without."""
    node: Any = ray._private.worker._global_node  # noqa: SLF001 - there is no other way to ask
    while node is not None and ray.is_initialized():
        dead = {str(kind) for kind, _ in node.dead_processes()}
        if dead.intersection(VITAL):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            os._exit(3)
        time.sleep(LOOK_EVERY)


def _slots(opening: Mapping[str, Any]) -> int:
    """Return how many packs run at a time; Refused where none does, or no node sees the folder."""
    resources: Resources = opening["resources"]
    slots = slots_of(alive(), resources)
    if opening["address"] != "local":
        check_nodes(resources, place(opening["folder"]), opening["token"], opening["source"])
    return slots


def _without(opening: Mapping[str, Any], before: Mapping[str, str], line: Line) -> dict[str, str]:
    """Return by id the nodes that a further round leaves out: one may have joined meanwhile.

    Refused where no node is left.
    """
    if opening["address"] == "local":
        return {}
    resources, folder = opening["resources"], place(opening["folder"])
    unfit = unfit_nodes(resources, folder, opening["token"], opening["source"])
    if unfit and not roomy_nodes(resources) - unfit.keys():
        raise Refused(unfit.values())
    for said in unfit.keys() - before.keys():
        line.say(event="note", text=f"{unfit[said]}; it gets no packs")
    return unfit


def _execute(
    jobs: Sequence[Job],
    data: Data,
    opening: Mapping[str, Any],
    slots: int,
    line: Line,
    without: Iterable[str],
) -> None:
    resources: Resources = opening["resources"]
    table = {job.pack_id: job for job in jobs}
    token = opening["token"] if opening["address"] != "local" else None
    about = {"token": token, "source": opening["source"], "gpus": resources.gpus}
    about["versions"] = versions()
    trainable = tune.with_resources(
        tune.with_parameters(_trial, table=table, data=data, about=about),
        _request(resources, without),
    )
    tuner = tune.Tuner(
        trainable,
        # Tune is handed pack ids only, never a dict from YAML.
        param_space={"pack": tune.grid_search(list(table))},
        tune_config=tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"round-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            **_storage(place(opening["folder"]) / "tune"),
            callbacks=[Watcher(line)],
            verbose=0,
        ),
    )
    error = None
    try:
        tuner.fit()
    except Exception as failure:  # noqa: BLE001 - the packs that have no records go round again
        error = f"{type(failure).__name__}: {failure}"
    line.say(event="end", error=error, broken=error is not None)


def _storage(where: Path) -> dict[str, Any]:
    """Return where Tune keeps its own state, which we never resume from."""
    if isinstance(where, ObjectPath):
        return {"storage_path": where.key, "storage_filesystem": where.files}
    return {"storage_path": str(where)}


def _request(resources: Resources, without: Iterable[str]) -> tune.PlacementGroupFactory:
    """Return what a pack asks of Ray: cores, and a node that is not left out."""
    bundle = {"CPU": float(resources.cpus), "GPU": float(resources.gpus)}
    ids = ",".join(sorted(without))
    if not ids:
        return tune.PlacementGroupFactory([bundle])
    elsewhere = [{"ray.io/node-id": f"!in({ids})"}]
    return tune.PlacementGroupFactory([bundle], bundle_label_selector=elsewhere)


def _trial(
    config: dict[str, Any], *, table: dict[str, Job], data: Data, about: Mapping[str, Any]
) -> None:
    """Run one pack on a worker, telling now and then how far it is."""
    if source_digest() != about["source"]:
        msg = f"{socket.gethostname()} has another version of seedsweep than the driver"
        raise ImportError(msg)
    other = differences(about["versions"])
    if other:
        msg = f"{socket.gethostname()} {other}"
        raise ImportError(msg)
    job = replace(table[config["pack"]], gpus=tuple(_given()))
    job = replace(job, device=device_of(about["gpus"]))
    if about["token"] is not None and not sees_token(place(job.folder), about["token"]):
        msg = f"{socket.gethostname()} does not see {job.folder}: it is not shared storage"
        raise FileNotFoundError(msg)
    where = here()
    # A key named "done" would end the trial: Tune reads that one itself.
    tune.report({"steps": 0, **where})
    last = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            tune.report({"steps": done, **where})

    run_pack(job, data, progress)
    tune.report({"steps": job.spec.training.steps * len(job.seeds), **where})


def _given() -> list[str]:
    """Return the numbers of the GPUs on this machine that Ray has given to this worker."""
    context: Any = ray.get_runtime_context()
    return sorted(map(str, context.get_accelerator_ids().get("GPU", [])))


def _why(trial: Any) -> str:
    """Return why a trial failed; its last line says most.

    From the file that Tune has just written on this machine: `trial.get_error` looks for a copy in
    the study folder, which is made later.
    """
    try:
        content = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # none written: there is no path then
        return "the worker died"
    text = COLOUR.sub("", HEADER.split(content)[-1]).strip()
    # A traceback of a task ends with what matters; other accounts begin with it.
    first = text.partition("\n")[0]
    return text if first.startswith("ray::") else f"{text}\n{first}"


class Watcher(tune.Callback):
    """Pass on what Tune says, by pack id."""

    def __init__(self, line: Line | None = None) -> None:
        """Take the line to the driver."""
        self._line = line

    def _say(self, event: str, trial: Any, **more: Any) -> None:
        if self._line is not None:
            self._line.say(event=event, pack=trial.config["pack"], **more)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Pass on how far a pack is."""
        del iteration, trials
        where = {name: result.get(name) for name in ("host", "pid", "log")}
        self._say("steps", trial, done=int(result["steps"]), where=where)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Pass on that a pack's worker came to its end."""
        del iteration, trials
        self._say("finished", trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Pass on why a pack's worker did not."""
        del iteration, trials
        self._say("lost", trial, error=_why(trial))

    def __reduce__(self) -> Any:
        """Tune pickles its callbacks to resume from, which we never do: leave a blank one."""
        return Watcher, ()
