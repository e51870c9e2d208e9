"""The command `unpack`: a compressed file to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evocompress.cli.network_options import check_settings, names_by, network_of
from evocompress.support.command_line import NetworkOptions, check_output
from evocompress.support.wording import counted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("unpack")(unpack)


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE.evc", help="A compressed file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The safetensors file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="The network that the file is of, or module:factory: gives the names to a file without, and the "
            "shapes to one that was packed with --bare."
        ),
    ] = None,
    settings: NetworkOptions = None,
) -> None:
    """Decode a file to safetensors, with the original names, shapes and dtypes."""
    from evocompress.checkpoint.weight_files import unpack_file

    check_output(output, [file])
    check_settings(model, settings)
    names = None if model is None else names_by(model, network_of(model, settings))
    tensors, weights = unpack_file(file, output, names)
    typer.echo(f"{output}: {counted(tensors, 'tensor')}, {counted(weights, 'weight')}")
