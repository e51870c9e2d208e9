"""The command `evocompress`, run in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from evocompress.cli import app

__all__ = ["invoke", "invoke_caught"]


def invoke(*words: object) -> Result:
    """`evocompress WORDS…`; what it raises goes on."""
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def invoke_caught(*words: object) -> Result:
    """`evocompress WORDS…`; what it raises is the result's `exception`."""
    return CliRunner().invoke(app, [str(word) for word in words])
