"""The trainer: a specification, seeds and images in, trained members out. There is no other.

No globals, no files, no logging; it is never given labels.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.diagnostics import collapse
from models.members import Member, Pack
from models.networks import Code
from models.objectives import divergence_of, draw, sample_code
from models.spec import Spec
from models.streams import stream

TRAINER_VERSION = 2  # raised whenever the golden results of the tests change; part of every run_id
CURVE_POINTS = 50
CHUNK = 256  # rows per evaluation batch, constant: its shape is part of the numbers
CHECKED = 4096  # rows that are looked at together

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Trained:
    """One seed's result. Everything here is a function of (specification, seed, images) alone.

    `history` has one row per point of the learning curve: step, loss, reconstruction, divergence
    (unweighted; NaN without a prior). `code` is (N, C + T), None where the member diverged.
    """

    seed: int
    status: str  # ok | collapsed | diverged
    reason: str | None
    tensors: dict[str, NDArray[np.float32]]
    history: NDArray[np.float64]
    code: NDArray[np.float32] | None
    reconstruction: float | None
    divergence_value: float | None


def curve_steps(steps: int) -> list[int]:
    """Return the steps (counted from 1) after which the learning curve has a point."""
    return sorted({round(point) for point in np.linspace(1, steps, min(steps, CURVE_POINTS))})


def train(
    spec: Spec,
    seeds: Sequence[int],
    images: NDArray[np.float32],
    *,
    rows: NDArray[np.int64] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Trained]:
    """Train every seed, together, on images (N, pixels); results are in the order of `seeds`.

    `images` may be a memory map, of which only the rows of a batch are read at a time. `rows` (R,)
    are the images to train on; codes are of all, `reconstruction` and `divergence_value` of the
    others. `progress` is called with the number of steps done. Raises ValueError on images that
    are not finite or not (N, pixels), on rows that leave no image to either part, and on a seed
    that is given twice.
    """
    _check(seeds, images)
    if rows is not None and not 0 < len(np.unique(rows)) < len(images):
        msg = f"rows must be some of the {len(images)} images, and leave some"
        raise ValueError(msg)
    with quiet_machine():
        data = _as_tensor(images).to(device)
        starts = [Member.start(spec, seed, data.shape[1]) for seed in seeds]
        chosen = None if rows is None else torch.from_numpy(np.array(rows, dtype=np.int64))
        pack: Pack | None = Pack(spec, starts, data, chosen)
        curves: dict[int, list[tuple[float, ...]]] = {seed: [] for seed in seeds}
        results: dict[int, Trained] = {}
        for point in curve_steps(spec.training.steps):
            if pack is None:
                break
            values = _advance_to(pack, point)
            for seed, value in zip(pack.seeds, values, strict=True):
                curves[seed].append((float(point), *value))
            pack = _part_from_diverged(pack, values, curves, results)
            if progress is not None:
                progress(point)
        if pack is not None:
            results.update(_evaluate(pack, curves))
    return [results[seed] for seed in seeds]


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


def _check(seeds: Sequence[int], images: NDArray[np.float32]) -> None:
    if images.ndim != 2 or not len(images):  # noqa: PLR2004
        msg = f"images must be (N, pixels), not {images.shape}"
        raise ValueError(msg)
    if not all(np.isfinite(images[i : i + CHECKED]).all() for i in range(0, len(images), CHECKED)):
        msg = "images hold NaN or Inf"
        raise ValueError(msg)
    if len(set(seeds)) != len(seeds) or not seeds:
        msg = f"seeds must be distinct and at least one: {list(seeds)}"
        raise ValueError(msg)


def _as_tensor(images: NDArray[np.float32]) -> Tensor:
    """Return images as a tensor, without a copy where they are float32; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _advance_to(pack: Pack, point: int) -> list[tuple[float, ...]]:
    """Step to the point; return (loss, reconstruction, divergence) of the last step, a member."""
    while pack.step < point:
        loss = pack.advance()
    distance = (
        torch.full_like(loss.total, torch.nan) if loss.divergence is None else loss.divergence
    )
    parts = torch.stack([loss.total.detach(), loss.reconstruction.detach(), distance.detach()], 1)
    return [tuple(row) for row in parts.double().tolist()]


def _part_from_diverged(
    pack: Pack,
    values: list[tuple[float, ...]],
    curves: dict[int, list[tuple[float, ...]]],
    results: dict[int, Trained],
) -> Pack | None:
    """Settle the members whose loss is NaN or Inf; return a pack of the others."""
    finite = {seed: np.isfinite(row[0]) for seed, row in zip(pack.seeds, values, strict=True)}
    if all(finite.values()):
        return pack
    for seed, alive in finite.items():
        if not alive:
            reason = f"the loss was not finite at step {pack.step}"
            results[seed] = _diverged(seed, reason, curves[seed])
    rest = [member for member in pack.members() if finite[member.seed]]
    return Pack(pack.spec, rest, pack.images, pack.rows) if rest else None


def _diverged(seed: int, reason: str, curve: list[tuple[float, ...]]) -> Trained:
    return Trained(seed, "diverged", reason, {}, np.array(curve), None, None, None)


@torch.no_grad()
def _evaluate(pack: Pack, curves: dict[int, list[tuple[float, ...]]]) -> dict[int, Trained]:
    """Encode and decode all images in evaluation mode, in chunks of one constant shape."""
    spec, images = pack.spec, pack.images
    network = spec.assemble(images.shape[1])
    members, count = len(pack.seeds), len(images)
    means, variances, errors = [], [], []
    for start in range(0, count, CHUNK):
        where = torch.arange(start, start + CHUNK, device=images.device).clamp_(max=count - 1)
        chunk = images.index_select(0, where).expand(members, CHUNK, -1).contiguous()
        code = network.encode(pack.views, chunk)
        error = (network.decode(pack.views, code.mean) - chunk).square().sum(2) * 0.5
        kept = min(CHUNK, count - start)
        means.append(code.mean[:, :kept])
        errors.append(error[:, :kept])
        if code.log_variance is not None:
            variances.append(code.log_variance[:, :kept])
    code = Code(torch.cat(means, 1), torch.cat(variances, 1) if variances else None)
    judged = _judged(pack).to(images.device)
    error_means = torch.cat(errors, 1)[:, judged].double().mean(1).tolist()
    results = {}
    for place, seed in enumerate(pack.seeds):
        member_code = code.mean[place].cpu().numpy()
        if not np.isfinite(member_code).all() or not np.isfinite(error_means[place]):
            results[seed] = _diverged(seed, "the code is not finite", curves[seed])
            continue
        reason = collapse(member_code[:, : spec.code.class_units], spec.class_prior)
        own = code.mean[[place]][:, judged]
        spread = None if code.log_variance is None else code.log_variance[[place]][:, judged]
        results[seed] = Trained(
            seed=seed,
            status="collapsed" if reason else "ok",
            reason=reason,
            tensors=pack.tensors(place),
            history=np.array(curves[seed]),
            code=member_code,
            reconstruction=error_means[place],
            divergence_value=_distance(spec, seed, Code(own, spread)),
        )
    return results


def _judged(pack: Pack) -> Tensor:
    """Return the places of the images that losses are told of: not those it was trained on."""
    left = torch.ones(len(pack.images), dtype=torch.bool)
    if pack.rows is not None:
        left[pack.rows] = False
    return left.nonzero().squeeze(1)


def _distance(spec: Spec, seed: int, code: Code) -> float | None:
    """Return one member's unweighted divergence over all its images (1, N, C + T), in float64.

    What is random in it comes from a stream of its own, the same however long the training was.
    """
    divergence, targets = spec.divergence, spec.targets
    if divergence is None:
        return None
    generator = stream(seed, "evaluation")
    mean, spread = code.mean.double(), code.log_variance
    if spread is None:
        drawn = [
            None if part is None else part.unsqueeze(0).to(mean)
            for part in draw(divergence, targets, mean.shape[1], generator)
        ]
        return float(divergence_of(divergence, targets, Code(mean, None), mean, drawn))
    noise = torch.randn(spread.shape, generator=generator).to(mean)
    total = 0.0
    for start in range(0, mean.shape[1], CHECKED):
        rows = slice(start, start + CHECKED)
        part = Code(mean[:, rows], spread[:, rows].double())
        sample = sample_code(part, noise[:, rows])
        value = divergence_of(divergence, targets, part, sample, [None] * len(targets))
        total += float(value) * part.mean.shape[1]
    return total / mean.shape[1]
