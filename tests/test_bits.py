"""A run's numbers are a function of (spec, seed) alone, to the last bit.

Whatever pack a seed is trained in, its parameters, running statistics and code have one digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matrix import RUN_ALL, SHAPES, STEPS, TIMES_COVERED, Case, all_cases, one_shape_each, sample

from models.evaluation import evaluate
from models.members import Member, Pack
from models.train import Trained, quiet_machine, train

WIDEST = 33
WIDTHS = (1, 2, 3, 5, 16)


def over(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Run over the cases where everything runs, else over the sample."""
    return pytest.mark.parametrize(
        "case", cases if RUN_ALL else sample(), ids=lambda case: case.name
    )


def digest(trained: Trained) -> str:
    """Return the SHA-256 of a result's names, shapes and bytes."""
    assert trained.code is not None, trained.reason
    content = hashlib.sha256()
    for name, tensor in sorted(trained.tensors.items()):
        content.update(f"{name}{tensor.shape}".encode() + tensor.tobytes())
    content.update(trained.code.tobytes())
    content.update(repr((trained.reconstruction, trained.divergence_value)).encode())
    return content.hexdigest()


def digests(case: Case, seeds: Sequence[int]) -> dict[int, str]:
    """Train the seeds in one pack, in this order."""
    return {one.seed: digest(one) for one in train(case.spec(), seeds, case.images())}


_references: dict[str, dict[int, str]] = {}


def reference(case: Case) -> dict[int, str]:
    """Return the digests of the first 33 seeds, trained in one pack, once a case."""
    if case.name not in _references:
        _references[case.name] = digests(case, range(WIDEST))
    return _references[case.name]


def start(case: Case, seeds: Sequence[int]) -> list[Member]:
    return [Member.start(case.spec(), seed, case.image) for seed in seeds]


def advanced(case: Case, members: Sequence[Member], steps: int) -> list[Member]:
    """Build a pack of the members, take some steps, and give the members back."""
    pack = Pack(case.spec(), members, torch.from_numpy(case.images()))
    with quiet_machine():
        for _ in range(steps):
            pack.advance()
    return pack.members()


def finished(case: Case, members: Sequence[Member]) -> dict[int, str]:
    """Build a pack of the members, take the steps that are left, and evaluate it."""
    members = advanced(case, members, STEPS - members[0].step)
    pack = Pack(case.spec(), members, torch.from_numpy(case.images()))
    with quiet_machine():
        evaluations = evaluate(pack)
    found = {}
    for place, (seed, one) in enumerate(zip(pack.seeds, evaluations, strict=True)):
        assert one is not None
        numbers = (one.code, one.reconstruction, one.divergence_value)
        trained = Trained(seed, "ok", None, pack.tensors(place), np.empty((0, 4)), *numbers)
        found[seed] = digest(trained)
    return found


@over(all_cases())
def test_any_width_any_partners_and_any_order_give_the_same_bits(case: Case) -> None:
    """Seeds wander through the slots: each width takes other seeds in another order."""
    expected = reference(case)
    assert len(set(expected.values())) == WIDEST
    for width in WIDTHS:
        seeds = [(7 * place + width) % WIDEST for place in range(width)]
        assert digests(case, seeds) == {seed: expected[seed] for seed in seeds}, f"width {width}"


@over(one_shape_each())
def test_partners_that_leave_or_join_midway_change_no_bit(case: Case) -> None:
    expected = reference(case)[4]
    left = advanced(case, start(case, [1, 4, 2, 3, 5]), 11)
    right = advanced(case, start(case, [9, 8]), 11)
    assert finished(case, [left[1]]) == {4: expected}, "all partners dropped"
    dropped = advanced(case, left[:3], 6)
    joined = [*advanced(case, [*right, *left[3:]], 6), dropped[2], dropped[1]]
    assert finished(case, joined)[4] == expected, "dropped to three, then regrouped to six"


@over(one_shape_each())
def test_a_partner_full_of_nan_changes_no_bit(case: Case) -> None:
    """The poison is in the values, hence in the losses, the gradients and Adam's moments."""
    expected = {seed: reference(case)[seed] for seed in (6, 7)}
    first, poisoned, last = start(case, [6, 0, 7])
    poisoned = replace(poisoned, values=torch.full_like(poisoned.values, torch.nan))
    after = advanced(case, [first, poisoned, last], STEPS)
    assert after[1].second_moment.isnan().any()
    assert finished(case, [after[0], after[2]]) == expected


PROGRAM = """
import json, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from matrix import sample
from test_bits import digests
print(json.dumps({case.name: digests(case, [3])[3] for case in sample()}))
"""


def test_another_process_that_starts_with_other_threads_gives_the_same_bits() -> None:
    """`train` sets one thread itself, whatever the process started with."""
    here = {case.name: reference(case)[3] for case in sample()}
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    command = [sys.executable, "-c", PROGRAM, "2"]
    environment = {**os.environ, "PYTHONPATH": paths}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == here


@pytest.mark.parametrize("case", sample()[:4], ids=lambda case: case.name)
def test_images_on_disk_and_rows_of_them_give_the_same_bits(case: Case, tmp_path: Path) -> None:
    """A memory map is read as the array is; with rows, the others are neither seen nor missed."""
    images = case.images()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = np.arange(0, len(images), 2)
    for chosen in (None, rows):
        here, there = (train(case.spec(), [3, 1], x, rows=chosen) for x in (images, mapped))
        assert [digest(one) for one in here] == [digest(one) for one in there]
    (alone,) = train(case.spec(), [3], images[rows])
    (part,) = train(case.spec(), [3], mapped, rows=rows)
    assert all(np.array_equal(alone.tensors[k], part.tensors[k]) for k in alone.tensors)
    assert alone.code is not None
    assert part.code is not None
    assert np.array_equal(part.code[rows], alone.code)


def test_the_digest_changes_with_seed_steps_and_a_single_pixel() -> None:
    """Negative control: equal digests above are not the digest's blindness."""
    case = sample()[0]
    images = case.images()
    touched = images.copy()
    touched.reshape(len(touched), -1)[11, 3] += np.float32(
        0.001
    )  # its last bit alone may be rounded away
    fewer = case.spec(training={**case.settings["training"], "steps": STEPS - 1})
    results = [
        train(case.spec(), [3], images),
        train(case.spec(), [2], images),
        train(fewer, [3], images),
        train(case.spec(), [3], touched),
    ]
    assert len({digest(one) for (one,) in results}) == len(results)


def test_a_second_thread_would_be_seen() -> None:
    """`train` leaves the caller's threads as they were, and used one meanwhile."""
    before, seen = torch.get_num_threads(), []
    case = sample()[0]
    torch.set_num_threads(2)
    try:
        train(
            case.spec(), [0], case.images(), progress=lambda _: seen.append(torch.get_num_threads())
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_the_sample_has_every_entry_of_every_table_and_every_shape() -> None:
    wanted = {entry for case in all_cases() for entry in case.entries} | set(SHAPES)
    seen = Counter(part for case in sample() for part in [*case.entries, case.shape])
    assert {part for part in wanted if seen[part] < TIMES_COVERED} == set()
