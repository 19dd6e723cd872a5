"""The contracts of packs on CUDA: for a machine that has it (`make test-gpu`).

Streams are drawn on the CPU, so a member sees the batches and the noise that it sees there; sums
are added in another order, so numbers are close and not equal.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from matrix import RUN_ALL, Case, all_cases, sample

from models.spec import Spec
from models.train import Trained, train

DEVICE = os.environ.get("SEEDSWEEP_TEST_DEVICE", "cuda")  # cpu: try these tests themselves
STEPS = 10  # few, since what rounds another way drifts apart from step to step
CLOSE = {"rtol": 1e-2, "atol": 1e-3}
CASES = all_cases() if RUN_ALL else sample()


@pytest.fixture(autouse=True, scope="session")
def _device() -> None:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.exit(f"no CUDA device that torch {torch.__version__} sees", returncode=2)


def short(case: Case) -> Spec:
    return case.spec(training={**case.settings["training"], "steps": STEPS})


def same(one: Trained, other: Trained) -> None:
    """Compare what two trainings of a member say of its images."""
    assert (one.seed, one.status) == (other.seed, other.status)
    assert one.code is not None
    assert other.code is not None
    assert np.allclose(one.code, other.code, **CLOSE)
    assert np.isclose(one.reconstruction, other.reconstruction, **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_member_is_close_to_what_it_is_on_the_cpu(case: Case) -> None:
    seeds = [3, 0, 7]
    there = train(short(case), seeds, case.images(), device=DEVICE)
    for one, other in zip(there, train(short(case), seeds, case.images()), strict=True):
        same(one, other)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_partners_do_not_matter(case: Case) -> None:
    (alone,) = train(short(case), [3], case.images(), device=DEVICE)
    for seeds in ([3, 5], [9, 1, 3, 4, 2], list(range(17))):
        same(train(short(case), seeds, case.images(), device=DEVICE)[seeds.index(3)], alone)


def test_memory_is_given_back() -> None:
    """Packs follow one another in a worker's process."""
    if DEVICE != "cuda":
        pytest.skip("of a GPU's memory")
    case = sample()[0]
    held = []
    for _ in range(3):
        train(short(case), [1, 2], case.images(), device=DEVICE)
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert held[0] == held[1] == held[2]
