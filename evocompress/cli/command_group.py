"""Command group that imports the commands of ideas and packages when they are asked for.

`extensions.COMMANDS` names them; each row's function gets a Typer application and adds the command of the row's name.
A command that cannot be imported says so when it is run, and in the list of commands; the others work.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from evocompress.cli.exit_codes import ExitCode
from evocompress.errors import ConfigError
from evocompress.extensions import COMMANDS
from evocompress.support.command_line import echo

__all__ = ["CommandGroup"]


# Contexts and commands are of no type that can be named here: newer versions of typer have a click of their own.
class CommandGroup(TyperGroup):
    """The core's own commands first; then those of `extensions.COMMANDS`, whose names the core does not have."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the help text."""
        core = super().list_commands(ctx)
        try:
            names = list(COMMANDS)
        except ConfigError as error:  # two packages add the same one
            echo(f"note: {error}", err=True)
            names = list(COMMANDS.builtin)
        return [*core, *(name for name in names if name not in core)]

    def invoke(self, ctx: Any) -> Any:
        """Run a command; where the reader of its output goes away (`evocompress … | head`), say nothing of it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try to write the rest
            raise typer.Exit(ExitCode.READER_GONE) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, None for an unknown one."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in COMMANDS:
            return _added_command(cmd_name)
        return command


def _added_command(name: str) -> Any:
    try:
        app = typer.Typer(rich_markup_mode=None)
        COMMANDS[name](app)
        commands = _commands(app)
        if name not in commands:
            raise ConfigError(f"its function adds {', '.join(commands) or 'nothing'} and no command {name!r}")
    except Exception as failure:
        return _failing_command(name, failure)
    return commands[name]


def _commands(app: typer.Typer) -> dict[str, Any]:
    app.callback()(lambda: None)  # so that it is a group, with one command too
    group: Any = typer.main.get_command(app)
    commands: dict[str, Any] = group.commands
    return commands


def _failing_command(name: str, failure: Exception) -> Any:
    text = str(failure) if isinstance(failure, ConfigError) else f"{type(failure).__name__}: {failure}"
    app = typer.Typer(rich_markup_mode=None)

    @app.command(
        name,
        help=f"(Cannot be used: {text})",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def fail() -> None:
        raise ConfigError(f"the command {name!r} cannot be used: {text}") from failure

    return _commands(app)[name]
