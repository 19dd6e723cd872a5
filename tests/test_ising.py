"""Ising spins: exact results of Onsager and Yang, a lattice counted out, identity, the cache."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import load
from scipy.special import ellipk
from simulated import REFUSED, REFUSED_SPINS, coarse_digest, digests_elsewhere
from studies import tiny, write

from models.baselines import OWN, fit_all
from models.datasets import Ising
from models.datasets.ising import T_C, energy, equilibrium
from models.datasets.unseen import unseen
from models.scores import Scorer
from sweeps.mistakes import Refused
from sweeps.study import load_study

SMALL: dict[str, Any] = {"name": "ising", "size": 8, "objects": 40, "seed": 3}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def onsager_energy(temperature: float) -> float:
    """Return the infinite lattice's energy per spin (Onsager 1944, Physical Review 65, 117)."""
    k = 1 / temperature
    kappa = 2 * np.sinh(2 * k) / np.cosh(2 * k) ** 2
    term = 2 / np.pi * (2 * np.tanh(2 * k) ** 2 - 1) * float(ellipk(kappa**2))
    return float(-(1 + term) / np.tanh(2 * k))


def yang_magnetisation(temperature: float) -> float:
    """Return the spontaneous magnetisation below T_c (Yang 1952, Physical Review 85, 808)."""
    return float((1 - np.sinh(2 / temperature) ** -4) ** 0.125)


@pytest.mark.parametrize("temperature", [1.6, 2.0, 2.8, 3.3])
def test_energy_and_magnetisation_are_those_of_the_infinite_lattice(temperature: float) -> None:
    """24 spins are 7 correlation lengths or more: the lattice's end moves both by less than 1e-3.

    Within 4 standard errors of 150 independent chains, about 0.003 an energy.
    """
    spins = equilibrium(np.full(150, temperature), 24, np.random.default_rng(1))
    found = energy(spins)
    error = found.std(ddof=1) / np.sqrt(150)
    assert error < 0.01
    assert found.mean() == pytest.approx(onsager_energy(temperature), abs=4 * error + 1e-3)
    m = np.abs(spins.mean((1, 2)))
    if temperature < T_C:
        error = m.std(ddof=1) / np.sqrt(150)
        assert error < 0.01
        assert m.mean() == pytest.approx(yang_magnetisation(temperature), abs=4 * error + 1e-3)
    else:
        assert m.mean() < 0.25
    signs = np.sign(spins.mean((1, 2)))
    assert abs(signs.mean()) < 4 / np.sqrt(150), "either sign is as likely"


@pytest.mark.parametrize("temperature", [1.5, T_C, 4.0])
def test_a_small_lattice_has_the_shares_that_counting_gives(temperature: float) -> None:
    """3 x 3: all 512 configurations by hand; every level of energy and m within 4.5 errors."""
    every = np.array(list(itertools.product([-1, 1], repeat=9)), dtype=np.int8).reshape(-1, 3, 3)
    levels = np.array([9 * plain_energy(spins) for spins in every])
    weights = np.exp(-levels / temperature)
    weights /= weights.sum()
    draws = 6000
    spins = equilibrium(np.full(draws, temperature), 3, np.random.default_rng(2))
    got_levels, got_m = np.rint(9 * energy(spins)), spins.sum((1, 2), dtype=int)
    m = every.sum((1, 2), dtype=int)
    for level, total in {(a, b) for a, b in zip(levels, m, strict=True)}:
        share = weights[(levels == level) & (m == total)].sum()
        got = np.mean((got_levels == level) & (got_m == total))
        error = np.sqrt(share * (1 - share) / draws)
        assert abs(got - share) < 4.5 * error + 2 / draws, (level, total)


def plain_energy(spins: Any) -> float:
    """Return the energy per spin by a double loop over sites."""
    side, total = len(spins), 0
    for row, column in itertools.product(range(side), repeat=2):
        here = int(spins[row, column])
        total -= here * int(spins[(row + 1) % side, column])
        total -= here * int(spins[row, (column + 1) % side])
    return total / side**2


def test_what_a_dataset_holds() -> None:
    dataset = load(**{**SMALL, "objects": 300})
    assert dataset.images.shape == (300, 1, 8, 8)
    assert dataset.images.dtype == np.float32
    assert set(np.unique(dataset.images)) == {-1.0, 1.0}
    assert dataset.class_names == ("disordered", "ordered")
    assert dataset.labels is not None
    own = dataset.covariates
    assert list(own) == ["temperature", "m", "abs_m", "energy"]
    assert all(values.dtype == np.float64 for values in own.values())
    assert np.array_equal(dataset.labels == 1, own["temperature"] < T_C)
    assert own["temperature"].min() >= 1.27
    assert own["temperature"].max() <= 3.27
    m = dataset.images[:, 0].astype(float).mean((1, 2))
    np.testing.assert_allclose(own["m"], m, atol=1e-12)
    np.testing.assert_allclose(own["abs_m"], np.abs(m), atol=1e-12)
    first = [plain_energy(spins) for spins in dataset.images[:9, 0]]
    np.testing.assert_allclose(own["energy"][:9], first, atol=1e-12)
    assert dataset.mask is None
    assert dataset.scalar == "abs_m"
    assert dataset.description == (
        "300 Ising configurations of 8 x 8 spins, temperature 1.27 to 3.27, of either sign, seed 3"
    )


def test_canonical_multiplies_by_the_sign_of_m_and_changes_nothing_else() -> None:
    free, fixed = load(**SMALL), load(**SMALL, canonical=True)
    sign = np.where(free.covariates["m"] < 0, -1, 1)
    assert 0 < (sign < 0).sum() < 40
    assert np.array_equal(fixed.images, free.images * sign[:, None, None, None])
    assert np.array_equal(fixed.covariates["m"], free.covariates["abs_m"])
    for name in ("temperature", "abs_m", "energy"):
        assert np.array_equal(fixed.covariates[name], free.covariates[name])
    assert fixed.label_digest == free.label_digest
    new = unseen(Ising(**{**SMALL, "canonical": True}), free.images, (1, 8, 8))
    assert np.array_equal(new.images, fixed.images), "new images are treated as the study's own"


def test_the_same_settings_are_the_same_spins_anywhere(tmp_path: Path) -> None:
    dataset = load(**SMALL)
    elsewhere = digests_elsewhere(json.dumps(SMALL), str(tmp_path / "other"))
    assert elsewhere == [dataset.image_digest, dataset.label_digest]
    assert coarse_digest(dataset.images) == GOLDEN
    assert load(**{**SMALL, "seed": 4}).image_digest != dataset.image_digest


GOLDEN = "249b41b14552e765"  # raise VERSION in models/datasets/ising.py when it changes


def test_the_cache_is_used_and_damage_is_made_anew(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(**SMALL)
    (kept,) = cache_folder.iterdir()
    whole = kept.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Ising, "draw", lambda _: pytest.fail("drawn again"))
        again = load(**SMALL)
        assert again.image_digest == first.image_digest
        assert again.label_digest == first.label_digest
        for name, values in first.covariates.items():
            assert again.covariates[name].tobytes() == values.tobytes()
        assert again.images.flags.writeable, "torch takes no read-only array"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damage in (b"", b"PK\x05\x06" + bytes(18), whole[:-40], whole[:200], bytes(flipped)):
        kept.write_bytes(damage)
        assert load(**SMALL).image_digest == first.image_digest
        assert kept.read_bytes() == whole, "repaired"
    assert list(cache_folder.iterdir()) == [kept]
    load(**{**SMALL, "canonical": True})
    assert len(list(cache_folder.iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr(Ising, "version", 99)
        load(**SMALL)
    assert len(list(cache_folder.iterdir())) == 3


def test_a_cache_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEEDSWEEP_CACHE", str(tmp_path / "file" / "below"))
    assert len(load(**SMALL).images) == 40


@pytest.mark.parametrize("rule", [*REFUSED, *REFUSED_SPINS])
def test_each_refusal_has_its_sentence(rule: str, tmp_path: Path) -> None:
    settings, sentence = {**REFUSED, **REFUSED_SPINS}[rule]
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, tiny(dataset={"name": "ising", **settings})))
    assert refused.value.mistakes == [f"x.yaml: dataset.{sentence}"]


def test_unknown_keys_are_refused_with_every_other_mistake(tmp_path: Path) -> None:
    wrong = {"name": "ising", "sise": 16, "seed": -1, "temperature": [3, 2]}
    with pytest.raises(Refused) as refused:
        load_study(write(tmp_path, tiny(dataset=wrong)))
    assert sorted(refused.value.mistakes) == [
        "x.yaml: dataset.seed: expected at least 0, got -1",
        "x.yaml: dataset.temperature: expected [low, high], 0.5 <= low <= high <= 10, got [3, 2]",
        "x.yaml: dataset: unknown key 'sise'; did you mean 'size'? "
        "known: canonical, name, objects, preprocess, seed, size, temperature",
    ]


def test_the_magnetisation_is_a_baseline_and_finds_the_phase() -> None:
    """As a free code would not: spins of either sign have no mean."""
    dataset = load(**{**SMALL, "objects": 200})
    found = fit_all(dataset.pixels, None, 2, dataset.own_scalar)
    assert list(found)[-1] == f"{OWN}abs_m"
    own = found[f"{OWN}abs_m"]
    assert own.order is not None
    values = dataset.covariates["abs_m"]
    np.testing.assert_allclose(own.order, values - values.mean(), atol=1e-12)
    assert own.memberships is not None
    assert own.memberships.shape == (200, 2)
    score = Scorer(dataset.labels, dataset.label_digest or "").scores(own)["auc_split"]
    assert score is not None
    assert score > 0.9
