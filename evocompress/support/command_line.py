"""Command-line helpers: checks of options before any work, errors that name them, and where commands print to.

Besides `cli/` only the `command.py` of an idea uses this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from evocompress.errors import ConfigError, EvocompressError
from evocompress.support.printable import SafeConsole, printable
from evocompress.support.quantities import parse_bytes

__all__ = [
    "MaxOutputBytes",
    "NetworkOptions",
    "about",
    "check_output",
    "check_output_folder",
    "echo",
    "folder_named",
    "output_console",
    "output_limit",
]

NetworkOptions = Annotated[
    list[str] | None, typer.Option("--set", help="Give the network an option: --set width=16. Repeatable.")
]

MaxOutputBytes = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Refuse an .evc file whose tensors take more once they are decoded, such as 500MB: a small file can hold "
        "large ones.",
    ),
]

_UNBROKEN = 1_000_000


@contextlib.contextmanager
def about(option: str, value: str = "", kind: type[EvocompressError] = EvocompressError) -> Iterator[None]:
    """Begin the message of errors of this kind with the option that they are about, and its value if not there yet."""
    try:
        yield
    except kind as error:
        named = option if not value or repr(value) in str(error) else f"{option} {value}"
        raise type(error)(f"{named}: {error}") from error


def output_limit(text: str) -> int:
    """`--max-output-bytes` in bytes.

    Raises:
        ConfigError: It is no size.
    """
    with about("--max-output-bytes", text):
        return parse_bytes(text)


def check_output(output: Path, sources: Sequence[Path], option: str = "--output") -> None:
    """Refuse to write over what is being read, or to a place that is none.

    Raises:
        ConfigError: Says which.
    """
    if output.exists() and any(source.exists() and output.samefile(source) for source in sources):
        raise ConfigError(f"{option} {output} is the input itself; give another name.")
    if output.is_symlink() or (output.exists() and not output.is_file() and not output.is_dir()):
        # Whole files are written beside and moved there, which would replace a device or a link itself.
        raise ConfigError(f"{option} {output} is a link or a device, which would be replaced; give a file's own name.")
    if output.is_dir():
        raise ConfigError(f"{option} {output} is a folder; give a file.")
    if not output.parent.is_dir():
        raise ConfigError(f"{option} {output}: its folder does not exist.")


def folder_named(output: str, option: str = "--output") -> bool:
    """Whether an output is to be a folder: it is one, or its name ends with a slash.

    Raises:
        ConfigError: It is no path.

    >>> folder_named("no/such/"), folder_named("no/such")
    (True, False)
    """
    if not output or "\0" in output:
        raise ConfigError(f"{option} {output!r} is no path: it is empty or has a null byte.")
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def check_output_folder(output: Path, source: Path, option: str = "--output") -> None:
    """Refuse to write into the folder that is being read, or to make a folder where none can be.

    Raises:
        ConfigError: Says why.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ConfigError(f"{option} {output}/ is there and is no folder; give another name.")
    if output.is_dir() and source.is_dir() and output.samefile(source):
        raise ConfigError(f"{option} {output} is the input itself; give another name.")
    if not output.parent.is_dir():
        raise ConfigError(f"{option} {output}: its folder does not exist.")


def output_console() -> SafeConsole:
    """The standard output; what is not a terminal has no width that lines would have to be broken for."""
    console = SafeConsole()
    return console if console.is_terminal else SafeConsole(width=_UNBROKEN)


def echo(message: str, *, err: bool = False) -> None:
    """Print a text and a newline, without what a terminal would obey in it; `err`: to the standard error."""
    typer.echo(printable(message), err=err)
