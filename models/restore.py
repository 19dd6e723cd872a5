"""A trained member from its kept tensors: encode new images, decode new codes.

The same layers, chunks and rounding as at the end of training, so that the images that a member was
trained on give the very codes that were kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.evaluation import CHUNK
from models.networks import Autoencoder
from models.packed import Layout, Views
from models.spec import Spec
from models.train import quiet_machine

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Restored:
    """One member in evaluation mode, on the CPU."""

    network: Autoencoder
    views: Views
    shape: tuple[int, ...]
    units: int

    def encode(self, images: Floats) -> Floats:
        """Return the codes of images (N, pixels), (N, C + T), class units first.

        Equal to the last bit to what training kept. Raises ValueError where images have another
        shape.
        """
        return _in_chunks(
            lambda chunk: self.network.encode(self.views, chunk).mean, images, math.prod(self.shape)
        )

    def decode(self, codes: Floats) -> Floats:
        """Return the images of codes (N, C + T), (N, pixels).

        Raises ValueError where codes have another shape.
        """
        return _in_chunks(lambda chunk: self.network.decode(self.views, chunk), codes, self.units)


def restored(spec: Spec, tensors: Mapping[str, Floats], shape: Sequence[int]) -> Restored:
    """Return the member whose tensors, by block name, training kept; images are of `shape`.

    Raises ValueError where a tensor is missing, has another shape or is not the specification's.
    """
    network = spec.assemble(shape)
    parameters, buffers = network.parameters(), network.buffers()
    known = {block.name for layout in (parameters, buffers) for block in layout.blocks}
    if known != set(tensors):
        wrong = min(known ^ set(tensors))
        what = "missing" if wrong in known else "unknown"
        msg = f"these are no tensors of this specification: {wrong} is {what}"
        raise ValueError(msg)
    views = Views(_views(parameters, tensors), {}, _views(buffers, tensors), training=False)
    return Restored(network, views, tuple(shape), spec.code.class_units + spec.code.style_units)


def _views(layout: Layout, tensors: Mapping[str, Floats]) -> dict[str, Tensor]:
    """Lay the tensors out as in training: a kernel may round by where its operands lie."""
    views = layout.views(torch.zeros(layout.size), 1)
    for block in layout.blocks:
        if tensors[block.name].shape != block.shape:
            shape = tensors[block.name].shape
            msg = f"{block.name}: expected the shape {block.shape}, got {shape}"
            raise ValueError(msg)
        views[block.name][0] = torch.from_numpy(np.array(tensors[block.name], dtype=np.float32))
    return views


@torch.no_grad()
def _in_chunks(function: Callable[[Tensor], Tensor], rows: Floats, width: int) -> Floats:
    """Apply the function to (1, CHUNK, width) at a time; the last chunk repeats its last row."""
    if rows.ndim != 2 or rows.shape[1] != width:  # noqa: PLR2004
        msg = f"expected rows of {width} values, got the shape {rows.shape}"
        raise ValueError(msg)
    if not len(rows):
        empty: Floats = function(torch.zeros(1, CHUNK, width))[0, :0].numpy()
        return empty
    data = torch.from_numpy(np.array(rows, dtype=np.float32))
    found = []
    with quiet_machine():
        for start in range(0, len(data), CHUNK):
            where = torch.arange(start, start + CHUNK).clamp_(max=len(data) - 1)
            made = function(data.index_select(0, where).unsqueeze(0))[0]
            found.append(made[: len(data) - start].clone())
    result: Floats = torch.cat(found).numpy()
    return result
