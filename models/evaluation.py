"""What a trained pack says of every image: codes, and how well it does without training on them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.members import Pack
from models.networks import Autoencoder, Code
from models.objectives import divergence_of, draw, sample_code
from models.packed import Views
from models.spec import Spec
from models.streams import stream

CHUNK = 256  # rows per evaluation batch, constant: its shape is part of the numbers
SUMMED = 4096  # rows whose divergence is taken together, constant for the same reason


@dataclass(frozen=True)
class Evaluation:
    """One member's codes of all images (N, C + T), and its losses over those not trained on.

    With no `rows` in the pack, the losses are over all images. `divergence_value` is None without
    a prior.
    """

    code: NDArray[np.float32]
    reconstruction: float
    divergence_value: float | None


@torch.no_grad()
def evaluate(pack: Pack) -> list[Evaluation | None]:
    """Encode and decode all images in evaluation mode, in chunks of one constant shape.

    Returns what each member gives, in the pack's order; None where a code or a loss is not finite.
    """
    spec, images = pack.spec, pack.images
    network = pack.network
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
    results: list[Evaluation | None] = []
    for place, seed in enumerate(pack.seeds):
        member_code = code.mean[place].cpu().numpy()
        if not np.isfinite(member_code).all() or not np.isfinite(error_means[place]):
            results.append(None)
            continue
        own = code.mean[[place]][:, judged]
        spread = None if code.log_variance is None else code.log_variance[[place]][:, judged]
        distance = _distance(spec, seed, Code(own, spread), network, _of_one(pack.views, place))
        results.append(Evaluation(member_code, error_means[place], distance))
    return results


def _judged(pack: Pack) -> Tensor:
    """Return the places of the images that losses are told of: not those it was trained on."""
    left = torch.ones(len(pack.images), dtype=torch.bool)
    if pack.rows is not None:
        left[pack.rows] = False
    return left.nonzero().squeeze(1)


def _of_one(views: Views, place: int) -> Views:
    """Return one member's critic and learned prior, in float64."""
    own = {
        name: view[[place]].double()
        for name, view in views.values.items()
        if name.startswith(("prior.", "critic."))
    }
    return Views(own, {}, {}, training=False)


def _distance(
    spec: Spec, seed: int, code: Code, network: Autoencoder, views: Views
) -> float | None:
    """Return one member's unweighted divergence over all its images (1, N, C + T), in float64.

    What is random in it comes from a stream of its own, the same however long the training was.
    """
    divergence, targets = spec.divergence, spec.targets
    if divergence is None:
        return None
    generator = stream(seed, "evaluation")
    mean, spread = code.mean.double(), code.log_variance
    whole = Code(mean, None if spread is None else spread.double())
    noise = None if spread is None else torch.randn(spread.shape, generator=generator).to(mean)
    of = functools.partial(divergence_of, network, views, divergence, targets)
    if divergence.compares != "density":
        drawn = [
            None if part is None else part.unsqueeze(0).to(mean)
            for part in draw(divergence, targets, mean.shape[1], generator)
        ]
        return float(of(whole, sample_code(whole, noise), drawn))
    assert spread is not None and noise is not None  # noqa: S101, PT018 - densities have both
    total = 0.0
    for start in range(0, mean.shape[1], SUMMED):
        rows = slice(start, start + SUMMED)
        part = Code(mean[:, rows], spread[:, rows].double())
        sample = sample_code(part, noise[:, rows])
        value = of(part, sample, [None] * len(targets))
        total += float(value) * part.mean.shape[1]
    return total / mean.shape[1]
