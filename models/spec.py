"""The specification of one training: everything that defines it except images and seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from models.distributions import Distribution, Mixture
from models.divergences import DIVERGENCES, Compares, Divergence, Weighted
from models.networks import Activations, ActivationSettings, Autoencoder, Mlp, Network
from models.objectives import OBJECTIVES, Objective, ObjectiveName, Target
from models.packed import ALIGN
from models.priors import PRIORS, Anneal, LearnedMixture, Normal, Prior
from models.settings import Settings, mistakes_of


class CodeUnits(Settings):
    """How many units the code has: class units carry the prior; style units are free or normal.

    Normal style units are pushed towards a standard Gaussian by the same divergence. `squash` is
    what the code's means go through.
    """

    class_units: int = Field(default=1, ge=1, le=64)
    style_units: int = Field(default=0, ge=0, le=1024)
    style: Literal["free", "normal"] = "free"
    squash: Literal["none", "tanh"] = "none"


class Training(Settings):
    """Adam's settings (Kingma and Ba 2015) and how long."""

    steps: int = Field(default=600, ge=1, le=100_000_000)
    # A multiple of 16 keeps every member's rows on cache lines, and with them its bits.
    batch_size: int = Field(default=128, ge=ALIGN, multiple_of=ALIGN)
    learning_rate: float = Field(default=0.002, gt=0, le=10)


class Spec(Settings):
    """One training, every default written out; frozen, with one canonical JSON."""

    objective: ObjectiveName
    activation: ActivationSettings = "relu"
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
        misfit = self.prior.misfit(self.code.class_units) if self.prior else None
        if misfit:
            mistakes.append(("prior", misfit))
        anneal, steps = getattr(self.prior, "anneal", None), self.training.steps
        if isinstance(anneal, Anneal) and anneal.steps > steps:
            text = f"its scales are annealed over {anneal.steps} steps, and training has {steps}"
            mistakes.append(("prior", f"{text}; anneal over {steps} or fewer"))
        if mistakes:
            raise mistakes_of(mistakes)
        return self

    @property
    def row(self) -> Objective:
        """Return the objective's row of the table."""
        return OBJECTIVES[self.objective]

    def assemble(self, shape: Sequence[int]) -> Autoencoder:
        """Return the network for images of a shape, (C, H, W) or (pixels,).

        Raises ValueError where they do not go together.
        """
        misfit = self.network.misfit(shape)
        if misfit:
            raise ValueError(misfit[1])
        units = self.code.class_units + self.code.style_units
        network = self.network.assemble(shape, units, self.activations, self.stochastic_units)
        if self.prior is None or self.divergence is None:
            return replace(network, squash=self.code.squash == "tanh")
        critics = [
            self.divergence.layers(target.prior.units, f"critic.{place}")
            for place, target in enumerate(self.targets)
        ]
        return replace(
            network,
            squash=self.code.squash == "tanh",
            prior=self.prior.parameters(self.code.class_units),
            critics=tuple(critic for critic in critics if critic),
        )

    @property
    def activations(self) -> Activations:
        """Return the activations of encoder and decoder."""
        if isinstance(self.activation, Activations):
            return self.activation
        return Activations(encoder=self.activation, decoder=self.activation)

    @property
    def stochastic_units(self) -> int:
        """Return how many units of the code have a variance: those with a prior, or none."""
        if not self.row.stochastic:
            return 0
        normal = self.code.style == "normal"
        return self.code.class_units + (self.code.style_units if normal else 0)

    @property
    def class_prior(self) -> Distribution | None:
        """Return the distribution that the class units are pushed towards, if any.

        A learned one is returned as it begins.
        """
        return self.prior.distribution(self.code.class_units) if self.prior else None

    def learned_prior(self, tensors: Mapping[str, NDArray[np.float32]]) -> str | None:
        """Return as JSON the prior that a member ended with, None where it learns none."""
        if not isinstance(self.prior, LearnedMixture):
            return None
        units = self.code.class_units
        own = {
            part.part: torch.from_numpy(np.array(tensors[part.block.name])).unsqueeze(0)
            for part in self.prior.parameters(units)
        }
        return canonical_json(asdict(self.prior.of(units, own).mixture(0)))

    def prior_of(self, learned: str | None) -> Distribution | None:
        """Return the class units' prior of a run that learned this one, or none."""
        if learned is None:
            return self.class_prior
        values = json.loads(learned)
        means = tuple(tuple(mean) for mean in values["means"])
        return Mixture(means, tuple(values["scales"]), tuple(values["weights"]))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Return the parts of the code that have a prior."""
        return self._targets(self.class_prior)

    def targets_at(self, step: int) -> tuple[Target, ...]:
        """Return the parts of the code that have a prior, with the prior at a step."""
        return self._targets(self.prior.at(step, self.code.class_units) if self.prior else None)

    def _targets(self, prior: Distribution | None) -> tuple[Target, ...]:
        code, settings = self.code, self.prior
        if prior is None:
            return ()
        style = Normal().distribution(code.style_units)
        own = Target(prior, settings=settings if isinstance(settings, LearnedMixture) else None)
        normal = code.style == "normal" and code.style_units
        return (own, Target(style, code.class_units)) if normal else (own,)

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
    name, code = settings["objective"], settings.get("code")
    code = code if isinstance(code, Mapping) else {}
    if not row.compares:
        fix = f"remove it, or choose {_that_take(None)}"
        found = [
            (field, f"objective '{name}' takes no {field}; {fix}")
            for field in ("prior", "divergence")
            if settings.get(field) is not None
        ]
        if code.get("style") == "normal":
            text = f"objective '{name}' pushes no unit anywhere, so style is free; {fix}"
            found.append(("code", text))
        return found
    found = [
        (field, f"objective '{name}' needs a {field}")
        for field in ("prior", "divergence")
        if field in settings and settings[field] is None
    ]
    if code.get("style") == "normal" and code.get("style_units", 0) == 0:
        found.append(("code", "style is normal, and there are no style units; set style_units"))
    return found + _divergence_mistakes(settings, row, str(code.get("squash", "none")))


def _divergence_mistakes(
    settings: Mapping[str, Any], objective: Objective, squash: str
) -> list[tuple[str, str]]:
    """Return what a divergence cannot do with this objective, prior and code."""
    kind, prior = _kind(settings.get("divergence")), _kind(settings.get("prior"))
    row, shape = DIVERGENCES.get(kind), PRIORS.get(prior)
    if row is None:
        return []
    found = []
    if row.compares not in objective.compares:
        use = f"with '{settings['objective']}' use '{objective.divergence}'"
        text = f"'{kind}' compares densities q(z|x), which a deterministic code has not; {use}"
        found.append(("divergence", f"{text}, or choose {_that_take(row.compares)}"))
    if shape is not None and row.everywhere and not shape.everywhere:
        finite = _rows(lambda one: not one.everywhere and one.compares != "density")
        text = f"'{kind}' from a '{prior}' prior is infinite, since its density ends"
        text = f"{text}; use {finite}, or another prior"
        found.append(("divergence", text))
    if shape is not None and shape.learned and not row.learns:
        fix = f"use {_rows(lambda one: one.learns)}, or the prior 'mixture'"
        found.append(("divergence", f"'{kind}' cannot teach a '{prior}' prior; {fix}"))
    if kind == "analogy" and squash != "tanh":
        text = "'analogy' pushes codes out without end; set code.squash to tanh"
        found.append(("divergence", text))
    return found


def _rows(suits: Callable[[type[Weighted]], bool]) -> str:
    return _either([kind for kind, row in DIVERGENCES.items() if suits(row)])


def _either(kinds: Sequence[str]) -> str:
    words = [f"'{kind}'" for kind in kinds]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _row(settings: Any) -> Objective | None:
    name = settings.get("objective") if isinstance(settings, Mapping) else None
    return next((row for known, row in OBJECTIVES.items() if known == name), None)


def _kind(value: Any) -> str:
    return str(value.get("kind")) if isinstance(value, Mapping) else str(value)


def _that_take(what: Compares | None) -> str:
    rows = [
        name for name, row in OBJECTIVES.items() if (what in row.compares if what else row.compares)
    ]
    return "objective " + " or ".join(f"'{name}'" for name in rows)
