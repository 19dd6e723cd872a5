"""The base of everything that a study file can set."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """Frozen, strict settings: unknown keys, NaN, and `"3"` for 3 are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def summary(self) -> dict[str, Any]:
        """Return what a label may say: each setting by its name, `kind` among them."""
        return self.model_dump(mode="json")


def as_kind(value: Any) -> Any:
    """Read a bare name, such as `bimodal`, as the settings of that kind with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


def mistake(sentence: str) -> PydanticCustomError:
    """Return a validator's complaint about its own field, as the sentence that a user reads."""
    return PydanticCustomError("sentence", "{text}", {"text": sentence})


def mistakes_of(found: list[tuple[str, str]]) -> PydanticCustomError:
    """Return a validator's complaints about (field, sentence) of its own settings."""
    return PydanticCustomError("combination", "{mistakes}", {"mistakes": found})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known word is close, and the known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{guess} known: {', '.join(known)}"
