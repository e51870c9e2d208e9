"""Printable text: what comes from outside (names of tensors, files, genes, nodes, errors) without terminal controls.

A terminal obeys escape sequences in what it is shown: they set its title, move its cursor, write to its clipboard. So
all that commands print goes through here: `echo` of `support.command_line`, and every console is a `SafeConsole`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = ["SafeConsole", "printable"]

# Escape sequences (ECMA-48): strings up to their end, if they have one; control sequences; the short ones.
_SEQUENCES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]"
)
# Other control characters but newline and tab, and those that turn the direction of writing, as in a name that reads as
# another one. Half a surrogate pair cannot be written at all.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_HALVES = re.compile(r"[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text without what a terminal would obey; newlines and tabs stay.

    >>> printable("\x1b]0;owned\x07conv\x1b[31m.weight\x9b2J\u202e\r\n")
    'conv.weight\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", _SEQUENCES.sub("", text)))


class SafeConsole(Console):
    """A rich console that obeys its own styles and cursor movements, and none that are in the texts it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, their texts made printable; rich's own controls are other segments."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

    def on_broken_pipe(self) -> None:
        """Go on raising: the command says what happens where its reader goes away; rich would end with 1."""
        raise
