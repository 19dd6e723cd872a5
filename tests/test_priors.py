"""One contract for every prior of the table: density, distribution, quantile, sample, gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from matrix import classes, shifted, variants
from pydantic import TypeAdapter
from scipy.integrate import quad
from scipy.stats import kstest

from models.priors import Bimodal, Mixture, Normal, Prior

ADAPTER: TypeAdapter[Normal | Bimodal] = TypeAdapter(Prior)
SETTINGS = [
    ADAPTER.validate_python(one)
    for kind in classes(Prior)
    for one in (*variants(kind), shifted(kind))
]
PRIORS = [prior.mixture() for prior in SETTINGS]
EVERY_PRIOR = pytest.mark.parametrize("prior", PRIORS, ids=[repr(prior) for prior in SETTINGS])
# SciPy's quad is asked for 1e-12, split where the components sit.
QUADRATURE = 1e-10


def density(prior: Mixture, z: float) -> float:
    return math.exp(float(prior.log_prob(torch.tensor(z, dtype=torch.float64))))


def integral(prior: Mixture, low: float, high: float) -> float:
    cuts = [mean for mean in prior.means if low < mean < high]
    ends = [low, *cuts, high]
    return sum(
        quad(lambda z: density(prior, z), a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(ends)
    )


def far(prior: Mixture) -> float:
    """Return where nothing is left of the density: 12 scales out, under 1e-32."""
    return max(map(abs, prior.means)) + 12 * max(prior.scales)


@EVERY_PRIOR
def test_the_density_integrates_to_one(prior: Mixture) -> None:
    assert integral(prior, -far(prior), far(prior)) == pytest.approx(1, abs=QUADRATURE)


@EVERY_PRIOR
def test_the_distribution_function_is_the_integral_of_the_density(prior: Mixture) -> None:
    points = np.array([-1.7, -0.4, 0.0, 0.3, 1.1, 2.5])
    by_hand = [integral(prior, -far(prior), z) for z in points]
    np.testing.assert_allclose(prior.cdf(points), by_hand, rtol=0, atol=QUADRATURE)


@EVERY_PRIOR
def test_the_quantile_inverts_the_distribution_function(prior: Mixture) -> None:
    """Up to 1e-6 from the ends; a quantile's rounding, 1e-16 of it, is all that is lost."""
    shares = np.array([1e-6, 0.01, 0.25, 0.4999, 0.5, 0.5001, 0.75, 0.99, 1 - 1e-6])
    quantiles = prior.quantile(shares)
    assert np.all(np.diff(quantiles) > 0)
    np.testing.assert_allclose(prior.cdf(quantiles), shares, rtol=0, atol=1e-14)


@EVERY_PRIOR
def test_samples_follow_the_distribution(prior: Mixture) -> None:
    """Kolmogorov-Smirnov at a fixed generator, so that p > 0.01 holds for good or never."""
    drawn = prior.sample((50, 100), torch.Generator().manual_seed(1))
    assert drawn.shape == (50, 100)
    shares = prior.cdf(drawn.double().ravel().numpy())
    assert kstest(shares, "uniform").pvalue > 0.01
    again = prior.sample((50, 100), torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)


@EVERY_PRIOR
def test_gradients_of_the_log_density_reach_every_z(prior: Mixture) -> None:
    """Against finite differences; also far out, where a density itself would be zero in float32."""
    z = torch.tensor([-40.0, -1.3, 0.05, 0.8, 40.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(prior.log_prob, (z,))
    single = torch.tensor([-40.0, 40.0], requires_grad=True)
    prior.log_prob(single).sum().backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert (single.grad * torch.tensor([1.0, -1.0]) > 1).all()


@EVERY_PRIOR
def test_the_midpoint_halves_the_mass(prior: Mixture) -> None:
    """True of every prior whose two sides weigh the same, which all are so far."""
    assert prior.cdf(np.array([prior.midpoint]))[0] == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize(
    ("m", "s", "modes"),
    [
        (1.0, 0.35, 2),
        (1.0, 0.97, 2),
        (1.0, 1.0, 1),
        (0.97, 1.0, 1),
        (0.35, 1.0, 1),
        (0.2, 0.1, 2),
        (50.0, 1.0, 2),
    ],
)
def test_bimodal_has_two_peaks_only_where_m_is_greater_than_s(
    m: float, s: float, modes: int
) -> None:
    assert Bimodal(m=m, s=s).mixture().modes == modes


def test_one_gaussian_has_one_peak() -> None:
    assert {Normal(mean=mean, scale=0.1).mixture().modes for mean in (-3.0, 0.0, 7.5)} == {1}


def test_separation_by_a_flat_topped_prior_has_the_published_ceiling() -> None:
    """At m = s each class on its own component gives AUC Phi(sqrt 2) = .921, accuracy .841."""
    prior = Bimodal(m=1.0, s=1.0).mixture()
    generator = torch.Generator().manual_seed(0)
    left, right = (
        Mixture((mean,), (scale,), (1.0,)).sample((200_000,), generator).numpy()
        for mean, scale in zip(prior.means, prior.scales, strict=True)
    )
    # The standard error of both shares is under .001 at 200,000 pairs.
    assert np.mean(left < right) == pytest.approx(0.921, abs=0.003)
    assert np.mean(right > prior.midpoint) == pytest.approx(0.841, abs=0.003)
