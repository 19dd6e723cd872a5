"""Networks: an encoder and a mirrored decoder, assembled from packed layers.

To add one: a final settings class with an `assemble` method, and its place in `Network`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from torch import Tensor

from models.convolution import AsImages, ChannelNorm, Convolution, Transposed, as_rows, halved
from models.packed import BatchNorm, Block, Layout, Linear, Parameter, Views, elu
from models.settings import Settings, as_kind

Trained = Linear | BatchNorm | Convolution | ChannelNorm | Transposed
Layer = Trained | Callable[[Tensor], Tensor]
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
    def _own(self) -> list[Trained | Parameter]:
        heads = [self.mean, *([self.log_variance] if self.log_variance else [])]
        layers = [*self.body, *heads, *self.decoder]
        return [*(layer for layer in layers if isinstance(layer, Trained)), *self.prior]

    @property
    def _named(self) -> list[Trained | Parameter]:
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
        x = layer(views, x) if isinstance(layer, Trained) else layer(x)
    return x


Width = Annotated[int, Field(ge=1, le=65536)]
Channels = Annotated[int, Field(ge=1, le=4096)]


@final
class Mlp(Settings):
    """Fully connected layers of the given widths, mirrored in the decoder."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = Field(default=(64, 32), strict=False, min_length=1)
    batch_norm: bool = False
    widest: ClassVar[int] = 16  # members in a pack: more fall out of a core's cache (decision 1)

    def misfit(self, shape: Sequence[int]) -> tuple[str, str] | None:
        """Return the setting that images of a shape do not fit, and a sentence; or None."""
        del shape
        return None

    def assemble(
        self, shape: Sequence[int], units: int, activations: Activations, stochastic_units: int
    ) -> Autoencoder:
        """Return the autoencoder; `stochastic_units` of the code get a variance head."""
        pixels, norm = math.prod(shape), self.batch_norm
        down, up = [pixels, *self.hidden], [units, *reversed(self.hidden)]
        return Autoencoder(
            body=_dense("encoder", down, activations.encoder, norm=norm),
            mean=Linear("code.mean", down[-1], units),
            log_variance=_log_variance(down[-1], stochastic_units),
            decoder=(
                *_dense("decoder", up, activations.decoder, norm=norm),
                Linear("decoder.out", up[-1], pixels),
            ),
        )


@final
class Conv(Settings):
    """Convolutions that halve height and width each, then dense layers; mirrored in the decoder.

    `channels` are the feature maps after each halving, `hidden` the widths between the last of
    them and the code. Source: LeCun et al. 1989; the decoder's transposed convolutions as in
    Dumoulin and Visin 2016 (arXiv:1603.07285).
    """

    kind: Literal["conv"] = "conv"
    channels: tuple[Channels, ...] = Field(default=(16, 32), strict=False, min_length=1)
    hidden: tuple[Width, ...] = Field(default=(64,), strict=False, min_length=1)
    batch_norm: bool = False
    widest: ClassVar[int] = 4  # nothing is gained by more, and 16 take a fifth longer

    def misfit(self, shape: Sequence[int]) -> tuple[str, str] | None:
        """Return the setting that images of a shape do not fit, and a sentence; or None."""
        if len(shape) != 3:  # noqa: PLR2004
            return "kind", f"conv needs images (C, H, W), and these are {tuple(shape)}; use mlp"
        asked, most = len(self.channels), min(shape[1:]).bit_length() - 1
        if asked <= most:
            return None
        fix = f"list at most {most}" if most else "use mlp"
        return "channels", (
            f"conv halves height and width for each entry of channels, here {_times(asked)}, and "
            f"images of {shape[1]} x {shape[2]} px can be halved {_times(most)}; {fix}"
        )

    def assemble(
        self, shape: Sequence[int], units: int, activations: Activations, stochastic_units: int
    ) -> Autoencoder:
        """Return the autoencoder for (C, H, W); `misfit` has been asked."""
        bands, *size = shape
        sizes = [(size[0], size[1])]
        for _ in self.channels:
            sizes.append(halved(sizes[-1]))
        maps = (self.channels[-1], *sizes[-1])
        down = [math.prod(maps), *self.hidden]
        return Autoencoder(
            body=(
                AsImages((bands, *sizes[0])),
                *self._halvings([bands, *self.channels], activations.encoder),
                as_rows,
                *_dense("encoder.dense", down, activations.encoder, norm=self.batch_norm),
            ),
            mean=Linear("code.mean", down[-1], units),
            log_variance=_log_variance(down[-1], stochastic_units),
            decoder=(
                *self._to_maps([units, *reversed(down)], maps, activations.decoder),
                *self._doublings(sizes, bands, activations.decoder),
                as_rows,
            ),
        )

    def _halvings(self, channels: list[int], activation: Activation) -> list[Layer]:
        layers: list[Layer] = []
        for place, (fan_in, fan_out) in enumerate(itertools.pairwise(channels)):
            name = f"encoder.{place}"
            layers.append(Convolution(name, fan_in, fan_out, bias=not self.batch_norm))
            layers += self._shaped(name, fan_out, activation)
        return layers

    def _to_maps(
        self, widths: list[int], maps: tuple[int, int, int], activation: Activation
    ) -> list[Layer]:
        """Return dense layers, the last of which gives the feature maps to be doubled."""
        name, norm = "decoder.maps", self.batch_norm
        return [
            *_dense("decoder.dense", widths[:-1], activation, norm=norm),
            Linear(name, widths[-2], widths[-1], bias=not norm),
            AsImages(maps),
            *self._shaped(name, maps[0], activation),
        ]

    def _doublings(
        self, sizes: list[tuple[int, int]], bands: int, activation: Activation
    ) -> list[Layer]:
        layers: list[Layer] = []
        up = [*reversed(self.channels), bands]
        targets = reversed(sizes[:-1])
        for place, (fans, size) in enumerate(zip(itertools.pairwise(up), targets, strict=True)):
            last = place == len(self.channels) - 1
            name = "decoder.out" if last else f"decoder.{place}"
            layers.append(Transposed(name, *fans, size, bias=last or not self.batch_norm))
            if not last:
                layers += self._shaped(name, fans[1], activation)
        return layers

    def _shaped(self, name: str, channels: int, activation: Activation) -> list[Layer]:
        """Return what follows the layer of that name, which gives feature maps."""
        normed = [ChannelNorm(f"{name}.norm", channels)] if self.batch_norm else []
        return [*normed, ACTIVATIONS[activation]]


def _dense(
    name: str, widths: list[int], activation: Activation, *, norm: bool
) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for place, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        # No bias before BatchNorm: it would be subtracted again.
        layers.append(Linear(f"{name}.{place}", fan_in, fan_out, bias=not norm))
        if norm:
            layers.append(BatchNorm(f"{name}.{place}.norm", fan_out))
        layers.append(ACTIVATIONS[activation])
    return tuple(layers)


def _log_variance(width: int, units: int) -> Linear | None:
    return Linear("code.log_variance", width, units) if units else None


def _times(count: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _as_network(value: Any) -> Any:
    """Read a bare name as a kind, and settings without one as those of mlp."""
    value = as_kind(value)
    return {"kind": "mlp", **value} if isinstance(value, Mapping) else value


Network = Annotated[Mlp | Conv, Field(discriminator="kind"), BeforeValidator(_as_network)]

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationSettings",
    "Activations",
    "Autoencoder",
    "Block",
    "Code",
    "Conv",
    "Mlp",
    "Network",
]
