"""Cells: configurations with the names that tables, plots and MLflow show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.networks import Activations
from models.priors import Bimodal
from models.settings import Settings
from models.spec import Spec, canonical_json
from models.train import TRAINER_VERSION

SCHEMA_VERSION = 3
_WORDS = {1: "one", 2: "two", 3: "three"}
SHORT, EXACT = 4, 17  # significant digits of a number that has more than six
CHOICES = ("objective", "prior", "divergence", "activation")
PLAIN = (*CHOICES, "network.kind")  # told by their value alone
UNSAID = {("code.style", "free"), ("code.squash", "none")}  # the other value says its name


@dataclass(frozen=True)
class Cell:
    """One configuration: its axes under their YAML names, and a label that is unique in a study."""

    label: str
    axes: dict[str, Any]
    spec: Spec

    def cell_id(self, image_digest: str, split: float | None = None) -> str:
        """Return 16 hex digits of all that the cell's runs share."""
        return identity(self.spec, image_digest, None, split)

    def warnings(self) -> list[str]:
        """Return what a reader should know before believing this cell."""
        prior = self.spec.class_prior
        if prior is None or prior.modes == prior.peaks:
            return []
        modes, peaks = _counted(prior.modes, "mode"), prior.peaks
        why = "m <= s" if isinstance(self.spec.prior, Bimodal) else "its peaks overlap"
        kind = self.spec.prior.kind if self.spec.prior else ""
        return [
            f"{self.label}: {why}, so this {kind} prior has {modes}, not {_WORDS.get(peaks, peaks)}"
        ]


def _counted(count: int, what: str) -> str:
    return f"{_WORDS.get(count, count)} {what}{'' if count == 1 else 's'}"


def identity(spec: Spec, image_digest: str, seed: int | None, split: float | None = None) -> str:
    """Return 16 hex digits of SHA-256 over everything that defines a run; without a seed, a cell.

    Not in it: the study's name and question, metric, low, resources, labels, scheduling.
    """
    content = {
        "schema": SCHEMA_VERSION,
        "trainer": TRAINER_VERSION,
        "spec": spec.model_dump(mode="json"),
        "images": image_digest,
        **({} if seed is None else {"seed": seed}),
        **({} if split is None else {"split": split}),
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]


def name_cells(specs: Sequence[Spec]) -> tuple[Cell, ...]:
    """Give each configuration its axes, what varies and the four choices, and a label."""
    flat = _told_apart(specs)
    varying = [path for path in _paths(flat) if _distinct(flat, path) > 1]
    shown = [*CHOICES, *(path for path in varying if path not in CHOICES)]
    cells = []
    for spec, row in zip(specs, flat, strict=True):
        axes = {path: row.get(path) for path in shown}
        words = [_word(path, axes[path]) for path in shown if path in varying or path == CHOICES[0]]
        cells.append(Cell(" ".join(word for word in words if word), axes, spec))
    return tuple(cells)


def _paths(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(path for row in rows for path in row))


def _told_apart(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """Return each one's axes, short; exact along an axis where short ones would look alike."""
    short, exact = ([_axes(spec, digits) for spec in specs] for digits in (SHORT, EXACT))
    alike = [path for path in _paths(exact) if _distinct(short, path) < _distinct(exact, path)]
    return [
        row | {path: full[path] for path in alike if path in full}
        for row, full in zip(short, exact, strict=True)
    ]


def _distinct(rows: list[dict[str, Any]], path: str) -> int:
    return len({str(row.get(path)) for row in rows})


def _axes(spec: Spec, digits: int) -> dict[str, Any]:
    """Return every setting by its dotted path; priors and divergences as one label each."""
    rows: dict[str, Any] = {}
    for path in CHOICES:
        value = getattr(spec, path)
        rows[path] = _choice(value, digits) if isinstance(value, Settings) else value
    for group in ("network", "code", "training"):
        for name, value in getattr(spec, group).model_dump(mode="json").items():
            rows[f"{group}.{name}"] = (
                "-".join(map(str, value)) if isinstance(value, list) else value
            )
    return rows


def _choice(settings: Settings, digits: int) -> str:
    """Return a kind with what differs from its defaults: `bimodal(m=2)`."""
    if isinstance(settings, Activations):
        return str(settings)
    values, usual = settings.summary(), type(settings)().summary()
    kind = values.pop("kind")
    changed = [f"{name}={_short(v, digits)}" for name, v in values.items() if v != usual[name]]
    return f"{kind}({', '.join(changed)})" if changed else str(kind)


def _word(path: str, value: Any) -> str:
    """Return what a label says of a setting: nothing of one that is off in this cell."""
    if value is None or value is False or (path, value) in UNSAID:
        return ""
    if path in PLAIN:
        return str(value)
    name = path.rpartition(".")[2]
    return name if value is True else f"{name}={_short(value)}"


def _short(value: Any, digits: int = EXACT) -> str:
    """Return a value with so many significant digits, no more than tell it from its neighbours."""
    if isinstance(value, list):
        return f"[{', '.join(_short(item, digits) for item in value)}]"
    if not isinstance(value, float):
        return str(value)
    short = repr(value) if digits == EXACT else f"{value:.{digits}g}"
    return f"{value:g}" if float(f"{value:g}") == value else short
