"""What a terminal can show, and lines written to it as they are: no markup, no number cut off."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.text import Text

_DASH = "–"  # noqa: RUF001 - an en dash
NARROW, WIDE = 80, 120  # a pipe's and a log's width; beyond the other the eye loses its row
NARROWEST = 40  # below it lines run over rather than lose a number


@dataclass(frozen=True)
class Look:
    """What a terminal can show."""

    width: int = NARROW
    encoding: str = "utf-8"
    styled: bool = True

    @classmethod
    def of(cls, console: Console) -> Look:
        """Return a console's own. No style under NO_COLOR: rich would keep bold and dim."""
        styled = console.is_terminal and not console.no_color
        return cls(min(max(console.width, NARROWEST), WIDE), console.encoding, styled)

    def text(self, words: str, style: str = "") -> Text:
        """Return words that can be printed there, and are never read as markup or control codes."""
        plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in words)
        try:
            plain.encode(self.encoding)
        except UnicodeEncodeError:
            spelled = plain.replace(_DASH, "-").replace("…", "...")
            plain = spelled.encode(self.encoding, "replace").decode(self.encoding)
        return Text(plain, style if self.styled else "")


def many(count: int, what: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def write(console: Console, look: Look, what: RenderableType) -> None:
    """Print without the blanks that rich fills lines with, and never cut a number off."""
    options = console.options.update(width=look.width, highlight=False)
    for line in console.render_lines(what, options, pad=False):
        text = Text.assemble(*((piece.text, piece.style or "") for piece in line))
        text.rstrip()
        console.print(text, soft_wrap=True, highlight=False)
