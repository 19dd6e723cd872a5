"""Each divergence against SciPy, a closed form or brute force; and what all of them share."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from matrix import classes, variants
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import Tensor

from models.divergences import Divergence, Kl, Wasserstein
from models.priors import Bimodal, Mixture, Normal

NORMALS = [Normal().mixture(), Normal(mean=-0.7, scale=2.5).mixture()]
BIMODALS = [Bimodal().mixture(), Bimodal(m=1.0, s=1.0).mixture(), Bimodal(m=0.6, s=0.5).mixture()]
MEANS = (-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 3.0)
ROWS = [kind(**settings) for kind in classes(Divergence) for settings in variants(kind)]


def kl(nodes: int, prior: Mixture, mean: float, scale: float) -> float:
    """Return our divergence of one code of one image from the prior."""
    means, scales = (torch.full((1, 1, 1), x, dtype=torch.float64) for x in (mean, scale))
    return float(Kl.model_validate({"nodes": nodes}).value(prior, means, 2 * scales.log()))


def kl_by_integration(prior: Mixture, mean: float, scale: float) -> float:
    """Integrate q log(q / p) over ten scales, both densities written out."""
    parts = list(zip(prior.means, prior.scales, prior.weights, strict=True))

    def log_normal(z: float, centre: float, width: float) -> float:
        return -0.5 * ((z - centre) / width) ** 2 - math.log(width * math.sqrt(2 * math.pi))

    def integrand(z: float) -> float:
        log_q = log_normal(z, mean, scale)
        terms = [math.log(w) + log_normal(z, m, s) for m, s, w in parts]
        top = max(terms)  # far out the densities themselves are zero
        log_p = top + math.log(sum(math.exp(term - top) for term in terms))
        return math.exp(log_q) * (log_q - log_p)

    low, high = mean - 10 * scale, mean + 10 * scale
    cuts = sorted({low, high, mean, *(m for m in (0.0, *prior.means) if low < m < high)})
    pairs = itertools.pairwise(cuts)
    return sum(quad(integrand, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairs)


def codes(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0.2, 1.4, count)


def wasserstein(p: int, prior: Mixture, sample: NDArray[np.float64]) -> float:
    divergence = Wasserstein.model_validate({"p": p})
    return float(divergence.value(prior, torch.from_numpy(sample)[None, :, None]))


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scale", [0.05, 0.35, 1.0, 2.0])
def test_kl_from_one_gaussian_is_the_closed_form(mean: float, scale: float) -> None:
    for prior in NORMALS:
        m, s = prior.means[0], prior.scales[0]
        closed = math.log(s / scale) + (scale**2 + (mean - m) ** 2) / (2 * s**2) - 0.5
        assert kl(32, prior, mean, scale) == pytest.approx(closed, rel=1e-13, abs=1e-14)
        # The integral itself is good to 1e-9.
        assert closed == pytest.approx(kl_by_integration(prior, mean, scale), rel=1e-8, abs=1e-9)


# Gauss-Hermite is exact for polynomials; log p of two Gaussians has a kink halfway, s^2 / m wide.
# A code narrower than the prior's components sees no kink. A wide one has its nodes 0.28 scales
# apart (128 of them), more than the kink's 0.12 of the default prior: there it is off by up to
# .003, and at s = m, where the kink is as wide as the components, by nothing.
@pytest.mark.parametrize(
    ("prior", "scale", "tolerance"),
    [
        (BIMODALS[0], 0.05, 1e-11),
        (BIMODALS[0], 0.1, 2e-9),
        (BIMODALS[0], 0.35, 1e-5),
        (BIMODALS[0], 0.7, 5e-4),
        (BIMODALS[0], 1.0, 3e-3),
        (BIMODALS[1], 0.35, 1e-11),
        (BIMODALS[1], 1.0, 1e-9),
        (BIMODALS[2], 0.5, 1e-6),
    ],
)
def test_kl_from_two_gaussians_is_the_integral(
    prior: Mixture, scale: float, tolerance: float
) -> None:
    for mean in MEANS:
        exact = kl_by_integration(prior, mean, scale)
        assert kl(128, prior, mean, scale) == pytest.approx(exact, rel=1e-9, abs=tolerance)


def test_kl_from_two_gaussians_is_no_mean_of_two_kls() -> None:
    """The mean of both differs from KL(q || N(0, s^2)) by a constant only: no pull to two peaks."""
    prior = BIMODALS[0]
    m, s = prior.means[1], prior.scales[1]
    sides = [Normal(mean=side, scale=s).mixture() for side in (-m, m)]
    for mean in (0.0, 0.5, 1.0):
        averaged = np.mean([kl(32, side, mean, s) for side in sides])
        centred = kl(32, Normal(scale=s).mixture(), mean, s)
        assert averaged == pytest.approx(centred + m**2 / (2 * s**2), rel=1e-12)
    assert kl(32, prior, m, s) < 0.7
    assert kl(32, prior, 0.0, s) > 2


def test_more_nodes_come_closer_to_the_integral() -> None:
    grid = [(mean, scale) for mean in MEANS for scale in (0.3, 0.6, 1.0)]
    exact = [kl_by_integration(BIMODALS[0], *point) for point in grid]
    worst = [
        max(abs(kl(nodes, BIMODALS[0], *p) - value) for p, value in zip(grid, exact, strict=True))
        for nodes in (32, 64, 128, 256)
    ]
    assert worst[0] > 2 * worst[1] > 4 * worst[2] > 8 * worst[3]


def test_a_code_inside_a_peak_beats_one_across_both() -> None:
    """The true minima: .687 at (m, s), .728 at (0, .92). 32 nodes see .686 for both.

    With those the blur over both peaks, a collapsed code, would be the prior's favourite.
    """
    inside = kl(Kl().nodes, BIMODALS[0], 1.0, 0.35)
    across = min(kl(Kl().nodes, BIMODALS[0], 0.0, scale) for scale in np.linspace(0.5, 1.5, 101))
    assert inside == pytest.approx(kl_by_integration(BIMODALS[0], 1.0, 0.35), abs=1e-5)
    assert across > inside + 0.02


@pytest.mark.parametrize("prior", [*NORMALS, *BIMODALS], ids=repr)
def test_wasserstein_1_is_that_of_scipy(prior: Mixture) -> None:
    """SciPy integrates the gap of two empirical distribution functions; no sorting in pairs."""
    sample = codes(48)
    quantiles = prior.quantile((np.arange(48) + 0.5) / 48)
    theirs = wasserstein_distance(sample, quantiles)
    assert wasserstein(1, prior, sample) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("prior", [*NORMALS, *BIMODALS], ids=repr)
def test_wasserstein_is_the_cheapest_assignment(prior: Mixture, p: int) -> None:
    """Brute force over all ways to pair codes with quantiles, by the Hungarian method."""
    sample = codes(16, seed=p)
    quantiles = prior.quantile((np.arange(16) + 0.5) / 16)
    cost = np.abs(sample[:, None] - quantiles[None]) ** p
    rows, columns = linear_sum_assignment(cost)
    assert wasserstein(p, prior, sample) == pytest.approx(cost[rows, columns].mean(), rel=1e-12)


@pytest.mark.parametrize(("batch", "floor"), [(128, 0.034), (512, 0.010), (2048, 0.0027)])
def test_wasserstein_of_the_prior_itself_has_its_published_floor(batch: int, floor: float) -> None:
    """E[W_2^2] for m = 1, s = .35, mostly the binomial scatter of the two peaks' shares, 1 / B.

    400 batches at a fixed generator leave a standard error of 5 %; the figure has two digits.
    """
    generator = torch.Generator().manual_seed(0)
    sample = BIMODALS[0].sample((400, batch, 1), generator)
    values = Wasserstein().value(BIMODALS[0], sample)
    assert float(values.mean()) == pytest.approx(floor, rel=0.2)
    assert values.shape == (400,)
    assert (values > 0).all()


def test_wasserstein_1_pulls_however_far_the_codes_are() -> None:
    """Of codes far out each has the gradient 1 / B with the sign of its side."""
    for side in (-50.0, 50.0):
        far = torch.full((1, 16, 1), side, requires_grad=True)
        Wasserstein(p=1).value(BIMODALS[0], far).sum().backward()  # type: ignore[no-untyped-call]
        assert far.grad is not None
        assert torch.equal(far.grad, torch.full_like(far, math.copysign(1 / 16, side)))


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_gradients_are_those_of_finite_differences(row: Kl | Wasserstein) -> None:
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(2, 16, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    spread = torch.randn(2, 16, 1, generator=generator, dtype=torch.float64, requires_grad=True)

    def value(mean: Tensor, log_variance: Tensor) -> Tensor:
        if isinstance(row, Wasserstein):
            return row.value(BIMODALS[0], mean)
        return row.value(BIMODALS[0], mean, log_variance)

    inputs = (means, spread if row.compares == "density" else spread.detach())
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_the_weight_warms_up_on_a_line_from_zero_and_stays(row: Kl | Wasserstein) -> None:
    warm = row.model_copy(update={"weight": 3.0, "warm_up": 4})
    assert [warm.weight_at(step) for step in (0, 1, 2, 3, 4, 5, 1000)] == [
        0.0, 0.75, 1.5, 2.25, 3.0, 3.0, 3.0,
    ]  # fmt: skip
    assert row.weight_at(0) == row.weight
