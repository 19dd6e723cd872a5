"""Every row of the tables of `models`, combined: what the tests of bits and of the oracle run over.

The rows are read from the annotated unions themselves, so that a prior, a divergence, an activation
or an objective that somebody adds is tested before its author writes a test.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.divergences import Divergence
from models.networks import ACTIVATIONS, Network
from models.objectives import OBJECTIVES
from models.priors import Prior
from models.settings import Settings
from models.spec import Spec, combination_mistakes

RUN_ALL = bool(os.environ.get("SEEDSWEEP_ALL"))
STEPS = 20
ACTIVATIONS_TRIED = (*ACTIVATIONS, {"encoder": "tanh", "decoder": "elu"})
ANNEALED = {"kind": "bimodal", "anneal": {"factor": 2.0, "steps": 9}}
FIRST_NETWORK = "mlp"
TIMES_COVERED = 1  # each entry of each table, and each shape, in the sample that runs by default


@dataclass(frozen=True)
class Shape:
    """Sizes on which kernels differ: odd widths, odd pixels, fewer images than a batch."""

    hidden: tuple[int, ...]
    style_units: int
    batch_size: int
    pixels: int
    images: int
    warm_up: int = 0
    class_units: int = 1  # more only where the prior has a form for them
    style: str = "free"  # normal only where the objective has a prior
    image: tuple[int, int, int] = (1, 7, 7)  # of networks that need more than rows of pixels
    channels: tuple[int, ...] = (5, 3)

    def text(self, image: tuple[int, ...]) -> str:
        """Return the sizes with which an image of a shape is trained on."""
        code = f"{self.class_units}+{self.style_units}{self.style[0]}"
        rest = f"{'-'.join(map(str, self.hidden))}-{code}-b{self.batch_size}-n{self.images}"
        flat = len(image) == 1
        return f"{image[0]}px-{rest}" if flat else f"{'x'.join(map(str, image))}px-{rest}"


SHAPES = (
    Shape((13,), 0, 16, 49, 37),
    Shape((30, 13), 2, 16, 49, 101, warm_up=7, class_units=2, image=(3, 8, 9)),
    Shape((50, 30), 0, 32, 64, 77, image=(1, 16, 16), channels=(8, 16)),
    Shape((50, 30), 2, 48, 49, 37, warm_up=30, style="normal", image=(2, 8, 9), channels=(3,)),
    Shape((13,), 2, 48, 64, 301, image=(3, 9, 5)),
    Shape((30, 13), 0, 32, 33, 259, class_units=3, image=(5, 8, 8), channels=(16,)),
    Shape((64, 32), 0, 32, 64, 101, warm_up=7, image=(1, 11, 16), channels=(3, 5, 3)),
    Shape((64, 32), 1, 16, 25, 97, class_units=2, style="normal", channels=(1,)),
)


@dataclass(frozen=True)
class Case:
    """A row of every table that applies, and a shape."""

    entries: tuple[tuple[str, str], ...]  # (table, entry)
    settings: dict[str, Any]
    shape: Shape

    @property
    def name(self) -> str:
        return " ".join([*(entry for _, entry in self.entries), self.shape.text(self.image)])

    def spec(self, **changes: Any) -> Spec:
        """Return the specification; `changes` replace its top-level settings."""
        return Spec.model_validate({**self.settings, **changes})

    @property
    def image(self) -> tuple[int, ...]:
        """Return the shape of an image: (C, H, W) where the network needs it, else (pixels,)."""
        flat = self.settings["network"]["kind"] == FIRST_NETWORK
        return (self.shape.pixels,) if flat else self.shape.image

    def images(self) -> NDArray[np.float32]:
        """Return images in 0 ... 1 whose pixels hang together, as those of real images do."""
        size = math.prod(self.image)
        generator = np.random.default_rng(size)
        factors = generator.normal(size=(self.shape.images, 3))
        pixels = factors @ generator.normal(size=(3, size))
        noise = generator.normal(size=pixels.shape) * 0.3
        return (1 / (1 + np.exp(-pixels - noise))).astype(np.float32).reshape(-1, *self.image)


def classes(union: Any) -> tuple[Any, ...]:
    """Return the classes of an annotated union, or of an annotated single class."""
    inner = get_args(union)[0]
    return get_args(inner) or (inner,)


def variants(row: type[Settings]) -> list[dict[str, Any]]:
    """Return settings of a row with every combination of its literal options."""
    options = {
        name: get_args(field.annotation)
        for name, field in row.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    return [
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    ]


def shifted(row: type[Settings]) -> dict[str, Any]:
    """Return settings of a row with every number moved off its default, in lists as well."""
    numbers = {
        name: field.default * 0.75 + 0.3
        for name, field in row.model_fields.items()
        if isinstance(field.default, float)
    }
    lists = {
        name: [value * 0.75 + 0.3 for value in field.default]
        for name, field in row.model_fields.items()
        if isinstance(field.default, tuple) and all(isinstance(x, float) for x in field.default)
    }
    return {**variants(row)[0], **numbers, **lists}


def _rows() -> list[tuple[tuple[tuple[str, str], ...], dict[str, Any]]]:
    """Return every prior with every divergence, activations in turn; then each of them.

    An activation acts layer by layer and knows nothing of what the code is pushed towards, nor does
    a network but for its code, so not every triple is needed: the first kind of network goes with
    every pair and each activation, another with some activations under each objective.
    """
    rows, later = [], []
    turns = itertools.cycle(ACTIVATIONS_TRIED)
    for number, (objective, row) in enumerate(OBJECTIVES.items()):
        pairs: list[dict[str, Any]] = [{}]
        if row.compares:
            priors = [one for kind in classes(Prior) for one in _distinct(kind)] + [ANNEALED]
            suited = [one for one in classes(Divergence) if one.compares in row.compares]
            every = [
                {"prior": prior, "divergence": settings, "code": _code(settings)}
                for kind in suited
                for settings in variants(kind)
                # A sample is compared as codes are without a variance: one prior is enough.
                for prior in (priors if kind.compares == row.compares[0] else priors[1:8:3])
            ]
            pairs = [
                pair for pair in every if not combination_mistakes({"objective": objective, **pair})
            ]
        first = [one for one in _networks() if one["kind"] == FIRST_NETWORK]
        chosen = [(pair, network, next(turns)) for pair in pairs for network in first]
        chosen += [(pairs[0], n, a) for n in first for a in ACTIVATIONS_TRIED]
        some = ACTIVATIONS_TRIED[number :: len(OBJECTIVES)]
        chosen += [(pairs[0], n, a) for n in _networks() if n not in first for a in some]
        for pair, network, activation in chosen:
            settings = {
                "objective": objective,
                "activation": activation,
                "network": network,
                **pair,
            }
            entries = tuple(
                (table, _text(value)) for table, value in settings.items() if table != "code"
            )
            place = rows if network in first else later
            if (entries, settings) not in place:
                place.append((entries, settings))
    return [*rows, *later]


def _code(divergence: dict[str, Any]) -> dict[str, Any]:
    """Return what of the code's settings a divergence asks for."""
    return {"squash": "tanh"} if divergence["kind"] == "analogy" else {}


def _distinct(kind: type[Settings]) -> list[dict[str, Any]]:
    settings = [variants(kind)[0], shifted(kind)]
    return settings[:1] if settings[0] == settings[1] else settings


def _networks() -> list[dict[str, Any]]:
    """Return every network without and with BatchNorm, where it has the choice."""
    return [
        {**settings, **norm}
        for kind in classes(Network)
        for settings in variants(kind)
        for norm in (
            [{"batch_norm": n} for n in (False, True)] if _has(kind, "batch_norm") else [{}]
        )
    ]


def _has(kind: type[Settings], field: str) -> bool:
    return field in kind.model_fields


def _text(settings: str | dict[str, Any]) -> str:
    if isinstance(settings, str):
        return settings
    return "/".join(str(value).replace(" ", "") for value in settings.values())


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Return the full matrix: every row with every shape."""
    return tuple(_case(*row, shape) for row in _rows() for shape in SHAPES)


def _case(entries: tuple[tuple[str, str], ...], settings: dict[str, Any], shape: Shape) -> Case:
    network, sizes = settings["network"], {"hidden": shape.hidden, "channels": shape.channels}
    (kind,) = (
        one for one in classes(Network) if one.model_fields["kind"].default == network["kind"]
    )
    network = {**network, **{name: size for name, size in sizes.items() if _has(kind, name)}}
    divergence, prior = settings.get("divergence"), settings.get("prior")
    warm = {"divergence": {**divergence, "warm_up": shape.warm_up}} if divergence else {}
    prior = _spread(prior, shape.class_units) if prior else None
    units = shape.class_units if _fits(prior, shape.class_units) else 1
    style = shape.style if prior else "free"
    code = {"class_units": units, "style_units": shape.style_units, "style": style}
    code |= settings.get("code", {})
    training = {"batch_size": shape.batch_size, "steps": STEPS}
    whole = {**settings, **warm, "network": network, "code": code, "training": training}
    return Case(entries, {**whole, "prior": prior} if prior else whole, shape)


def _spread(prior: dict[str, Any], units: int) -> dict[str, Any]:
    """Return a prior whose means are listed with a number for each unit."""
    own = TypeAdapter(Prior).validate_python(prior)
    if units == 1 or "means" not in type(own).model_fields:
        return prior
    means = [[m * (1 - 0.4 * u) + 0.3 * u for u in range(units)] for m in own.means]
    return {**prior, "means": means}


def _fits(prior: dict[str, Any] | None, units: int) -> bool:
    return prior is None or TypeAdapter(Prior).validate_python(prior).misfit(units) is None


@functools.cache
def one_shape_each() -> tuple[Case, ...]:
    """Return every row once; the shapes take turns, one turn later each time round."""
    count = len(SHAPES)
    rows = range(len(all_cases()) // count)
    return tuple(all_cases()[row * count + (row + row // count) % count] for row in rows)


@functools.cache
def sample() -> tuple[Case, ...]:
    """Return few cases in which every entry and every shape occurs.

    Deterministic: cases are tried in the order of a digest of their names, and one stays where it
    has an entry that has not yet occurred often enough.
    """
    seen: dict[object, int] = {}
    chosen = []
    for case in sorted(all_cases(), key=lambda one: hashlib.sha256(one.name.encode()).digest()):
        parts = [*case.entries, case.shape]
        if any(seen.get(part, 0) < TIMES_COVERED for part in parts):
            chosen.append(case)
            seen |= {part: seen.get(part, 0) + 1 for part in parts}
    return tuple(chosen)
