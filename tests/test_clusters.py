"""What a code says of classes that nobody named: an order, and clusters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from models.clusters import evidence, odds
from models.priors import Bimodal, Normal, PeakMixture, Uniform

PLANE = PeakMixture(means=((1.0, 1.0), (-1.0, 0.0)), scales=(0.5, 0.8), weights=(1.0, 3.0))


def codes(
    count: int, units: int, groups: int = 3
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    generator = np.random.default_rng(units)
    return generator.normal(size=(count, units)) * 0.2 + 3 * (np.arange(count) % groups)[:, None]


def test_one_unit_orders_by_itself_with_the_priors_midpoint() -> None:
    z = codes(50, 1)
    prior = PeakMixture(means=(-1.0, 2.0)).distribution()
    one = evidence(z, prior, 2)
    assert one.order is not None
    assert np.array_equal(one.order, z[:, 0])
    assert one.threshold == 0.5
    assert evidence(z, None, 2).threshold is None


def test_memberships_are_log_odds_of_the_priors_peaks() -> None:
    """Bayes' rule with SciPy's densities."""
    z = codes(40, 2) / 3 - 1
    prior = PLANE.distribution(2)
    parts = [
        w * norm.pdf(z, m, s).prod(1)
        for m, s, w in zip(prior.means, prior.scales, prior.weights, strict=True)
    ]
    posterior = np.array(parts) / np.sum(parts, axis=0)
    expected = np.log(posterior / (1 - posterior))
    one = evidence(z, prior, 2)
    assert one.memberships is not None
    inside = np.abs(expected.T) < 10  # beyond, 1 - posterior has lost its digits
    assert inside.sum() > 20
    np.testing.assert_allclose(one.memberships[inside], expected.T[inside], rtol=1e-9)
    assert one.order is not None
    np.testing.assert_allclose(one.order, expected[1] - expected[0], rtol=1e-9)
    assert one.threshold == 0


@pytest.mark.parametrize("classes", [0, 1, 2])
def test_a_prior_with_peaks_names_clusters_even_where_nobody_knows_of_classes(classes: int) -> None:
    one = evidence(codes(30, 1), Bimodal().distribution(), classes)
    assert one.memberships is not None
    assert one.memberships.shape == (30, 2)


@pytest.mark.parametrize("prior", [None, Normal(), Uniform(), Bimodal()])
def test_k_means_takes_the_place_of_peaks_that_are_too_few(prior: object) -> None:
    """Three groups far apart are its clusters, whatever it names them."""
    own = None if prior is None else prior.distribution(1)  # type: ignore[attr-defined]
    one = evidence(codes(60, 1), own, 3)
    assert one.memberships is not None
    found = one.memberships.argmax(1)
    groups = np.arange(60) % 3
    assert len({(a, b) for a, b in zip(found.tolist(), groups.tolist(), strict=True)}) == 3
    again = evidence(codes(60, 1), own, 3).memberships
    assert again is not None
    assert np.array_equal(again, one.memberships)


def test_nothing_is_said_where_nothing_can_be() -> None:
    still = np.zeros((20, 2))
    one = evidence(still, None, 2)
    assert (one.order, one.threshold, one.memberships) == (None, None, None)
    assert evidence(codes(20, 2), None, 0).memberships is None
    assert odds(codes(20, 3)) == (None, None), "an order needs two clusters"
    assert odds(None) == (None, None)


def test_without_peaks_the_odds_of_a_line_follow_the_code() -> None:
    """So that an AUC by memberships is that of the code itself, as with peaks."""
    z = np.sort(codes(60, 1), axis=0)
    memberships = evidence(z, None, 2).memberships
    assert memberships is not None
    rising = np.diff(memberships, axis=0)
    assert (rising[:, 0] * rising[0, 0] > 0).all()
    assert (rising[:, 1] * rising[0, 1] > 0).all()
    np.testing.assert_allclose(memberships[:, 0], -memberships[:, 1])
