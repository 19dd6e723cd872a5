"""What a cluster's nodes can do: how many packs they hold, whether they see the study folder."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.folder.places import place
from sweeps.freshness import source_digest
from sweeps.launch.environment import TOKEN
from sweeps.launch.versions import differences, versions
from sweeps.mistakes import Refused
from sweeps.study import Resources

PATIENCE = 120.0  # seconds for a node to start a worker and answer
OTHER = "has another version of seedsweep; install the driver's there"


def slots_of(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """Return how many packs nodes with such resources run at a time; Refused where none.

    A pack lies on one node.
    """
    slots = sum(_fits(node, resources) for node in nodes)
    if slots:
        return min(slots, resources.max_concurrent or slots)
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    most = {key: max((node.get(key, 0) for node in nodes), default=0) for key in wanted}
    short = [
        f"resources.{key.lower()}s: a pack asks for {amount:g}, no node of Ray's has more than "
        f"{most[key]:g}"
        for key, amount in wanted.items()
        if amount > most[key]
    ]
    raise Refused(short or ["resources: no node of Ray's has all that a pack asks for"])


def check_nodes(resources: Resources, folder: Path, token: str, source: str) -> None:
    """Refuse a cluster where a node that could train does not see the folder, or differs."""
    unfit = unfit_nodes(resources, folder, token, source)
    if unfit:
        raise Refused(unfit.values())


def unfit_nodes(resources: Resources, folder: Path, token: str, source: str) -> dict[str, str]:
    """Return by id the nodes that have room for a pack and could not train one, and why.

    Each is asked to read the token, and to write a file and remove it.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked, ours = [], versions()
    for node in _alive():
        if _fits(node["Resources"], resources):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asks = look.options(scheduling_strategy=there)
            task = asks.remote(str(folder), token, source, ours, resources.gpus)
            asked.append((node, task))
    answers = [(node, _answer(task)) for node, task in asked]
    return {node["NodeID"]: f"node {_name(node)}: {said}" for node, said in answers if said}


def roomy_nodes(resources: Resources) -> set[str]:
    """Return the ids of the nodes that live and have room for a pack."""
    return {node["NodeID"] for node in _alive() if _fits(node["Resources"], resources)}


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def sees_token(folder: Path, token: str) -> bool:
    """Tell whether this machine sees the file that the driver left in the study folder."""
    try:
        return (folder / TOKEN).read_text(encoding="ascii") == token
    except (OSError, ValueError):
        return False


def alive() -> list[dict[str, float]]:
    """Return the resources of the nodes that live."""
    return [node["Resources"] for node in _alive()]


def _alive() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _fits(node: Mapping[str, float], resources: Resources) -> int:
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    return min(int(node.get(key, 0) / amount) for key, amount in wanted.items() if amount)


def _answer(task: Any) -> str | None:
    try:
        said: str | None = ray.get(task, timeout=PATIENCE)
    except ray.exceptions.GetTimeoutError:
        return f"did not answer within {PATIENCE:g} s; look at its Ray logs"
    except ray.exceptions.RayError as failure:
        if "No module named 'sweeps'" in str(failure):
            return "has no seedsweep; install it there, in the environment that Ray runs in"
        if "_look() " in str(failure):  # it has one that is asked otherwise
            return OTHER
        lines = str(failure).strip().splitlines()
        return f"cannot run a task: {lines[-1] if lines else type(failure).__name__}"
    return said


def _look(
    folder: str, token: str, source: str, drivers: Mapping[str, str], gpus: float
) -> str | None:
    """Say what is wrong on this node, if anything."""
    other = differences(drivers)
    if other:
        return other
    if source_digest() != source:
        return OTHER
    if gpus:  # torch takes seconds to import
        from sweeps.launch.devices import missing  # noqa: PLC0415

        wrong = missing(gpus)
        if wrong:
            return wrong
    there = place(folder)
    shared = "put it on storage that all nodes share, with --out"
    if not sees_token(there, token):
        return f"does not see the study folder {folder}; {shared}"
    trial = there / f"{TOKEN}-{socket.gethostname()}-{secrets.token_hex(4)}"
    try:
        trial.write_bytes(b"")
    except OSError as failure:
        return f"cannot write the study folder {folder}: {failure.strerror}; {shared}"
    with contextlib.suppress(OSError):
        trial.unlink()
    return None
