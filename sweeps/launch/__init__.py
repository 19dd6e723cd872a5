"""Step 3: where packs execute: this process, Ray on this machine, or a running Ray cluster.

A launcher has `slots` (how many packs it runs at a time) and `execute`, which returns when every
pack has ended; what a pack achieved stands in its part files, never in what Ray says of it. To add
one: a class with these two, and its row in `open_launcher`.
"""

from __future__ import annotations

import contextlib
import functools
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.mistakes import Refused, did_you_mean
from sweeps.study import Resources
from sweeps.trial import Data, Job, here, run_pack

LAUNCHERS = ("local", "inline")
ADDRESS = re.compile(r"auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class Watch(Protocol):
    """What hears of progress while packs execute."""

    def steps(self, pack_id: str, done: int, where: Mapping[str, Any]) -> None:
        """Hear how many optimiser steps a running pack's members have, all together, and where."""

    def finished(self, pack_id: str) -> None:
        """Hear that a pack's worker came to its end."""

    def lost(self, pack_id: str) -> None:
        """Hear that a pack's worker did not."""

    def note(self, text: str) -> None:
        """Hear what a person should know, such as a node that is left out."""


class Launcher(Protocol):
    """Where packs execute."""

    slots: int

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack to its end; return why a pack ended without records, by pack id.

        Raises Refused where no pack can be run any more.
        """


@contextlib.contextmanager
def open_launcher(name: str, resources: Resources, folder: Path) -> Iterator[Launcher]:
    """Open `inline` (this process, no Ray), `local` (Ray on this machine) or a cluster's address.

    Closes it after. Raises Refused on an unknown name, on a cluster that cannot be reached or does
    not see the study folder, and on resources that the launcher cannot give.
    """
    check_launcher(name)
    if name == "inline":
        yield Inline()
    else:
        from sweeps.launch.process import RayProcess  # noqa: PLC0415 - not needed inline

        with contextlib.closing(RayProcess(name, resources, folder)) as launcher:
            launcher.start()
            yield launcher


def check_launcher(name: str) -> None:
    """Raise Refused where there is no launcher of that name."""
    if name.startswith("ray://"):
        fix = "run this on the cluster, with --launcher auto, or name its HOST:PORT"
        raise Refused([f"--launcher {name}: Ray Client is not supported; {fix}"])
    if name not in LAUNCHERS and not ADDRESS.fullmatch(name):
        hint = did_you_mean(name, LAUNCHERS)
        cluster = "or a running Ray cluster: auto, or its HOST:PORT"
        raise Refused([f"--launcher: unknown launcher '{name}'{hint}; {cluster}"])


class Inline:
    """Packs one after the other in this process."""

    slots = 1

    def execute(self, jobs: Sequence[Job], data: Data, watch: Watch) -> dict[str, str]:
        """Run every pack."""
        errors: dict[str, str] = {}
        for job in jobs:
            try:
                run_pack(job, data, functools.partial(_tell, watch, job))
                watch.finished(job.pack_id)
            except Exception as failure:  # noqa: BLE001 - as a worker of its own would have died
                errors[job.pack_id] = "".join(traceback.format_exception(failure))
                watch.lost(job.pack_id)
        return errors


def _tell(watch: Watch, job: Job, done: int) -> None:
    watch.steps(job.pack_id, done, here())
