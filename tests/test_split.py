"""A part to train on and a part to score: the same for all seeds, without labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.datasets import Digits
from models.datasets.split import training_rows, training_size
from models.spec import Spec
from models.train import train

DATA = Digits(classes=(1, 8)).load()
SPEC = Spec.model_validate(
    {
        "objective": "vae",
        "prior": "bimodal",
        "network": {"kind": "mlp", "hidden": [8], "batch_norm": True},
        "training": {"steps": 15, "batch_size": 32},
    }
)


@pytest.mark.parametrize(
    ("count", "share", "size"), [(356, 0.8, 285), (10, 0.5, 5), (10, 0.999, 9), (10, 1e-6, 1)]
)
def test_each_part_has_an_image_at_least(count: int, share: float, size: int) -> None:
    assert training_size(count, share) == size


def test_the_split_is_drawn_by_the_images_alone() -> None:
    rows = training_rows(DATA, 0.8)
    assert len(set(rows.tolist())) == len(rows) == 285
    assert np.array_equal(rows, np.sort(rows))
    assert DATA.labels is not None
    for labels in (DATA.labels[::-1].copy(), None):
        other = dataclasses.replace(DATA, labels=labels)
        assert np.array_equal(training_rows(other, 0.8), rows)
    images = DATA.images.copy()
    images[0, 0, 0, 0] += 0.5
    assert not np.array_equal(training_rows(dataclasses.replace(DATA, images=images), 0.8), rows)
    fewer = training_rows(DATA, 0.5)
    assert set(fewer.tolist()) < set(rows.tolist())


def test_training_never_sees_what_is_held_out() -> None:
    """Noise in place of every held-out image changes no tensor, and only those images' codes."""
    rows = training_rows(DATA, 0.8)
    held_out = np.setdiff1d(np.arange(len(DATA.pixels)), rows)
    changed = DATA.pixels.copy()
    changed[held_out] = np.random.default_rng(0).random(changed[held_out].shape)
    before, after = (train(SPEC, [0, 1], images, rows=rows) for images in (DATA.pixels, changed))
    for one, other in zip(before, after, strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        assert all(np.array_equal(one.tensors[k], other.tensors[k]) for k in one.tensors)
        assert np.array_equal(one.history, other.history)
        assert one.code is not None
        assert other.code is not None
        assert np.array_equal(one.code[rows], other.code[rows])
        assert not np.array_equal(one.code[held_out], other.code[held_out])
        assert one.reconstruction != other.reconstruction
    touched = DATA.pixels.copy()
    touched[rows[3], 20] += np.float32(0.5)
    (third,) = train(SPEC, [0], touched, rows=rows)
    assert any(not np.array_equal(third.tensors[k], before[0].tensors[k]) for k in third.tensors)


def test_losses_are_told_of_the_held_out_images() -> None:
    """As if they were all there is: the same member, evaluated on them by itself."""
    rows = training_rows(DATA, 0.8)
    held_out = np.setdiff1d(np.arange(len(DATA.pixels)), rows)
    spec = SPEC.model_copy(update={"objective": "ae", "prior": None, "divergence": None})
    (one,) = train(spec, [0], DATA.pixels, rows=rows)
    assert one.code is not None
    hidden = one.code @ one.tensors["decoder.0.weight"]
    scale = one.tensors["decoder.0.norm.scale"] / np.sqrt(
        one.tensors["decoder.0.norm.variance"] + 1e-5
    )
    hidden = (hidden - one.tensors["decoder.0.norm.mean"]) * scale
    hidden = np.maximum(hidden + one.tensors["decoder.0.norm.shift"], 0)
    decoded = hidden @ one.tensors["decoder.out.weight"] + one.tensors["decoder.out.bias"]
    errors = 0.5 * ((decoded - DATA.pixels) ** 2).sum(1)
    assert one.reconstruction == pytest.approx(errors[held_out].mean(), rel=1e-5)


@pytest.mark.parametrize("rows", [[], list(range(356))])
def test_rows_that_leave_a_part_empty_are_refused(rows: list[int]) -> None:
    sentence = r"^rows must be some of the 356 images, and leave some$"
    with pytest.raises(ValueError, match=sentence):
        train(SPEC, [0], DATA.pixels, rows=np.array(rows, dtype=np.int64))
