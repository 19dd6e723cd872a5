"""train(): what it gives, what it refuses, what diverges; and golden losses of a plain module."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle import plain_losses

from models.datasets import Digits
from models.members import Member, Pack
from models.saved import curve_steps
from models.spec import Spec
from models.train import Trained, quiet_machine, train

PIXELS = Digits(classes=(1, 8)).load().pixels
SMALL = {"kind": "mlp", "hidden": [16, 8]}
NORMED = {**SMALL, "batch_norm": True}
PLANE = {"kind": "mixture", "means": [[-2, 0], [2, 0], [0, 3]], "weights": [1, 2, 1]}
WARM_KL = {"kind": "kl", "nodes": 32, "warm_up": 10}


def spec(steps: int = 20, **settings: Any) -> Spec:
    training = {"steps": steps, "batch_size": 32, **settings.pop("training", {})}
    return Spec.model_validate(
        {"objective": "ae", "network": SMALL, **settings, "training": training}
    )


# name: settings, seed, total loss at steps 1, 10, 20. The numbers are oracle.plain_losses': a
# plain nn.Module trained in float64 by torch.optim.Adam and autograd, none of our layers or losses.
# They change only with the random streams or a formula: then TRAINER_VERSION is raised.
GOLDEN: dict[str, tuple[dict[str, Any], int, list[float]]] = {
    "ae": ({}, 0, [10.249155640, 9.013674108, 8.750306371]),
    "vae, one Gaussian, leaky ReLU, style units": (
        {"objective": "vae", "activation": "leaky_relu", "code": {"style_units": 2}},
        1,
        [8.375987366, 7.354263031, 5.954313764],
    ),
    "vae, two Gaussians, BatchNorm, warm-up": (
        {"objective": "vae", "prior": "bimodal", "divergence": WARM_KL, "network": NORMED},
        2,
        [14.063908034, 10.155151508, 7.762366023],
    ),
    "wae, two Gaussians, BatchNorm": (
        {"objective": "wae", "prior": "bimodal", "network": NORMED},
        3,
        [21.868383052, 14.382009403, 11.290087356],
    ),
    "wae, three Gaussians in the plane, mmd, normal style, ELU and tanh": (
        {
            "objective": "wae",
            "activation": {"encoder": "elu", "decoder": "tanh"},
            "code": {"class_units": 2, "style_units": 1, "style": "normal"},
            "prior": PLANE,
            "divergence": "mmd",
        },
        4,
        [56.411059801, 50.981069769, 40.014214091],
    ),
    "wae, a box of two units, sliced Wasserstein, GELU": (
        {
            "objective": "wae",
            "activation": "gelu",
            "code": {"class_units": 2},
            "prior": "uniform",
        },
        5,
        [11.177839186, 10.790922612, 8.293894110],
    ),
    "vae, three Gaussians in the plane, Monte Carlo": (
        {"objective": "vae", "code": {"class_units": 2}, "prior": PLANE},
        6,
        [19.656762615, 17.158332442, 13.625782722],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_losses_are_the_plain_modules(name: str) -> None:
    settings, seed, golden = GOLDEN[name]
    plain = plain_losses(spec(**settings), seed, PIXELS)
    # Float64 on any CPU: rounding of 1e-16, grown by Adam as test_oracle says.
    assert [plain[0], plain[9], plain[19]] == pytest.approx(golden, rel=1e-7)


@pytest.mark.parametrize("name", GOLDEN)
def test_train_reaches_the_golden_losses(name: str) -> None:
    """In float32 and, elsewhere, on a CPU that sums in another order: 1e-4 after 20 steps."""
    settings, seed, golden = GOLDEN[name]
    _, trained = train(spec(**settings), [seed + 1, seed], PIXELS)
    losses = trained.history[[0, 9, 19], 1]
    np.testing.assert_allclose(losses, golden, rtol=1e-4)


def equal(one: Trained, other: Trained) -> bool:
    assert one.code is not None
    assert other.code is not None
    return np.array_equal(one.code, other.code) and np.array_equal(one.history, other.history)


def test_diverged_members_are_recorded_and_their_partners_untouched() -> None:
    """A learning rate of 1 and a weight of 100 overflow the variance of some seeds, not of all."""
    wild = spec(
        30,
        objective="vae",
        divergence={"kind": "kl", "weight": 100.0},
        network={"kind": "mlp", "hidden": [16]},
        training={"learning_rate": 1.0},
    )
    seeds = list(range(8))
    results = train(wild, seeds, PIXELS)
    assert [one.seed for one in results] == seeds
    dead = [one for one in results if one.status == "diverged"]
    alive = [one for one in results if one.status != "diverged"]
    assert dead
    assert alive
    for one in dead:
        last = one.history[-1]
        assert one.reason == f"the loss was not finite at step {int(last[0])}"
        assert not np.isfinite(last[1])
        assert (one.code, one.tensors, one.reconstruction, one.divergence_value) == (
            None,
            {},
            None,
            None,
        )
    apart = train(wild, [one.seed for one in alive], PIXELS)
    assert all(equal(one, other) for one, other in zip(alive, apart, strict=True))


def test_nothing_is_left_where_every_member_diverges() -> None:
    """Finite pixels whose squares float32 cannot hold."""
    seen: list[int] = []
    results = train(spec(), [0, 1, 2], PIXELS * np.float32(1e30), progress=seen.append)
    assert {one.status for one in results} == {"diverged"}
    assert {one.reason for one in results} == {"the loss was not finite at step 1"}
    assert seen == [60], "nothing is left to do of three times 20 steps"


def test_a_poisoned_member_poisons_no_partner() -> None:
    """The poison of one NaN weight reaches all of its member, and only of its member."""
    pack = Pack(
        spec(), [Member.start(spec(), s, (64,)) for s in (0, 1, 2)], torch.from_numpy(PIXELS)
    )
    twin = Pack(spec(), [Member.start(spec(), s, (64,)) for s in (0, 2)], torch.from_numpy(PIXELS))
    pack.views.values["encoder.0.weight"][1, 0, 0] = torch.nan
    with quiet_machine():
        for _ in range(10):
            ours, theirs = pack.advance(), twin.advance()
            assert ours.total[1].isnan()
            assert torch.equal(ours.total[[0, 2]], theirs.total)
    assert pack.members()[1].values.isnan().any()
    for place, own in ((0, 0), (2, 1)):
        assert torch.equal(pack.members()[place].second_moment, twin.members()[own].second_moment)


@pytest.mark.parametrize(
    ("seeds", "images", "sentence"),
    [
        ([0], np.zeros((4, 8, 8)), "images must be (N, C, H, W) or (N, pixels), not (4, 8, 8)"),
        ([0], np.zeros((0, 8)), "images must be (N, C, H, W) or (N, pixels), not (0, 8)"),
        ([0], np.array([[0.0, np.nan]]), "images hold NaN or Inf"),
        ([0], np.array([[0.0, np.inf]]), "images hold NaN or Inf"),
        ([], np.zeros((4, 8)), "seeds must be distinct and at least one: []"),
        ([3, 1, 3], np.zeros((4, 8)), "seeds must be distinct and at least one: [3, 1, 3]"),
        ([-1], np.zeros((4, 8)), "seed -1 is outside 0 ... 134217727"),
    ],
)
def test_bad_input_is_refused(seeds: list[int], images: NDArray[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        train(spec(), seeds, images.astype(np.float32))


def test_members_of_different_steps_make_no_pack() -> None:
    images = torch.from_numpy(PIXELS)
    pack = Pack(spec(), [Member.start(spec(), 0, (64,))], images)
    pack.advance()
    mixed = [*pack.members(), Member.start(spec(), 1, (64,))]
    for members in (mixed, []):
        with pytest.raises(ValueError, match=r"^a pack needs members, all at the same step$"):
            Pack(spec(), members, images)


@pytest.mark.parametrize("steps", [1, 2, 49, 50, 51, 337])
def test_progress_and_history_rise_and_end_at_the_last_step(steps: int) -> None:
    seen: list[int] = []
    (trained,) = train(spec(steps), [0], PIXELS, progress=seen.append)
    assert seen == curve_steps(steps) == trained.history[:, 0].tolist()
    assert len(seen) == min(steps, 50)
    assert (seen[0], seen[-1]) == (1, steps)
    assert all(a < b for a, b in itertools.pairwise(seen))


def test_history_has_the_parts_of_the_loss() -> None:
    """Step, loss, reconstruction, divergence; weight 3 here, and no divergence without a prior."""
    (plain,) = train(spec(), [0], PIXELS)
    assert plain.history.shape == (20, 4)
    assert np.isnan(plain.history[:, 3]).all()
    assert np.array_equal(plain.history[:, 1], plain.history[:, 2])
    weighted = spec(objective="wae", divergence={"kind": "wasserstein", "weight": 3.0})
    (trained,) = train(weighted, [0], PIXELS)
    step, loss, reconstruction, divergence = trained.history.T
    assert step.tolist() == list(range(1, 21))
    np.testing.assert_allclose(loss, reconstruction + 3 * divergence, rtol=1e-6)


def test_results_hold_the_code_of_every_image_and_the_loss_over_all() -> None:
    """The remainder of the last evaluation chunk included: 300 images are 256 and 44."""
    one = spec(objective="wae", code={"style_units": 2}, network=NORMED)
    (trained,) = train(one, [7], PIXELS[:300])
    code = trained.code
    assert code is not None
    assert code.shape == (300, 3)
    assert code.dtype == np.float32
    assert one.prior is not None
    quantiles = one.prior.distribution().quantile((np.arange(300) + 0.5) / 300)
    expected = np.mean((np.sort(code[:, 0].astype(np.float64)) - quantiles) ** 2)
    assert trained.divergence_value == pytest.approx(expected, rel=1e-12)
    (first,) = train(one, [7], PIXELS[:300].copy())
    assert equal(first, trained)


def test_each_epoch_sees_each_image_once_and_its_remainder_carries_over() -> None:
    """37 images in batches of 16: the third batch takes five of one epoch, eleven of the next."""
    images = torch.arange(37.0)[:, None].expand(37, 64).contiguous()
    pack = Pack(
        spec(training={"batch_size": 16}), [Member.start(spec(), s, (64,)) for s in (0, 1)], images
    )
    seen = torch.cat([pack.next_batch()[:, :, 0].clone() for _ in range(37)], 1)
    for row in seen.int():
        epochs = row.view(16, 37)
        assert all(sorted(epoch.tolist()) == list(range(37)) for epoch in epochs)
        assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(*seen)


def test_fewer_images_than_a_batch_are_seen_again_within_it() -> None:
    images = torch.arange(7.0)[:, None].expand(7, 64).contiguous()
    pack = Pack(spec(), [Member.start(spec(), 0, (64,))], images)
    counts = torch.bincount(pack.next_batch()[0, :, 0].int(), minlength=7)
    assert counts.min() >= 4
    assert counts.sum() == 32


def test_labels_never_reach_the_trainer() -> None:
    assert list(inspect.signature(train).parameters) == [
        "spec",
        "seeds",
        "images",
        "rows",
        "device",
        "resume",
        "keeper",
        "progress",
    ]
    assert list(inspect.signature(Pack.__init__).parameters) == [
        "self",
        "spec",
        "members",
        "images",
        "rows",
    ]


def test_training_leaves_the_callers_images_threads_and_random_state_alone() -> None:
    images, state, threads = PIXELS.copy(), torch.get_rng_state(), torch.get_num_threads()
    train(spec(), [0], images)
    assert np.array_equal(images, PIXELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_subnormal_numbers_are_zero_while_training_and_only_then() -> None:
    """Dead units leave them in Adam's moments, where each costs a hundred cycles."""
    tiny, seen = torch.full((16,), 1e-39), []
    train(spec(1), [0], PIXELS, progress=lambda _: seen.append(bool((tiny * 1.0).any())))
    assert seen == [False]
    assert (tiny * 1.0).all()
