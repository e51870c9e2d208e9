"""The command `unpack`: a compressed file to safetensors, to a folder of Hugging Face's, or into an ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evocompress.checkpoint.companions import Companions, write_folder
from evocompress.checkpoint.folders import SAFETENSORS
from evocompress.cli.network_options import check_settings, names_by, network_of
from evocompress.cli.output import Output
from evocompress.errors import ConfigError
from evocompress.support.command_line import (
    MaxOutputBytes,
    NetworkOptions,
    check_output,
    check_output_folder,
    echo,
    folder_named,
    output_limit,
)
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.support.wording import counted, listed

__all__ = ["register", "say_companions"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("unpack")(unpack)


def unpack(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.evc", help="A compressed file, or the folder that pack -o OUT/ wrote.")
    ],
    output_name: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="The safetensors file to write; or a folder, which is there or whose name ends with /: "
            "model.safetensors goes into it, and the other files of a folder FILE along with it.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The network that the file is of, or module:factory: gives the names to a file without, and the "
            "shapes to one that was packed with --bare."
        ),
    ] = None,
    settings: NetworkOptions = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL.onnx", help="Write this ONNX model, with the decoded tensors as its initialisers, instead."
        ),
    ] = None,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Decode a file to safetensors, with the original names, shapes and dtypes."""
    from evocompress.checkpoint.weight_files import unpack_file, unpack_into

    output, as_folder = Path(output_name), folder_named(output_name)
    check_settings(model, settings)
    limit = output_limit(max_output_bytes)
    if into is not None:
        if model is not None or as_folder:
            raise ConfigError("--into writes one file by the model that it names: give no --model, and no folder.")
        check_output(output, [file, into])
        tensors, weights = unpack_into(file, into, output, max_output_bytes=limit)
        echo(f"{output}: {counted(tensors, 'initialiser')}, {counted(weights, 'weight')}")
        return
    if output.suffix.lower() == ".onnx":
        raise ConfigError(f"--output {output}: an ONNX model needs its graph; name a model with --into MODEL.onnx.")
    if as_folder:
        check_output_folder(output, file)
    else:
        check_output(output, [file])
    names = None if model is None else names_by(model, network_of(model, settings))
    if as_folder:
        (tensors, weights), companions = write_folder(
            output,
            file if file.is_dir() else None,
            SAFETENSORS,
            lambda path: unpack_file(file, path, names, max_output_bytes=limit),
        )
        say_companions(output, companions)
        output /= SAFETENSORS
    else:
        tensors, weights = unpack_file(file, output, names, max_output_bytes=limit)
    echo(f"{output}: {counted(tensors, 'tensor')}, {counted(weights, 'weight')}")


def say_companions(output: Path, companions: Companions, say: Output | None = None) -> None:
    """Which files went along with the weights, and which did not."""
    say = say or Output()
    if companions.files:
        say.result(f"{output}: with {listed([str(path) for path in companions.files])}")
    if companions.note:
        say.note(f"{output}: {companions.note}")
