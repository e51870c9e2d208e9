"""Output of a command under `--json` and `--quiet`, which mean the same for all commands that have them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any

import typer

from evocompress.support.command_line import echo

__all__ = ["AsJson", "Output", "Quiet"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to the standard output, and nothing else there.")]

Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print nothing but warnings, errors and what --json asks for.")
]


@dataclasses.dataclass(frozen=True)
class Output:
    """Where the lines of a command go: results to the standard output, the rest to the standard error.

    With `as_json` the results are one document. With `quiet` nothing is said but warnings, and the exit status speaks.
    """

    as_json: bool = False
    quiet: bool = False

    @property
    def says_results(self) -> bool:
        """Whether results are printed as text."""
        return not (self.as_json or self.quiet)

    def result(self, text: str) -> None:
        """A line of the result, for people."""
        if self.says_results:
            echo(text)

    def note(self, text: str) -> None:
        """A line about the work."""
        if not self.quiet:
            echo(text, err=True)

    def warning(self, text: str) -> None:
        """A line that is never left out."""
        echo(text, err=True)

    def document(self, data: Any, *, indent: int | None = None) -> None:
        """The result, for programs; nothing without `as_json`. Numbers that JSON does not know are null."""
        if self.as_json:
            echo(json.dumps(_finite(data), indent=indent, allow_nan=False))


def _finite(data: Any) -> Any:
    """The same data, with None in the place of infinite numbers and of NaN.

    >>> _finite({"loss": float("nan"), "sizes": (1, 2.5)})
    {'loss': None, 'sizes': [1, 2.5]}
    """
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
