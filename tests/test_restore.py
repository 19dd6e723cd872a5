"""A member made again from its tensors is that member, to the last bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation import CHUNK
from models.restore import restored
from models.spec import Spec
from models.train import train

SPECS: dict[str, dict[str, Any]] = {
    "ae": {"objective": "ae"},
    "vae with batch norm": {"objective": "vae", "network": {"hidden": [12, 7], "batch_norm": True}},
    "wae with style": {"objective": "wae", "prior": "bimodal", "code": {"style_units": 3}},
    "odd widths, leaky": {
        "objective": "ae",
        "activation": "leaky_relu",
        "network": {"hidden": [13, 5]},
    },
}


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((count, 30), dtype=np.float32)


def spec_of(settings: dict[str, Any]) -> Spec:
    shared = {"network": {"hidden": [16]}, "training": {"steps": 5, "batch_size": 16}}
    return Spec.model_validate({**shared, **settings})


@pytest.mark.parametrize("settings", SPECS.values(), ids=SPECS.keys())
def test_codes_are_equal_to_the_kept_ones_and_the_error_is_training_s(
    settings: dict[str, Any],
) -> None:
    spec, pixels = spec_of(settings), images(CHUNK + 44)
    members = train(spec, [0, 1, 2], pixels)
    for member in members:
        again = restored(spec, member.tensors, (30,))
        assert member.code is not None
        codes = again.encode(pixels)
        assert codes.tobytes() == member.code.tobytes()
        decoded = again.decode(codes)
        assert decoded.shape == pixels.shape
        error = np.mean(0.5 * np.sum(np.square(decoded.astype(np.float64) - pixels), 1))
        assert error == pytest.approx(member.reconstruction, rel=1e-5)
    first, second = (restored(spec, one.tensors, (30,)).encode(pixels) for one in members[:2])
    assert not np.array_equal(first, second)


def test_an_image_has_the_same_code_in_any_company() -> None:
    spec, pixels = spec_of(SPECS["ae"]), images(40)
    (member,) = train(spec, [3], pixels)
    again = restored(spec, member.tensors, (30,))
    whole = again.encode(pixels)
    for start, end in itertools.pairwise([0, 1, 7, 40]):
        assert np.array_equal(again.encode(pixels[start:end]), whole[start:end])
    assert again.encode(pixels[:0]).shape == (0, 1)
    assert again.decode(whole[:0]).shape == (0, 30)


def test_what_is_not_a_member_is_refused() -> None:
    spec, pixels = spec_of(SPECS["vae with batch norm"]), images(20)
    (member,) = train(spec, [0], pixels)
    lacking = {name: a for name, a in member.tensors.items() if name != "encoder.0.norm.mean"}
    with pytest.raises(ValueError, match=r"encoder\.0\.norm\.mean is missing"):
        restored(spec, lacking, (30,))
    with pytest.raises(ValueError, match=r"code\.log_variance\.bias is unknown"):
        restored(spec_of(SPECS["ae"]), member.tensors, (30,))
    with pytest.raises(ValueError, match=r"encoder\.0\.weight: expected the shape \(31, 12\)"):
        restored(spec, member.tensors, (31,))
    again = restored(spec, member.tensors, (30,))
    with pytest.raises(ValueError, match=r"expected rows of 30 values, got the shape \(20, 29\)"):
        again.encode(pixels[:, 1:])
    with pytest.raises(ValueError, match=r"expected rows of 1 values, got the shape \(3, 2\)"):
        again.decode(np.zeros((3, 2), dtype=np.float32))
