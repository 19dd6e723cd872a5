"""The same training written a second time: a plain nn.Module, torch's Adam, autograd, SciPy.

Nothing here calls the layers, losses, divergences or priors of `models`. Only a member's first
values, its batches and its noise are taken from there, since these are drawn, not computed.
Run as a program it prints the golden numbers of test_trainer.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, roots_hermite
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    Uniform,
    kl_divergence,
)

from models import priors
from models.divergences import Adversarial
from models.members import Member, Pack
from models.spec import Spec

DOUBLE = torch.float64
Distribution.set_default_validate_args(False)  # half of the time went there


Sides = tuple[nn.Module, nn.Module]  # encoder, decoder


class PlainAutoencoder(nn.Module):
    """One member as anybody would write it; `named` holds its layers under our names."""

    def __init__(self, spec: Spec, shape: Sequence[int]) -> None:
        super().__init__()
        hidden, self.spec = list(spec.network.hidden), spec
        self.class_units = spec.code.class_units
        units = self.class_units + spec.code.style_units
        self.named: dict[str, nn.Module] = {}
        sides = self._conv if spec.network.kind == "conv" else self._mlp
        self.encoder, self.decoder = sides(shape, hidden, units)
        self.mean = self._add("code.mean", nn.Linear(hidden[-1], units))
        style = spec.code.style_units if spec.code.style == "normal" else 0
        self.spread_units = self.class_units + style
        if spec.objective == "vae":
            log_variance = nn.Linear(hidden[-1], self.spread_units)
            self.log_variance = self._add("code.log_variance", log_variance)
        self._divergence(spec)
        self.to(DOUBLE)

    def _divergence(self, spec: Spec) -> None:
        """Add the critics, one for each part with a prior, and what is learned of the prior."""
        self.critics = nn.ModuleList()
        if isinstance(spec.divergence, Adversarial):
            style = spec.code.style_units if spec.code.style == "normal" else 0
            for place, units in enumerate([self.class_units, *([style] if style else [])]):
                layers: list[nn.Module] = []
                for number, pair in enumerate(
                    itertools.pairwise([units, *spec.divergence.hidden, 1])
                ):
                    layers.append(self._add(f"critic.{place}.{number}", nn.Linear(*pair)))
                    layers.append(nn.LeakyReLU(0.2))
                self.critics.append(nn.Sequential(*layers[:-1]))
        self.learned = nn.ParameterDict()
        if isinstance(spec.prior, priors.LearnedMixture):
            for part in spec.prior.learn:
                shape = (len(spec.prior.means), self.class_units)[: 2 if part == "means" else 1]
                self.learned[part] = nn.Parameter(torch.zeros(shape, dtype=DOUBLE))

    def _mlp(self, shape: Sequence[int], hidden: list[int], units: int) -> Sides:
        pixels = math.prod(shape)
        out = self._add("decoder.out", nn.Linear(hidden[0], pixels))
        decoder = nn.Sequential(self._stack("decoder", [units, *reversed(hidden)]), out)
        return self._stack("encoder", [pixels, *hidden]), decoder

    def _conv(self, shape: Sequence[int], hidden: list[int], units: int) -> Sides:
        """Halve as torch does, and see from its own output what to come back to."""
        norm, channels = self.spec.network.batch_norm, [shape[0], *self.spec.network.channels]
        image, sizes = torch.zeros(1, *shape), []
        down: list[nn.Module] = [nn.Unflatten(1, tuple(shape))]
        for place, (fan_in, fan_out) in enumerate(itertools.pairwise(channels)):
            layer = nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1, bias=not norm)
            sizes.append(image.shape[2:])
            image = layer(image).detach()
            down.append(self._shaped(f"encoder.{place}", layer, fan_out))
        features = image.numel()
        down += [nn.Flatten(), self._stack("encoder.dense", [features, *hidden])]
        up: list[nn.Module] = [self._stack("decoder.dense", [units, *reversed(hidden)])]
        maps = nn.Sequential(
            self._add("decoder.maps", nn.Linear(hidden[0], features, bias=not norm)),
            nn.Unflatten(1, image.shape[1:]),
        )
        up.append(self._shaped("decoder.maps", maps, channels[-1]))
        for place in range(len(sizes)):
            fan_in, fan_out = channels[-1 - place], channels[-2 - place]
            last, wanted = place == len(sizes) - 1, sizes[-1 - place]
            small = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1)(image[:, :1]).shape[2:]
            missing = wanted[0] - small[0], wanted[1] - small[1]
            layer_up = nn.ConvTranspose2d(
                fan_in,
                fan_out,
                4,
                stride=2,
                padding=1,
                output_padding=missing,
                bias=last or not norm,
            )
            image = layer_up(torch.zeros(1, fan_in, *image.shape[2:])).detach()
            if last:
                up.append(self._add("decoder.out", layer_up))
            else:
                up.append(self._shaped(f"decoder.{place}", layer_up, fan_out))
        return nn.Sequential(*down), nn.Sequential(*up, nn.Flatten())

    def _shaped(self, name: str, layer: nn.Module, channels: int) -> nn.Sequential:
        """Follow a layer that gives feature maps by BatchNorm, if any, and the activation."""
        if not isinstance(layer, nn.Sequential):
            self._add(name, layer)
        norm = [nn.BatchNorm2d(channels)] if self.spec.network.batch_norm else []
        own = [self._add(f"{name}.norm", one) for one in norm]
        return nn.Sequential(layer, *own, _Activation(self._activation(name.partition(".")[0])))

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
            layers.append(_Activation(self._activation(name.partition(".")[0])))
        return nn.Sequential(*layers)

    def _activation(self, part: str) -> str:
        chosen = self.spec.activation
        return chosen if isinstance(chosen, str) else str(getattr(chosen, part))

    def tensors(self, *, gradients: bool = False) -> dict[str, Tensor]:
        """Return each parameter and statistic (or the parameters' gradients) under our name.

        In our shape, too: the weights of a dense layer are (in, out).
        """
        words = {
            "weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance",
        }  # fmt: skip
        found = {}
        for name, layer in self.named.items():
            norm = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
            for part, value in layer.state_dict(keep_vars=True).items():
                tensor = value.grad if gradients else value.data
                if tensor is None or part == "num_batches_tracked":
                    continue
                word = words[part] if norm else part
                found[f"{name}.{word}"] = tensor.T if tensor.ndim == 2 else tensor
        for part, value in self.learned.items():
            found[f"prior.{part}"] = value.grad if gradients else value.data
        return found

    def losses(
        self, x: Tensor, noise: Tensor | None, drawn: list[Tensor | None], step: int
    ) -> dict[str, Tensor]:
        """Return total, reconstruction and, with a prior, unweighted divergence."""
        hidden = self.encoder(x)
        mean = self.mean(hidden)
        mean = z = torch.tanh(mean) if self.spec.code.squash == "tanh" else mean
        log_variance = None
        if noise is not None:
            log_variance = self.log_variance(hidden)
            moved = mean[:, : self.spread_units] + noise * torch.sqrt(torch.exp(log_variance))
            z = torch.cat([moved, mean[:, self.spread_units :]], 1)
        error = 0.5 * torch.pow(x - self.decoder(z), 2).sum() / len(x)
        divergence = self.spec.divergence
        if divergence is None:
            return {"total": error, "reconstruction": error}
        formula, parts = DIVERGENCES[divergence.kind], [(0, self.class_units, self._prior(step))]
        if self.spec.code.style == "normal" and self.spec.code.style_units:
            parts.append((self.class_units, mean.shape[1], STANDARD))
        distance = torch.zeros((), dtype=DOUBLE)
        self.critics_pay = torch.zeros((), dtype=DOUBLE)
        for place, ((start, end, prior), random) in enumerate(zip(parts, drawn, strict=True)):
            shape = Prior(prior, end - start, self._peaks(prior))
            spread = None if log_variance is None else log_variance[:, start:end]
            own = Codes(mean[:, start:end], spread, z[:, start:end], random)
            if self.critics:
                paid, critic_pays = duel(own, self.critics[place])
                distance, self.critics_pay = distance + paid, self.critics_pay + critic_pays
            else:
                distance = distance + formula(divergence, shape, own)
        warm = step / divergence.warm_up if step < divergence.warm_up else 1.0
        total = error + divergence.weight * warm * distance
        return {"total": total, "reconstruction": error, "divergence": distance}

    def _prior(self, step: int) -> Any:
        """Return the prior's settings at a step: scales in stages, by equal ratios."""
        prior = self.spec.prior
        anneal = getattr(prior, "anneal", None)
        if anneal is None or step >= anneal.steps:
            return prior
        factor = anneal.factor ** (1 - math.floor(step / anneal.steps * 32) / 32)
        wider = {"s": prior.s * factor} if isinstance(prior, priors.Bimodal) else {
            "scales": tuple(scale * factor for scale in prior.scales)
        }  # fmt: skip
        return prior.model_copy(update=wider)

    def _peaks(self, prior: Any) -> Distribution | None:
        """Return the learned mixture as it is now; None for a prior that nobody learns."""
        if not isinstance(prior, priors.LearnedMixture):
            return None
        count = len(prior.means)
        means = torch.tensor(prior.points(), dtype=DOUBLE)
        scales = torch.tensor(prior.scales, dtype=DOUBLE)
        weights = torch.tensor(prior.weights, dtype=DOUBLE)
        if "means" in self.learned:
            means = self.learned["means"]
        if "scales" in self.learned:
            scales = torch.exp(self.learned["scales"]) + prior.least_scale
        if "weights" in self.learned:
            shares = torch.softmax(self.learned["weights"], 0)
            weights = prior.least_weight + (1 - count * prior.least_weight) * shares
        parts = Independent(Normal(means, scales[:, None].expand_as(means)), 1)
        return MixtureSameFamily(Categorical(weights), parts)


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = getattr(nn.functional, name)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


class Prior(NamedTuple):
    """A prior's settings, and how many units it is the prior of."""

    settings: Any
    units: int
    learned: Distribution | None = None


class Codes(NamedTuple):
    """One member's codes in the units that are compared, (B, U), and what it drew for that."""

    mean: Tensor
    log_variance: Tensor | None
    sample: Tensor
    drawn: Tensor | None


STANDARD = priors.Normal()  # its settings alone


def normal(settings: Any, units: int) -> Distribution:
    means = torch.full((units,), settings.mean, dtype=DOUBLE)
    return Independent(Normal(means, settings.scale), 1)


def bimodal(settings: Any, units: int) -> Distribution:
    assert units == 1
    return mixed(
        [[-settings.m], [settings.m]], [settings.s] * 2, [1 - settings.share, settings.share]
    )


def mixture(settings: Any, units: int) -> Distribution:
    means = [list(mean) if units > 1 else [mean] for mean in settings.means]
    return mixed(means, settings.scales, settings.weights)


def mixed(means: Any, scales: Any, weights: Any) -> Distribution:
    places, widths = (torch.tensor(part, dtype=DOUBLE) for part in (means, scales))
    parts = Independent(Normal(places, widths[:, None].expand_as(places)), 1)
    return MixtureSameFamily(Categorical(torch.tensor(weights, dtype=DOUBLE)), parts)


def uniform(settings: Any, units: int) -> Distribution:
    ends = (torch.full((units,), end, dtype=DOUBLE) for end in (settings.low, settings.high))
    return Independent(Uniform(*ends), 1)


def kl(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    """Negative entropy minus E_q[log p]; the expectation with as many nodes as the settings say.

    On several units the expectation is that of the one sample that was drawn.
    """
    assert codes.log_variance is not None
    prior, mean = distribution(shape), codes.mean
    q = Normal(mean, torch.exp(codes.log_variance / 2))
    if isinstance(prior, Independent):
        return kl_divergence(Independent(q, 1), prior).sum() / len(mean)
    entropy: Tensor = q.entropy()  # type: ignore[no-untyped-call]
    if shape.units > 1:
        return -(entropy.sum() + prior.log_prob(codes.sample).sum()) / len(mean)
    nodes, weights = (torch.from_numpy(part) for part in roots_hermite(settings.nodes))
    z = mean + q.scale * math.sqrt(2) * nodes
    cross = (prior.log_prob(z[..., None]) * weights).sum(-1) / math.sqrt(math.pi)
    return -(entropy.sum() + cross.sum()) / len(mean)


def wasserstein(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    """Match the code of rank r with the quantile at (r + 1/2) / B, or with the draw of rank r."""
    if codes.drawn is None:
        one = codes.sample[:, 0]
        targets = torch.from_numpy(quantiles(shape, len(one))[ranks(one)])
        return torch.pow(torch.abs(one - targets), settings.p).mean()
    ways, draws = codes.drawn[: settings.directions], codes.drawn[settings.directions :]
    total = torch.zeros((), dtype=DOUBLE)
    for way in ways:
        own, other = codes.sample @ way, np.sort((draws @ way).numpy())
        gap = torch.abs(own - torch.from_numpy(other[ranks(own)]))
        total = total + torch.pow(gap, settings.p).mean()
    return total / len(ways)


def ranks(values: Tensor) -> NDArray[np.int64]:
    return values.detach().numpy().argsort().argsort()


def mmd(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    """Average the kernel over all pairs of different images, written with matrix products."""
    assert codes.drawn is not None
    count, base = len(codes.sample), 2 * shape.units * variance(shape)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        square = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
        parts = [s * base / (s * base + square) for s in settings.scales]
        return torch.stack(parts).sum(0)

    def apart(x: Tensor) -> Tensor:
        return (kernel(x, x).sum() - count * len(settings.scales)) / (count * (count - 1))

    return apart(codes.sample) + apart(codes.drawn) - 2 * kernel(codes.sample, codes.drawn).mean()


def variance(shape: Prior) -> float:
    """Return the variance of a unit, averaged: torch's own, of the whole distribution."""
    own: Tensor = distribution(shape).variance
    return float(own.mean())


def analogy(_: Any, shape: Prior, codes: Codes) -> Tensor:
    assert codes.log_variance is not None
    assert shape.units == codes.mean.shape[1]
    loss = torch.abs(1 - torch.exp(codes.log_variance)) - codes.mean**2 / 2
    return loss.sum() / len(codes.mean)


def aggregate(codes: Codes) -> MixtureSameFamily:
    """Return the mixture with a Gaussian for each image."""
    assert codes.log_variance is not None
    parts = Independent(Normal(codes.mean, torch.exp(codes.log_variance / 2)), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(codes.mean), dtype=DOUBLE)), parts)


def unit_by_unit(settings: Any, shape: Prior, codes: Codes, integrand: Any) -> Tensor:
    """Sum the integrand over a grid for each unit; tests compare that with SciPy's integral."""
    assert codes.log_variance is not None
    total = torch.zeros((), dtype=DOUBLE)
    for u in range(shape.units):
        own = Codes(codes.mean[:, [u]], codes.log_variance[:, [u]], codes.sample[:, [u]], None)
        prior, mean = marginal(shape, u), own.mean.detach()
        sigma = torch.exp(own.log_variance.detach() / 2)  # type: ignore[union-attr]
        low, high = ends(prior)
        low = min(low, float((mean - 8 * sigma).min()))
        high = max(high, float((mean + 8 * sigma).max()))
        z = torch.linspace(low, high, settings.points, dtype=DOUBLE)
        q, p = aggregate(own).log_prob(z[:, None]), prior.log_prob(z[:, None])
        total = total + integrand(q, p).sum() * (z[1] - z[0])
    return total


def ends(prior: Distribution) -> tuple[float, float]:
    if isinstance(prior, Independent) and isinstance(prior.base_dist, Uniform):
        return float(prior.base_dist.low), float(prior.base_dist.high)
    parts = prior.component_distribution if isinstance(prior, MixtureSameFamily) else prior
    assert isinstance(parts, Independent)
    low = parts.base_dist.loc - 8 * parts.base_dist.scale
    high = parts.base_dist.loc + 8 * parts.base_dist.scale
    return float(low.min()), float(high.max())


def marginal(shape: Prior, unit: int) -> Distribution:
    """Return one unit's distribution."""
    whole = distribution(shape)
    if isinstance(whole, MixtureSameFamily):
        parts = whole.component_distribution
        assert isinstance(parts, Independent)
        one = Normal(parts.base_dist.loc[:, [unit]], parts.base_dist.scale[:, [unit]])
        return MixtureSameFamily(whole.mixture_distribution, Independent(one, 1))
    assert isinstance(whole, Independent)
    base = whole.base_dist
    if isinstance(base, Uniform):
        return Independent(Uniform(base.low[[unit]], base.high[[unit]]), 1)
    return Independent(Normal(base.loc[[unit]], base.scale[[unit]]), 1)


def kl_aggregate(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    if shape.units > 1 and settings.several == "joint":
        own = aggregate(codes).log_prob(codes.sample)
        return (own - distribution(shape).log_prob(codes.sample)).mean()
    return unit_by_unit(settings, shape, codes, lambda q, p: torch.exp(q) * (q - p))


def js(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    """Write out both halves; where a density is zero it adds nothing."""

    def half(a: Tensor, b: Tensor) -> Tensor:
        return a - torch.logaddexp(a, b) + math.log(2)

    if shape.units > 1 and settings.several == "joint":
        assert codes.drawn is not None
        q, p = aggregate(codes), distribution(shape)
        ours = half(q.log_prob(codes.sample), p.log_prob(codes.sample))
        theirs = half(p.log_prob(codes.drawn), q.log_prob(codes.drawn))
        return (ours.mean() + theirs.mean()) / 2

    def integrand(q: Tensor, p: Tensor) -> Tensor:
        inside = torch.isfinite(p)
        other = torch.where(inside, p, -1e6)
        theirs = torch.where(inside, torch.exp(other) * half(other, q), 0.0)
        return (torch.exp(q) * half(q, other) + theirs) / 2

    return unit_by_unit(settings, shape, codes, integrand)


def energy(_: Any, shape: Prior, codes: Codes) -> Tensor:
    """Loop over pairs of different images."""
    assert codes.drawn is not None
    assert codes.drawn.shape[1] == shape.units
    x, y, count = codes.sample, codes.drawn, len(codes.sample)

    def apart(points: Tensor) -> Tensor:
        first, second = torch.triu_indices(count, count, 1)
        return torch.linalg.norm(points[first] - points[second], dim=1).mean()

    across = torch.stack([torch.linalg.norm(one - y, dim=1).mean() for one in x]).mean()
    return 2 * across - apart(x) - apart(y)


def sinkhorn(settings: Any, shape: Prior, codes: Codes) -> Tensor:
    """Cool down by equal ratios, both sides averaged at once (Feydy 2020, thesis, algorithm 3.4).

    The gradient is that of the last step alone, with what went in held fast.
    """
    assert codes.drawn is not None
    x, y, deviation = codes.sample, codes.drawn, math.sqrt(variance(shape))
    start, blur = max(8.0, 2 * settings.blur) * deviation, settings.blur * deviation
    count = math.ceil(math.log(blur / start) / math.log(settings.scaling) - 1e-9)
    widths = [start, *(start * settings.scaling**k for k in range(count)), blur]
    total = torch.zeros((), dtype=DOUBLE)
    for a, b, sign in ((x, y, 1.0), (x, x, -0.5), (y, y, -0.5)):
        total = total + sign * _entropic(a, b, [width**2 for width in widths])
    return total


def _entropic(x: Tensor, y: Tensor, temperatures: list[float]) -> Tensor:
    def softmin(eps: float, points: Tensor, others: Tensor, potential: Tensor) -> Tensor:
        cost = ((points[:, None] - others[None]) ** 2).sum(2) / 2
        inner = (potential[None] - cost) / eps - math.log(len(others))
        return -eps * torch.logsumexp(inner, 1)

    fixed_x, fixed_y, first = x.detach(), y.detach(), temperatures[0]
    f = softmin(first, fixed_x, fixed_y, torch.zeros(len(y), dtype=DOUBLE))
    g = softmin(first, fixed_y, fixed_x, torch.zeros(len(x), dtype=DOUBLE))
    for eps in temperatures:
        f, g = (
            (f + softmin(eps, fixed_x, fixed_y, g)) / 2,
            (g + softmin(eps, fixed_y, fixed_x, f)) / 2,
        )
    last = temperatures[-1]
    f, g = softmin(last, x, fixed_y, g), softmin(last, y, fixed_x, f)
    return f.mean() + g.mean()


def duel(codes: Codes, critic: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what the codes pay, through a critic that stands still, and what the critic pays."""
    assert codes.drawn is not None
    count, loss = len(codes.sample), nn.functional.binary_cross_entropy_with_logits
    real, seen = codes.drawn[:count], codes.sample + codes.drawn[count:]
    still = functools.partial(
        torch.func.functional_call, critic, {k: v.detach() for k, v in critic.named_parameters()}
    )
    fooled = still((seen,))
    pays = loss(critic(real), torch.ones(count, 1, dtype=DOUBLE))
    pays = pays + loss(critic(seen.detach()), torch.zeros(count, 1, dtype=DOUBLE))
    return loss(fooled, torch.ones_like(fooled)), pays


@functools.cache
def _distribution(kind: str, text: str, units: int) -> Distribution:
    return PRIORS[kind](SimpleNamespace(**json.loads(text)), units)


def distribution(shape: Prior) -> Distribution:
    if shape.learned is not None:
        return shape.learned
    text = json.dumps(shape.settings.model_dump(), sort_keys=True)
    return _distribution(shape.settings.kind, text, shape.units)


@functools.cache
def quantiles(shape: Prior, count: int) -> NDArray[np.float64]:
    """Invert the distribution function: by its inverse for one piece, else by root finding."""
    settings, shares = shape.settings, (np.arange(count) + 0.5) / count
    if settings.kind == "normal":
        return np.asarray(settings.mean + settings.scale * ndtri(shares))
    if settings.kind == "uniform":
        return np.asarray(settings.low + (settings.high - settings.low) * shares)
    prior = distribution(shape)
    assert isinstance(prior, MixtureSameFamily)
    parts = prior.component_distribution
    assert isinstance(parts, Independent)
    means, scales = parts.base_dist.loc.numpy()[:, 0], parts.base_dist.scale.numpy()[:, 0]
    weights = prior.mixture_distribution.probs.numpy()

    def gap(z: float, share: float) -> float:
        return float(np.dot(weights, ndtr((z - means) / scales)) - share)

    return np.array([brentq(gap, -50, 50, args=(share,), xtol=1e-14) for share in shares])


# A new prior or divergence needs its second, independent formula here.
PRIORS: dict[str, Callable[[Any, int], Distribution]] = {
    "normal": normal, "bimodal": bimodal, "mixture": mixture, "uniform": uniform,
    "learned_mixture": mixture,
}  # fmt: skip
DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "kl": kl, "wasserstein": wasserstein, "mmd": mmd, "analogy": analogy, "js": js,
    "kl_aggregate": kl_aggregate, "energy": energy, "sinkhorn": sinkhorn, "adversarial": duel,
}  # fmt: skip


@dataclass
class PlainMember:
    """A plain module and its Adam, started from a member's first values."""

    module: PlainAutoencoder
    adam: torch.optim.Adam

    @staticmethod
    def of(spec: Spec, member: Member, shape: Sequence[int]) -> PlainMember:
        """Copy the member's values; nothing is shared."""
        module = PlainAutoencoder(spec, shape)
        network = spec.assemble(shape)
        rows = ((network.parameters(), member.values), (network.buffers(), member.buffers))
        own = module.tensors()
        for layout, row in rows:
            for name, value in layout.views(row, 1).items():
                own.pop(name).copy_(value[0])
        assert not own, f"these have no counterpart: {list(own)}"
        rate, critics = spec.training.learning_rate, list(module.critics.parameters())
        rest = [one for one in module.parameters() if all(one is not other for other in critics)]
        groups: list[dict[str, Any]] = [{"params": rest, "lr": rate}]
        if isinstance(spec.divergence, Adversarial):
            groups.append({"params": critics, "lr": rate * spec.divergence.rate})
        return PlainMember(module, torch.optim.Adam(groups, fused=False, foreach=False))

    def advance(
        self, images: Tensor, noise: Tensor | None, drawn: list[Tensor | None], step: int
    ) -> dict[str, float]:
        """Take one optimiser step; return the losses before it."""
        self.adam.zero_grad()
        losses = self.module.losses(images, noise, drawn, step)
        paid = losses["total"] + (self.module.critics_pay if self.module.critics else 0.0)
        paid.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        return {name: float(value.detach()) for name, value in losses.items()}


def plain_losses(spec: Spec, seed: int, images: NDArray[np.float32]) -> list[float]:
    """Train one seed in float64 by the plain module; return the total loss of every step."""
    data = torch.from_numpy(images).to(DOUBLE)
    member = Member.start(spec, seed, data.shape[1:], DOUBLE)
    draws, plain = Pack(spec, [member], data), PlainMember.of(spec, member, data.shape[1:])
    losses = []
    for step in range(spec.training.steps):
        draws.step = step
        noise, drawn = draws.next_noise(), draws.next_drawn()
        batch = draws.next_batch()[0].clone()
        own = [None if part is None else part[0] for part in drawn]
        one = plain.advance(batch, None if noise is None else noise[0], own, step)
        losses.append(one["total"])
    return losses


if __name__ == "__main__":
    from test_trainer import GOLDEN, PIXELS, spec

    for name, (settings, seed, _) in GOLDEN.items():
        losses = plain_losses(spec(**settings), seed, PIXELS)
        print(name, [round(losses[step], 9) for step in (0, 9, 19)])  # noqa: T201
