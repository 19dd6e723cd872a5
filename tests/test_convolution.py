"""The convolutional network: sizes come back, first values are torch's, misfits have sentences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle import DOUBLE, PlainMember
from studies import tiny, write
from torch import nn

from models.convolution import Convolution, Transposed
from models.datasets import Digits
from models.evaluation import CHUNK
from models.members import Member, Pack
from models.networks import Conv
from models.packed import Layout
from models.restore import restored
from models.spec import Spec
from models.train import train
from sweeps.estimate import estimate
from sweeps.plan import all_runs, packs_of
from sweeps.study import load_study

EACH = "conv halves height and width for each entry of channels, here"
TOLERANCE = 1e-12  # float64, sums of some thousand terms in another order
SIZES = (
    (1, 16, 16), (1, 17, 17), (5, 24, 24), (1, 28, 28), (3, 33, 33), (2, 64, 64),
    (1, 16, 33), (3, 17, 24), (1, 64, 11),
)  # fmt: skip


def spec_of(**network: Any) -> Spec:
    return Spec.model_validate(
        {
            "objective": "vae",
            "network": {"kind": "conv", **network},
            "training": {"steps": 5, "batch_size": 16},
        }
    )


def images(count: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_images_of_any_size_come_back_at_their_size_as_torch_s_layers_give_them(
    shape: tuple[int, ...],
) -> None:
    """Each height and width, three halvings deep, odd ones among them; two members at once."""
    spec = spec_of(channels=[5, 3, 4], hidden=[13])
    data = torch.from_numpy(images(16, *shape)).to(DOUBLE)
    members = [Member.start(spec, seed, shape, DOUBLE) for seed in (0, 1)]
    pack, rows = Pack(spec, members, data), data.flatten(1)
    with torch.no_grad():
        code = pack.network.encode(pack.views, rows.expand(2, *rows.shape).contiguous()).mean
        decoded = pack.network.decode(pack.views, code)
        for place, member in enumerate(members):
            plain = PlainMember.of(spec, member, shape).module.eval()
            own = plain.mean(plain.encoder(rows))
            torch.testing.assert_close(code[place], own, rtol=0, atol=TOLERANCE)
            torch.testing.assert_close(decoded[place], plain.decoder(own), rtol=0, atol=TOLERANCE)
    assert decoded.shape == (2, 16, np.prod(shape))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Convolution("x", 3, 400), nn.Conv2d(3, 400, 4)),
        (Transposed("x", 400, 3, (8, 8)), nn.ConvTranspose2d(400, 3, 4)),
        (Transposed("x", 3, 400, (8, 8)), nn.ConvTranspose2d(3, 400, 4)),
    ],
    ids=["halve", "double to few", "double to many"],
)
def test_first_values_spread_as_torch_s_do(
    ours: Convolution | Transposed, theirs: nn.Conv2d | nn.ConvTranspose2d
) -> None:
    """Some 20,000 uniform values end within a thousandth of their bound; the biases lie inside."""
    layout = Layout(tuple(ours.blocks()))
    row = layout.first_row(torch.Generator().manual_seed(0))
    values = {name: value[0] for name, value in layout.views(row, 1).items()}
    weight = values["x.weight"]
    assert weight.shape == theirs.weight.shape
    for edge in (torch.Tensor.max, torch.Tensor.min):
        assert float(edge(weight)) == pytest.approx(float(edge(theirs.weight.detach())), rel=2e-3)
    assert float(weight.std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.03)
    assert theirs.bias is not None
    largest = float(theirs.weight.detach().abs().max())
    for bias in (values["x.bias"], theirs.bias.detach()):
        assert bias.abs().max() <= largest * 1.002
    if len(values["x.bias"]) > 100:
        assert values["x.bias"].abs().max() > largest * 0.97


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_member_made_again_from_its_tensors_gives_the_codes_that_were_kept(
    *, batch_norm: bool
) -> None:
    spec = spec_of(channels=[5, 16], hidden=[13], batch_norm=batch_norm)
    data = images(CHUNK + 44, 3, 9, 6)
    rows = data.reshape(len(data), -1)
    for member in train(spec, [0, 1, 2], data):
        again = restored(spec, member.tensors, data.shape[1:])
        assert member.code is not None
        assert again.encode(rows).tobytes() == member.code.tobytes()
        decoded = again.decode(member.code)
        error = np.mean(0.5 * np.sum(np.square(decoded.astype(np.float64) - rows), 1))
        assert error == pytest.approx(member.reconstruction, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "shape", "sentence"),
    [
        (2, (64,), "conv needs images (C, H, W), and these are (64,); use mlp"),
        (
            3,
            (1, 7, 64),
            f"{EACH} 3 times, and images of 7 x 64 px can be halved twice; list at most 2",
        ),
        (
            2,
            (5, 24, 3),
            f"{EACH} twice, and images of 24 x 3 px can be halved once; list at most 1",
        ),
        (1, (1, 1, 9), f"{EACH} once, and images of 1 x 9 px can be halved not at all; use mlp"),
        (2, (1, 7, 64), None),
        (6, (1, 64, 64), None),
        (1, (1, 2, 2), None),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    count: int, shape: tuple[int, ...], sentence: str | None
) -> None:
    network = Conv(channels=(4,) * count)
    setting = "kind" if len(shape) == 1 else "channels"
    assert network.misfit(shape) == (sentence and (setting, sentence))
    spec = spec_of(channels=[4] * count)
    if sentence is None:
        assert spec.assemble(shape)
    else:
        data = images(32, *shape)
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            train(spec, [0], data)


def test_a_study_names_its_cells_by_their_network_and_trains_conv_in_narrow_packs(
    tmp_path: Path,
) -> None:
    networks: Any = [
        "mlp",
        "conv",
        {"kind": "conv", "channels": [[8], [8, 16]], "batch_norm": True},
    ]
    study, dataset = load_study(
        write(tmp_path, tiny(seeds=20, spec={"network": networks}, cells=[{"objective": "ae"}]))
    )
    assert [cell.label for cell in study.cells] == [
        "ae mlp hidden=64-32",
        "ae conv hidden=64 channels=16-32",
        "ae conv hidden=64 batch_norm channels=8",
        "ae conv hidden=64 batch_norm channels=8-16",
    ]
    assert study.cells[2].axes["network.channels"] == "8"
    assert dataset.images.shape[1:] == Digits().load().images.shape[1:] == (1, 8, 8)
    packs = packs_of(all_runs(study, dataset), 1)
    widths = {kind: max(len(p.runs) for p in packs if p.cell.spec.network.kind == kind)
              for kind in ("mlp", "conv")}  # fmt: skip
    assert widths == {"mlp": 10, "conv": 4}  # 20 seeds in packs of nearly equal size
    assert estimate(packs, dataset.images.shape, 1, 0.0).seconds > 0
