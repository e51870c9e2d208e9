"""The command `completion`: the script by which a shell completes commands, options and their values."""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any, Literal

import typer

from evocompress.support.command_line import echo

__all__ = ["asked", "register"]

_PROGRAM = "evocompress"
_VARIABLE = "_EVOCOMPRESS_COMPLETE"  # what the scripts set where they ask


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("completion")(completion)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    """Print what makes a shell complete commands, options and values by the Tab key.

    In ~/.bashrc: eval "$(evocompress completion bash)". In ~/.zshrc, after compinit: eval "$(evocompress completion
    zsh)". For fish, write it to ~/.config/fish/completions/evocompress.fish.
    """
    echo(_of_typer().get_completion_script(prog_name=_PROGRAM, complete_var=_VARIABLE, shell=shell))


def asked() -> dict[str, str]:
    """Arguments of the application where a shell asks, not a person; none otherwise.

    typer answers by itself only in applications with two options of its own for it.
    """
    if _VARIABLE not in os.environ:
        return {}
    _of_typer().completion_init()
    return {"prog_name": _PROGRAM, "complete_var": _VARIABLE}


def _of_typer() -> Any:
    """The module that makes and answers the scripts: typer's, for its own options; it exports none of its names."""
    return importlib.import_module("typer.completion")
