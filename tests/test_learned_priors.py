"""Priors that change while a member trains: learned peaks, and annealed scales."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from models.datasets.digits import Digits
from models.distributions import Mixture
from models.priors import Anneal, Bimodal, LearnedMixture, PeakMixture
from models.priors.learned import LearnedPeaks
from models.spec import Spec
from models.train import train

PIXELS = Digits(classes=(1, 8)).load().pixels
LEARNED = LearnedMixture(means=(-0.5, 1.0), scales=(0.4, 0.8), weights=(1.0, 3.0))


def spec(prior: object, steps: int = 120, **changes: object) -> Spec:
    training = {"steps": steps, "batch_size": 32, "learning_rate": 0.005}
    settings = {"objective": "vae", "prior": prior, "divergence": {"kind": "kl", "weight": 0.3}}
    return Spec.model_validate({**settings, "training": training, **changes})


def test_members_begin_with_the_mixture_that_the_settings_say() -> None:
    start = {
        part.part: torch.tensor(part.block.start).view(1, *part.block.shape)
        for part in LEARNED.parameters(1)
    }
    own, fixed = LEARNED.of(1, start), LEARNED.distribution(1)
    assert np.allclose(own.mixture(0).means, fixed.means)
    assert own.mixture(0).scales == pytest.approx(fixed.scales, rel=1e-6)
    assert own.mixture(0).weights == pytest.approx((0.25, 0.75), rel=1e-6)


@pytest.mark.parametrize("units", [1, 3])
def test_each_members_density_is_that_of_its_own_mixture(units: int) -> None:
    """Three members with peaks of their own; Mixture is tested against SciPy elsewhere."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((3, 2, units), generator=generator).double()
    scales, shares = torch.rand((2, 3, 2), generator=generator).double() + 0.2
    weights = shares / shares.sum(1, keepdim=True)
    own = LearnedPeaks(means, scales, weights)
    z = torch.randn((3, 5, 4, units), generator=generator).double() * 3
    found = own.log_prob(z)
    for place in range(3):
        theirs = own.mixture(place)
        torch.testing.assert_close(found[place], theirs.log_prob(z[place]), rtol=1e-12, atol=1e-12)
        low, high = (float(end[place]) for end in own.marginal(units - 1).span())
        assert (low, high) == pytest.approx(theirs.marginal(units - 1).span())


def test_no_scale_and_no_weight_falls_below_its_floor() -> None:
    """However far the parameters run."""
    far = {"scales": torch.tensor([[-80.0, 3.0]]), "weights": torch.tensor([[-90.0, 90.0]])}
    own = LEARNED.of(1, far).mixture(0)
    assert min(own.scales) == pytest.approx(LEARNED.least_scale)
    assert min(own.weights) == pytest.approx(LEARNED.least_weight)
    assert np.allclose(own.means, LEARNED.distribution(1).means)


def test_a_member_learns_its_own_peaks_and_they_score_its_code() -> None:
    one, two = train(spec(LEARNED.model_dump()), [0, 1], PIXELS)
    assert one.learned_prior is not None
    assert one.learned_prior != two.learned_prior
    said = json.loads(one.learned_prior)
    assert set(said) == {"means", "scales", "weights"}
    assert said["means"] != [[-0.5], [1.0]]
    assert math.fsum(said["weights"]) == pytest.approx(1)
    again = spec(LEARNED.model_dump()).prior_of(one.learned_prior)
    assert isinstance(again, Mixture)
    assert json.loads(one.learned_prior)["means"] == [list(mean) for mean in again.means]
    (alone,) = train(spec(LEARNED.model_dump()), [1], PIXELS)
    assert alone.learned_prior == two.learned_prior


@pytest.mark.parametrize("part", ["means", "scales", "weights"])
def test_what_is_not_named_is_not_learned(part: str) -> None:
    """Of the three parts the two others stay what the settings say."""
    settings = {**LEARNED.model_dump(), "learn": (part,)}
    (one,) = train(spec(settings, steps=40), [0], PIXELS)
    assert one.learned_prior is not None
    said, start = json.loads(one.learned_prior), LEARNED.distribution(1)
    same = {
        name: np.allclose(np.array(said[name]), np.array(getattr(start, name)), atol=1e-6)
        for name in ("means", "scales", "weights")
    }
    assert same == {name: name != part for name in same}


def test_a_fixed_prior_is_learned_by_nobody() -> None:
    (one,) = train(spec("bimodal", steps=20), [0], PIXELS)
    assert one.learned_prior is None
    assert spec("bimodal").prior_of(None) == Bimodal().distribution()


def test_scales_shrink_by_equal_ratios_to_their_own() -> None:
    anneal = Anneal(factor=8.0, steps=320)
    factors = [anneal.factor_at(step) for step in range(0, 330, 10)]
    ratios = [after / before for before, after in itertools.pairwise(factors)]
    assert factors[0] == 8.0
    assert factors[-1] == 1.0
    assert ratios == pytest.approx([8 ** (-1 / 32)] * 32)
    assert anneal.factor_at(9) == anneal.factor_at(0)  # a stage lasts ten steps here
    for prior in (Bimodal(anneal=anneal), PeakMixture(anneal=anneal)):
        wide, own = prior.at(0, 1), prior.at(320, 1)
        assert own == prior.distribution(1) == type(prior)().distribution(1)
        assert wide.scales == tuple(8 * scale for scale in own.scales)
        assert (wide.means, wide.weights) == (own.means, own.weights)


def test_annealing_changes_what_a_member_becomes_and_ends_with_the_prior_itself() -> None:
    plain, annealed = (
        spec({"kind": "bimodal", "anneal": anneal})
        for anneal in (None, {"factor": 3.0, "steps": 60})
    )
    (one,), (other,) = (train(each, [0], PIXELS) for each in (plain, annealed))
    assert annealed.class_prior == plain.class_prior
    assert not np.array_equal(one.code, other.code)


def test_a_share_moves_weight_to_the_upper_peak() -> None:
    own = Bimodal(share=0.32).distribution(1)
    assert own.weights == pytest.approx((0.68, 0.32))
    assert own.means == ((-1.0,), (1.0,))
