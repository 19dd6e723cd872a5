"""Divergences of the aggregate of a batch, against SciPy's integrals, closed forms and limits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from models.distributions import Distribution, Mixture
from models.divergences import Compared, Js, Kl, KlAggregate
from models.priors import Bimodal, Normal, PeakMixture, Uniform

MEANS, SIGMAS = (-1.3, -0.9, 0.2, 1.0, 1.4), (0.3, 0.5, 0.2, 0.6, 0.25)
LINES = [
    Normal().distribution(),
    Bimodal().distribution(),
    PeakMixture(means=(-1.0, 0.5), scales=(0.3, 0.6), weights=(1.0, 3.0)).distribution(),
]


def batch(means: Any, sigmas: Any, *, drawn: Tensor | None = None, seed: int = 0) -> Compared:
    """Return codes (1, B, U) with one sample each."""
    mean = torch.tensor(means, dtype=torch.float64).reshape(1, len(means), -1)
    spread = 2 * torch.tensor(sigmas, dtype=torch.float64).reshape(1, len(means), -1).log()
    spread = spread.expand_as(mean)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).double()
    return Compared(mean, spread, mean + (0.5 * spread).exp() * noise, drawn)


def integral(prior: Mixture, formula: Any) -> float:
    """Integrate a formula of q and p, both written out, piece by piece."""

    def integrand(z: float) -> float:
        q = float(np.mean([norm.pdf(z, m, s) for m, s in zip(MEANS, SIGMAS, strict=True)]))
        parts = zip(prior.means, prior.scales, prior.weights, strict=True)
        p = float(sum(w * norm.pdf(z, m[0], s) for m, s, w in parts))
        value: float = formula(q, p)
        return value

    cuts = [-9.0, -4.0, -2.5, *sorted(MEANS), 2.5, 4.0, 9.0]
    return sum(quad(integrand, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(cuts))


def x_log_x(x: float, y: float) -> float:
    return x * math.log(x / y) if x > 0 else 0.0


@pytest.mark.parametrize("prior", LINES, ids=repr)
def test_kl_of_the_aggregate_is_the_integral(prior: Mixture) -> None:
    value = float(KlAggregate().value(prior, batch(MEANS, SIGMAS)))
    assert value == pytest.approx(integral(prior, x_log_x), abs=1e-9)


@pytest.mark.parametrize("prior", LINES, ids=repr)
def test_js_of_the_aggregate_is_the_integral(prior: Mixture) -> None:
    def halves(q: float, p: float) -> float:
        return 0.5 * (x_log_x(q, (p + q) / 2) + x_log_x(p, (p + q) / 2))

    value = float(Js().value(prior, batch(MEANS, SIGMAS)))
    assert value == pytest.approx(integral(prior, halves), abs=1e-9)


def test_one_gaussian_as_a_batch_has_the_kl_of_each_of_its_images() -> None:
    """Then nothing is known of the image from the code, and both terms of the ELBO are one."""
    same = batch([0.7] * 16, [0.4] * 16)
    for prior in LINES[:2]:
        each, together = (float(row.value(prior, same)) for row in (Kl(nodes=256), KlAggregate()))
        assert together == pytest.approx(each, abs=1e-5)


def test_kl_per_image_is_that_of_the_aggregate_and_the_information_in_the_code() -> None:
    """Hoffman and Johnson 2016: KL per image - KL of the aggregate = I(x; z), at most log B."""
    codes = batch(MEANS, SIGMAS)
    gaps = [float(Kl().value(prior, codes) - KlAggregate().value(prior, codes)) for prior in LINES]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-3)  # quadrature; it does not depend on p
    assert 0.3 < gaps[0] < math.log(len(MEANS))


@pytest.mark.parametrize("units", [2, 3])
@pytest.mark.parametrize("row", [KlAggregate, Js])
def test_samples_agree_with_the_grid_within_their_standard_error(row: Any, units: int) -> None:
    """Independent units, all images alike: the joint KL is the sum; JS is judged on one sample."""
    prior = Normal(scale=1.2).distribution(units)
    count = 4096
    generator = torch.Generator().manual_seed(4)
    drawn = prior.sample((count,), generator).double()[None]
    codes = batch([[0.5] * units] * count, [[0.7] * units] * count, drawn=drawn)
    few = Compared(codes.mean[:, :64], codes.log_variance[:, :64], codes.sample[:, :64], None)  # type: ignore[index]
    joint = float(row().value(prior, codes))
    if row is KlAggregate:
        exact = float(row(several="per_unit").value(prior, few))
        assert exact == pytest.approx(units * (math.log(1.2 / 0.7) + 0.74 / 2.88 - 0.5), abs=1e-9)
    else:
        exact = _js_by_brute_force(0.5, 0.7, 1.2, units)
    # 2,048 samples of a log ratio whose sd is below 1.5: four standard errors.
    assert joint == pytest.approx(exact, abs=4 * 1.5 / math.sqrt(2048))
    assert joint != pytest.approx(exact, abs=1e-6)


def _js_by_brute_force(mean: float, sigma: float, scale: float, units: int) -> float:
    """Sum over two million points of NumPy's own."""
    generator = np.random.default_rng(0)

    def log_density(z: Any, m: float, s: float) -> Any:
        return norm.logpdf(z, m, s).sum(1)

    total = 0.0
    for m, s in ((mean, sigma), (0.0, scale)):
        z = generator.normal(m, s, (200_000, units))
        both = log_density(z, mean, sigma), log_density(z, 0.0, scale)
        own = both[0] if s == sigma else both[1]
        total += float(np.mean(own - np.logaddexp(*both) + math.log(2))) / 2
    return total


def test_js_is_bounded_and_flat_far_away_while_kl_grows() -> None:
    """Parallel lines (Arjovsky et al. 2017, example 1) as ever narrower Gaussians at a distance."""
    theta = 0.5
    for scale in (0.2, 0.05, 0.0125):
        line: Distribution = Normal(scale=scale).distribution()
        mean = torch.full((1, 16, 1), theta, dtype=torch.float64, requires_grad=True)
        spread = torch.full((1, 16, 1), 2 * math.log(scale), dtype=torch.float64)
        js, kl = (row().value(line, Compared(mean, spread, mean)) for row in (Js, KlAggregate))
        (slope,) = torch.autograd.grad(js.sum(), mean)
        assert float(kl.detach()) == pytest.approx(theta**2 / (2 * scale**2), rel=1e-6)
        left = math.exp(-(theta**2) / (8 * scale**2))  # Bhattacharyya's coefficient bounds both
        assert math.log(2) * (1 - left) - 1e-12 <= float(js.detach()) <= math.log(2) + 1e-12
        assert float(slope.abs().sum()) <= 2 * left / scale + 1e-12
    assert float(js.detach()) == pytest.approx(math.log(2), abs=1e-12)
    assert float(slope.abs().max()) < 1e-12


def test_js_from_a_prior_that_ends_is_finite() -> None:
    box = Uniform(low=-1, high=1).distribution()
    inside, outside = (batch([m] * 16, [0.1] * 16) for m in (0.0, 5.0))
    assert float(Js().value(box, outside)) == pytest.approx(math.log(2), abs=1e-2)
    assert float(Js().value(box, inside)) < 0.5


def test_a_code_narrower_than_a_step_of_the_grid_counts_as_one_step() -> None:
    """A spike between two points would otherwise not be there at all."""
    prior = LINES[1]
    narrow = [float(KlAggregate().value(prior, batch(MEANS, [s] * 5))) for s in (1e-3, 1e-6)]
    assert narrow[0] == pytest.approx(narrow[1], abs=0.2)
    finer = [
        float(KlAggregate(points=points).value(prior, batch(MEANS, [1e-3] * 5)))
        for points in (256, 512, 1024)
    ]
    assert finer[0] < finer[1] < finer[2]
