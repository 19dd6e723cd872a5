"""Each divergence against SciPy, a closed form or brute force; and what all of them share."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from matrix import classes, variants
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from torch import Tensor

from models.distributions import Mixture
from models.divergences import Compared, Divergence, Kl, Mmd, Sinkhorn, Wasserstein
from models.priors import Bimodal, Normal, PeakMixture, Uniform

NORMALS = [Normal().distribution(), Normal(mean=-0.7, scale=2.5).distribution()]
BIMODALS = [
    Bimodal().distribution(),
    Bimodal(m=1.0, s=1.0).distribution(),
    Bimodal(m=0.6, s=0.5).distribution(),
]
MEANS = (-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 3.0)
ROWS = [kind(**settings) for kind in classes(Divergence) for settings in variants(kind)]


def kl(nodes: int, prior: Mixture, mean: float, scale: float) -> float:
    """Return our divergence of one code of one image from the prior."""
    means, scales = (torch.full((1, 1, 1), x, dtype=torch.float64) for x in (mean, scale))
    code = Compared(means, 2 * scales.log(), means)
    return float(Kl.model_validate({"nodes": nodes}).value(prior, code))


def kl_by_integration(prior: Mixture, mean: float, scale: float) -> float:
    """Integrate q log(q / p) over ten scales, both densities written out."""
    means = [mean for (mean,) in prior.means]
    parts = list(zip(means, prior.scales, prior.weights, strict=True))

    def log_normal(z: float, centre: float, width: float) -> float:
        return -0.5 * ((z - centre) / width) ** 2 - math.log(width * math.sqrt(2 * math.pi))

    def integrand(z: float) -> float:
        log_q = log_normal(z, mean, scale)
        terms = [math.log(w) + log_normal(z, m, s) for m, s, w in parts]
        top = max(terms)  # far out the densities themselves are zero
        log_p = top + math.log(sum(math.exp(term - top) for term in terms))
        return math.exp(log_q) * (log_q - log_p)

    low, high = mean - 10 * scale, mean + 10 * scale
    cuts = sorted({low, high, mean, *(m for m in (0.0, *means) if low < m < high)})
    pairs = itertools.pairwise(cuts)
    return sum(quad(integrand, a, b, epsabs=1e-12, limit=200)[0] for a, b in pairs)


def codes(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0.2, 1.4, count)


def of(codes: Tensor, drawn: Tensor | None = None) -> Compared:
    """Return deterministic codes (S, B, U)."""
    return Compared(codes, None, codes, drawn)


def wasserstein(p: int, prior: Mixture, sample: NDArray[np.float64]) -> float:
    divergence = Wasserstein.model_validate({"p": p})
    return float(divergence.value(prior, of(torch.from_numpy(sample)[None, :, None])))


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scale", [0.05, 0.35, 1.0, 2.0])
def test_kl_from_one_gaussian_is_the_closed_form(mean: float, scale: float) -> None:
    for prior in NORMALS:
        m, s = prior.means[0][0], prior.scales[0]
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
    m, s = prior.means[1][0], prior.scales[1]
    sides = [Normal(mean=side, scale=s).distribution() for side in (-m, m)]
    for mean in (0.0, 0.5, 1.0):
        averaged = np.mean([kl(32, side, mean, s) for side in sides])
        centred = kl(32, Normal(scale=s).distribution(), mean, s)
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
    sample = BIMODALS[0].sample((400, batch), generator)
    values = Wasserstein().value(BIMODALS[0], of(sample))
    assert float(values.mean()) == pytest.approx(floor, rel=0.2)
    assert values.shape == (400,)
    assert (values > 0).all()


def test_wasserstein_1_pulls_however_far_the_codes_are() -> None:
    """Of codes far out each has the gradient 1 / B with the sign of its side."""
    for side in (-50.0, 50.0):
        far = torch.full((1, 16, 1), side, requires_grad=True)
        Wasserstein(p=1).value(BIMODALS[0], of(far)).sum().backward()  # type: ignore[no-untyped-call]
        assert far.grad is not None
        assert torch.equal(far.grad, torch.full_like(far, math.copysign(1 / 16, side)))


PLANE = PeakMixture(
    means=((1.0, 2.0), (-1.0, 0.5), (0.5, -1.0)),
    scales=(0.5, 0.6, 0.7),
    weights=(1.0, 3.0, 2.0),
).distribution(2)
UNEVEN = PeakMixture(means=(-1.0, 0.5), scales=(0.3, 0.6), weights=(1.0, 3.0)).distribution()


@pytest.mark.parametrize("prior", [BIMODALS[0], UNEVEN, Normal().distribution(2), PLANE], ids=repr)
@pytest.mark.parametrize(
    # The gradient of optimal transport is that of settled potentials: see the tests of Sinkhorn.
    "row",
    [row for row in ROWS if not isinstance(row, Sinkhorn)],
    ids=repr,
)
def test_gradients_are_those_of_finite_differences(row: Any, prior: Mixture) -> None:
    """With what a row draws held fast; two members, each with its own."""
    generator = torch.Generator().manual_seed(3)
    shape = (2, 16, prior.units)
    means, spread = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    each = [row.draw(prior, 16, generator) for _ in range(2)]
    drawn = None if each[0] is None else torch.stack(each).double()

    weights = torch.randn(prior.units, 5, generator=generator, dtype=torch.float64)

    def critic(codes: Tensor) -> Tensor:
        return (codes @ weights).tanh().sum(2, keepdim=True)

    def value(mean: Tensor, log_variance: Tensor) -> Tensor:
        sampled = row.compares == "sample"
        sample = mean if sampled else mean + (0.5 * log_variance).exp() * noise
        given = Compared(mean, None if sampled else log_variance, sample, drawn, critic)
        result: Tensor = row.value(prior, given)
        return result

    inputs = (means, spread.detach() if row.compares == "sample" else spread)
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_the_weight_warms_up_on_a_line_from_zero_and_stays(row: Any) -> None:
    warm = row.model_copy(update={"weight": 3.0, "warm_up": 4})
    assert [warm.weight_at(step) for step in (0, 1, 2, 3, 4, 5, 1000)] == [
        0.0, 0.75, 1.5, 2.25, 3.0, 3.0, 3.0,
    ]  # fmt: skip
    assert row.weight_at(0) == row.weight


def test_kl_from_one_gaussian_in_several_units_is_the_sum_of_the_closed_forms() -> None:
    """Against torch's own for each unit of each image, then the mean over images."""
    generator = torch.Generator().manual_seed(1)
    mean, spread = (torch.randn(2, 9, 3, generator=generator).double() for _ in range(2))
    prior = Normal(mean=0.4, scale=1.7).distribution(3)
    q = torch.distributions.Normal(mean, (0.5 * spread).exp())
    p = torch.distributions.Normal(*torch.tensor([0.4, 1.7], dtype=torch.float64))
    theirs = torch.distributions.kl_divergence(q, p).sum(2).mean(1)
    value = Kl().value(prior, Compared(mean, spread, mean + 5))  # whatever the sample is
    torch.testing.assert_close(value, theirs, rtol=1e-12, atol=1e-12)


def test_kl_of_a_code_in_the_plane_is_the_integral_on_average() -> None:
    """One sample estimates it without bias: 40,000 of them against Gauss-Hermite in two units."""
    mean, scale = np.array([0.3, -0.2]), np.array([0.5, 0.9])
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights /= weights.sum()
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1) * scale + mean
    parts = zip(PLANE.means, PLANE.scales, PLANE.weights, strict=True)
    p = sum(
        w * np.exp(-0.5 * ((grid - m) ** 2).sum(-1) / s**2) / (2 * np.pi * s**2)
        for m, s, w in parts
    )
    entropy = np.log(scale).sum() + np.log(2 * np.pi * np.e)
    exact = -entropy - float((np.log(p) * np.outer(weights, weights)).sum())
    count = 40_000
    noise = torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    mean_, spread = torch.from_numpy(mean), torch.from_numpy(2 * np.log(scale))
    shape = (count, 1, 2)
    sample = mean_ + torch.from_numpy(scale) * noise
    values = Kl().value(PLANE, Compared(mean_.expand(shape), spread.expand(shape), sample))
    error = float(values.std()) / math.sqrt(count)
    assert abs(float(values.mean()) - exact) < 3 * error
    assert error < 0.02 * exact


def drawn_for(row: Any, prior: Mixture, count: int, seed: int = 0) -> Tensor:
    drawn = row.draw(prior, count, torch.Generator().manual_seed(seed))
    assert drawn is not None
    return drawn.double()


@pytest.mark.parametrize("prior", [BIMODALS[0], PLANE, Uniform().distribution(3)], ids=repr)
def test_mmd_is_a_plain_loop_over_pairs(prior: Any) -> None:
    """Tolstikhin 2018, algorithm 2, one pair at a time; distances again by SciPy."""
    row, count = Mmd(scales=(0.3, 2.0)), 12
    z = np.random.default_rng(1).normal(0.3, 1.2, (count, prior.units))
    drawn = drawn_for(row, prior, count)
    y = drawn.numpy()
    variance = float(prior.sample((400_000,), torch.Generator().manual_seed(9)).var(0).mean())

    def kernel(a: Any, b: Any) -> float:
        square, base = float(((a - b) ** 2).sum()), 2 * prior.units * prior.variance
        return sum(s * base / (s * base + square) for s in row.scales)

    pairs = [(i, j) for i in range(count) for j in range(count)]
    inner = sum(kernel(z[i], z[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j)
    cross = sum(kernel(z[i], y[j]) for i, j in pairs)
    expected = inner / (count * (count - 1)) - 2 * cross / count**2
    value = float(row.value(prior, of(torch.from_numpy(z)[None], drawn[None])))
    assert value == pytest.approx(expected, rel=1e-12)
    assert prior.variance == pytest.approx(variance, rel=0.01)
    base = 2 * prior.units * prior.variance
    square = cdist(np.vstack([z, y]), np.vstack([z, y]), "sqeuclidean")
    gram = sum(s * base / (s * base + square) for s in row.scales)
    sign = np.repeat([1, -1], count)
    off = np.where(np.equal.outer(sign, sign), count * (count - 1), count**2)
    np.fill_diagonal(gram, 0)
    assert value == pytest.approx(float((np.outer(sign, sign) * gram / off).sum()), rel=1e-11)


@pytest.mark.parametrize("prior", [BIMODALS[0], PLANE], ids=repr)
def test_mmd_of_the_prior_itself_is_zero_on_average_and_of_another_is_not(prior: Mixture) -> None:
    """Unbiased: below zero about as often as above, 2,000 batches of 16."""
    generator, row = torch.Generator().manual_seed(0), Mmd()
    codes, drawn = (prior.sample((2_000, 16), generator).double() for _ in range(2))
    values = row.value(prior, of(codes, drawn))
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean())) < 3 * error
    assert (values < 0).any()
    moved = row.value(prior, of(codes + 1, drawn))
    assert float(moved.mean()) > 20 * error


def test_mmd_of_a_single_code_is_finite() -> None:
    one = torch.zeros(1, 1, 1, dtype=torch.float64)
    assert torch.isfinite(Mmd().value(UNEVEN, of(one, one + 1))).all()


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_is_a_loop_over_directions(p: int) -> None:
    """Each direction's by SciPy: the gap of distribution functions, and the cheapest assignment."""
    row, count = Wasserstein.model_validate({"p": p, "directions": 7}), 20
    z = np.random.default_rng(2).normal(0.3, 1.2, (count, 2))
    drawn = drawn_for(row, PLANE, count)
    assert drawn.shape == (7 + count, 2)
    ways, y = drawn[:7].numpy(), drawn[7:].numpy()
    np.testing.assert_allclose(np.linalg.norm(ways, axis=1), 1, rtol=1e-6)
    values = []
    for way in ways:
        own, other = z @ way, y @ way
        cost = np.abs(own[:, None] - other[None]) ** p
        values.append(cost[linear_sum_assignment(cost)].mean())
        if p == 1:
            assert values[-1] == pytest.approx(wasserstein_distance(own, other), rel=1e-12)
    value = float(row.value(PLANE, of(torch.from_numpy(z)[None], drawn[None])))
    assert value == pytest.approx(np.mean(values), rel=1e-12)


def test_directions_point_everywhere_alike() -> None:
    """Angles of 4,000 directions in the plane: their first two moments vanish within 4 / sqrt n."""
    ways = Wasserstein(directions=4_000).draw(PLANE, 1, torch.Generator().manual_seed(0))
    assert ways is not None
    angle = np.arctan2(*ways[:4_000].numpy().T)
    for turns in (1, 2):
        assert abs(np.exp(1j * turns * angle).mean()) < 4 / math.sqrt(4_000)


@pytest.mark.parametrize("row", [Wasserstein(), Mmd()], ids=repr)
def test_of_a_whole_dataset_2048_codes_are_compared(row: Any) -> None:
    """Evenly spaced, so the value is that of those codes alone."""
    assert len(drawn_for(row, PLANE, 5_000)) == 2_048 + (50 if row.kind == "wasserstein" else 0)
    codes = torch.randn(1, 5_000, 2, generator=torch.Generator().manual_seed(0)).double()
    drawn = drawn_for(row, PLANE, 100)[None]
    places = np.round(np.linspace(0, 4_999, 100)).astype(int)
    assert torch.equal(
        row.value(PLANE, of(codes, drawn)), row.value(PLANE, of(codes[:, places], drawn))
    )


@pytest.mark.parametrize("theta", [-2.0, -0.3, 0.0, 0.7, 5.0])
def test_parallel_lines_at_a_distance_are_pulled_together(theta: float) -> None:
    """W1 = |theta|, its gradient the sign of theta, however far; KL is infinite there, JS flat.

    Arjovsky et al. 2017, example 1: both lines have the same second coordinate; here the prior is
    the line at 0, as narrow as can be, and the codes lie on one at theta.
    """
    line = Normal(mean=0.0, scale=1e-6).distribution()
    codes = torch.full((1, 64, 1), theta, dtype=torch.float64, requires_grad=True)
    value = Wasserstein(p=1).value(line, of(codes))
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(abs(theta), abs=2e-6)
    assert codes.grad is not None
    if theta:
        assert float(codes.grad.sum()) == pytest.approx(math.copysign(1, theta))
        narrow = math.log(1e-12)
        spread = torch.full((1, 64, 1), narrow, dtype=torch.float64)
        fixed = codes.detach()
        assert float(Kl().value(line, Compared(fixed, spread, fixed))) > 1e9


def test_what_a_divergence_lacks_is_said() -> None:
    codes = torch.zeros(1, 16, 1)
    with pytest.raises(TypeError, match=r"^kl needs a stochastic encoder$"):
        Kl().value(BIMODALS[0], of(codes))
    with pytest.raises(TypeError, match=r"^mmd needs draws from the prior$"):
        Mmd().value(BIMODALS[0], of(codes))
