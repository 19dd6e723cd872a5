"""What goes round again after a failure, how wide, and when a run is given up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest

from sweeps.plan import Pack, Run
from sweeps.retries import LOSSES, TRIES, Kind, Retries, kind_of


@cache
def pack(*seeds: int) -> Pack:
    return Pack(tuple(Run(None, "c", seed, f"r{seed}", "d") for seed in seeds))  # type: ignore[arg-type]


def seeds(packs: list[Pack]) -> list[list[int]]:
    return [[run.seed for run in one.runs] for one in packs]


def after(
    retries: Retries, one: Pack, kind: Kind, steps: Mapping[str, int] | None = None
) -> list[list[int]]:
    return seeds(retries.next_packs([(one, one.runs, kind)], steps or {}))


@pytest.mark.parametrize(
    ("reason", "recorded", "kind"),
    [
        ("MemoryError: Unable to allocate 3 GiB", True, "memory"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB", True, "memory"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", True, "memory"),
        (
            "OutOfMemoryError: Task was killed due to the node running low on memory",
            False,
            "memory",
        ),
        ("OSError: [Errno 12] Cannot allocate memory", True, "memory"),
        ("ValueError: images hold NaN", True, "raised"),
        ("ActorDiedError: The actor died unexpectedly", False, "lost"),
        ("", False, "lost"),
    ],
)
def test_why_a_pack_ended(reason: str, recorded: bool, kind: str) -> None:
    assert kind_of(reason, recorded=recorded) == kind


@pytest.mark.parametrize("kind", ["memory", "raised"])
def test_a_pack_without_memory_or_with_a_fault_goes_on_in_halves(kind: Kind) -> None:
    assert after(Retries(), pack(0, 1, 2, 3, 4), kind) == [[0, 1], [2, 3, 4]]


def test_only_what_is_left_goes_round_again() -> None:
    whole = pack(0, 1, 2)
    left = [whole.runs[1]]
    assert seeds(Retries().next_packs([(whole, left, "raised")], {})) == [[1]]


def test_a_lost_pack_comes_again_as_it_was_and_then_in_halves() -> None:
    retries, whole = Retries(), pack(0, 1, 2, 3)
    for _ in range(LOSSES - 1):
        assert after(retries, whole, "lost") == [[0, 1, 2, 3]]
    assert after(retries, whole, "lost") == [[0, 1], [2, 3]]


@pytest.mark.parametrize("kind", list(TRIES))
def test_a_run_alone_is_given_up_after_its_tries(kind: Kind) -> None:
    retries = Retries()
    for _ in range(TRIES[kind] - 1):
        assert after(retries, pack(7), kind) == [[7]]
    assert after(retries, pack(7), kind) == []


def test_a_run_that_gains_steps_is_never_given_up() -> None:
    """As on machines that are taken away every hour: each time it comes further."""
    retries = Retries()
    for step in range(100, 2000, 100):
        assert after(retries, pack(7), "lost", {"r7": step}) == [[7]]
    for _ in range(TRIES["lost"] - 1):
        assert after(retries, pack(7), "lost", {"r7": 1900}) == [[7]]
    assert after(retries, pack(7), "lost", {"r7": 1900}) == []


def test_a_wide_pack_that_gains_steps_stays_wide() -> None:
    retries, whole = Retries(), pack(0, 1)
    for step in range(100, 1000, 100):
        assert after(retries, whole, "lost", {"r0": step, "r1": step}) == [[0, 1]]


def test_every_way_of_failing_comes_to_an_end() -> None:
    """Whatever happens in whatever order, a finite number of rounds gives every run up."""
    for start in list(TRIES):
        retries, packs, rounds = Retries(), [pack(*range(16))], 0
        kinds = list(TRIES)
        while packs:
            rounds += 1
            kind = start if rounds < 6 else kinds[rounds % len(kinds)]
            packs = retries.next_packs([(one, one.runs, kind) for one in packs], {})
            assert rounds < 40
        assert rounds >= 5, "sixteen seeds are halved four times before one is alone"
