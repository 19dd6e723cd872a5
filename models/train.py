"""The trainer: a specification, seeds and images in, trained members out. There is no other.

It can be stopped after any step and goes on, in whatever pack, to the same bits. No globals, no
files, no logging; it is never given labels.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.course import Course
from models.diagnostics.collapse import collapse
from models.evaluation import Evaluation, evaluate
from models.members import Pack
from models.saved import Keeper, Saved, curve_steps
from models.spec import Spec

TRAINER_VERSION = 2  # raised whenever the golden results of the tests change; part of every run_id
CHECKED = 4096  # rows that are looked at together

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Trained:
    """One seed's result, a function of (specification, seed, images) alone; but for `resumed`.

    `history` has one row per point of the learning curve: step, loss, reconstruction, divergence
    (unweighted; NaN without a prior). `code` is (N, C + T), None where the member diverged.
    `resumed` are the steps from which it was picked up again, ascending. `learned_prior` is JSON.
    """

    seed: int
    status: str  # ok | collapsed | diverged
    reason: str | None
    tensors: dict[str, NDArray[np.float32]]
    history: NDArray[np.float64]
    code: NDArray[np.float32] | None
    reconstruction: float | None
    divergence_value: float | None
    resumed: tuple[int, ...] = ()
    learned_prior: str | None = None


def train(
    spec: Spec,
    seeds: Sequence[int],
    images: NDArray[np.float32],
    *,
    rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
    resume: Mapping[int, Saved] | None = None,
    keeper: Keeper | None = None,
    progress: Progress | None = None,
) -> list[Trained]:
    """Train every seed, together, on images (N, C, H, W); results are in the order of `seeds`.

    `images` may be a memory map, of which only the rows of a batch are read at a time. `rows` (R,)
    are the images to train on; codes are of all, `reconstruction` and `divergence_value` of the
    others. A seed goes on from what `resume` has under it, else from its start. `keeper` is asked
    after every step whether to save. `progress` is called with the sum of the members' steps, all
    of its steps where one diverged, at each point of the learning curve and after saving. Raises
    ValueError on images that are not finite or not (N, C, H, W) or (N, pixels), on rows that leave
    no image to either part, on a seed that is given twice, and on a saved state that is not this
    seed's and specification's.
    """
    _check(seeds, images, rows)
    with quiet_machine():
        data = _as_tensor(images).to(device)
        chosen = None if rows is None else torch.from_numpy(np.array(rows, dtype=np.int64))
        course = Course(spec, seeds, data, chosen, resume or {})
        steps, points = spec.training.steps, set(curve_steps(spec.training.steps))
        while (pack := course.gathered()) is not None and pack.step < steps:
            loss = pack.advance()
            news = pack.step in points
            if news:
                course.note(pack, loss)
            if keeper is not None and keeper.due():
                keeper.keep(course.saved())
                news = True
            if news and progress is not None:
                progress(course.done())
        return _results(course, pack, seeds)


@contextlib.contextmanager
def quiet_machine() -> Iterator[None]:
    """Run with one thread and subnormal numbers as zero, as every pack must; then restore.

    Two threads change the bits; subnormals, left behind by dead units in Adam's moments, cost a
    hundred cycles each and make the fused step ten times slower.
    """
    threads, flushed = torch.get_num_threads(), float(torch.tensor(1e-30) * 1e-10) == 0
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)


def _check(
    seeds: Sequence[int], images: NDArray[np.float32], rows: NDArray[np.int64] | None
) -> None:
    if images.ndim not in (2, 4) or not len(images):
        msg = f"images must be (N, C, H, W) or (N, pixels), not {images.shape}"
        raise ValueError(msg)
    if not all(np.isfinite(images[i : i + CHECKED]).all() for i in range(0, len(images), CHECKED)):
        msg = "images hold NaN or Inf"
        raise ValueError(msg)
    if len(set(seeds)) != len(seeds) or not seeds:
        msg = f"seeds must be distinct and at least one: {list(seeds)}"
        raise ValueError(msg)
    if rows is not None and not 0 < len(np.unique(rows)) < len(images):
        msg = f"rows must be some of the {len(images)} images, and leave some"
        raise ValueError(msg)


def _as_tensor(images: NDArray[np.float32]) -> Tensor:
    """Return images as a tensor, without a copy where they are float32; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _results(course: Course, pack: Pack | None, seeds: Sequence[int]) -> list[Trained]:
    """Evaluate the pack, whose members have all steps; the other seeds have diverged."""
    found: dict[int, Trained] = {}
    if pack is not None:
        for place, (seed, one) in enumerate(zip(pack.seeds, evaluate(pack), strict=True)):
            if one is not None:
                found[seed] = _trained(course, seed, one, pack.tensors(place))
            else:
                found[seed] = _diverged(course, seed, "the code is not finite")
    for seed in seeds:
        if seed not in found:
            step = int(course.curve(seed)[-1, 0])
            found[seed] = _diverged(course, seed, f"the loss was not finite at step {step}")
    return [found[seed] for seed in seeds]


def _trained(
    course: Course, seed: int, one: Evaluation, tensors: dict[str, NDArray[np.float32]]
) -> Trained:
    spec = course.spec
    learned = spec.learned_prior(tensors)
    reason = collapse(one.code[:, : spec.code.class_units], spec.prior_of(learned))
    return Trained(
        seed=seed,
        status="collapsed" if reason else "ok",
        reason=reason,
        tensors=tensors,
        history=course.curve(seed),
        code=one.code,
        reconstruction=one.reconstruction,
        divergence_value=one.divergence_value,
        resumed=course.resumed(seed),
        learned_prior=learned,
    )


def _diverged(course: Course, seed: int, reason: str) -> Trained:
    curve, resumed = course.curve(seed), course.resumed(seed)
    return Trained(seed, "diverged", reason, {}, curve, None, None, None, resumed)
