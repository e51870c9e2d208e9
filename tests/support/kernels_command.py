"""The command `evocompress kernels` as tests call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner, Result

from evocompress.ideas.kernels import command

__all__ = ["invoke", "objects"]


def invoke(*words: object) -> Result:
    """`evocompress kernels WORDS…`, in this process."""
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return CliRunner().invoke(app, ["kernels", *(str(word) for word in words)])


def objects(path: Path) -> list[dict[str, Any]]:
    """What `--json` has written."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows
