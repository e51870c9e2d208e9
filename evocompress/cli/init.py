"""The command `init`: a configuration to start from."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from evocompress.errors import ConfigError
from evocompress.support.command_line import echo

__all__ = ["register"]

_TEMPLATE = "template"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    name: Annotated[
        str,
        typer.Argument(help="Which one: template explains each line; digits, fashion_mnist, text … are whole runs."),
    ] = _TEMPLATE,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write; default NAME.toml, of the template experiment.toml."),
    ] = None,
) -> None:
    """Write a configuration to start from, for `evocompress run`. A file that is there is not touched."""
    folder = resources.files("evocompress") / "configs"
    there = sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"There is no configuration {name!r}.{meant} There are {', '.join(there)}.")
    path = output or Path("experiment.toml" if name == _TEMPLATE else f"{name}.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write((folder / f"{name}.toml").read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(f"{path} is there already; give another name with --output.") from None
    echo(f"{path}: evocompress run {path}")
