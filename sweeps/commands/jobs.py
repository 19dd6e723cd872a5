"""The commands on a cluster's jobs: submit, jobs, logs, stop."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import importlib
import json
import os
import secrets
import shlex
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from sweeps import __version__
from sweeps.commands import INTERRUPTED, OK
from sweeps.look import Look, many, write
from sweeps.mistakes import Refused
from sweeps.remote import address
from sweeps.remote.answer import answer_of, exit_code_of

if TYPE_CHECKING:
    from sweeps.remote.client import Cluster, Job

GRACE = 150.0  # seconds: the job has 120 of them to end
LOOK_EVERY = 1.0
NOISE = "Running entrypoint for job "  # Ray's own first line


def submit(options: argparse.Namespace) -> int:
    """Send a study to a cluster; with --wait, stay until it has ended."""
    if options.pack_width is not None and options.pack_width < 1:
        raise Refused([f"--pack-width: expected at least 1, got {options.pack_width}"])
    place = address.find(options.address, os.environ)
    cluster = _cluster(place)  # first: a token that is not taken is said within seconds
    from sweeps.remote import travel  # noqa: PLC0415 - torch
    from sweeps.study import find_study  # noqa: PLC0415 - torch

    travel.check_out(options.out)
    variables = travel.variables(os.environ)
    with tempfile.TemporaryDirectory(prefix="seedsweep-") as folder:
        luggage = travel.pack(find_study(options.study), options.seeds, place.host, Path(folder))
        words = ["sweeps", "run", luggage.file, "--launcher", "auto", "--out", options.out]
        words += ["--json", "--received", luggage.digest]
        words += ["--seeds", str(options.seeds)] if options.seeds is not None else []
        words += ["--pack-width", str(options.pack_width)] if options.pack_width else []
        others = sum(not one.over for one in cluster.jobs())
        if others and not luggage.has_share:
            fix = "with resources.max_concurrent in its file it leaves them their share"
            there = many(others, "other job")
            print(f"beside {there}: this study takes all it gets; {fix}", file=sys.stderr)
        name = f"{luggage.study}-{secrets.token_hex(4)}"
        about = {"seedsweep": __version__, "study": luggage.study, "owner": _owner()}
        about["out"] = options.out
        cluster.submit(name, shlex.join(words), luggage.package, about, variables)
    if options.wait:
        return _wait(cluster, name, luggage.study, as_json=options.json)
    if options.json:
        content = {"job": name, "study": luggage.study, "address": place.url, "out": options.out}
        print(json.dumps(content))
    else:
        print(name)
        print(f"follow it with: sweeps logs {name} --follow", file=sys.stderr)
    return OK


def jobs(options: argparse.Namespace) -> int:
    """Show the jobs that are studies of ours."""
    found = _opened(options).jobs()
    if options.json:
        print(json.dumps({"jobs": [asdict(one) for one in found]}))
    elif not found:
        print("no jobs of seedsweep's there")
    else:
        _print(found, Console())
    return OK


def logs(options: argparse.Namespace) -> int:
    """Print what a job has said; with --follow, until it ends."""
    cluster = _opened(options)
    from sweeps.remote import follow  # noqa: PLC0415 - Ray

    job = cluster.job(options.job)
    if options.follow:
        lines = follow.lines(cluster, job.id)
    else:
        lines = map(follow.harmless, cluster.logs(job.id).splitlines())
    for line in lines:
        print(line, flush=True)
    return OK


def stop(options: argparse.Namespace) -> int:
    """End a job gently, wait for its end, and say what there is."""
    cluster = _opened(options)
    job = cluster.job(options.job)
    if job.over:
        print(f"{job.id}: has ended already: {job.status.lower()}")
        return OK
    cluster.stop(job.id)
    print(f"{job.id}: stopping; what is trained now is saved first", file=sys.stderr)
    deadline = time.monotonic() + GRACE
    while not (job := cluster.job(job.id)).over:
        if time.monotonic() > deadline:
            raise Refused(
                [f"{job.id}: has not ended within {GRACE:g} s; ask again: sweeps stop {job.id}"]
            )
        time.sleep(LOOK_EVERY)
    said = [answer_of(line, job.study) for line in cluster.logs(job.id).splitlines()]
    answer = next((one for one in reversed(said) if one), None)
    done = (
        f"{_scored(answer)}, kept in {job.out}"
        if answer
        else f"what was finished is kept in {job.out}"
    )
    print(f"{job.id}: {job.status.lower()}; {done}; submit it again to go on")
    return OK


def _opened(options: argparse.Namespace) -> Cluster:
    return _cluster(address.find(options.address, os.environ))


def _cluster(place: address.Address) -> Cluster:
    """Connect; Refused where Ray's client of jobs is not installed."""
    try:
        for name in ("aiohttp", "requests"):  # Ray's client does without, until it is used
            importlib.import_module(name)
    except ImportError:
        fix = f"pip install 'ray[default]=={metadata.version('ray')}'"
        raise Refused([f"jobs need Ray's client of them, which is not installed: {fix}"]) from None
    from sweeps.remote.client import Cluster  # noqa: PLC0415 - Ray

    found = Cluster(place)
    warning = address.warning(place)
    if warning:
        print(warning, file=sys.stderr)
    return found


def _wait(cluster: Cluster, name: str, study: str, *, as_json: bool) -> int:
    """Show a job's progress until it ends; print its answer, return its exit code."""
    from sweeps.remote import follow  # noqa: PLC0415 - Ray

    answer: dict[str, Any] | None = None
    try:
        for line in follow.lines(cluster, name):
            found = answer_of(line, study)
            answer = found or answer
            if not found and not line.startswith(NOISE):
                print(line, file=sys.stderr, flush=True)
        code = exit_code_of(cluster.job(name), answered=answer is not None)
    except KeyboardInterrupt:
        more = f"follow it with: sweeps logs {name} --follow; end it with: sweeps stop {name}"
        print(f"\n{name} goes on without us; {more}", file=sys.stderr)
        return INTERRUPTED
    if answer and as_json:
        print(json.dumps(answer))
    elif answer:
        print(f"{study}: {_scored(answer)}; report: {answer['out']}/report.html")
    return code


def _scored(answer: dict[str, Any]) -> str:
    return f"{answer['ok'] + answer['collapsed']} of {many(answer['planned'], 'run')} have a score"


def _owner() -> str:
    with contextlib.suppress(Exception):  # no such user: a container's number
        return getpass.getuser()
    return "unknown"


def _print(found: list[Job], console: Console) -> None:
    look = Look.of(console)
    table = Table.grid(*(Column(overflow="fold") for _ in range(5)), padding=(0, 2, 0, 0))
    table.add_row(
        *(look.text(head, "dim") for head in ("job", "study", "status", "started", "owner"))
    )
    for one in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.started)) if one.started else "-"
        cells = (one.id, one.study, one.status.lower(), began, one.owner)
        table.add_row(*(look.text(cell) for cell in cells))
    write(console, look, table)
