"""Where commands print to: tables that fit a terminal, and lines that stay whole in a pipe or a file."""

from __future__ import annotations

from rich.console import Console

__all__ = ["output_console"]

_UNBROKEN = 1_000_000


def output_console() -> Console:
    """The standard output; what is not a terminal has no width that lines would have to be broken for."""
    console = Console()
    return console if console.is_terminal else Console(width=_UNBROKEN)
