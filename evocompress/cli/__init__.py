"""The command line: one module per group of commands, and one place that turns errors into one line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.text import Text

from evocompress.cli import analyse, curve, data, files, kernels, pack, run, saccades
from evocompress.errors import ConfigError, EvocompressError

__all__ = ["app", "main"]

app = typer.Typer(
    name="evocompress",
    help="Train, compress and evolve neural networks; make one checkpoint tiny; look at what came out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from evocompress import __version__

        typer.echo(__version__)
        raise typer.Exit


for module in (run, analyse, pack, files, curve, kernels, saccades, data):
    module.register(app)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """A user's mistake ends in one message and an exit status: 2 for what was asked wrongly, 1 for what went wrong."""
    try:
        yield
    except EvocompressError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:  # the reader of our output went away: `evocompress … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        Console(stderr=True).print(Text(f"error: {where}{error.strerror or error}"), soft_wrap=True)
        sys.exit(1)


def main() -> None:
    """Entry point of the command `evocompress`."""
    with _one_line_errors():
        app()
