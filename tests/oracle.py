"""The same training written a second time: a plain nn.Module, torch's Adam, autograd, SciPy.

Nothing here calls the layers, losses, divergences or priors of `models`. Only a member's first
values, its batches and its noise are taken from there, since these are drawn, not computed.
Run as a program it prints the golden numbers of test_trainer.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, roots_hermite
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal, kl_divergence

from models.members import Member, Pack
from models.spec import Spec

DOUBLE = torch.float64
Distribution.set_default_validate_args(False)  # half of the time went there


class PlainAutoencoder(nn.Module):
    """One member as anybody would write it; `named` holds its layers under our names."""

    def __init__(self, spec: Spec, pixels: int) -> None:
        super().__init__()
        hidden, self.spec = list(spec.network.hidden), spec
        self.class_units = spec.code.class_units
        units = self.class_units + spec.code.style_units
        self.named: dict[str, nn.Module] = {}
        self.encoder = self._stack("encoder", [pixels, *hidden])
        self.mean = self._add("code.mean", nn.Linear(hidden[-1], units))
        if spec.objective == "vae":
            log_variance = nn.Linear(hidden[-1], self.class_units)
            self.log_variance = self._add("code.log_variance", log_variance)
        decoder = self._stack("decoder", [units, *reversed(hidden)])
        self.decoder = nn.Sequential(
            decoder, self._add("decoder.out", nn.Linear(hidden[0], pixels))
        )
        self.to(DOUBLE)

    def _add(self, name: str, layer: nn.Module) -> nn.Module:
        self.named[name] = layer
        return layer

    def _stack(self, name: str, widths: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        norm = self.spec.network.batch_norm
        for place, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            layers.append(self._add(f"{name}.{place}", nn.Linear(fan_in, fan_out, bias=not norm)))
            if norm:
                layers.append(self._add(f"{name}.{place}.norm", nn.BatchNorm1d(fan_out)))
            layers.append(_Activation(self.spec.activation))
        return nn.Sequential(*layers)

    def tensors(self, *, gradients: bool = False) -> dict[str, Tensor]:
        """Return each parameter and statistic (or the parameters' gradients) under our name.

        In our shape, too: weights are (in, out).
        """
        words = {
            "weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance",
        }  # fmt: skip
        found = {}
        for name, layer in self.named.items():
            norm = isinstance(layer, nn.BatchNorm1d)
            for part, value in layer.state_dict(keep_vars=True).items():
                tensor = value.grad if gradients else value.data
                if tensor is None or part == "num_batches_tracked":
                    continue
                word = words[part] if norm else part
                found[f"{name}.{word}"] = tensor.T if tensor.ndim > 1 else tensor
        return found

    def losses(self, x: Tensor, noise: Tensor | None, step: int) -> dict[str, Tensor]:
        """Return total, reconstruction and, with a prior, unweighted divergence."""
        hidden = self.encoder(x)
        mean = z = self.mean(hidden)
        log_variance = None
        if noise is not None:
            log_variance = self.log_variance(hidden)
            drawn = mean[:, : self.class_units] + noise * torch.sqrt(torch.exp(log_variance))
            z = torch.cat([drawn, mean[:, self.class_units :]], 1)
        error = 0.5 * torch.pow(x - self.decoder(z), 2).sum() / len(x)
        divergence = self.spec.divergence
        if divergence is None:
            return {"total": error, "reconstruction": error}
        compared = mean[:, : self.class_units]
        formula = DIVERGENCES[divergence.kind]
        distance = formula(divergence, self.spec.prior, compared, log_variance)
        warm = step / divergence.warm_up if step < divergence.warm_up else 1.0
        total = error + divergence.weight * warm * distance
        return {"total": total, "reconstruction": error, "divergence": distance}


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = getattr(nn.functional, name)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


def normal(settings: Any) -> Distribution:
    return Normal(torch.tensor(settings.mean, dtype=DOUBLE), settings.scale)


def bimodal(settings: Any) -> Distribution:
    means = torch.tensor([-settings.m, settings.m], dtype=DOUBLE)
    return MixtureSameFamily(Categorical(torch.ones(2, dtype=DOUBLE)), Normal(means, settings.s))


def kl(settings: Any, shape: Any, mean: Tensor, log_variance: Tensor | None) -> Tensor:
    """Negative entropy minus E_q[log p]; the expectation with as many nodes as the settings say."""
    assert log_variance is not None
    prior = distribution(shape)
    q = Normal(mean, torch.exp(log_variance / 2))
    if isinstance(prior, Normal):
        return kl_divergence(q, prior).sum() / len(mean)
    nodes, weights = (torch.from_numpy(part) for part in roots_hermite(settings.nodes))
    z = mean[..., None] + q.scale[..., None] * math.sqrt(2) * nodes
    cross = (prior.log_prob(z) * weights).sum(-1) / math.sqrt(math.pi)
    entropy: Tensor = q.entropy()  # type: ignore[no-untyped-call]
    return -(entropy + cross).sum() / len(mean)


def wasserstein(settings: Any, shape: Any, mean: Tensor, _: Tensor | None) -> Tensor:
    """Match the code of rank r with the quantile at (r + 1/2) / B."""
    codes = mean[:, 0]
    ranks = codes.detach().numpy().argsort().argsort()
    targets = torch.from_numpy(quantiles(shape, len(codes))[ranks])
    return torch.pow(torch.abs(codes - targets), settings.p).mean()


@functools.cache
def distribution(shape: Any) -> Distribution:
    return PRIORS[shape.kind](shape)


@functools.cache
def quantiles(shape: Any, count: int) -> NDArray[np.float64]:
    """Invert the distribution function: by its inverse for one Gaussian, else by root finding."""
    prior = distribution(shape)
    shares = (np.arange(count) + 0.5) / count
    if shape.kind == "normal":
        return np.asarray(shape.mean + shape.scale * ndtri(shares))
    assert isinstance(prior, MixtureSameFamily)
    parts = prior.component_distribution
    assert isinstance(parts, Normal)
    means, scales = parts.loc.numpy(), parts.scale.numpy()
    weights = prior.mixture_distribution.probs.numpy()

    def gap(z: float, share: float) -> float:
        return float(np.dot(weights, ndtr((z - means) / scales)) - share)

    return np.array([brentq(gap, -50, 50, args=(share,), xtol=1e-14) for share in shares])


# A new prior or divergence needs its second, independent formula here.
PRIORS: dict[str, Callable[[Any], Distribution]] = {"normal": normal, "bimodal": bimodal}
DIVERGENCES: dict[str, Callable[..., Tensor]] = {"kl": kl, "wasserstein": wasserstein}


@dataclass
class PlainMember:
    """A plain module and its Adam, started from a member's first values."""

    module: PlainAutoencoder
    adam: torch.optim.Adam

    @staticmethod
    def of(spec: Spec, member: Member, pixels: int) -> PlainMember:
        """Copy the member's values; nothing is shared."""
        module = PlainAutoencoder(spec, pixels)
        network = spec.assemble(pixels)
        rows = ((network.parameters(), member.values), (network.buffers(), member.buffers))
        own = module.tensors()
        for layout, row in rows:
            for name, value in layout.views(row, 1).items():
                own.pop(name).copy_(value[0])
        assert not own, f"these have no counterpart: {list(own)}"
        rate = spec.training.learning_rate
        adam = torch.optim.Adam(module.parameters(), lr=rate, fused=False, foreach=False)
        return PlainMember(module, adam)

    def advance(self, images: Tensor, noise: Tensor | None, step: int) -> dict[str, float]:
        """Take one optimiser step; return the losses before it."""
        self.adam.zero_grad()
        losses = self.module.losses(images, noise, step)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return {name: float(value.detach()) for name, value in losses.items()}


def plain_losses(spec: Spec, seed: int, images: NDArray[np.float32]) -> list[float]:
    """Train one seed in float64 by the plain module; return the total loss of every step."""
    data = torch.from_numpy(images).to(DOUBLE)
    member = Member.start(spec, seed, data.shape[1], DOUBLE)
    draws, plain = Pack(spec, [member], data), PlainMember.of(spec, member, data.shape[1])
    losses = []
    for step in range(spec.training.steps):
        noise = draws.next_noise()
        batch = draws.next_batch()[0].clone()
        losses.append(plain.advance(batch, None if noise is None else noise[0], step)["total"])
    return losses
