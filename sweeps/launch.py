"""Step 3: where packs execute. Ray is imported here and nowhere else, and `inline` needs none.

A launcher has `slots` (how many packs it runs at a time) and `execute`, which returns when every
pack has ended; what a pack achieved stands in its part files, never in what Ray says of it. To add
one: a class with these two, and its row in `open_launcher`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import models
import sweeps
from sweeps.mistakes import Refused, did_you_mean
from sweeps.study import Resources
from sweeps.trial import Data, Job, run_pack

if TYPE_CHECKING:
    from ray import tune

LAUNCHERS = ("local", "inline")
REPORT_EVERY = 2.0  # seconds between two reports of a pack: each is a round trip to the driver


class Watch(Protocol):
    """What hears of progress while packs execute."""

    def steps(self, pack_id: str, done: int) -> None:
        """Hear how many optimiser steps the members of a running pack have done, in sum."""

    def finished(self, pack_id: str, runs: int, steps: int) -> None:
        """Hear that a pack of so many runs, of so many steps each, has ended somehow."""


class Launcher(Protocol):
    """Where packs execute."""

    slots: int

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack to its end; return why a pack ended without records, by pack id."""


@contextlib.contextmanager
def open_launcher(name: str, resources: Resources, folder: Path) -> Iterator[Launcher]:
    """Open `inline` (this process, no Ray) or `local` (Ray on this machine) and close it after.

    Raises Refused on an unknown name, and on resources that the launcher cannot give.
    """
    check_launcher(name)
    if name == "inline":
        yield Inline()
    else:
        with _local_ray(resources, folder) as launcher:
            yield launcher


def check_launcher(name: str) -> None:
    """Raise Refused where there is no launcher of that name."""
    if name not in LAUNCHERS:
        raise Refused([f"--launcher: unknown launcher '{name}'{did_you_mean(name, LAUNCHERS)}"])


class Inline:
    """Packs one after the other in this process."""

    slots = 1

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack."""
        for job in jobs:
            run_pack(job, data, functools.partial(_tell, watch, job))
            watch.finished(job.pack_id, len(job.seeds), job.spec.training.steps)
        return {}


def _tell(watch: Watch, job: Job, done: int) -> None:
    watch.steps(job.pack_id, done)


@contextlib.contextmanager
def _local_ray(resources: Resources, folder: Path) -> Iterator[RayTune]:
    _quieten()
    import ray  # noqa: PLC0415 - seconds, and not needed inline

    # What Tune and raylets say of a trial is no answer of ours: what became of it is in its record.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory(prefix="seedsweep-") as empty,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        # An explicit local address, so that RAY_ADDRESS does not decide. Workers start in an empty
        # folder: a user's own models/ or sweeps/ is never imported in place of ours.
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            runtime_env={"working_dir": empty},
        )
        try:
            have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            yield RayTune(resources, have, folder)
        finally:
            ray.shutdown()


def _quieten() -> None:
    """Set what Ray reads from the environment, unless the user has."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interrupt is the driver's to handle
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }.items():
        os.environ.setdefault(name, value)
    # Ray takes the machine's address, and its servers listen on all, whatever `_node_ip_address`
    # says; under this name it has a setting that keeps both to loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Said aloud, or Ray leaves a token in the user's home and a warning on the terminal.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


class RayTune:
    """One pack a Ray Tune trial; Tune is handed pack ids only, never a dict from YAML."""

    def __init__(self, resources: Resources, have: dict[str, float], folder: Path) -> None:
        """Refuse what the cluster cannot give; count how many packs fit."""
        wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
        short = [
            f"resources.{key.lower()}s: a pack asks for {amount:g}, Ray has {have.get(key, 0):g}"
            for key, amount in wanted.items()
            if amount > have.get(key, 0)
        ]
        if short:
            raise Refused(short)
        fits = [int(have[key] / amount) for key, amount in wanted.items() if amount]
        self.slots = min([*fits, *([resources.max_concurrent] if resources.max_concurrent else [])])
        self._resources, self._folder = resources, folder

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack as a trial, as many at a time as fit."""
        from ray import tune  # noqa: PLC0415

        device = "cuda" if self._resources.gpus else "cpu"
        table = {job.pack_id: replace(job, device=device) for job in jobs}
        trainable = tune.with_resources(
            tune.with_parameters(_trial, table=table, data=data, ours=_our_code()),
            {"cpu": self._resources.cpus, "gpu": self._resources.gpus},
        )
        errors: dict[str, str] = {}
        tuner = tune.Tuner(
            trainable,
            param_space={"pack": tune.grid_search(list(table))},
            tune_config=tune.TuneConfig(max_concurrent_trials=self.slots, reuse_actors=True),
            run_config=tune.RunConfig(
                name=f"round-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
                storage_path=str((self._folder / "tune").resolve()),
                callbacks=[_watcher(table, watch, errors)],
                verbose=0,
            ),
        )
        tuner.fit()
        return errors


def _our_code() -> tuple[str, str]:
    return str(models.__file__), str(sweeps.__file__)


def _trial(
    config: dict[str, Any], *, table: dict[str, Job], data: Data, ours: tuple[str, str]
) -> None:
    """Run one pack on a worker, telling the driver now and then how far it is."""
    from ray import tune  # noqa: PLC0415

    if _our_code() != ours:
        msg = f"the worker imports {_our_code()}, the driver {ours}: install one seedsweep on both"
        raise ImportError(msg)
    job = table[config["pack"]]
    last = time.monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            tune.report({"steps": done})

    run_pack(job, data, progress)
    tune.report({"steps": job.spec.training.steps * len(job.seeds)})


def _watcher(table: dict[str, Job], watch: Watch, errors: dict[str, str]) -> tune.Callback:
    from ray import tune  # noqa: PLC0415

    class Watcher(tune.Callback):
        """Pass on what Tune says, by pack id."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            del iteration, trials
            job = table[trial.config["pack"]]
            watch.steps(job.pack_id, int(result["steps"]))

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **_: Any
        ) -> None:
            del iteration, trials
            job = table[trial.config["pack"]]
            watch.finished(job.pack_id, len(job.seeds), job.spec.training.steps)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            del iteration, trials
            job = table[trial.config["pack"]]
            errors[job.pack_id] = str(trial.get_error() or "the worker died")
            watch.finished(job.pack_id, len(job.seeds), job.spec.training.steps)

        def __reduce__(self) -> Any:
            """Tune pickles its callbacks to resume from, which we never do: leave a blank one."""
            return tune.Callback, ()

    return Watcher()
