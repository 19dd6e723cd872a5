"""Stars and galaxies: light against photons and analytic profiles, noise, defects, measurements."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from images import load
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv
from simulated import REFUSED, REFUSED_STARS, coarse_digest, digests_elsewhere
from sklearn.metrics import roc_auc_score
from studies import tiny, write

from models.datasets import StarGalaxy
from models.datasets.detector import FULL_WELL, READ_OUT, SKY, SKY_NOISE, defects, expose, flux_at
from models.datasets.photometry import aperture, measure, mended
from models.datasets.profiles import BETA, Sources, render, sersic_transform
from models.datasets.stargalaxy import CANONICAL, _snr
from models.datasets.unseen import unseen
from sweeps.cli import main
from sweeps.mistakes import Refused
from sweeps.run import train_missing
from sweeps.study import load_study
from sweeps.sweep import open_sweep

SMALL: dict[str, Any] = {
    "name": "stargalaxy",
    "objects": 40,
    "seed": 3,
    "cosmic_rays": 1,
    "neighbours": 0.5,
}
Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one(x: float, y: float, seeing: float, *shape: float) -> Sources:
    """Return a star, or a galaxy of index, radius, ratio and angle."""
    values = (x, y, seeing, *(shape or (1.0, 0.0, 1.0, 0.0)))
    return Sources(*(np.array([value], dtype=float) for value in values))


def moffat_inside(radius: float, seeing: float) -> float:
    scale = seeing / 2 / np.sqrt(2 ** (1 / BETA) - 1)
    return float(1 - (1 + (radius / scale) ** 2) ** (1 - BETA))


def test_a_star_is_the_moffat_profile_integrated_over_each_pixel() -> None:
    """By Gauss and Legendre's rule, 12 x 12 points a pixel; to 1e-5 of the flux (the cut-off)."""
    x, y, seeing, size = 11.83, 10.4, 2.5, 24
    (image,) = render(one(x, y, seeing), size)
    nodes, weights = leggauss(12)
    points = (np.arange(size)[:, None] + nodes / 2).ravel()
    weight = np.tile(weights / 2, size)
    scale = seeing / 2 / np.sqrt(2 ** (1 / BETA) - 1)
    square = ((points - y) ** 2)[:, None] + (points - x) ** 2
    density = (BETA - 1) / (np.pi * scale**2) * (1 + square / scale**2) ** -BETA
    fine = density * weight[:, None] * weight
    exact = fine.reshape(size, 12, size, 12).sum((1, 3))
    assert np.abs(image - exact).max() < 1e-5
    assert exact.max() > 0.09


def photons(source: Sources, count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw where photons of a source arrive: none of Fourier, none of the code."""
    n, radius, ratio, angle = (
        float(values[0]) for values in (source.index, source.radius, source.ratio, source.angle)
    )
    far = radius * (random.gamma(2 * n, size=count) / gammaincinv(2 * n, 0.5)) ** n
    turn = random.uniform(0, 2 * np.pi, count)
    along, across = far * np.cos(turn), far * np.sin(turn) * ratio
    scale = float(source.seeing[0]) / 2 / np.sqrt(2 ** (1 / BETA) - 1)
    blur = scale * np.sqrt(random.random(count) ** (1 / (1 - BETA)) - 1)
    turn = random.uniform(0, 2 * np.pi, count)
    x = source.x + along * np.cos(angle) - across * np.sin(angle) + blur * np.cos(turn)
    y = source.y + along * np.sin(angle) + across * np.cos(angle) + blur * np.sin(turn)
    return x, y


@pytest.mark.parametrize(
    ("index", "radius", "ratio", "angle"),
    [(0.8, 3.0, 0.3, 0.6), (1.0, 1.0, 1.0, 0.0), (2.3, 2.5, 0.7, 2.0), (4.0, 4.0, 0.5, 1.2)],
)
def test_a_galaxy_is_what_its_photons_make(
    index: float, radius: float, ratio: float, angle: float
) -> None:
    """A million photons: no pixel is off by 5 of its errors, nor all together (chi-square)."""
    count, size = 1_000_000, 24
    source = one(11.2, 12.1, 3.0, index, radius, ratio, angle)
    x, y = photons(source, count, np.random.default_rng(5))
    edges = np.arange(size + 1) - 0.5
    found = np.histogram2d(y, x, bins=(edges, edges))[0]
    (image,) = count * render(source, size)
    off = (found - image) / np.sqrt(np.maximum(image, 1))
    assert np.abs(off).max() < 5
    assert (off**2).sum() < size**2 + 5 * np.sqrt(2 * size**2)


def test_the_flux_of_a_star_is_whole() -> None:
    """Within 1e-3 in the cut-out, and 1e-4 of what a circle holds where pixels are small beside it.

    At 4 pixels their own width takes half a per cent out of the circle.
    """
    images = render(one(31.5, 31.5, 3.0), 64)
    middle = np.full(1, 31.5)
    for radius in (4.0, 10.0, 25.0):
        got = float(aperture(images, middle, middle, radius)[0])
        assert got == pytest.approx(moffat_inside(radius, 3.0), abs=6e-3 if radius == 4 else 1e-4)
    assert images.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("index", [0.8, 1.0, 2.5, 4.0])
def test_half_of_a_round_galaxy_lies_within_its_radius(index: float) -> None:
    """By b_n of SciPy's inverse incomplete gamma function, at 1/2, 1 and 2 radii of 11 pixels.

    Within 0.01 of the flux: seeing of 2 pixels takes that much of a steep core out of 5.5 pixels.
    """
    images = render(one(31.5, 31.5, 2.0, index, 11.0, 1.0, 0.0), 64)
    middle = np.full(1, 31.5)
    b = gammaincinv(2 * index, 0.5)
    for radii, tolerance in ((0.5, 0.02), (1, 0.01), (2, 0.01)):
        got = float(aperture(images, middle, middle, 11.0 * radii)[0])
        exact = float(gammainc(2 * index, b * radii ** (1 / index)))
        assert got == pytest.approx(exact, abs=tolerance), radii


def test_the_transform_of_an_exponential_disc_is_its_closed_form() -> None:
    q = np.linspace(0, 60, 1001)
    exact = (1 + (q / gammaincinv(2, 0.5)) ** 2) ** -1.5
    assert np.abs(sersic_transform(q[None], np.ones(1))[0] - exact).max() < 3e-5


def test_noise_is_that_of_sky_source_and_read_out() -> None:
    """Variance in electrons: sky + light + read-out squared, within 4 standard errors."""
    light = np.zeros((2, 1, 200, 200))
    light[1] = 700
    pixels = expose(light, np.random.default_rng(0))
    for found, source in zip(pixels, (0.0, 700.0), strict=True):
        variance, count = SKY + source + READ_OUT**2, found.size
        assert found.mean() == pytest.approx(source, abs=4 * np.sqrt(variance / count))
        assert found.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / count) + 1e-3)
    assert expose(np.full((1, 1, 2, 2), 1e7), np.random.default_rng(0)).max() == FULL_WELL - SKY


def test_a_star_of_a_signal_to_noise_has_it() -> None:
    """The scatter of the best linear estimate over 3,000 exposures, within 4 errors."""
    profile = render(one(11.5, 11.5, 3.0), 24)
    flux = flux_at(30.0, profile[0])
    assert _snr(np.array([[flux]]), profile)[0, 0] == pytest.approx(30.0, rel=1e-9)
    frames = expose(np.repeat(flux * profile, 3000, 0)[:, None], np.random.default_rng(0))[:, 0]
    weight = profile[0] / np.square(profile[0]).sum()
    found = np.einsum("nhw,hw->n", frames, weight)
    assert found.mean() == pytest.approx(flux, rel=4 / 30 / np.sqrt(3000))
    # The source's own noise is a little below F: its middle weighs most. 10 % of the ratio.
    assert flux / found.std() == pytest.approx(30.0, rel=0.1)


def test_defects_are_where_the_mask_says() -> None:
    clean = np.random.default_rng(1).normal(size=(300, 2, 24, 24))
    streams = np.random.default_rng(2), np.random.default_rng(3)
    hot, mask = defects(clean, 0.5, 0.0, *streams)
    assert np.array_equal(hot != clean, mask)
    assert set(hot[mask]) == {FULL_WELL - SKY}
    assert mask.sum() == pytest.approx(300, abs=4 * np.sqrt(300))
    rays, mask = defects(clean, 0.0, 0.2, *streams)
    assert np.array_equal(rays != clean, mask)
    assert (rays - clean)[mask].min() > 1900
    per_ray = mask.sum() / (600 * 0.2)
    assert 2 < per_ray < 3.6, "1 to 6 pixels, less what leaves the cut-out"
    neither, mask = defects(clean, 0.0, 0.0, *streams)
    assert np.array_equal(neither, clean)
    assert not mask.any()


def test_what_a_dataset_holds() -> None:
    dataset = load(**{**SMALL, "objects": 200, "galaxies": 0.32, "bands": 3, "preprocess": "raw"})
    assert dataset.images.shape == (200, 3, 24, 24)
    assert dataset.images.dtype == np.float32
    assert dataset.class_names == ("star", "galaxy")
    assert dataset.labels is not None
    assert dataset.labels.sum() == 64
    assert dataset.mask is not None
    assert dataset.mask.shape == dataset.images.shape
    assert dataset.mask.dtype == bool
    assert dataset.scalar == "concentration"
    own = dataset.covariates
    assert list(own) == list(StarGalaxy.covariates)
    for name, values in own.items():
        assert values.shape == (200,), name
        assert values.dtype == np.float64, name
        assert np.isfinite(values).all(), name
    star = dataset.labels == 0
    for name in ("radius_true", "ellipticity_true", "index"):
        assert not own[name][star].any(), name
        assert (own[name][~star] > 0).all(), name
    assert own["radius_true"][~star].min() >= 1
    assert own["radius_true"].max() <= 4
    assert np.array_equal(own["defects"], dataset.mask.sum((1, 2, 3)))
    assert own["neighbours"].mean() == pytest.approx(0.5, abs=0.2)
    assert dataset.description == (
        "200 simulated cut-outs, 32 % galaxies, S/N 20 to 200, seeing 2.5 to 4, radii 1 to 4 "
        "pixels, 0.5 neighbours, 0.5 hot pixels and 1 cosmic rays a cut-out, colours 0.5 sd "
        "apart, offset 0.5, seed 3"
    )
    assert "colour" not in load(**SMALL).covariates, "one band has none"


def quiet(**settings: Any) -> dict[str, Any]:
    """Return settings without neighbours or defects."""
    rates = {"neighbours": 0, "hot_pixels": 0, "cosmic_rays": 0}
    return {"name": "stargalaxy", "preprocess": "raw", **rates, **settings}


def test_what_is_measured_is_near_what_is_true() -> None:
    settings = quiet(objects=400, bands=3, snr=[300, 400], seed=1)
    dataset = load(**settings)
    own, star = dataset.covariates, dataset.labels == 0
    held = moffat_inside(1.8 * 3.25, 3.25)
    assert np.median((own["flux"] / own["flux_true"])[star]) == pytest.approx(held, abs=0.01)
    assert np.abs(own["colour"] - own["colour_true"]).max() < 0.1
    galaxy = ~star
    for name in ("radius", "ellipticity"):
        pair = own[name][galaxy], own[f"{name}_true"][galaxy]
        assert np.corrcoef(*pair)[0, 1] > 0.7, name
    assert own["ellipticity"][star].max() < 0.1
    assert own["snr"].min() > 150


def test_a_centroid_is_found_and_a_round_gaussian_is_measured_right() -> None:
    """Under a weight of width w a Gaussian of width s has the square radius 2 / (1/s^2 + 1/w^2)."""
    rows, columns = np.indices((24, 24))
    s, w = 2.0, 3.0
    image = np.exp(-0.5 * ((rows - 12.3) ** 2 + (columns - 10.6) ** 2) / s**2)[None]
    found = measure(1e4 * image, w, 1.0)
    assert found.radius[0] == pytest.approx(np.sqrt(2 / (1 / s**2 + 1 / w**2)), rel=1e-3)
    assert found.ellipticity[0] < 1e-3
    inside = [1 - np.exp(-0.5 * (r * w / s) ** 2) for r in (0.6, 1.8)]
    assert found.concentration[0] == pytest.approx(inside[0] / inside[1], abs=0.01)
    assert found.flux[0] == pytest.approx(1e4 * 2 * np.pi * s**2 * inside[1], rel=0.01)


def test_masked_pixels_are_mended_and_others_kept() -> None:
    image = np.arange(25.0).reshape(1, 5, 5)
    mask = np.zeros((1, 5, 5), dtype=bool)
    mask[0, 2, 2] = True
    broken = image.copy()
    broken[mask] = 1e6
    fixed = mended(broken, mask)
    assert np.array_equal(fixed[~mask], image[~mask])
    assert fixed[mask][0] == np.median(broken[0, 1:4, 1:4]) == 13


def test_fluxes_colours_and_defects_say_no_more_of_the_class_than_they_should() -> None:
    """4 standard errors of an AUC at 1,000 + 1,000 are 0.05."""
    dataset = load(**quiet(objects=2000, bands=2, colour_signal=1, hot_pixels=0.5))
    assert dataset.labels is not None
    for name, expected in {
        "flux_true": 0.5,
        "seeing": 0.5,
        "defects": 0.5,
        "colour_true": 0.7475,  # of normals 0.4 apart, variance 0.4^2 + 2 * 0.1^2
    }.items():
        auc = float(roc_auc_score(dataset.labels, dataset.covariates[name]))
        assert auc == pytest.approx(expected, abs=0.05), name


def test_canonical_is_its_steps_and_raw_is_none() -> None:
    canonical, raw = load(**SMALL), load(**SMALL, preprocess="raw")
    steps = [step.model_dump() for step in CANONICAL]
    assert load(**SMALL, preprocess=steps).image_digest == canonical.image_digest
    assert StarGalaxy.model_validate(SMALL).model_dump(mode="json")["preprocess"] == steps
    assert load(**SMALL, preprocess=[]).image_digest == raw.image_digest
    new = unseen(StarGalaxy.model_validate(SMALL), raw.images, (1, 24, 24))
    assert np.array_equal(new.images, canonical.images)
    assert raw.images.max() == pytest.approx((FULL_WELL - SKY) / SKY_NOISE)
    assert canonical.images.std() == pytest.approx(1, abs=1e-6), "so that a unit's KL weighs less"
    assert canonical.images.mean() == pytest.approx(0, abs=1e-6)


def test_the_mask_moves_where_pixels_move() -> None:
    """Hot pixels are the only full ones, so centred and cut they still tell where the mask is."""
    settings = {**SMALL, "cosmic_rays": 0, "hot_pixels": 3, "preprocess": "raw"}
    full = load(**settings).images.max()
    raw = load(**settings)
    moved = load(**{**settings, "preprocess": ["centre", {"kind": "crop", "size": 17}]})
    assert raw.mask is not None
    assert moved.mask is not None
    assert np.array_equal(raw.images == full, raw.mask)
    assert np.array_equal(moved.images == full, moved.mask)
    assert moved.mask.shape == moved.images.shape == (40, 1, 17, 17)
    assert moved.mask.any()


def test_another_rate_of_defects_changes_no_other_pixel() -> None:
    few = load(**{**SMALL, "preprocess": "raw", "hot_pixels": 0})
    many = load(**{**SMALL, "preprocess": "raw", "hot_pixels": 9})
    assert few.mask is not None
    assert many.mask is not None
    good = ~many.mask
    assert good.mean() < 0.99
    assert np.array_equal(few.images[good], many.images[good])
    assert few.label_digest == many.label_digest


@pytest.mark.parametrize("way", ["canonical", "raw"])
def test_the_same_settings_are_the_same_pixels_anywhere(way: str, tmp_path: Path) -> None:
    settings = {**SMALL, "preprocess": way}
    dataset = load(**settings)
    assert coarse_digest(dataset.images) == GOLDEN[way]
    assert load(**{**settings, "seed": 4}).image_digest != dataset.image_digest
    if way == "raw":
        elsewhere = digests_elsewhere(json.dumps(settings), str(tmp_path / "other"))
        assert elsewhere == [dataset.image_digest, dataset.label_digest]


# Raise VERSION in models/datasets/stargalaxy.py when they change.
GOLDEN = {"canonical": "a9b8d2532c441e64", "raw": "382f601071954eff"}


def test_the_cache_keeps_mask_and_covariates(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(**SMALL, bands=2)
    monkeypatch.setattr(StarGalaxy, "draw", lambda _: pytest.fail("drawn again"))
    again = load(**SMALL, bands=2)
    assert (again.image_digest, again.label_digest) == (first.image_digest, first.label_digest)
    assert again.mask is not None
    assert first.mask is not None
    assert np.array_equal(again.mask, first.mask)
    assert list(again.covariates) == list(first.covariates)
    for name, values in first.covariates.items():
        assert again.covariates[name].tobytes() == values.tobytes()


def test_four_thousand_are_made_in_well_under_30_seconds() -> None:
    """A tenth of them, in processor time, so that a busy machine does not count."""
    load(**SMALL)
    start = time.process_time()
    load(name="stargalaxy", objects=400)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("rule", [*REFUSED, *REFUSED_STARS])
def test_each_refusal_has_its_sentence(rule: str, tmp_path: Path) -> None:
    settings, sentence = {**REFUSED, **REFUSED_STARS}[rule]
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, tiny(dataset={"name": "stargalaxy", **settings})))
    assert refused.value.mistakes == [f"x.yaml: dataset.{sentence}"]


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (
            "stargalaxi",
            "dataset.name: unknown name 'stargalaxi'; did you mean 'stargalaxy'? "
            "known: digits, ising, stargalaxy",
        ),
        (
            {"name": 3},
            "dataset.name: expected the name of a dataset, got 3; known: digits, ising, stargalaxy",
        ),
        (
            {"name": ["ising"]},
            "dataset.name: expected the name of a dataset, got ['ising']; "
            "known: digits, ising, stargalaxy",
        ),
        (
            {"name": "stargalaxy", "path": "x.npz", "objects": 40},
            "dataset: unknown key 'path'; known: bands, colour_signal, cosmic_rays, galaxies, "
            "hot_pixels, name, neighbours, objects, offset, preprocess, radius, seed, seeing, "
            "size, snr",
        ),
    ],
)
def test_a_name_that_is_none_names_all(dataset: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, tiny(dataset=dataset)))
    assert refused.value.mistakes == [f"x.yaml: {sentence}"]


def test_data_describes_and_exports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, tiny(dataset=SMALL))
    assert main(["data", "export", "x.yaml", "--out", "out", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    dataset = load(**SMALL)
    assert found["scalar"] == "concentration"
    assert dataset.mask is not None
    assert found["defective"] == pytest.approx(dataset.mask.mean())
    assert [entry["name"] for entry in found["classes"]] == ["star", "galaxy"]
    with np.load("out/stargalaxy.npz", allow_pickle=False) as plain:
        assert np.array_equal(plain["mask"], dataset.mask)
        assert np.array_equal(plain["cov_snr"], dataset.covariates["snr"])
    assert load(path="out/stargalaxy.npz").image_digest == dataset.image_digest
    assert main(["data", "describe", "x.yaml"]) == 0
    out = capfd.readouterr().out
    assert "own scalar    concentration, a baseline" in out
    assert "% of the pixels, known by a mask" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_study_shows_the_domains_own_scalar_beside_the_baselines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study, dataset = load_study(
        write(tmp_path, tiny(dataset={**SMALL, "objects": 64}, cells=[{"objective": "ae"}]))
    )
    sweep = open_sweep(study, dataset, tmp_path / "out")
    silent = SimpleNamespace(steps=lambda *_: None, finished=lambda *_: None)
    train_missing(
        sweep, launcher="inline", width=None, display=lambda *_: contextlib.nullcontext(silent)
    )
    for _ in range(2):  # computed, then as kept
        assert main(["report", str(tmp_path / "out"), "--json"]) == 0
        report = json.loads(capfd.readouterr().out)
        assert report["cells"][0]["n_scored"] == 3
        score = report["baselines"]["own scalar: concentration"]["auc_split"]
        assert score > 0.8
        assert "own scalar: concentration" in (tmp_path / "out" / "report.html").read_text()
