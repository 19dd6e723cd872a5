"""Energy distance, Sinkhorn divergence and critic against loops, SciPy and the other library."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import energy_distance
from torch import Tensor

from models.divergences import Adversarial, Analogy, Compared, Energy, Sinkhorn, Wasserstein
from models.priors import Bimodal, Normal, PeakMixture

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of POT's own source, where it has no bytecode yet
    import ot

BIMODAL = Bimodal().distribution()
PLANE = PeakMixture(
    means=((1.0, 2.0), (-1.0, 0.5), (0.5, -1.0)), scales=(0.5, 0.6, 0.7), weights=(1.0, 3.0, 2.0)
).distribution(2)


def codes(count: int, units: int, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).normal(0.2, 1.4, (1, count, units))
    return torch.from_numpy(values)


def compared(sample: Tensor, drawn: Tensor) -> Compared:
    return Compared(sample, None, sample, drawn)


def test_energy_is_the_distance_of_scipy_without_the_pairs_of_a_code_with_itself() -> None:
    """SciPy gives its root, over all pairs; ours leaves out the n of n^2 pairs that are 0."""
    own, drawn = codes(48, 1), codes(48, 1, seed=1)
    theirs = energy_distance(own[0, :, 0], drawn[0, :, 0]) ** 2
    apart = [float((x - x.transpose(1, 2)).abs().mean()) for x in (own, drawn)]
    unbiased = theirs - sum(apart) * (48 / 47 - 1)
    value = float(Energy().value(BIMODAL, compared(own, drawn)))
    assert value == pytest.approx(unbiased, rel=1e-12)


def test_energy_in_the_plane_is_that_of_a_double_loop() -> None:
    own, drawn = codes(16, 2), codes(16, 2, seed=1)

    def mean(a: Tensor, b: Tensor, pairs: int) -> float:
        return sum(math.dist(x, y) for x in a[0].tolist() for y in b[0].tolist()) / pairs

    loop = 2 * mean(own, drawn, 256) - mean(own, own, 240) - mean(drawn, drawn, 240)
    assert float(Energy().value(PLANE, compared(own, drawn))) == pytest.approx(loop, rel=1e-12)


def test_energy_pulls_with_the_same_strength_from_however_far() -> None:
    near, far = (
        torch.full((1, 16, 1), where, dtype=torch.float64, requires_grad=True) for where in (9, 90)
    )
    drawn = BIMODAL.sample((16,), torch.Generator().manual_seed(0)).double()[None]
    slopes = [
        torch.autograd.grad(Energy().value(BIMODAL, compared(x, drawn)).sum(), x)[0]
        for x in (near, far)
    ]
    assert torch.allclose(slopes[0], torch.full_like(near, 2 / 16))
    assert torch.equal(slopes[0], slopes[1])


def settled(x: NDArray[np.float64], y: NDArray[np.float64], blur: float) -> NDArray[np.float64]:
    """Return the plan of optimal transport with an entropy, by POT until nothing moves."""
    cost = ot.dist(x, y, "sqeuclidean") / 2
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    plan: NDArray[np.float64] = ot.sinkhorn(
        a, b, cost, blur**2, method="sinkhorn_log", stopThr=1e-10, numItermax=100_000
    )
    return plan


def entropic(x: NDArray[np.float64], y: NDArray[np.float64], blur: float) -> float:
    """Return what the plan costs, and its temperature times KL from independence."""
    plan, cost = settled(x, y, blur), ot.dist(x, y, "sqeuclidean") / 2
    return float((plan * cost).sum() + blur**2 * (plan * np.log(plan * plan.size)).sum())


@pytest.mark.parametrize("prior", [BIMODAL, Normal().distribution(2), PLANE], ids=repr)
@pytest.mark.parametrize("blur", [0.5, 1.5])
def test_sinkhorn_nears_the_settled_divergence_of_pot(prior: object, blur: float) -> None:
    """By geomloss with more and more iterations, against POT run until nothing moves."""
    assert hasattr(prior, "units")
    own = codes(32, prior.units)
    drawn = prior.sample((32,), torch.Generator().manual_seed(0)).double()[None]  # type: ignore[attr-defined]
    width = blur * math.sqrt(prior.variance)  # type: ignore[attr-defined]
    x, y = own[0].numpy(), drawn[0].numpy()
    exact = entropic(x, y, width) - (entropic(x, x, width) + entropic(y, y, width)) / 2
    off = [
        abs(float(Sinkhorn(blur=blur, scaling=s).value(prior, compared(own, drawn))) - exact)  # type: ignore[arg-type]
        for s in (0.5, 0.9, 0.99)
    ]
    assert off[0] > off[2]
    assert off[1] < 0.05 * exact
    assert off[2] < 1e-3 * exact


def test_the_gradient_of_sinkhorn_is_the_pull_of_the_settled_plan() -> None:
    """Danskin: of each code towards what the plan sends it to, less that of its own side."""
    own = codes(16, 1).requires_grad_()
    drawn = BIMODAL.sample((16,), torch.Generator().manual_seed(0)).double()[None]
    row, width = Sinkhorn(blur=0.5, scaling=0.99), 0.5 * math.sqrt(BIMODAL.variance)
    (slope,) = torch.autograd.grad(row.value(BIMODAL, compared(own, drawn)).sum(), own)
    x, y = own[0].detach().numpy(), drawn[0].numpy()
    across, within = settled(x, y, width), settled(x, x, width)
    pull = (across * (x - y.T)).sum(1) - (within * (x - x.T)).sum(1)
    assert np.linalg.norm(slope[0, :, 0].numpy() - pull) < 0.02 * np.linalg.norm(pull)


def test_sinkhorn_without_blur_is_half_of_wasserstein() -> None:
    """On the line, between the same points: W_2^2 / 2 by sorting."""
    own, drawn = codes(64, 1), codes(64, 1, seed=1)
    sorted_ = 0.5 * float((own.sort(1).values - drawn.sort(1).values).square().mean())
    value = float(Sinkhorn(blur=0.02, scaling=0.97).value(BIMODAL, compared(own, drawn)))
    assert value == pytest.approx(sorted_, rel=0.03)
    assert float(Wasserstein().value(BIMODAL, Compared(own, None, own))) > 0


def test_a_members_sinkhorn_knows_nothing_of_its_partners() -> None:
    """geomloss would cool down from the diameter of all members' codes, if it were not given."""
    own, drawn = codes(16, 1).float(), codes(16, 1, seed=1).float()
    both = torch.cat([own, 1000 * own]), torch.cat([drawn, drawn])
    alone = Sinkhorn().value(BIMODAL, compared(own, drawn))
    assert torch.equal(Sinkhorn().value(BIMODAL, compared(*both))[:1], alone)


def test_the_analogy_is_a_repulsion_that_does_not_look_at_the_prior() -> None:
    mean, spread = torch.tensor([[[0.5], [-1.0]]]), torch.tensor([[[0.0], [math.log(3.0)]]])
    code = Compared(mean, spread, mean)
    by_hand = (-0.125 + 0.0 - 0.5 + 2.0) / 2
    values = [float(Analogy().value(p, code)) for p in (BIMODAL, Normal().distribution())]
    assert values == [pytest.approx(by_hand)] * 2


def test_a_critic_that_cannot_tell_costs_log_2_and_pulls_nowhere() -> None:
    sample = codes(16, 1).requires_grad_()
    drawn = torch.zeros(1, 32, 1, dtype=torch.float64)
    code = Compared(sample, None, sample, drawn, lambda shown: shown * 0)
    value = Adversarial().value(BIMODAL, code)
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(math.log(2))
    assert sample.grad is not None
    assert not sample.grad.any()


def test_a_critic_pulls_towards_what_it_takes_for_the_prior() -> None:
    sample = torch.full((1, 16, 1), -1.0, dtype=torch.float64, requires_grad=True)
    drawn = torch.zeros(1, 32, 1, dtype=torch.float64)
    value = Adversarial().value(BIMODAL, Compared(sample, None, sample, drawn, lambda z: 2 * z))
    (slope,) = torch.autograd.grad(value.sum(), sample)
    assert float(value.detach()) == pytest.approx(math.log(1 + math.exp(2)))
    assert torch.allclose(slope, torch.full_like(slope, -2 / (1 + math.exp(-2)) / 16))


def test_what_they_lack_is_said() -> None:
    zeros = torch.zeros(1, 16, 1)
    bare = Compared(zeros, None, zeros)
    for row, sentence in (
        (Energy(), "energy needs draws from the prior"),
        (Sinkhorn(), "sinkhorn needs draws from the prior"),
        (Adversarial(), "adversarial needs draws from the prior"),
        (Analogy(), "analogy needs a stochastic encoder"),
    ):
        with pytest.raises(TypeError, match=f"^{sentence}$"):
            row.value(BIMODAL, bare)
    with pytest.raises(TypeError, match=r"^adversarial needs its critic$"):
        Adversarial().value(BIMODAL, Compared(zeros, None, zeros, torch.zeros(1, 32, 1)))
