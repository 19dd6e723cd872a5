"""The cheap baselines: no miracle, no labels, and nothing of the held-out images."""

from __future__ import annotations

import numpy as np
import pytest

from models.baselines import BASELINES, fit_all
from models.datasets import Digits
from models.scores import Scorer

TWO = Digits(classes=(1, 8)).load()
THREE = Digits(classes=(0, 1, 7)).load()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_gives_each_image_the_same_value_again_and_no_miracle(name: str) -> None:
    """1 against 8 is hard without labels: the cheap ones stay under .75, so 0.8 means something."""
    few = TWO.pixels[:80].astype(np.float64)
    assert np.array_equal(BASELINES[name](few, 2)(few), BASELINES[name](few.copy(), 2)(few))
    one = fit_all(TWO.pixels, None, 2)[name]
    assert one.order is not None
    assert one.memberships is not None
    assert one.order.shape == (356,)
    assert one.memberships.shape == (356, 2)
    assert np.isfinite(one.order).all()
    assert np.isfinite(one.memberships).all()
    score = Scorer(TWO.labels, TWO.label_digest or "").scores(one)["auc_split"]
    assert score is not None
    assert 0.4 < score < 0.75


def test_three_classes_are_looked_for_by_three_clusters() -> None:
    found = fit_all(THREE.pixels, None, 3)
    for name, one in found.items():
        assert one.memberships is not None
        assert one.memberships.shape == (len(THREE.images), 3), name
        scores = Scorer(THREE.labels, "0" * 64).scores(one)
        assert scores["auc_split"] is None
        assert scores["accuracy"] is not None
        assert scores["accuracy"] > 1 / 3


def test_the_sum_and_the_component_are_what_they_say() -> None:
    found = fit_all(TWO.pixels, None, 2)
    pixels = TWO.pixels.astype(np.float64)
    ink = pixels.sum(1)
    order = found["sum of pixels"].order
    assert order is not None
    np.testing.assert_allclose(order, ink - ink.mean(), atol=1e-12)
    centred = pixels - pixels.mean(0)
    component = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    own = found["first principal component"].order
    assert own is not None
    assert abs(np.corrcoef(own, component)[0, 1]) == pytest.approx(1, abs=1e-12)


def test_with_a_split_only_the_training_images_are_fit() -> None:
    """Noise in place of the others changes no value of the images that were fit."""
    rows = np.arange(0, 356, 2)
    changed = TWO.pixels.copy()
    changed[1::2] = np.random.default_rng(0).random(changed[1::2].shape)
    before, after = (fit_all(pixels, rows, 2) for pixels in (TWO.pixels, changed))
    for name in BASELINES:
        one, other = before[name].order, after[name].order
        assert one is not None
        assert other is not None
        assert np.array_equal(one[rows], other[rows]), name
        assert not np.array_equal(one, other), name


def test_where_nobody_knows_of_classes_two_are_looked_for() -> None:
    two, none = fit_all(TWO.pixels, None, 2), fit_all(TWO.pixels, None, 0)
    for name, one in two.items():
        assert one.memberships is not None
        assert none[name].memberships is not None
        assert np.array_equal(one.memberships, none[name].memberships)
