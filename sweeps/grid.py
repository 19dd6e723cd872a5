"""From blocks with axes to an explicit list of configurations, each value with where it stands.

A list where one value is expected is an axis; where the field is itself a list, a list of lists
is; where it may be a list of lists, one level deeper. Axes multiply inside a block; blocks are
chained; each block is deep-merged over `spec`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from models.spec import Spec
from sweeps.mistakes import Path, models_in

MOST_CELLS = 100_000


@dataclass(frozen=True)
class Leaf:
    """A value, and its place in the file such as `cells[1].prior`."""

    value: Any
    where: str


@dataclass(frozen=True)
class Axis:
    """Alternatives for one value."""

    options: tuple[Node, ...]
    where: str


Node = Leaf | Axis | dict[str, "Node"]


@dataclass(frozen=True)
class Point:
    """One configuration as written: plain settings, and the file's place of each path in them."""

    settings: dict[str, Any]
    origins: dict[Path, str]
    block: str

    def where(self, path: Path) -> str:
        """Return the place in the file of a path, or of the nearest thing written around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]] + _suffix(path[length:])
        return self.block + _suffix(path, dotted=True)


def points(spec: Mapping[str, Any], block: Mapping[str, Any], where: str) -> Iterator[Point]:
    """Expand one block over the shared `spec` to its configurations, in the order of the file."""
    shared = parse(spec, "spec", Spec)
    own = parse(block, where, Spec)
    for settings, origins in _expand(merge(shared, own), ()):
        yield Point(settings, origins, where)


def count(spec: Mapping[str, Any], block: Mapping[str, Any]) -> int:
    """Return how many configurations a block gives, without making them."""
    return _count(merge(parse(spec, "", Spec), parse(block, "", Spec)))


def parse(value: Any, where: str, owner: type[BaseModel] | None, field: str = "") -> Node:
    """Read plain YAML as leaves, axes and mappings, by what the owner's field expects."""
    declared = owner.model_fields.get(field) if owner and field else None
    annotation = declared.annotation if declared else None
    inner = models_in(annotation) if declared else ([owner] if owner and not field else [])
    if isinstance(value, Mapping):
        return {
            str(key): parse(item, f"{where}.{key}", _owner(inner, str(key)), str(key))
            for key, item in value.items()
        }
    if isinstance(value, list) and _depth(value) > _list_depth(annotation):
        options = [parse(item, f"{where}[{i}]", owner, field) for i, item in enumerate(value)]
        return Axis(tuple(options), where)
    if isinstance(value, str) and any("kind" in model.model_fields for model in inner):
        return {"kind": Leaf(value, where)}
    return Leaf(value, where)


def merge(below: Node, above: Node) -> Node:
    """Lay one node over another: mappings key by key, everything else as a whole.

    A mapping of another kind replaces the one below it; alternatives are merged one by one.
    """
    if isinstance(above, Axis):
        return Axis(tuple(merge(below, option) for option in above.options), above.where)
    if isinstance(below, Axis) and isinstance(above, dict):
        return Axis(tuple(merge(option, above) for option in below.options), below.where)
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    kinds = [node.get("kind") for node in (below, above)]
    if all(isinstance(kind, Leaf) for kind in kinds) and kinds[0].value != kinds[1].value:  # type: ignore[union-attr]
        return above
    both = {key: merge(below[key], above[key]) for key in above if key in below}
    return {**below, **above, **both}


def _owner(models: list[type[BaseModel]], key: str) -> type[BaseModel] | None:
    return next((model for model in models if key in model.model_fields), None)


def _list_depth(annotation: Any) -> int:
    """Return how deep the lists of a field may be nested: 0 where it is no list."""
    inner = max((_list_depth(part) for part in get_args(annotation)), default=0)
    return inner + 1 if get_origin(annotation) is tuple else inner


def _depth(value: Any) -> int:
    """Return how deep a list is nested; 1 for one that is empty or holds other things as well."""
    if not isinstance(value, list):
        return 0
    return 1 + min((_depth(item) for item in value), default=0)


def _count(node: Node) -> int:
    if isinstance(node, Leaf):
        return 1
    if isinstance(node, Axis):
        return sum(_count(option) for option in node.options)
    total = 1
    for item in node.values():
        total *= _count(item)
    return total


def _expand(node: Node, path: Path) -> Iterator[tuple[Any, dict[Path, str]]]:
    if isinstance(node, Leaf):
        yield node.value, {path: node.where}
    elif isinstance(node, Axis):
        for option in node.options:
            for value, origins in _expand(option, path):
                # A mapping in an axis stands at the axis' own index.
                yield value, {path: _where(option, node.where), **origins}
    else:
        parts = [list(_expand(item, (*path, key))) for key, item in node.items()]
        for chosen in itertools.product(*parts):
            origins = {place: text for _, part in chosen for place, text in part.items()}
            values = dict(zip(node, (value for value, _ in chosen), strict=True))
            yield values, _with_bare_kind(origins, path, node)


def _with_bare_kind(origins: dict[Path, str], path: Path, node: dict[str, Node]) -> dict[Path, str]:
    """Let a bare name, read as {kind: name}, answer for the whole mapping."""
    kind = node.get("kind")
    if path and isinstance(kind, Leaf) and not kind.where.endswith(".kind"):
        return {path: kind.where, **origins}
    return origins


def _where(option: Node, otherwise: str) -> str:
    if isinstance(option, dict):
        first = next(iter(option.values()), None)
        return _where(first, otherwise).rsplit(".", 1)[0] if first is not None else otherwise
    return option.where


def _suffix(path: Path, *, dotted: bool = True) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path) * dotted
