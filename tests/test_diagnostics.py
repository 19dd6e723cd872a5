"""Diagnostics against plain loops, SciPy, scikit-learn and cases whose answer is known."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats
from sklearn.metrics import mutual_info_score

from models.diagnostics import denoising, generation, shape
from models.diagnostics.denoising import Defects, denoising_of, filtered, removal, with_defects
from models.diagnostics.features import Features
from models.diagnostics.generation import Coded, ex_post, generation_of, jump, samples
from models.diagnostics.likeness import NEAREST, Likeness, two_sample_auc
from models.diagnostics.physics import LEAST, Physics, bins_for
from models.diagnostics.reference import reference_of
from models.diagnostics.request import Requested
from models.diagnostics.shape import normal_distance, prior_distance, shape_of, valley
from models.diagnostics.table import DIAGNOSTICS, NAMES, Examination, Member
from models.distributions import Mixture
from models.priors import Bimodal, Normal, Uniform

Floats = NDArray[np.float32]

TWO = Bimodal(m=1, s=0.35).distribution(1)
ONE = Normal().distribution(1)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def two_peaks(count: int, apart: float, share: float = 0.5) -> NDArray[np.float64]:
    generator = random(1)
    side = np.where(np.arange(count) < share * count, -1.0, 1.0)
    return side * apart + generator.normal(size=count)


# The shape of a code


@pytest.mark.parametrize("prior", [ONE, TWO, Uniform(low=-2, high=3).distribution(1)])
def test_distance_from_the_prior_is_scipys(prior: Any) -> None:
    code = random().normal(0.3, 1.4, size=500)
    fine = prior.quantile((np.arange(200_000) + 0.5) / 200_000)
    expected = stats.wasserstein_distance(code, fine) / np.std(fine)
    # The quantiles are taken at 500 shares: in the tails they stand for an interval each.
    assert prior_distance(code[:, None], prior) == pytest.approx(expected, abs=3e-3)


def test_distance_from_a_prior_of_two_units_is_the_mean_of_each_units() -> None:
    prior = Mixture(((-1, 0), (1, 3)), (0.5, 0.5), (0.5, 0.5))
    code = random().normal(size=(400, 2))
    marginals = [((-1, 1), 0), ((0, 3), 1)]
    expected = 0.0
    for means, unit in marginals:
        line = Mixture(tuple((m,) for m in means), (0.5, 0.5), (0.5, 0.5))
        fine = line.quantile((np.arange(100_000) + 0.5) / 100_000)
        expected += stats.wasserstein_distance(code[:, unit], fine) / 2
    assert prior_distance(code, prior) == pytest.approx(expected / prior.variance**0.5, abs=0.02)


def test_distance_from_one_gaussian_is_a_ruler_without_scale() -> None:
    code = random().gamma(2.0, size=(600, 1))
    standard = (code[:, 0] - code.mean()) / code.std()
    fine = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    expected = stats.wasserstein_distance(standard, fine)
    assert normal_distance(code) == pytest.approx(expected, abs=3e-3)
    assert normal_distance(-7 * code + 3) == pytest.approx(normal_distance(code), rel=1e-9)
    # Two points: E| |Z| - 1 | = 2 (2 phi(1) - phi(0)) + ... in closed form.
    phi, share = stats.norm.pdf, stats.norm.cdf(1)
    closed = 4 * phi(1) - 2 * phi(0) + 2 * (2 * share - 1.5)
    two = np.repeat([-1.0, 1.0], 500)[:, None]
    assert normal_distance(two) == pytest.approx(closed, abs=2e-3)
    assert normal_distance(np.ones((9, 1))) is None


def test_the_valley_is_that_of_a_plain_kernel_density() -> None:
    values = two_peaks(700, 1.7, 0.3)
    found = valley(values)
    assert found is not None
    quartiles = np.quantile(values, (0.25, 0.75))
    spread = min(values.std(), (quartiles[1] - quartiles[0]) / 1.34)
    width = 0.45 * spread * len(values) ** -0.2
    grid = np.linspace(values.min(), values.max(), 2000)
    density = np.array([stats.norm.pdf((x - values) / width).sum() for x in grid])
    best = 0.0
    for place in range(1, len(grid) - 1):
        side = np.mean(values < grid[place])
        if 0.05 <= side <= 0.95:
            lower = min(density[: place + 1].max(), density[place:].max())
            best = max(best, 1 - density[place] / lower)
    assert found.depth == pytest.approx(best, abs=0.02)  # on 512 bins
    assert found.side == pytest.approx(np.mean(values < found.place), abs=0.01)
    assert found.side == pytest.approx(0.3, abs=0.05)


def test_a_gap_is_a_valley_of_one_and_a_lone_outlier_is_none() -> None:
    assert valley(two_peaks(400, 8)).depth == pytest.approx(1, abs=1e-6)  # type: ignore[union-attr]
    triangle = np.concatenate(
        [np.sqrt(np.linspace(0, 1, 400)), 2 - np.sqrt(np.linspace(0, 1, 400))]
    )
    alone = valley(np.append(triangle, 50.0))
    assert alone is None or alone.depth < 0.02
    assert valley(np.ones(50)) is None
    chance = [valley(random(seed).normal(size=400)) for seed in range(50)]
    depths = [0.0 if one is None else one.depth for one in chance]
    assert statistics.median(depths) < 0.15
    assert np.mean(np.array(depths) > shape.NOTABLE) <= 0.06


def test_what_is_said_of_a_code_by_its_prior() -> None:
    code = two_peaks(1000, 5, 0.2)[:, None].astype(np.float32)
    found = shape_of(code, 1, TWO)
    assert tuple(found) == shape.NAMES
    assert found["minority_share"] == pytest.approx(0.2)
    assert found["valley_depth"] == pytest.approx(1, abs=1e-3)
    assert found["active_units"] == 1
    assert found["code_spread"] == pytest.approx(code.std(), rel=1e-5)
    without = shape_of(code, 1, None)
    assert without["prior_distance"] is None
    assert without["minority_share"] == pytest.approx(0.2, abs=0.005)
    assert without["normal_distance"] == found["normal_distance"]


def test_style_units_are_active_but_shape_nothing() -> None:
    code = random().normal(size=(300, 4)).astype(np.float32) * [1, 3, 0.05, 0]
    found = shape_of(code.astype(np.float32), 1, ONE)
    assert found["active_units"] == 2
    assert found | {"active_units": 0} == shape_of(code[:, :1].astype(np.float32), 1, ONE) | {
        "active_units": 0
    }


def test_a_code_of_one_value_has_no_shape() -> None:
    found = shape_of(np.zeros((40, 1), dtype=np.float32), 1, None)
    assert found == {
        "active_units": 0,
        "code_spread": 0,
        "minority_share": None,
        "valley_depth": 0,
        "prior_distance": None,
        "normal_distance": None,
    }


# Denoising


def bright(count: int = 6, side: int = 9) -> Floats:
    images = random(3).random((count, 1, side, side)).astype(np.float32) * 0.3
    images[:, 0, 4, 4] = 1.0
    return images


def same(rows: Floats) -> Floats:
    return rows


def test_hot_pixels_are_saturated_at_so_many_dark_sites() -> None:
    images = bright()
    defects = with_defects(images, 5, 2.0)
    assert (defects.sites.reshape(6, -1).sum(1) == 5).all()
    assert not defects.sites[:, 0, 4, 4].any()  # brighter than half of the way up: .5 of 2
    assert (defects.noisy[defects.sites] == 2.0).all()
    assert np.array_equal(defects.noisy[~defects.sites], images[~defects.sites])
    again = with_defects(images, 5, 2.0)
    assert np.array_equal(again.sites, defects.sites)
    assert len({one.tobytes() for one in defects.sites}) > 1, "other sites in other images"


def test_identity_keeps_hot_pixels_and_a_constant_takes_them_away() -> None:
    images = bright()
    defects = with_defects(images, 4, 1.0)
    assert denoising_of(same, same, defects) == {"hot_suppression": 0.0, "elsewhere_error": 0.0}
    flat = np.full((5, 1, 6, 6), 0.25, dtype=np.float32)
    flat[0, 0, 0, 0] = 1.0  # the brightest of all, which saturation is taken from
    found = denoising_of(lambda rows: rows * 0 + 0.25, same, with_defects(flat, 3, 1.0))
    assert found["hot_suppression"] == 1.0
    assert found["elsewhere_error"] == pytest.approx(0.75 / math.sqrt(5 * 36 - 15), rel=1e-6)


def test_removal_is_a_plain_loop_over_pixels() -> None:
    images = bright(4, 7)
    defects = with_defects(images, 3, 1.5)
    made = (0.4 * defects.noisy + 0.1).astype(np.float32)
    gone, left = [], []
    for index in np.ndindex(images.shape):
        error = abs(float(made[index]) - float(images[index]))
        if defects.sites[index]:
            gone.append(1 - error / abs(float(defects.noisy[index]) - float(images[index])))
        else:
            left.append(error**2)
    found = removal(made, defects)
    assert found["hot_suppression"] == pytest.approx(statistics.median(gone), rel=1e-6)
    assert found["elsewhere_error"] == pytest.approx(math.sqrt(np.mean(left)), rel=1e-6)


def test_the_median_filter_takes_lone_pixels_from_a_smooth_image() -> None:
    ramp = np.linspace(0, 0.4, 12, dtype=np.float32)
    images = np.tile(ramp, (3, 1, 12, 1))
    sites = np.zeros(images.shape, dtype=bool)
    sites[:, 0, 5, 5] = sites[:, 0, 0, 9] = True
    defects = Defects(images, np.where(sites, np.float32(1), images), sites)
    found = removal(filtered(defects.noisy), defects)
    assert found["hot_suppression"] == pytest.approx(1, abs=0.05)
    assert found["elsewhere_error"] == pytest.approx(0, abs=0.02)
    row = np.pad(defects.noisy[0, 0], 1, mode="edge")
    loop = [[np.median(row[y : y + 3, x : x + 3]) for x in range(12)] for y in range(12)]
    assert np.array_equal(filtered(defects.noisy)[0, 0], np.array(loop, dtype=np.float32))


def test_nothing_to_see_is_none() -> None:
    full = np.ones((2, 1, 4, 4), dtype=np.float32)
    found = denoising_of(same, same, with_defects(full, 2, 1.0))
    assert found == {"hot_suppression": None, "elsewhere_error": 0.0}
    broken = denoising_of(same, lambda rows: rows * np.nan, with_defects(bright(), 2, 1.0))
    assert broken == dict.fromkeys(denoising.NAMES)


# Generation


def images_of(count: int, seed: int, spread: float = 1.0) -> Floats:
    factors = random(99).normal(size=(4, 30))
    generator = random(seed)
    values = spread * generator.normal(size=(count, 4)) @ factors
    return (values + 0.1 * generator.normal(size=(count, 30))).astype(np.float32)


def test_density_and_coverage_are_those_of_plain_loops() -> None:
    images, made = images_of(60, 1), images_of(45, 2)
    found = Likeness(images).of(made)
    middle = images.mean(0, dtype=float)
    axes = np.linalg.svd(images - middle, full_matrices=False)[2][:10]
    own, theirs = (images - middle) @ axes.T, (made - middle) @ axes.T
    reach = []
    for i in range(60):
        others = sorted(np.linalg.norm(own[i] - own[j]) for j in range(60) if j != i)
        reach.append(others[NEAREST - 1])
    inside = [[np.linalg.norm(own[i] - y) < reach[i] for y in theirs] for i in range(60)]
    assert found["density"] == pytest.approx(np.sum(inside) / (5 * 45))
    assert found["coverage"] == pytest.approx(np.mean([any(row) for row in inside]))
    assert found["class_gap"] is None


def test_other_images_of_the_same_kind_are_as_dense_and_cover_nearly_all() -> None:
    found = Likeness(images_of(500, 1)).of(images_of(500, 2))
    assert found["density"] == pytest.approx(1, abs=0.1)
    assert found["coverage"] == pytest.approx(1 - 0.5**NEAREST, abs=0.03)  # as the source derives
    one = Likeness(images_of(500, 1)).of(np.repeat(images_of(1, 2), 500, axis=0))
    assert one["coverage"] is not None
    assert one["coverage"] < 0.1


def test_a_classifier_tells_what_differs_and_nothing_else() -> None:
    aucs = [two_sample_auc(images_of(300, 2 * s), images_of(300, 2 * s + 1)) for s in range(8)]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.03)  # sd of one about .025
    assert two_sample_auc(images_of(300, 1), images_of(300, 2) + 1) > 0.95
    # Equal means: the spread alone differs, which products of features show.
    assert two_sample_auc(images_of(300, 1), images_of(300, 2, spread=2.5)) > 0.8
    # Noise in the pixels alone is not what is asked: no decoder makes it.
    quiet = Features.of(images_of(300, 2)).components
    clean = quiet.inverse_transform(quiet.transform(images_of(300, 2).astype(float)))
    assert two_sample_auc(images_of(300, 1), clean.astype(np.float32)) < 0.6


def test_the_reference_classifier_counts_the_classes_of_samples() -> None:
    images, labels = images_of(400, 1), np.repeat([0, 1, 2], [200, 120, 80])
    images[:, 0] += 8.0 * labels
    reference = reference_of(images, labels)
    assert reference is not None
    assert reference.accuracy > 0.95
    assert reference.own.tolist() == [0.5, 0.3, 0.2]
    assert reference.gap(images) == pytest.approx(0, abs=0.01)
    assert reference.gap(images[labels == 2]) == pytest.approx(0.8, abs=0.02)
    assert reference_of(images, None) is None
    assert reference_of(images, np.zeros(400, dtype=np.int64)) is None


def test_the_density_fitted_afterwards_has_the_codes_moments() -> None:
    code = np.column_stack([two_peaks(1500, 3), 0.001 * random(5).normal(size=1500) + 7])
    drawn = ex_post(code.astype(np.float32), 20_000, random(6))
    assert drawn.mean(0) == pytest.approx(code.mean(0), rel=0.03, abs=0.1)
    assert drawn.std(0) == pytest.approx(code.std(0), rel=0.05)
    assert stats.wasserstein_distance(drawn[:, 0], code[:, 0]) < 0.12
    same_again = ex_post(code.astype(np.float32), 20_000, random(6))
    assert np.array_equal(drawn, same_again)
    assert np.unique(ex_post(np.ones((50, 1), np.float32), 4, random())).size <= 4


def test_samples_come_from_the_prior_and_style_units_from_their_codes() -> None:
    code = np.column_stack([random(1).normal(size=900), 5 + random(2).normal(size=900)])
    coded = Coded(code.astype(np.float32), 1, TWO)
    drawn = samples(coded, "prior", 4000, seed=3)
    assert drawn is not None
    assert stats.kstest(drawn[:, 0], TWO.cdf).pvalue > 0.01
    assert drawn[:, 1].mean() == pytest.approx(5, abs=0.1)
    pushed = samples(Coded(coded.code, 1, TWO, normal_style=True), "prior", 4000, seed=3)
    assert pushed is not None
    assert pushed[:, 1].mean() == pytest.approx(0, abs=0.1)
    assert samples(Coded(coded.code, 1, None), "prior", 10, seed=3) is None
    other = samples(coded, "prior", 4000, seed=4)
    assert other is not None
    assert not np.array_equal(drawn, other)


def test_a_straight_decoder_does_not_jump_and_a_step_does() -> None:
    code = random().normal(size=(300, 1)).astype(np.float32)
    direction = random(1).normal(size=(1, 20)).astype(np.float32)
    coded = Coded(code, 1, None)
    assert jump(lambda z: z @ direction, coded) == pytest.approx(1, rel=1e-3)
    assert jump(lambda z: np.sign(z - 0.01) @ direction, coded) == pytest.approx(64)
    assert jump(lambda z: z * 0, coded) is None
    # The second class unit's step is found beside a first one that moves evenly.
    both = Coded(random(2).normal(size=(300, 2)).astype(np.float32), 2, None)
    assert jump(lambda z: np.sign(z[:, 1:] - 0.01) @ direction, both) == pytest.approx(64)


def test_generation_has_every_number_or_none() -> None:
    images = images_of(200, 1)
    factors = random(99).normal(size=(4, 30)).astype(np.float32)
    code = random(7).normal(size=(200, 4)).astype(np.float32)
    likeness = Likeness(images)

    def decode(codes: Floats) -> Floats:
        made: Floats = (codes @ factors).astype(np.float32)
        return made

    found = generation_of(decode, Coded(code, 4, Normal().distribution(4)), likeness, 1)
    assert tuple(found) == generation.NAMES
    assert found["prior_coverage"] == pytest.approx(found["expost_coverage"], abs=0.1)
    assert found["decoder_jump"] == pytest.approx(1, rel=1e-3)
    without = generation_of(decode, Coded(code, 4, None), likeness, 1)
    assert [name for name, x in without.items() if x is None] == [
        *(n for n in generation.NAMES if n.startswith("prior_")),
        "expost_class_gap",
    ]
    assert without["expost_density"] == found["expost_density"]
    broken = generation_of(lambda z: decode(z) * np.nan, Coded(code, 4, None), likeness, 1)
    assert set(broken.values()) == {None}


# Physics


def test_spearman_is_scipys_over_all_and_within_each_class() -> None:
    generator = random(4)
    labels = np.repeat([0, 1], [80, 50])
    covariate = np.round(generator.normal(size=130) + 2 * labels, 1)  # with ties
    code = (np.column_stack([covariate, -covariate]) + generator.normal(size=(130, 2))).astype(
        np.float32
    )
    found = list(Physics({"mass": covariate}, labels).of(code))
    assert [(one.unit, one.label, one.n) for one in found] == [
        *((0, None, 130), (1, None, 130)),
        *((0, 0, 80), (1, 0, 80)),
        *((0, 1, 50), (1, 1, 50)),
    ]
    for one in found:
        rows = slice(None) if one.label is None else labels == one.label
        expected = stats.spearmanr(code[rows, one.unit], covariate[rows]).statistic
        assert one.spearman == pytest.approx(expected, abs=1e-12)


def test_mutual_information_is_that_of_bins_of_equal_share_less_its_bias() -> None:
    generator = random(5)
    covariate = generator.normal(size=2000)
    code = (0.8 * covariate + 0.6 * generator.normal(size=2000)).astype(np.float32)[:, None]
    (found,) = Physics({"mass": covariate}).of(code)
    count = bins_for(2000)
    assert count == 16
    both = [
        (stats.rankdata(values, "ordinal") - 1) * count // 2000
        for values in (code[:, 0], covariate)
    ]
    expected = mutual_info_score(*both) - (count - 1) ** 2 / 4000
    assert found.mutual_information == pytest.approx(expected, abs=1e-9)
    assert found.mutual_information == pytest.approx(-0.5 * math.log(1 - 0.8**2), abs=0.06)
    bent = list(Physics({"mass": np.exp(covariate)}).of(code**3))
    assert bent[0].mutual_information == pytest.approx(expected, abs=1e-9)
    apart = [
        next(Physics({"x": random(100 + s).normal(size=300)}).of(code[:300])).mutual_information
        for s in range(20)
    ]
    assert all(x is not None and 0 <= x < 0.12 for x in apart)


def test_a_covariate_may_have_holes_or_one_value_or_few_images() -> None:
    covariate = random().normal(size=60)
    code = covariate[:, None].astype(np.float32)
    holes = np.where(np.arange(60) < 10, np.nan, covariate)
    found = {one.covariate: one for one in Physics({"a": holes, "b": covariate * 0}).of(code)}
    assert (found["a"].n, found["a"].spearman) == (50, pytest.approx(1))
    assert (found["b"].n, found["b"].spearman, found["b"].mutual_information) == (60, None, None)
    few = list(Physics({"a": covariate}, np.repeat([0, 1], [60 - LEAST + 1, LEAST - 1])).of(code))
    assert [one.spearman is None for one in few] == [False, False, True]


# What a study asks for


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ([], ()),
        (None, ()),
        (["code", "physics"], ()),
        (["generation", "denoising"], ("denoising", "generation")),
        ({"denoising": True}, ("denoising",)),
        ({"denoising": {"sites": 2}, "generation": None, "code": True}, ("denoising",)),
        ("generation", ("generation",)),
    ],
)
def test_a_request_is_names_or_settings(written: Any, names: tuple[str, ...]) -> None:
    found = Requested.model_validate(written)
    assert found.names == names
    assert Requested.model_validate(found.model_dump(mode="json")) == found


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown diagnostic 'denoise'; did you mean 'denois"):
        Requested.model_validate(["denoise"])


def wide(codes: Floats) -> Floats:
    return np.repeat(codes, 30, axis=1)


def examined(requested: Any, **more: Any) -> Examination:
    images = images_of(120, 1).reshape(120, 1, 5, 6)
    labels = np.arange(120) % 2
    settings = {"images": images, "labels": labels, "label_digest": "ab", "rows": None} | more
    return Examination(**settings, requested=Requested.model_validate(requested))


def test_identities_change_with_what_a_group_depends_on_alone() -> None:
    both = ["denoising", "generation"]
    base = examined(both).identities()
    assert list(base) == ["code", "denoising", "generation"]
    assert list(examined([]).identities()) == ["code"]
    assert examined([]).identities()["code"] == base["code"]

    def changed(found: dict[str, str]) -> list[str]:
        return [name for name in base if found[name] != base[name]]

    assert changed(examined(both, label_digest="cd").identities()) == ["generation"]
    assert changed(examined(both, rows=np.arange(60)).identities()) == list(base)
    other = {"denoising": {"sites": 9}, "generation": True}
    assert changed(examined(other).identities()) == ["denoising"]


def test_an_examination_measures_each_group_on_the_same_images_for_all() -> None:
    exam = examined({"denoising": {"images": 40}, "generation": {"images": 50}})
    assert exam.defects is exam.defects
    assert exam.defects.clean.shape == (40, 1, 5, 6)
    assert exam.likeness.count == 50
    code = random().normal(size=(120, 1)).astype(np.float32)
    member = Member(0, Coded(code, 1, None), lambda rows: rows[:, :1], wide)
    found = {group: exam.measure(group, member) for group in exam.groups()}
    assert {group: tuple(numbers) for group, numbers in found.items()} == NAMES
    assert tuple(name for numbers in found.values() for name in numbers) == DIAGNOSTICS
    part = examined(["denoising"], rows=np.arange(30))
    assert part.defects.clean.tobytes() == part.images[:30].tobytes()
    half = part.measure("code", member)
    assert half == shape_of(code[:30], 1, None)
