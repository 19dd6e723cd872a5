"""From equal start, batches and noise, a member's training is that of a plain nn.Module."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matrix import RUN_ALL, Case, all_cases, one_shape_each, sample
from oracle import DOUBLE, PlainMember

from models.members import Member, Pack
from models.train import quiet_machine

STEPS = 20
# Float64 rounds at 1e-16, and Adam divides by sqrt(v) + 1e-8: where a gradient is zero but for its
# rounding, that rounding is what it steps by. BatchNorm makes such places (the scale of the weights
# before it, units that are never active): there, at the default learning rate, weights of the plain
# module changed by 2e-16 in the beginning were 4e-9 apart after 20 steps; without it, under 1e-10.
# The gap is in proportion to the learning rate, so these rows take smaller steps.
TOLERANCE = 1e-9
RATE_NORM = 1e-4
# One step from the same weights involves no Adam: only sums in another order.
GRADIENT_TOLERANCE = 1e-12
CASES = all_cases() if RUN_ALL else one_shape_each()
TRAINED = all_cases() if RUN_ALL else sample()  # twenty steps cost twenty times a gradient


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_machine():
        yield


def started(case: Case, seeds: tuple[int, ...]) -> tuple[Pack, Pack, list[PlainMember]]:
    """Return a pack, its twin from which batches and noise are read, and the plain members."""
    spec, images = case.spec(), torch.from_numpy(case.images()).to(DOUBLE)
    if spec.network.batch_norm:
        training = spec.training.model_copy(update={"learning_rate": RATE_NORM})
        spec = spec.model_copy(update={"training": training})
    members = [Member.start(spec, seed, case.image, DOUBLE) for seed in seeds]
    plain = [PlainMember.of(spec, member, case.image) for member in members]
    return Pack(spec, members, images), Pack(spec, members, images), plain


Drawn = tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor | None]]


def draws(twin: Pack) -> list[Drawn]:
    """Return each member's next batch, noise, and what it draws to compare its codes with."""
    batch, noise, drawn = twin.next_batch().clone(), twin.next_noise(), twin.next_drawn()
    twin.step += 1  # it draws for the pack, and does not train
    noises = [None] * len(batch) if noise is None else list(noise)
    parts = [
        [None if part is None else part[place] for part in drawn] for place in range(len(batch))
    ]
    return list(zip(batch, noises, parts, strict=True))


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_twenty_steps_in_float64_match_a_plain_module_of_torch(case: Case) -> None:
    """The member that is compared is the second of a pack of two."""
    pack, twin, (_, plain) = started(case, (3, 8))
    for step in range(STEPS):
        drawn, ours = draws(twin), pack.advance()
        for name, theirs in plain.advance(*drawn[1], step).items():
            value = float(getattr(ours, name)[1].detach())
            assert value == pytest.approx(theirs, rel=0, abs=TOLERANCE), (step, name)
    own, others = pack.tensors(1), plain.module.tensors()
    assert set(own) == set(others)
    for name, tensor in others.items():
        np.testing.assert_allclose(own[name], tensor, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_gradient_is_that_of_autograd(case: Case) -> None:
    """Adam's first moment after one step is a tenth of the gradient."""
    pack, twin, plain = started(case, (3, 8))
    drawn, _ = draws(twin), pack.advance()
    layout = case.spec().assemble(case.image).parameters()
    for place, (one, member) in enumerate(zip(plain, pack.members(), strict=True)):
        one.advance(*drawn[place], 0)
        theirs = one.module.tensors(gradients=True)
        for name, moment in layout.views(member.first_moment, 1).items():
            gradient = moment[0] / (1 - 0.9)
            scale = max(1.0, float(theirs[name].abs().max()))
            np.testing.assert_allclose(
                gradient, theirs[name], rtol=0, atol=GRADIENT_TOLERANCE * scale, err_msg=name
            )


@pytest.mark.parametrize("case", CASES[:: len(CASES) // 12], ids=lambda case: case.name)
def test_codes_of_a_trained_member_match_the_plain_module_in_evaluation_mode(case: Case) -> None:
    """BatchNorm's running statistics and the style units' place in the code are used here."""
    pack, _, _ = started(case, (5,))
    for _ in range(STEPS):
        pack.advance()
    plain = PlainMember.of(pack.spec, pack.members()[0], case.image).module.eval()
    network = pack.spec.assemble(case.image)
    with torch.no_grad():
        code, hidden = network.encode(pack.views, pack.images[None]), plain.encoder(pack.images)
        mean = plain.mean(hidden)
        mean = mean.tanh() if pack.spec.code.squash == "tanh" else mean
        pairs = [(code.mean, mean), (network.decode(pack.views, code.mean), plain.decoder(mean))]
        if code.log_variance is not None:
            pairs.append((code.log_variance, plain.log_variance(hidden)))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours[0], theirs, rtol=0, atol=GRADIENT_TOLERANCE)
