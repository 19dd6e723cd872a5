"""Mistakes in what a user wrote, as sentences: what, where, what was expected, the likely fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from models import settings

Path = tuple[int | str, ...]

MOST_LETTERS = 900  # of a sentence
NAME_RULE = "lower-case letters, digits and hyphens"
did_you_mean = settings.did_you_mean


class Refused(Exception):  # noqa: N818 - what happened, in the words of the command's contract
    """What was asked cannot be done: one message a mistake, exit code 2, no traceback."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        """Keep every mistake once, in the order found, each one line that a terminal can show."""
        self.mistakes = list(dict.fromkeys(map(_harmless, mistakes)))
        super().__init__("\n".join(self.mistakes))


def _harmless(sentence: str) -> str:
    """Return a sentence without control codes from the file that it quotes, and not endless."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in sentence)
    return plain if len(plain) <= MOST_LETTERS else f"{plain[:MOST_LETTERS]} ..."


class Mistake(NamedTuple):
    """A path below a model and what is wrong there; `at_owner` where the place is one level up."""

    path: Path
    sentence: str
    at_owner: bool = False


def sentences(failure: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Return everything that pydantic found wrong, in our words."""
    found = [mistake for error in failure.errors() for mistake in _mistakes(error, model)]
    deeper = {mistake.path[:-1] for mistake in found if mistake.path}
    return [m for m in found if not (m.sentence == _EMPTY and m.path in deeper)]


def _mistakes(error: ErrorDetails, model: type[BaseModel]) -> list[Mistake]:
    path, owner = _walk(model, error["loc"])
    field = "kind" if path and isinstance(path[-1], int) else str(path[-1]) if path else "value"
    if error["type"] == "combination":
        found: list[tuple[str, str]] = error["ctx"]["mistakes"]
        return [Mistake((*path, name), sentence) for name, sentence in found]
    known = owner.model_fields if owner else {}
    if error["type"] == "extra_forbidden":
        return [Mistake(path, f"unknown key '{field}'{did_you_mean(field, known)}", at_owner=True)]
    if error["type"] in ("missing", "union_tag_not_found"):
        names = choices(known[field].annotation) if field in known else []
        named = f"; one of: {', '.join(names)}" if names else ""
        if error["type"] == "missing":
            return [Mistake(path, f"{field} is missing{named}", at_owner=True)]
        return [Mistake(path, f"kind is missing{named}")]
    return [Mistake(path, _sentence(error, field))]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def choices(annotation: Any) -> list[str]:
    """Return the names that an annotation admits: literals, or the kinds of its settings."""
    if get_origin(annotation) is Literal:
        return sorted(str(name) for name in get_args(annotation))
    return sorted(_kind(model) for model in models_in(annotation) if _kind(model))


def _kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind", model.model_fields.get("name"))
    return str(get_args(field.annotation)[0]) if field and get_args(field.annotation) else ""


def _tag(model: type[BaseModel]) -> str:
    """Return the name that a union has for a model: its form of file, or its kind."""
    return getattr(model, "form", None) or _kind(model)


def _walk(model: type[BaseModel], location: Path) -> tuple[Path, type[BaseModel] | None]:
    """Follow an error's location; drop a union's tags; return path and the last field's owner."""
    path: list[int | str] = []
    owner: type[BaseModel] | None = None
    options: list[type[BaseModel]] = [model]
    tags: set[str] = set()
    for part in location:
        tagged = [option for option in options if len(options) > 1 and _tag(option) == part]
        if tagged:
            options = tagged
            continue
        if part in tags:
            continue
        if part in tags:
            continue
        path.append(part)
        if isinstance(part, str):
            owner = options[0] if len(options) == 1 else None
            field = owner.model_fields.get(part) if owner else None
            options = models_in(field.annotation) if field else []
            tags = _tags(field.annotation) if field else set()
    return tuple(path), owner


def _tags(annotation: Any) -> set[str]:
    """Return the names that an annotation gives to the forms that it admits."""
    own = {part.tag for part in getattr(annotation, "__metadata__", ()) if isinstance(part, Tag)}
    return own.union(*(_tags(part) for part in get_args(annotation)))


def shown(value: Any) -> str:
    """Return a value as a reader wrote it, with its type where that is the point."""
    if isinstance(value, bool):
        return f"{str(value).lower()} (a truth value)"
    if isinstance(value, str):
        return f"'{value[:40]}' (text)"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else str(value)


_EMPTY = "expected at least one value, got none"
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of settings",
    "model_attributes_type": "a mapping of settings or a name",
    "dict_type": "a mapping of settings",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _sentence(error: ErrorDetails, field: str) -> str:  # noqa: PLR0911 - a return a rule
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "sentence":
        return error["msg"]
    if kind in ("literal_error", "union_tag_invalid"):
        known = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags"))))
        word = value.get("kind", value.get("name")) if isinstance(value, Mapping) else value
        if known and isinstance(word, str):
            return f"unknown {field} '{word}'{did_you_mean(word, known)}"
        expected = context.get("expected", ", ".join(sorted(known)))
        return f"expected {expected}, got {shown(word)}"
    if kind in _TYPES:
        return f"expected {_TYPES[kind]}, got {shown(value)}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"expected {words} {_number(context[key])}, got {value}"
    if kind == "multiple_of":
        step = context["multiple_of"]
        below, above = value // step * step, (value // step + 1) * step
        fix = f"{below} or {above}" if below else f"{above}"
        return f"expected a multiple of {step}, got {value}; try {fix}"
    if kind == "too_short":
        few = f"expected at least {context['min_length']} values, got {context['actual_length']}"
        return few if context["min_length"] > 1 else _EMPTY
    if kind == "string_pattern_mismatch":
        tidy = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
        fix = f"; try '{tidy}'" if tidy else ""
        return f"expected {NAME_RULE}, got '{value}'{fix}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {shown(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
