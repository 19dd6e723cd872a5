"""The specification of one training: everything that defines it except images and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.divergences import COMPARES, Divergence
from models.networks import Activation, Autoencoder, Mlp, Network
from models.objectives import OBJECTIVES, Objective, ObjectiveName
from models.packed import ALIGN
from models.priors import Prior
from models.settings import Settings, mistakes_of


class CodeUnits(Settings):
    """How many units the code has: class units carry the prior, style units are free."""

    class_units: Literal[1] = 1
    style_units: int = Field(default=0, ge=0, le=1024)


class Training(Settings):
    """Adam's settings (Kingma and Ba 2015) and how long."""

    steps: int = Field(default=600, ge=1, le=100_000_000)
    # A multiple of 16 keeps every member's rows on cache lines, and with them its bits.
    batch_size: int = Field(default=128, ge=ALIGN, multiple_of=ALIGN)
    learning_rate: float = Field(default=0.002, gt=0, le=10)


class Spec(Settings):
    """One training, every default written out; frozen, with one canonical JSON."""

    objective: ObjectiveName
    activation: Activation = "relu"
    network: Network = Mlp()
    code: CodeUnits = CodeUnits()
    training: Training = Training()
    prior: Prior | None = None
    divergence: Divergence | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        """Give an objective that needs them its prior and divergence."""
        row = _row(data)
        if row is None or row.divergence is None:
            return data
        return {"prior": "normal", "divergence": row.divergence, **data}

    @model_validator(mode="after")
    def _refuse_nonsense(self) -> Self:
        mistakes = combination_mistakes(self.model_dump())
        if mistakes:
            raise mistakes_of(mistakes)
        return self

    @property
    def row(self) -> Objective:
        """Return the objective's row of the table."""
        return OBJECTIVES[self.objective]

    def assemble(self, pixels: int) -> Autoencoder:
        """Return the network for images of so many pixels."""
        units = self.code.class_units + self.code.style_units
        stochastic = self.code.class_units if self.row.stochastic else 0
        return self.network.assemble(pixels, units, self.activation, stochastic)

    def canonical_json(self) -> str:
        """Return the one JSON text of this specification: sorted keys, no spaces."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """Return sorted, compact JSON; NaN and Infinity are errors, -0.0 is 0.0."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def combination_mistakes(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (field, sentence) for each combination without sense, as far as the names are known.

    Reads plain settings, so that it also works beside other mistakes.
    """
    row = _row(settings)
    if row is None:
        return []
    name = settings["objective"]
    if row.compares is None:
        fix = f"remove it, or choose {_that_take(None)}"
        return [
            (field, f"objective '{name}' takes no {field}; {fix}")
            for field in ("prior", "divergence")
            if settings.get(field) is not None
        ]
    found = [
        (field, f"objective '{name}' needs a {field}")
        for field in ("prior", "divergence")
        if field in settings and settings[field] is None
    ]
    kind = _kind(settings.get("divergence"))
    compares = COMPARES.get(kind)
    if compares is not None and compares != row.compares:
        reason = {
            "density": "compares densities q(z|x), which a deterministic code has not",
            "sample": "compares samples, while the objective is a bound on densities",
        }[compares]
        sentence = f"'{kind}' {reason}; with '{name}' use '{row.divergence}'"
        found.append(("divergence", f"{sentence}, or choose {_that_take(compares)}"))
    return found


def _row(settings: Any) -> Objective | None:
    name = settings.get("objective") if isinstance(settings, Mapping) else None
    return next((row for known, row in OBJECTIVES.items() if known == name), None)


def _kind(value: Any) -> str:
    return str(value.get("kind")) if isinstance(value, Mapping) else str(value)


def _that_take(what: str | None) -> str:
    rows = [
        name
        for name, row in OBJECTIVES.items()
        if (row.compares == what if what else row.compares is not None)
    ]
    return "objective " + " or ".join(f"'{name}'" for name in rows)
