"""Every step against an independent computation, and its limits."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import images as made
import numpy as np
import pytest
from images import load
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.datasets import BadData
from models.datasets.preprocess import preprocess
from models.datasets.steps import (
    Asinh,
    Centre,
    Clip,
    Crop,
    Flux,
    Sign,
    Standardise,
    Step,
    Steps,
    UnfitError,
)
from sweeps.mistakes import models_in

RNG = np.random.default_rng(7)
IMAGES = RNG.gamma(2.0, size=(9, 2, 7, 6)).astype(np.float32)


def steps_of(*steps: Any) -> tuple[Step, ...]:
    return TypeAdapter(Steps).validate_python(list(steps))


def every_step() -> list[Step]:
    return [Crop(size=(4, 4)), Centre(), Flux(), Clip(), Asinh(), Sign(), Standardise()]


def test_the_list_of_steps_is_whole() -> None:
    assert {type(step) for step in every_step()} == set(models_in(Steps))


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.kind)
def test_a_step_is_the_same_twice_in_doubles_and_changes_no_input(step: Step) -> None:
    kept = IMAGES.copy()
    once = step.apply(IMAGES)
    assert once.dtype == np.float64
    assert np.array_equal(once, step.apply(IMAGES))
    assert np.array_equal(once, step.apply(IMAGES.astype(np.float64)))
    assert np.array_equal(IMAGES, kept)


@pytest.mark.parametrize("step", every_step(), ids=lambda step: step.kind)
def test_blocks_make_no_difference(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preprocess([step], IMAGES)
    assert whole.dtype == np.float32
    monkeypatch.setattr("models.datasets.base.CHUNK_BYTES", 2 * IMAGES[0].nbytes)
    assert preprocess([step], IMAGES).tobytes() == whole.tobytes()
    if not isinstance(step, Standardise):
        alone = np.concatenate([preprocess([step], IMAGES[n : n + 1]) for n in range(9)])
        assert alone.tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((3, 4), (2, 5), (1, 5)), ((4, 3), (1, 5), (1, 4)), ((7, 6), (0, 7), (0, 6))],
)
def test_crop_is_central(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    cut = Crop(size=size).apply(IMAGES)
    assert np.array_equal(cut, IMAGES[:, :, slice(*rows), slice(*columns)])
    assert steps_of({"kind": "crop", "size": 3}) == (Crop(size=(3, 3)),)


def test_centre_moves_a_spot_to_the_middle_and_brings_zeros() -> None:
    for row in range(7):
        for column in range(5):
            image = np.zeros((1, 1, 7, 5))
            image[0, 0, row, column] = 2.5
            expected = np.zeros((1, 1, 7, 5))
            expected[0, 0, 3, 2] = 2.5
            assert np.array_equal(Centre().apply(image), expected)


def test_centre_by_plain_loops() -> None:
    """Centroid over positive pixels of all channels, rounded shift, one pixel at a time."""
    noisy = IMAGES - np.float32(1)
    moved = Centre().apply(noisy)
    for image, out in zip(noisy.astype(float), moved, strict=True):
        total = rows = columns = 0.0
        for channel in image:
            for y in range(7):
                for x in range(6):
                    flux = max(channel[y][x], 0)
                    total, rows, columns = total + flux, rows + flux * y, columns + flux * x
        down, right = round(3 - rows / total), round(2.5 - columns / total)
        for c in range(2):
            for y in range(7):
                for x in range(6):
                    inside = 0 <= y - down < 7 and 0 <= x - right < 6
                    assert out[c, y, x] == (image[c, y - down, x - right] if inside else 0)


@pytest.mark.parametrize(
    ("norm", "measure"),
    [("sum", np.sum), ("l2", lambda a: math.sqrt(np.sum(a * a))), ("max", np.max)],
)
def test_flux_has_norm_one_and_keeps_ratios(norm: Any, measure: Any) -> None:
    divided = Flux(norm=norm).apply(IMAGES)
    for raw, image in zip(IMAGES.astype(float), divided, strict=True):
        assert measure(image) == pytest.approx(1, rel=1e-12)
        assert image / image[0, 0, 0] == pytest.approx(raw / raw[0, 0, 0], rel=1e-12)


def clipped_slowly(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return one channel (H, W) without defects, by sorting neighbours in plain Python."""
    height, width = image.shape
    around = [
        [
            statistics.median(
                image[min(max(y + dy, 0), height - 1)][min(max(x + dx, 0), width - 1)]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            )
            for x in range(width)
        ]
        for y in range(height)
    ]
    excess = [image[y][x] - around[y][x] for y in range(height) for x in range(width)]
    middle = statistics.median(excess)
    deviations = [abs(value - middle) for value in excess]
    normal = statistics.NormalDist()
    scale = statistics.median(deviations) / normal.inv_cdf(0.75)
    if scale == 0:
        scale = statistics.mean(deviations) * math.sqrt(math.pi / 2)
    out = image.copy()
    for y in range(height):
        for x in range(width):
            if image[y][x] - around[y][x] > sigma * scale:
                out[y, x] = around[y][x]
    return out


@pytest.mark.parametrize("sigma", [1.0, 3.0, 5.0])
def test_clip_by_plain_loops(sigma: float) -> None:
    hit = IMAGES.astype(np.float64)
    hit[:, 0, 3, 2] += 50
    hit[::2, 1, 0, 0] += 50  # a corner
    flat = np.zeros((1, 2, 7, 6))
    flat[0, 0, 5, 5] = 1.0  # more than half of all deviations are zero
    hit = np.concatenate([hit, flat])
    clean = Clip(sigma=sigma).apply(hit)
    slow = [[clipped_slowly(channel, sigma) for channel in image] for image in hit]
    assert clean == pytest.approx(np.array(slow), rel=1e-12)
    assert (clean[:9, 0, 3, 2] < 20).all()
    assert clean[-1].max() == 0


def test_clip_leaves_clean_noise_nearly_alone() -> None:
    noise = np.random.default_rng(0).normal(10, 1, (20, 1, 32, 32))
    assert (Clip().apply(noise) != noise).mean() < 1e-3


def test_asinh_is_linear_below_and_logarithmic_above() -> None:
    small, large = np.full((1, 1, 1, 1), 1e-6), np.full((1, 1, 1, 1), 1e6)
    step = Asinh(softening=0.5)
    assert step.apply(small).item() == pytest.approx(1e-6, rel=1e-9)
    assert step.apply(large).item() == pytest.approx(0.5 * math.log(4e6), rel=1e-9)
    for x in (-3.0, 0.0, 0.2, 7.0):
        value = step.apply(np.full((1, 1, 1, 1), x)).item()
        assert math.sinh(value / 0.5) * 0.5 == pytest.approx(x, abs=1e-12)


@pytest.mark.parametrize("over", ["all", "channel"])
def test_standardise_over_the_dataset(over: Any) -> None:
    images = IMAGES * np.array([1, 5], dtype=np.float32)[None, :, None, None]
    axes = (0, 2, 3) if over == "channel" else None
    done = Standardise(over=over).apply(images)
    assert np.mean(done, axis=axes) == pytest.approx(0, abs=1e-12)
    assert np.std(done, axis=axes) == pytest.approx(1, rel=1e-12)
    double = images.astype(np.float64)
    mean, deviation = (f(double, axis=axes, keepdims=True) for f in (np.mean, np.std))
    assert done == pytest.approx((double - mean) / deviation, rel=1e-10)


def test_steps_run_in_their_order_and_round_once(tmp_path: Path) -> None:
    path = str(made.npz(tmp_path))
    asked = ["centre", {"kind": "flux", "norm": "l2"}, {"kind": "crop", "size": [4, 4]}, "asinh"]
    raw = load(path=path)
    dataset = load(path=path, preprocess=asked)
    double: NDArray[Any] = raw.images
    for step in (Centre(), Flux(norm="l2"), Crop(size=(4, 4)), Asinh()):
        double = step.apply(double)
    assert np.array_equal(dataset.images, double.astype(np.float32))
    assert load(path=path, preprocess=asked[::-1]).image_digest != dataset.image_digest
    ink = raw.covariates["ink"].tolist()
    assert dataset.covariates["ink"].tolist() == ink, "of the raw image: flux would make it 1"


def test_digits_can_be_preprocessed_too() -> None:
    plain, cut = load(name="digits"), load(name="digits", preprocess=[{"kind": "crop", "size": 6}])
    assert np.array_equal(cut.images, plain.images[:, :, 1:7, 1:7])
    assert cut.covariates["slant"].tolist() == plain.covariates["slant"].tolist()


REFUSED: dict[str, tuple[list[Any], str]] = {
    "centre": (
        ["centre"],
        "preprocess[0]: image 7 (counted from 0) has no positive pixel, hence no centroid",
    ),
    "sum": (
        ["asinh", "flux"],
        "preprocess[1]: image 7 (counted from 0) cannot be divided by its sum, which is not "
        "positive",
    ),
    "l2": (
        [{"kind": "flux", "norm": "l2"}],
        "preprocess[0]: image 7 (counted from 0) cannot be divided by its L2 norm, which is not "
        "positive",
    ),
    "max": (
        [{"kind": "flux", "norm": "max"}],
        "preprocess[0]: image 7 (counted from 0) cannot be divided by its largest pixel, which is "
        "not positive",
    ),
    "crop": (
        [{"kind": "crop", "size": 7}],
        "preprocess[0]: 7 x 7 pixels cannot be cut from 6 x 5",
    ),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_cannot_be_is_refused_with_its_number(rule: str, tmp_path: Path) -> None:
    steps, sentence = REFUSED[rule]
    dark = made.pixels()
    dark[7] = 0
    with pytest.raises(BadData) as bad:
        load(path=str(made.npz(tmp_path, images=dark)), classes=[1, 2], preprocess=steps)
    assert str(bad.value) == sentence


def test_equal_pixels_have_no_deviation(tmp_path: Path) -> None:
    path = made.npz(tmp_path, images=np.ones((12, 3, 3)))
    with pytest.raises(BadData) as bad:
        load(path=str(path), preprocess=["standardise"])
    assert str(bad.value) == (
        "preprocess[0]: all pixels are equal, so there is no deviation to divide by"
    )
    with pytest.raises(UnfitError):
        Standardise().apply(np.ones((2, 1, 3, 3)))


def test_what_grows_beyond_float32_is_refused(tmp_path: Path) -> None:
    array = np.full((12, 3, 3), 1e-3)
    array[5, 0, :2] = 1e38, -1e38  # divided by a sum of 0.007
    with pytest.raises(BadData) as bad:
        load(path=str(made.npz(tmp_path, images=array)), preprocess=["flux"])
    assert str(bad.value) == "preprocess: image 5 (counted from 0) is not finite afterwards"
