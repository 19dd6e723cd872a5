"""YAML that unfolds to more than it says, or further than a study goes, is refused as it is read.

An alias costs some letters and repeats all that its anchor holds, merge keys too: nine lines can
be a billion values. So values are counted as they unfold, before one of them is made.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent

MOST_VALUES = 200_000
MOST_LEVELS = 60
MOST_DIGITS = 400
DIGITS = re.compile(r"[-+]?(0[xob])?[0-9a-fA-F_:.]+")


class Bounded(Composer):
    """ruamel's composer, which stops where a document becomes too much."""

    def __init__(self, loader: Any = None) -> None:
        """Nothing is counted yet."""
        super().__init__(loader=loader)
        self._level, self._values = 0, 0
        self._sizes: dict[str, int] = {}  # by anchor, of those that are read to their end

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value with all that it holds; MarkedYAMLError where it is too much."""
        event, before = self.parser.peek_event(), self._values
        alias, anchor = isinstance(event, AliasEvent), event.anchor
        self._level += 1
        self._values += self._sizes.get(anchor, MOST_VALUES) if alias and self._open(anchor) else 1
        if self._level > MOST_LEVELS:
            _stop(event, f"more than {MOST_LEVELS} levels deep")
        if self._values > MOST_VALUES:
            _stop(event, f"more than {MOST_VALUES} values; is an alias within itself?")
        if anchor in self._sizes and not alias:
            _stop(event, f"the anchor '{anchor}' is there twice")
        text = getattr(event, "value", "")
        if len(text) > MOST_DIGITS and not event.style and DIGITS.fullmatch(text):
            _stop(event, f"a number of more than {MOST_DIGITS} digits")
        node = super().compose_node(parent, index)
        if anchor and not alias:
            self._sizes[anchor] = self._values - before
        self._level -= 1
        return node

    def _open(self, anchor: str) -> bool:
        """Tell an alias of something that was written; of others ruamel complains."""
        return anchor in self.anchors


def _stop(event: Any, problem: str) -> None:
    raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
