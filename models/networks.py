"""Networks: an encoder and a mirrored decoder, assembled from packed layers.

To add one: a final settings class with an `assemble` method, and its place in `Network`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import torch
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from torch import Tensor

from models.packed import BatchNorm, Block, Layout, Linear, Parameter, Views, elu
from models.settings import Settings, as_kind

Layer = Linear | BatchNorm | Callable[[Tensor], Tensor]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "tanh"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    # In place where that can be: what goes in is a layer's fresh output, and nobody needs it again.
    "relu": torch.relu_,
    "leaky_relu": torch.nn.functional.leaky_relu_,  # slope 0.01
    "elu": elu,  # alpha 1
    "gelu": torch.nn.functional.gelu,  # with the error function
    "tanh": torch.tanh_,
}


CRITIC_SLOPE = 0.2  # of its leaky ReLU, as in Radford et al. 2016 (arXiv:1511.06434)


class Activations(Settings):
    """The activation of the encoder's layers and that of the decoder's."""

    encoder: Activation = "relu"
    decoder: Activation = "relu"

    def __str__(self) -> str:
        """Return both as one word."""
        return f"{self.encoder}/{self.decoder}"


def _one_or_two(value: Any) -> str:
    return "pair" if isinstance(value, Mapping | Activations) else "name"


def _as_name(value: Activation | Activations) -> Activation | Activations:
    """Return two equal activations as the one that they are."""
    same = isinstance(value, Activations) and value.encoder == value.decoder
    return value.encoder if isinstance(value, Activations) and same else value


ActivationSettings = Annotated[
    Annotated[Activation, Tag("name")] | Annotated[Activations, Tag("pair")],
    Discriminator(_one_or_two),
    AfterValidator(_as_name),
]


@dataclass(frozen=True)
class Code:
    """What the encoder says of a batch: means (S, B, C + T), class units first, style units after.

    `log_variance` (S, B, C), of the style units too where they have a prior (S, B, C + T), is None
    where the encoder is deterministic.
    """

    mean: Tensor
    log_variance: Tensor | None


@dataclass(frozen=True)
class Autoencoder:
    """The layers of one member, and the layout of its parameters and running statistics."""

    body: tuple[Layer, ...]
    mean: Linear
    log_variance: Linear | None
    decoder: tuple[Layer, ...]
    squash: bool = False  # tanh on the means
    prior: tuple[Parameter, ...] = ()  # what the member learns of its prior
    critics: tuple[tuple[Linear, ...], ...] = ()  # what the divergence trains, for each part

    @property
    def _own(self) -> list[Linear | BatchNorm | Parameter]:
        heads = [self.mean, *([self.log_variance] if self.log_variance else [])]
        layers = [*self.body, *heads, *self.decoder]
        return [*(layer for layer in layers if isinstance(layer, Linear | BatchNorm)), *self.prior]

    @property
    def _named(self) -> list[Linear | BatchNorm | Parameter]:
        return [*self._own, *(layer for critic in self.critics for layer in critic)]

    @property
    def critics_start(self) -> int:
        """Return the place in a member's row where the critics' parameters begin."""
        return Layout(tuple(block for layer in self._own for block in layer.blocks())).size

    def parameters(self) -> Layout:
        """Return where a member's parameters lie."""
        return Layout(tuple(block for layer in self._named for block in layer.blocks()))

    def buffers(self) -> Layout:
        """Return where a member's running statistics lie."""
        return Layout(tuple(block for layer in self._named for block in layer.buffers()))

    def encode(self, views: Views, images: Tensor) -> Code:
        """Encode (S, B, pixels)."""
        hidden = _through(self.body, views, images)
        spread = self.log_variance(views, hidden) if self.log_variance else None
        mean = self.mean(views, hidden)
        return Code(mean.tanh() if self.squash else mean, spread)

    def decode(self, views: Views, code: Tensor) -> Tensor:
        """Decode (S, B, C + T) to (S, B, pixels)."""
        return _through(self.decoder, views, code)

    def judge(self, views: Views, part: int, codes: Tensor) -> Tensor:
        """Return the logits (S, n, 1) that a part's critic gives to codes (S, n, U)."""
        *hidden, last = self.critics[part]
        for layer in hidden:
            codes = torch.nn.functional.leaky_relu(layer(views, codes), CRITIC_SLOPE)
        return last(views, codes)


def _through(layers: tuple[Layer, ...], views: Views, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(views, x) if isinstance(layer, Linear | BatchNorm) else layer(x)
    return x


@final
class Mlp(Settings):
    """Fully connected layers of the given widths, mirrored in the decoder."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        default=(64, 32), strict=False, min_length=1
    )
    batch_norm: bool = False

    def assemble(
        self, shape: Sequence[int], units: int, activations: Activations, stochastic_units: int
    ) -> Autoencoder:
        """Return the autoencoder; `stochastic_units` of the code get a variance head."""
        pixels = math.prod(shape)
        widths = [pixels, *self.hidden]
        log_variance = Linear("code.log_variance", widths[-1], stochastic_units)
        return Autoencoder(
            body=self._stack("encoder", widths, activations.encoder),
            mean=Linear("code.mean", widths[-1], units),
            log_variance=log_variance if stochastic_units else None,
            decoder=(
                *self._stack("decoder", [units, *reversed(self.hidden)], activations.decoder),
                Linear("decoder.out", self.hidden[0], pixels),
            ),
        )

    def _stack(self, name: str, widths: list[int], activation: Activation) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        for place, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            # No bias before BatchNorm: it would be subtracted again.
            layers.append(Linear(f"{name}.{place}", fan_in, fan_out, bias=not self.batch_norm))
            if self.batch_norm:
                layers.append(BatchNorm(f"{name}.{place}.norm", fan_out))
            layers.append(ACTIVATIONS[activation])
        return tuple(layers)


Network = Annotated[Mlp, BeforeValidator(as_kind)]

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationSettings",
    "Activations",
    "Autoencoder",
    "Block",
    "Code",
    "Mlp",
    "Network",
]
