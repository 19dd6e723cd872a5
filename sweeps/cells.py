"""Cells: configurations with the names that tables, plots and MLflow show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from models.spec import Spec, canonical_json
from models.train import TRAINER_VERSION

SCHEMA_VERSION = 1
CHOICES = ("objective", "prior", "divergence", "activation")


@dataclass(frozen=True)
class Cell:
    """One configuration: its axes under their YAML names, and a label that is unique in a study."""

    label: str
    axes: dict[str, Any]
    spec: Spec

    def cell_id(self, image_digest: str) -> str:
        """Return 16 hex digits of all that the cell's runs share."""
        return identity(self.spec, image_digest, None)

    def warnings(self) -> list[str]:
        """Return what a reader should know before believing this cell."""
        prior = self.spec.prior
        if prior is None or len(prior.mixture().means) < 2 or prior.mixture().modes > 1:  # noqa: PLR2004
            return []
        return [f"{self.label}: m <= s, so this {prior.kind} prior has one mode, not two"]


def identity(spec: Spec, image_digest: str, seed: int | None) -> str:
    """Return 16 hex digits of SHA-256 over everything that defines a run; without a seed, a cell.

    Not in it: the study's name and question, metric, low, resources, labels, scheduling.
    """
    content = {
        "schema": SCHEMA_VERSION,
        "trainer": TRAINER_VERSION,
        "spec": spec.model_dump(mode="json"),
        "images": image_digest,
        **({} if seed is None else {"seed": seed}),
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]


def name_cells(found: list[tuple[str, Spec]]) -> tuple[Cell, ...]:
    """Give each configuration its axes, what varies and the four choices, and a label."""
    flat = [_axes(spec) for _, spec in found]
    varying = [path for path in _paths(flat) if len({str(row.get(path)) for row in flat}) > 1]
    shown = [*CHOICES, *(path for path in varying if path not in CHOICES)]
    cells = []
    for (_, spec), row in zip(found, flat, strict=True):
        axes = {path: row.get(path) for path in shown}
        words = [_word(path, axes[path]) for path in shown if path in varying or path == CHOICES[0]]
        cells.append(Cell(" ".join(word for word in words if word), axes, spec))
    return tuple(cells)


def _paths(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(path for row in rows for path in row))


def _axes(spec: Spec) -> dict[str, Any]:
    """Return every setting by its dotted path; priors and divergences as one label each."""
    rows: dict[str, Any] = {}
    for path in CHOICES:
        value = getattr(spec, path)
        rows[path] = _choice(value) if isinstance(value, BaseModel) else value
    for group in ("network", "code", "training"):
        for name, value in getattr(spec, group).model_dump(mode="json").items():
            rows[f"{group}.{name}"] = (
                "-".join(map(str, value)) if isinstance(value, list) else value
            )
    return rows


def _choice(settings: BaseModel) -> str:
    """Return a kind with what differs from its defaults: `bimodal(m=2)`."""
    values = settings.model_dump(mode="json")
    kind = values.pop("kind")
    usual = {name: field.default for name, field in type(settings).model_fields.items()}
    changed = [f"{name}={_short(v)}" for name, v in values.items() if v != usual[name]]
    return f"{kind}({', '.join(changed)})" if changed else str(kind)


def _word(path: str, value: Any) -> str:
    if value is None:
        return ""
    if path in CHOICES:
        return str(value)
    name = path.rpartition(".")[2]
    return (
        (name if value else f"no {name}") if isinstance(value, bool) else f"{name}={_short(value)}"
    )


def _short(value: Any) -> str:
    """Return a value as short as it can be without being taken for another."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short
