"""Training that is stopped anywhere, and goes on in other packs, gives the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import RUN_ALL, STEPS, Case, one_shape_each, sample
from numpy.typing import NDArray

from models.datasets import Digits
from models.members import Member
from models.saved import Saved, curve_steps
from models.spec import Spec
from models.streams import PURPOSES
from models.train import Trained, train

PIXELS = Digits(classes=(1, 8)).load().pixels
ROWS = np.arange(0, len(PIXELS), 2)
Images = NDArray[np.float32]


def spec(steps: int, **changes: Any) -> Spec:
    training = {"steps": steps, "batch_size": 32, **changes.pop("training", {})}
    network = {"kind": "mlp", "hidden": [13], "batch_norm": True}
    return Spec.model_validate(
        {"objective": "vae", "network": network, **changes, "training": training}
    )


WILD = {
    "divergence": {"kind": "kl", "weight": 10.0},
    "network": {"kind": "mlp", "hidden": [16]},
    "training": {"learning_rate": 2.0},
}
SEEDS = range(7)  # some of which overflow their variance under it, some at once, some not


def digest(one: Trained) -> str:
    """Return the SHA-256 of all that is promised; which NaN a NaN is is not."""
    content = hashlib.sha256(repr((one.seed, one.status, one.reason)).encode())
    for name, tensor in sorted(one.tensors.items()):
        content.update(f"{name}{tensor.shape}".encode() + tensor.tobytes())
    content.update(np.where(np.isnan(one.history), np.nan, one.history).tobytes())
    content.update(b"" if one.code is None else one.code.tobytes())
    content.update(repr((one.history.shape, one.reconstruction, one.divergence_value)).encode())
    return content.hexdigest()


def digests(results: Iterable[Trained]) -> dict[int, str]:
    return {one.seed: digest(one) for one in results}


class StopError(Exception):
    """The end of a worker."""


class Recorder:
    """Keeps after certain steps of a call, and ends the call after one."""

    def __init__(self, at: Iterable[int] | None = None, end: int | None = None) -> None:
        self.at, self.end = None if at is None else set(at), end
        self.asked = 0
        self.kept: list[list[Saved]] = []

    def due(self) -> bool:
        if self.asked == self.end:
            raise StopError
        self.asked += 1
        return self.at is None or self.asked in self.at

    def keep(self, saved: Sequence[Saved]) -> None:
        self.kept.append(list(saved))


def stopped(
    one: Spec,
    seeds: Sequence[int],
    images: Images,
    after: int,
    resume: Mapping[int, Saved] | None = None,
    rows: NDArray[np.int64] | None = None,
) -> dict[int, Saved]:
    """Keep after some steps of the call, go on, and die two steps later unless that is the end."""
    keeper = Recorder([after], after + 2)
    with contextlib.suppress(StopError):
        train(one, seeds, images, rows=rows, resume=resume, keeper=keeper)
    (saved,) = keeper.kept
    assert [each.seed for each in saved] == list(seeds)
    return {each.seed: each for each in saved}


@pytest.mark.parametrize(
    "case", one_shape_each() if RUN_ALL else sample(), ids=lambda case: case.name
)
def test_stops_at_any_step_and_other_packs_give_the_same_bits(case: Case) -> None:
    """Two packs stop at different steps, their members mix, stop again and mix again."""
    chance, one, images = random.Random(case.name), case.spec(), case.images()  # noqa: S311 - no secret
    rows = None if chance.random() < 0.5 else np.arange(1, len(images))
    expected = digests(train(one, range(6), images, rows=rows))
    first, second, third = sorted(chance.sample(range(1, STEPS), 3))
    saved = stopped(one, [4, 1, 2], images, second, rows=rows)
    saved |= stopped(one, [0, 5], images, first, rows=rows)
    saved |= stopped(one, [5, 3, 1], images, third, saved, rows=rows)
    assert {seed: each.step for seed, each in saved.items()} == {
        0: first,
        2: second,
        4: second,
        **dict.fromkeys([3, 5], third),  # 3 began at 0, and 5 waited at `first`
        1: third,
    }
    order = chance.sample(range(6), 6)
    results = train(one, order, images, rows=rows, resume=saved)
    assert [each.seed for each in results] == order
    assert digests(results) == expected
    assert {each.seed: each.resumed for each in results} == {
        0: (first,),
        2: (second,),
        4: (second,),
        3: (third,),
        5: (first, third),
        1: (second, third),
    }


LONG = spec(137)  # 50 points: most steps lie between two of them
UNDISTURBED = digests(train(LONG, range(5), PIXELS, rows=ROWS))


@settings(max_examples=100 if RUN_ALL else 8)
@given(st.data())
def test_any_history_of_packs_and_stops_gives_the_same_bits(data: st.DataObject) -> None:
    """Each call has some seeds, in some order, saved by whom it may be, and stops somewhere."""
    saved: dict[int, Saved] = {}
    for _ in range(data.draw(st.integers(1, 4), label="calls")):
        seeds = data.draw(st.permutations(range(5)), label="order")
        seeds = seeds[: data.draw(st.integers(1, 5), label="width")]
        ahead = 137 - min(saved[seed].step if seed in saved else 0 for seed in seeds)
        if ahead:
            after = data.draw(st.integers(1, ahead), label="stop")
            saved |= stopped(LONG, seeds, PIXELS, after, saved, ROWS)
    results = train(LONG, range(5), PIXELS, rows=ROWS, resume=saved)
    assert digests(results) == UNDISTURBED
    for one in results:
        assert list(one.resumed) == sorted(set(one.resumed))
        assert (one.seed in saved) == bool(one.resumed)


def test_saving_after_every_step_changes_nothing_and_asking_neither() -> None:
    one = spec(60, objective="wae", prior="bimodal")
    seeds = [3, 0, 7]
    expected = digests(train(one, seeds, PIXELS))
    never, always = Recorder([]), Recorder()
    for keeper in (never, always):
        assert digests(train(one, seeds, PIXELS, keeper=keeper)) == expected
        assert keeper.asked == 60
    assert never.kept == []
    assert [[each.step for each in saved] for saved in always.kept] == [
        [step] * 3 for step in range(1, 61)
    ]
    for saved in (always.kept[0], always.kept[28], always.kept[-1]):
        resume = {each.seed: each for each in saved}
        assert digests(train(one, seeds, PIXELS, resume=resume)) == expected


def test_what_is_saved_has_the_points_so_far_and_shares_nothing_with_the_pack() -> None:
    keeper = Recorder([50, 51, 137])
    train(LONG, [2], PIXELS, keeper=keeper)
    for saved, step in zip(keeper.kept, (50, 51, 137), strict=True):
        (one,) = saved
        assert one.curve[:, 0].tolist() == [p for p in curve_steps(137) if p <= step]
        assert one.curve.dtype == np.float64
    before, after = (saved[0].member for saved in keeper.kept[:2])
    assert before is not None
    assert after is not None
    for part in ("values", "first_moment", "second_moment", "buffers", "pending"):
        ours, theirs = getattr(before, part), getattr(after, part)
        assert ours.data_ptr() != theirs.data_ptr(), part
        assert not torch.equal(ours, theirs), part


def test_a_member_saved_at_its_last_step_is_evaluated_at_once() -> None:
    one, seen = spec(20), list[int]()
    keeper = Recorder([20])
    expected = digests(train(one, [1, 2], PIXELS, keeper=keeper))
    resume = {each.seed: each for each in keeper.kept[0]}
    results = train(
        one, [2, 1], PIXELS, resume=resume, keeper=Recorder(end=0), progress=seen.append
    )
    assert digests(results) == expected
    assert [each.resumed for each in results] == [(20,), (20,)]
    assert seen == []


@pytest.fixture(scope="module")
def wild() -> tuple[Spec, dict[int, str], dict[int, int]]:
    """Return a specification, digests, and the steps at which some of the seeds diverge."""
    one = spec(120, **WILD)
    results = train(one, SEEDS, PIXELS)
    ends = {each.seed: int(each.history[-1, 0]) for each in results if each.code is None}
    assert 0 < len(ends) < len(SEEDS)
    assert len(set(ends.values())) > 1
    return one, digests(results), ends


@pytest.mark.parametrize("where", ["before", "at the first", "between", "at the last", "after"])
def test_a_partner_that_diverges_before_or_after_the_stop(
    wild: tuple[Spec, dict[int, str], dict[int, int]], where: str
) -> None:
    """Between two points of the curve a member may be saved that is lost already."""
    one, expected, ends = wild
    first, last = min(ends.values()), max(ends.values())
    steps = [first - 1, first, last - 1, last, last + 1]
    after = dict(
        zip(["before", "at the first", "between", "at the last", "after"], steps, strict=True)
    )[where]
    saved = stopped(one, SEEDS, PIXELS, after)
    assert {seed for seed, each in saved.items() if each.member is None} == {
        seed for seed, end in ends.items() if end <= after
    }
    assert all(each.step == min(after, ends.get(seed, after)) for seed, each in saved.items())
    late = stopped(one, [5, 4], PIXELS, 1)
    mixed = stopped(one, SEEDS, PIXELS, 1, {**saved, **late})
    for seed in set(SEEDS) - {5, 4}:  # they wait or have diverged, and stay as they were
        assert mixed[seed].member is saved[seed].member
        assert np.array_equal(mixed[seed].curve, saved[seed].curve, equal_nan=True)
    for resume in (saved, mixed):
        assert digests(train(one, SEEDS[::-1], PIXELS, resume=resume)) == expected


def test_members_that_diverged_are_settled_without_a_step(
    wild: tuple[Spec, dict[int, str], dict[int, int]],
) -> None:
    one, expected, ends = wild
    saved = stopped(one, SEEDS, PIXELS, 119)
    seeds, seen = sorted(ends, reverse=True), list[int]()
    results = train(one, seeds, PIXELS, resume=saved, keeper=Recorder(end=0), progress=seen.append)
    assert digests(results) == {seed: expected[seed] for seed in seeds}
    assert {each.resumed for each in results} == {()}
    assert seen == []


def test_progress_is_the_sum_over_members_waiting_ones_included() -> None:
    """Seed 1 waits at 7 for seed 0, both for seed 2 at 12; points are at every step."""
    one = spec(15)
    saved = stopped(one, [1], PIXELS, 7) | stopped(one, [2], PIXELS, 12)
    seen: list[int] = []
    train(one, [0, 1, 2], PIXELS, resume=saved, progress=seen.append)
    assert seen == [
        *(step + 7 + 12 for step in range(1, 8)),
        *(2 * step + 12 for step in range(8, 13)),
        *(3 * step for step in range(13, 16)),
    ]


def test_progress_is_told_after_saving_too_and_once_where_both_fall_together() -> None:
    seen: list[int] = []
    between = next(step for step in range(1, 137) if step not in curve_steps(137))
    train(LONG, [0, 1], PIXELS, keeper=Recorder([between, 137]), progress=seen.append)
    assert seen == [2 * step for step in sorted([*curve_steps(137), between])]


def test_progress_counts_all_steps_of_a_member_that_diverged(
    wild: tuple[Spec, dict[int, str], dict[int, int]],
) -> None:
    one, _, ends = wild
    seen: list[int] = []
    train(one, SEEDS, PIXELS, progress=seen.append)
    assert seen == [
        sum(120 if ends.get(seed, 121) <= step else step for seed in SEEDS)
        for step in curve_steps(120)
    ]


def as_arrays(saved: Saved) -> dict[str, NDArray[Any]]:
    """Lay a running member's state out as plain arrays."""
    member = saved.member
    assert member is not None
    parts = ("values", "first_moment", "second_moment", "buffers", "pending")
    return {
        "numbers": np.array([saved.seed, member.step, *saved.resumed]),
        "curve": saved.curve,
        **{part: getattr(member, part).numpy() for part in parts},
        **{f"streams.{purpose}": state.numpy() for purpose, state in member.streams.items()},
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Saved:
    seed, step, *resumed = arrays["numbers"].tolist()
    parts = ("values", "first_moment", "second_moment", "buffers", "pending")
    tensors = {part: torch.from_numpy(arrays[part]) for part in parts}
    streams = {purpose: torch.from_numpy(arrays[f"streams.{purpose}"]) for purpose in PURPOSES}
    member = Member(seed=seed, step=step, **tensors, streams=streams)
    return Saved(seed, member, arrays["curve"], tuple(resumed))


PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from matrix import sample
from test_resume import digests, from_arrays, train
found = {}
for place, case in enumerate(sample()[:3]):
    read = [np.load(file, allow_pickle=False) for file in sorted(Path().glob(f"{place}-*.npz"))]
    saved = {one.seed: one for one in map(from_arrays, read)}
    found[case.name] = digests(train(case.spec(), [2, 0, 1], case.images(), resume=saved))
print(json.dumps(found))
"""


def test_a_new_process_goes_on_from_bytes_to_the_same_bits(folder: Path) -> None:
    expected = {}
    for place, case in enumerate(sample()[:3]):
        one, images = case.spec(), case.images()
        expected[case.name] = {str(k): v for k, v in digests(train(one, [0, 1, 2], images)).items()}
        saved = stopped(one, [0, 1], images, 7) | stopped(one, [2, 3], images, 12)
        for seed in (0, 1, 2):
            np.savez(folder / f"{place}-{seed}.npz", **as_arrays(saved[seed]))
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent), *sys.path])
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == expected


def changed(saved: Saved, **parts: Any) -> Saved:
    assert saved.member is not None
    return replace(saved, member=replace(saved.member, **parts))


@pytest.mark.parametrize(
    "part", ["values", "first_moment", "second_moment", "buffers", "pending", "order", "noise"]
)
def test_each_part_of_a_member_counts(part: str) -> None:
    """Negative control: equal digests above are not the digest's blindness."""
    one, images = spec(30), PIXELS[:37]
    saved = stopped(one, [0], images, 11)[0]
    member = saved.member
    assert member is not None
    if part in PURPOSES:
        states = dict(member.streams)
        states[part] = member.streams["evaluation"]  # type: ignore[index]
        other = changed(saved, streams=states)
    else:
        other = changed(saved, **{part: getattr(member, part).flip(0)})
    results = [train(one, [0], images, resume={0: each}) for each in (saved, other)]
    assert len({digest(each) for (each,) in results}) == 2


SIZE = spec(30).assemble((64,)).parameters().size


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: replace(s, seed=3), "it is of seed 3"),
        (lambda s: changed(s, seed=2), "it is of seed 2"),
        (lambda s: replace(s, curve=s.curve[:-1]), "{points}"),
        (lambda s: replace(s, curve=s.curve[:, :3]), "{shape}"),
        (lambda s: replace(s, member=None), "{finite}"),
        (lambda s: changed(s, step=31), "it is at step 31, expected 0 ... 30"),
        (lambda s: changed(s, step=10), "{points10}"),
        (
            lambda s: changed(s, values=s.member.values[1:]),
            f"values: expected float32 of the shape ({SIZE},), got float32 of ({SIZE - 1},)",
        ),
        (
            lambda s: changed(s, second_moment=s.member.second_moment.double()),
            f"second_moment: expected float32 of the shape ({SIZE},), got float64 of ({SIZE},)",
        ),
        (
            lambda s: changed(s, buffers=s.member.buffers[None]),
            "buffers: expected float32 of the shape (64,), got float32 of (1, 64)",
        ),
        (
            lambda s: changed(s, pending=s.member.pending[:-1]),
            "pending: expected int64 of the shape (18,), got int64 of (17,)",
        ),
        (lambda s: changed(s, pending=s.member.pending + 19), "pending: expected places 0 ... 36"),
        (
            lambda s: changed(s, streams={"order": s.member.streams["order"]}),
            "expected the streams init, order, noise, prior, evaluation, got order",
        ),
        (
            lambda s: changed(s, streams={p: t[:9] for p, t in s.member.streams.items()}),
            "streams.init: expected uint8 of the shape (5056,), got uint8 of (9,)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    change: Callable[[Saved], Saved], sentence: str
) -> None:
    one, images = spec(30), PIXELS[:37]
    saved = stopped(one, [0], images, 11)[0]
    sentence = sentence.format(
        points="expected the points of 30 steps up to step 11 in its curve",
        points10="expected the points of 30 steps up to step 10 in its curve",
        shape="expected a curve of the shape (points, 4), got (11, 3)",
        finite="it has no member, and yet its curve does not end with a loss that is not finite",
    )
    whole = f"seed 0 cannot go on from what was saved of it: {sentence}"
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        train(one, [1, 0], images, resume={0: change(saved)})


def test_other_rows_or_fewer_steps_are_seen_and_other_seeds_are_not_looked_at() -> None:
    one, images = spec(30), PIXELS[:37]
    saved = stopped(one, [0], images, 11)
    with pytest.raises(ValueError, match=r"pending: expected int64 of the shape \(3,\), got"):
        train(one, [0], images, rows=np.arange(5), resume=saved)
    with pytest.raises(ValueError, match=r"it is at step 11, expected 0 \.\.\. 10$"):
        train(spec(10), [0], images, resume=saved)
    (alone,) = train(one, [1], images)
    (beside,) = train(one, [1], images, resume={0: replace(saved[0], seed=9)})
    assert digest(alone) == digest(beside)
    assert beside.resumed == ()
