"""What a study asks to have diagnosed: `[denoising, generation]`, or each with its settings.

No part of a run's identity: nothing of it changes a training.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from models.settings import Settings, did_you_mean, mistake, mistakes_of

ALWAYS = ("code", "physics")  # they cost nothing: every study has them, named or not
ON_REQUEST = ("denoising", "generation")
KNOWN = (*ALWAYS, *ON_REQUEST)


class Denoising(Settings):
    """So many hot pixels in each of so many images, `level` times as bright as the brightest."""

    images: int = Field(default=256, ge=1, le=10_000)
    sites: int = Field(default=4, ge=1, le=10_000)
    level: float = Field(default=1.0, gt=0, le=1e6)


class Generation(Settings):
    """How many images, and as many samples, are compared."""

    images: int = Field(default=500, ge=20, le=5_000)


class Requested(Settings):
    """The diagnostics of a study beyond those that every study has; None where not asked for."""

    denoising: Denoising | None = None
    generation: Generation | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        """Read a list of names, or names with their settings; true is the defaults."""
        if value is None:
            return {}
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            wrong = [name for name in value if not isinstance(name, str) or name not in KNOWN]
            if wrong:
                text = f"unknown diagnostic '{wrong[0]}'{did_you_mean(str(wrong[0]), KNOWN)}"
                raise mistake(text)
            return {name: {} for name in value if name in ON_REQUEST}
        if not isinstance(value, dict):
            text = f"expected a list of names, or names with their settings, got {value!r}"
            raise mistake(text)
        wrong = [str(name) for name in value if name not in KNOWN]
        if wrong:
            text = f"unknown diagnostic '{wrong[0]}'{did_you_mean(wrong[0], KNOWN)}"
            raise mistake(text)
        none = [name for name in ALWAYS if value.get(name) not in (None, True, {})]
        if none:
            text = (
                f"every study has it, and it has no settings; remove it, or write {none[0]}: true"
            )
            raise mistakes_of([(none[0], text)])
        return {name: _settings(value[name]) for name in ON_REQUEST if name in value}

    @property
    def names(self) -> tuple[str, ...]:
        """Return what is asked for beyond what every study has."""
        return tuple(name for name in ON_REQUEST if getattr(self, name) is not None)


def _settings(value: Any) -> Any:
    """Read `true` as the defaults and `false` as not asked for."""
    return {} if value is True else None if value is False else value
