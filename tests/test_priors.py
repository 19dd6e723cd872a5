"""One contract for every prior of the table: density, distribution, quantile, sample, gradient."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from matrix import classes, shifted, variants
from pydantic import TypeAdapter
from scipy.integrate import dblquad, quad
from scipy.stats import chisquare, kstest

from models.distributions import Box, Distribution, Mixture
from models.priors import Bimodal, Normal, PeakMixture, Prior, Uniform

ADAPTER: TypeAdapter[Normal | Uniform | Bimodal | PeakMixture] = TypeAdapter(Prior)
UNEVEN = {
    "kind": "mixture",
    "means": [2, -1.5, 0.2],
    "scales": [0.3, 0.8, 0.5],
    "weights": [1, 5, 2],
}
PLANE = {
    "kind": "mixture",
    "means": [[1, 2], [-1, 0.5], [0.5, -1]],
    "scales": [0.3, 0.6, 0.5],
    "weights": [1, 3, 2],
}
SPACE = {"kind": "mixture", "means": [[1, 0, 2], [-1, 0.5, -0.5]], "scales": [0.5, 0.8]}
SETTINGS = [
    ADAPTER.validate_python(one)
    for kind in classes(Prior)
    for one in (*variants(kind), shifted(kind))
]
SETTINGS += [ADAPTER.validate_python(one) for one in (UNEVEN, PLANE, SPACE)]
EVERY = [
    (prior, prior.distribution(units))
    for prior in SETTINGS
    for units in (1, 2, 3)
    if prior.misfit(units) is None
]


def over(*units: int) -> pytest.MarkDecorator:
    """Run over every prior of the table, in as many units."""
    chosen = [(prior, one) for prior, one in EVERY if one.units in units]
    names = [f"{prior.kind}{place}-{one.units}" for place, (prior, one) in enumerate(chosen)]
    return pytest.mark.parametrize("prior", [one for _, one in chosen], ids=names)


# SciPy's quad is asked for 1e-12, split where the components sit.
QUADRATURE = 1e-10


def density(prior: Distribution, *z: float) -> float:
    return math.exp(float(prior.log_prob(torch.tensor(z, dtype=torch.float64))))


def corners(prior: Distribution) -> list[float]:
    """Return where the first unit's density bends most: means, or ends."""
    if isinstance(prior, Box):
        return [prior.low, prior.high]
    assert isinstance(prior, Mixture)
    return sorted({mean[0] for mean in prior.means})


def integral(prior: Distribution, low: float, high: float) -> float:
    ends = [low, *(cut for cut in corners(prior) if low < cut < high), high]
    return sum(
        quad(lambda z: density(prior, z), a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(ends)
    )


def far(prior: Distribution) -> float:
    """Return where nothing is left of the density in any unit: 12 scales out, under 1e-31."""
    if isinstance(prior, Box):
        return max(abs(prior.low), abs(prior.high))
    assert isinstance(prior, Mixture)
    return float(np.abs(prior.means).max()) + 12 * max(prior.scales)


@over(1)
def test_the_density_integrates_to_one(prior: Distribution) -> None:
    assert integral(prior, -far(prior), far(prior)) == pytest.approx(1, abs=QUADRATURE)


@over(2)
def test_the_density_over_the_plane_integrates_to_one(prior: Distribution) -> None:
    """The sum over a grid is exact for smooth densities to rounding; a box by SciPy's dblquad."""
    if isinstance(prior, Box):
        ends = (prior.low, prior.high)
        total, _ = dblquad(lambda y, x: density(prior, x, y), *ends, *ends)
        assert total == pytest.approx(1, abs=QUADRATURE)
        assert density(prior, prior.low - 0.01, prior.midpoint) == 0
        assert density(prior, prior.midpoint, prior.high + 0.01) == 0
        return
    line = torch.linspace(-far(prior), far(prior), 601, dtype=torch.float64)
    plane = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    total = float(prior.log_prob(plane).exp().sum() * (line[1] - line[0]) ** 2)
    assert total == pytest.approx(1, abs=1e-7)


@over(3)
def test_the_density_in_space_integrates_to_one(prior: Distribution) -> None:
    """By importance from a wide Gaussian: within four standard errors, themselves below .02."""
    wide = torch.distributions.Normal(0.0, 2.5)
    z = 2.5 * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)).double()
    weights = (prior.log_prob(z) - wide.log_prob(z).sum(1)).exp()
    error = float(weights.std()) / math.sqrt(len(z))
    assert abs(float(weights.mean()) - 1) < 4 * error
    assert error < 0.02


@over(1)
def test_the_distribution_function_is_the_integral_of_the_density(prior: Mixture | Box) -> None:
    points = np.array([-1.7, -0.4, 0.0, 0.3, 1.1, 2.5])
    low = min(-far(prior), -1.7)
    by_hand = [integral(prior, low, z) for z in points]
    np.testing.assert_allclose(prior.cdf(points), by_hand, rtol=0, atol=QUADRATURE)


@over(1)
def test_the_quantile_inverts_the_distribution_function(prior: Mixture | Box) -> None:
    """Up to 1e-6 from the ends; a quantile's rounding, 1e-16 of it, is all that is lost."""
    shares = np.array([1e-6, 0.01, 0.25, 0.4999, 0.5, 0.5001, 0.75, 0.99, 1 - 1e-6])
    quantiles = prior.quantile(shares)
    assert np.all(np.diff(quantiles) > 0)
    np.testing.assert_allclose(prior.cdf(quantiles), shares, rtol=0, atol=1e-14)


def test_the_quantile_of_a_box_is_a_line() -> None:
    box = Uniform(low=-3.0, high=1.0).distribution(1)
    np.testing.assert_allclose(box.quantile(np.array([0, 0.25, 0.5, 1])), [-3, -2, -1, 1])
    assert box.cdf(np.array([-9.0, 9.0])).tolist() == [0, 1]


def of_unit(prior: Distribution, unit: int) -> Mixture | Box:
    """Return the marginal distribution of one unit."""
    if isinstance(prior, Box):
        return Box(prior.low, prior.high, 1)
    assert isinstance(prior, Mixture)
    return Mixture(tuple((mean[unit],) for mean in prior.means), prior.scales, prior.weights)


@over(1, 2, 3)
def test_samples_follow_the_distribution_in_every_unit(prior: Distribution) -> None:
    """Kolmogorov-Smirnov at a fixed generator, so that p > 0.001 holds for good or never."""
    drawn = prior.sample((50, 100), torch.Generator().manual_seed(1))
    assert drawn.shape == (50, 100, prior.units)
    assert drawn.dtype == torch.float32
    for unit in range(prior.units):
        shares = of_unit(prior, unit).cdf(drawn[..., unit].double().ravel().numpy())
        assert kstest(shares, "uniform").pvalue > 0.001, unit
    assert torch.equal(drawn, prior.sample((50, 100), torch.Generator().manual_seed(1)))
    # Mean squares of 5,000 draws, four standard errors of the widest.
    own = float(drawn.double().view(-1, prior.units).var(0).mean())
    assert own == pytest.approx(prior.variance, rel=0.1)


@over(1, 2, 3)
def test_samples_take_each_component_by_its_weight(prior: Distribution) -> None:
    """Where the posterior's shares sum to: chi-square on their sum over 20,000 draws."""
    drawn = prior.sample((20_000,), torch.Generator().manual_seed(2)).double()
    shares = prior.log_joint(drawn).softmax(-1).sum(0).numpy()
    assert shares.sum() == pytest.approx(20_000)
    if prior.peaks > 1:
        assert chisquare(shares, np.array(prior.weights) * shares.sum()).pvalue > 0.001


@over(1, 2, 3)
def test_the_joint_density_sums_to_the_density(prior: Distribution) -> None:
    z = prior.sample((200,), torch.Generator().manual_seed(3)).double() * 1.5
    joint = prior.log_joint(z)
    assert joint.shape == (200, prior.peaks) == (200, len(prior.weights))
    torch.testing.assert_close(joint.logsumexp(-1), prior.log_prob(z), rtol=1e-12, atol=1e-12)


@over(1, 2, 3)
def test_gradients_of_the_log_density_reach_every_z(prior: Distribution) -> None:
    """Against finite differences; also far out, where a density itself would be zero in float32."""
    if isinstance(prior, Box):
        return  # flat: nothing to reach, and nothing that takes gradients of it
    places = torch.tensor([-40.0, -1.3, 0.05, 0.8, 40.0], dtype=torch.float64)
    z = torch.stack([places + 0.1 * unit for unit in range(prior.units)], -1).requires_grad_()
    assert torch.autograd.gradcheck(prior.log_prob, (z,))
    single = torch.tensor([[-40.0] * prior.units, [40.0] * prior.units], requires_grad=True)
    prior.log_prob(single).sum().backward()  # type: ignore[no-untyped-call]
    assert single.grad is not None
    assert (single.grad * torch.tensor([[1.0], [-1.0]]) > 1).all()


def test_the_midpoint_lies_between_the_outermost_peaks() -> None:
    assert Bimodal(m=2.0).distribution().midpoint == 0
    assert ADAPTER.validate_python(UNEVEN).distribution(1).midpoint == 0.25
    assert Normal(mean=3.0).distribution(2).midpoint == 3
    assert Uniform(low=-1.0, high=4.0).distribution(1).midpoint == 1.5


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
        (1.0, 0.5, 2),
        (0.75, 0.5, 2),
    ],
)
def test_bimodal_has_two_peaks_only_where_m_is_greater_than_s(
    m: float, s: float, modes: int
) -> None:
    assert Bimodal(m=m, s=s).distribution().modes == modes
    apart = ((-m * 0.6, -m * 0.8), (m * 0.6, m * 0.8))  # the same along a slanted line
    assert Mixture(apart, (s, s), (0.5, 0.5)).modes == modes


@pytest.mark.parametrize(
    ("means", "scales", "modes"),
    [
        ([0, 1, 2], [0.35] * 3, 3),
        ([0, 1, 2], [1.0] * 3, 1),
        ([-2, -0.5, 0.5, 1.5], [1.0] * 4, 1),
        ([-0.5, 0.5, 2], [0.5] * 3, 2),
        ([0, 0.1], [0.01, 5.0], 1),
        ([0, 5], [0.01, 5.0], 2),
        ([[0, 0], [3, 0], [0, 3]], [0.5] * 3, 3),
        ([[0, 0], [0.5, 0], [0, 3]], [0.5] * 3, 2),
        ([[-1, 0], [1, 0], [0, 0]], [0.35, 0.35, 3.0], 2),  # the third mean lies in a valley
        ([[0, 0, 0], [1, 1, 1], [-1, -1, -1]], [2.0] * 3, 1),
        ([[1e5, 0], [1e5 + 1, 0]], [0.1] * 2, 2),
    ],
)
def test_overlapping_peaks_are_counted_together(
    means: list[Any], scales: list[float], modes: int
) -> None:
    """Not by the rounding of a density: half of such cases once had dozens of modes."""
    prior = PeakMixture(means=means, scales=scales)  # type: ignore[arg-type]
    assert prior.distribution(len(prior.points()[0])).modes == modes


def test_modes_on_a_line_are_those_of_a_fine_grid() -> None:
    """Uneven grids for ours; one even grid of 20,001 points for the check."""
    generator = np.random.default_rng(0)
    for _ in range(40):
        count = int(generator.integers(2, 6))
        means, scales = generator.normal(0, 2, count), generator.uniform(0.2, 1.5, count)
        weights = generator.dirichlet(np.full(count, 5))
        z = np.linspace(means.min() - 4, means.max() + 4, 20_001)[:, None]
        rising = np.diff((weights / scales * np.exp(-0.5 * ((z - means) / scales) ** 2)).sum(1)) > 0
        own = Mixture(tuple((float(m),) for m in means), tuple(scales), tuple(weights))
        assert own.modes == int(np.sum(rising[:-1] & ~rising[1:]))


def test_one_gaussian_and_one_box_have_one_peak() -> None:
    assert {Normal(mean=m, scale=0.1).distribution(2).modes for m in (-3.0, 0.0, 7.5)} == {1}
    assert Uniform().distribution(3).modes == 1


def test_a_mixture_is_written_out_sorted_with_every_scale_and_share() -> None:
    one = ADAPTER.validate_python(UNEVEN)
    assert one.model_dump() == {
        "kind": "mixture",
        "means": (-1.5, 0.2, 2.0),
        "scales": (0.8, 0.5, 0.3),
        "weights": (0.625, 0.25, 0.125),
        "anneal": None,
    }
    short = ADAPTER.validate_python({"kind": "mixture", "means": [1, -1], "scales": 0.5})
    assert short.model_dump()["scales"] == (0.5, 0.5)
    assert short.model_dump()["weights"] == (0.5, 0.5)
    for prior in SETTINGS:
        assert ADAPTER.validate_json(prior.model_dump_json()) == prior


@pytest.mark.parametrize("seed", range(5))
def test_peaks_in_any_order_are_the_same_prior(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(3)
    for settings in (UNEVEN, PLANE):
        lists = {k: [v[i] for i in order] for k, v in settings.items() if isinstance(v, list)}
        assert ADAPTER.validate_python({**settings, **lists}) == ADAPTER.validate_python(settings)


def test_separation_by_a_flat_topped_prior_has_the_published_ceiling() -> None:
    """At m = s each class on its own component gives AUC Phi(sqrt 2) = .921, accuracy .841."""
    prior = Bimodal(m=1.0, s=1.0).distribution()
    generator = torch.Generator().manual_seed(0)
    left, right = (
        Mixture((mean,), (scale,), (1.0,)).sample((200_000,), generator).numpy()
        for mean, scale in zip(prior.means, prior.scales, strict=True)
    )
    # The standard error of both shares is under .001 at 200,000 pairs.
    assert np.mean(left < right) == pytest.approx(0.921, abs=0.003)
    assert np.mean(right > prior.midpoint) == pytest.approx(0.841, abs=0.003)
