"""The command line: one module per command, of its name, and one place that turns errors into one line.

Exit codes are those of `cli.exit_codes`, for every command.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator

import typer
from rich.text import Text

from evocompress.cli import (
    certify,
    codecs,
    completion,
    curve,
    data,
    evaluate,
    export,
    front,
    init,
    inspect,
    pack,
    repair,
    report,
    run,
    settings,
    status,
    stop,
    unpack,
    watch,
)
from evocompress.cli.command_group import CommandGroup
from evocompress.cli.command_words import as_commands
from evocompress.cli.exit_codes import ExitCode, exit_code_of
from evocompress.errors import ConfigError, EvocompressError
from evocompress.search.interrupts import is_interrupt, sigterm_interrupts
from evocompress.support.command_line import echo
from evocompress.support.printable import SafeConsole, printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="evocompress",
    cls=CommandGroup,
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

        echo(__version__)
        raise typer.Exit


_OF_RUNS = (init, run, status, watch, stop, settings, front, report, export, repair)
_OF_FILES = (pack, unpack, inspect, evaluate, codecs, certify, curve, data)
for module in (*_OF_RUNS, *_OF_FILES, completion):
    module.register(app)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """A mistake ends in one message, without a traceback, and an exit status."""
    try:
        yield
    except EvocompressError as error:
        # A configuration's problems have a line each; others may quote what torch or a user's own code said in several.
        _tell(str(error) if isinstance(error, ConfigError) else " ".join(str(error).split()))
        sys.exit(exit_code_of(error))
    except OSError as error:
        prefix = f"{error.filename}: " if error.filename else ""
        _tell(f"{prefix}{error.strerror or error}")
        sys.exit(ExitCode.FAILED)
    except (KeyboardInterrupt, SystemError) as error:
        if not is_interrupt(error):
            raise
        sys.exit(ExitCode.STOPPED)
    except (MemoryError, RuntimeError) as error:
        # torch's lack of memory is a RuntimeError, on the CPU of no class of its own.
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise
        _tell(f"There is not enough memory. {str(error).strip().partition(chr(10))[0]}".strip())
        sys.exit(ExitCode.FAILED)


def _tell(message: str) -> None:
    SafeConsole(stderr=True).print(Text.assemble(("error: ", "bold red"), as_commands(message)), soft_wrap=True)


def _print_warnings_safely() -> None:
    """Warnings of libraries quote names too, such as a letter that a font lacks."""
    plain = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return printable(plain(message, category, filename, lineno, line))

    warnings.formatwarning = shown


def main() -> None:
    """Entry point of the command `evocompress`."""
    _print_warnings_safely()
    with _one_line_errors(), sigterm_interrupts():
        app(**completion.asked())
