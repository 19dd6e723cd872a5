"""What a seed redraws: initialisation, batch order and noise always; on request the data too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator

from models.datasets import SHIPPED
from models.datasets.simulated import Simulated
from models.settings import mistake
from sweeps.mistakes import did_you_mean, shown

Part = Literal["data", "init", "order", "noise"]
PARTS: tuple[Part, ...] = get_args(Part)
DATA, *ALWAYS = PARTS
USUAL: tuple[Part, ...] = PARTS[1:]
WORDS = {"data": "data", "init": "initialisation", "order": "batch order", "noise": "noise"}
SIMULATED = sorted(kind.form for kind in SHIPPED if issubclass(kind, Simulated))


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        text = f"expected a list such as [{', '.join(PARTS)}], got {shown(value)}"
        raise mistake(text)
    for part in value:
        if part not in PARTS:
            what = f"unknown word '{part}'" if isinstance(part, str) else f"got {shown(part)}"
            hint = did_you_mean(part, PARTS) if isinstance(part, str) else "; known: "
            raise mistake(what + (hint if isinstance(part, str) else hint + ", ".join(PARTS)))
    return tuple(value)


def _whole(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts in our order; refuse what leaves out one that no seed leaves out."""
    twice = [part for part in PARTS if parts.count(part) > 1]
    if twice:
        text = f"'{twice[0]}' is listed twice"
        raise mistake(text)
    missing = [part for part in ALWAYS if part not in parts]
    if missing:
        text = (
            f"{_joined(missing)} {'is' if len(missing) == 1 else 'are'} missing: a seed always "
            f"redraws {_joined(ALWAYS)}; add {'it' if len(missing) == 1 else 'them'}"
        )
        raise mistake(text)
    return tuple(part for part in PARTS if part in parts)


Vary = Annotated[tuple[Part, ...], AfterValidator(_whole), BeforeValidator(_as_tuple)]


def sentence(parts: Sequence[str]) -> str:
    """Return what a seed redraws, as reports, plans and MLflow say it."""
    return f"A seed redraws {words(parts)}."


def words(parts: Sequence[str]) -> str:
    """Return the parts in words: `initialisation, batch order and noise`."""
    return _joined([WORDS[part] for part in parts])


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def asks_for_data(vary: Any) -> bool:
    """Tell whether a study file's key, whatever it holds, asks for data of each seed's own."""
    return isinstance(vary, list | tuple) and DATA in vary


def data_mistakes(raw: Mapping[str, Any], settings: Any) -> list[tuple[str, str]]:
    """Return (place, sentence) of what a study that redraws its data cannot have."""
    if not asks_for_data(raw.get("vary")):
        return []
    found = []
    if not isinstance(settings, Simulated):
        what = getattr(settings, "name", None) or getattr(settings, "path", "this one")
        known = " or ".join(SIMULATED)
        text = f"data needs a simulated dataset, which each seed can draw anew: {known}"
        found.append(("vary", f"{text}; {what} stays the same; remove data"))
    if raw.get("metric") == "agreement":
        text = "agreement compares codes of the same images, and with vary: data every seed has its"
        found.append(("metric", f"{text} own; choose another metric, or remove data from vary"))
    return found
