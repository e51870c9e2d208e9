"""Commands on single files: `pack`, `unpack`, `inspect`, `codecs`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.errors import ConfigError

if TYPE_CHECKING:
    from evocompress.codecs import TensorInfo
    from evocompress.recipe import Rule

__all__ = ["register"]

Evc = Annotated[Path, typer.Argument(metavar="FILE.evc", help="A compressed file.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (("pack", pack), ("unpack", unpack), ("inspect", inspect), ("codecs", codecs)):
        app.command(name)(command)


def pack(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS.safetensors", help="A checkpoint (safetensors, or .evc).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    rate_weight: Annotated[
        float, typer.Option(help="λ: squared error that one bit is worth. Larger: smaller and rougher.")
    ] = 1e-4,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="GLOB=CODEC[|CODEC…][@FACTOR]: candidates, and a factor on λ, for tensors whose name matches; "
            "the first rule that matches counts. Repeatable.",
        ),
    ] = None,
) -> None:
    """Compress one checkpoint, without data and without training."""
    from evocompress.packing import pack as pack_state
    from evocompress.recipe import Recipe
    from evocompress.replacing import write_bytes
    from evocompress.weights import read_weights

    recipe = Recipe(rate_weight, tuple(_rule(text) for text in rules or ()))
    _check_output(weights, output)
    state = read_weights(weights)
    write_bytes(output, pack_state(state, recipe))
    count = sum(tensor.numel() for tensor in state.values())
    plain = sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in state.values()
    )
    nbytes = output.stat().st_size
    typer.echo(
        f"{output}: {nbytes} bytes, {count} weights in {len(state)} tensors, "
        f"{8 * nbytes / max(count, 1):.3f} bits per weight, {plain / nbytes:.1f}x smaller than float32"
    )


def _check_output(source: Path, output: Path) -> None:
    """Refuse to write over what is being read, or to a place that is none."""
    if output.exists() and source.exists() and output.samefile(source):
        raise ConfigError(f"--output {output} is the input itself; give another name.")
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: {'is a folder' if output.is_dir() else 'its folder does not exist'}.")


def _rule(text: str) -> Rule:
    from evocompress.recipe import Rule

    glob, equals, rest = text.rpartition("=") if "(" not in text else text.partition("=")
    specs, _, factor = rest.partition("@")
    try:
        rate_factor = float(factor) if factor else 1.0
    except ValueError:
        raise ConfigError(f"--rule {text!r}: {factor!r} is not a number.") from None
    if not equals or not glob:
        raise ConfigError(f"--rule {text!r}: write it as GLOB=CODEC, such as 'conv*=dct' or '*.bias=lossless'.")
    return Rule(glob, tuple(spec.strip() for spec in specs.split("|")), rate_factor)


def unpack(
    file: Evc,
    output: Annotated[Path, typer.Option("-o", "--output", help="The safetensors file to write.")],
) -> None:
    """Decode a file to safetensors, with the original names, shapes and dtypes."""
    from evocompress.packing import unpack as unpack_state
    from evocompress.weights import read_file, write_weights

    _check_output(file, output)
    state = unpack_state(read_file(file))
    write_weights(state, output)
    typer.echo(f"{output}: {len(state)} tensors, {sum(tensor.numel() for tensor in state.values())} weights")


def inspect(
    file: Evc,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what each tensor of a file takes: shape, codec, bits per weight, payload and side bytes."""
    from evocompress.codecs import inspect as inspect_file
    from evocompress.weights import read_file

    data = read_file(file)
    tensors, header = inspect_file(data)
    if as_json:
        rows = [_row(info) for info in tensors]
        typer.echo(
            json.dumps({"file": str(file), "bytes": len(data), "header_bytes": header, "tensors": rows}, indent=1)
        )
        return
    _print_tensors(tensors, header, len(data))


def _row(info: TensorInfo) -> dict[str, object]:
    return {**info._asdict(), "shape": list(info.shape), "bits_per_weight": info.bits_per_weight}


def _print_tensors(tensors: list[TensorInfo], header: int, nbytes: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    table.add_column("shape")
    table.add_column("dtype")
    table.add_column("codec", overflow="fold")
    for title in ("bits/weight", "payload B", "side B"):
        table.add_column(title, justify="right")
    for info in tensors:
        shape = "×".join(map(str, info.shape)) or "scalar"
        numbers = (f"{info.bits_per_weight:.3f}", f"{info.payload_bytes:.1f}", str(info.side_bytes))
        table.add_row(Text(info.name), shape, info.dtype, info.codec, *numbers)
    weights = sum(info.weights for info in tensors)
    console = Console()
    console.print(table)
    console.print(
        f"{nbytes} bytes: {header} of header, {len(tensors)} tensors, {weights} weights, "
        f"{8 * nbytes / max(weights, 1):.3f} bits per weight",
        highlight=False,
    )


def codecs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """List the codecs, and the stages that codecs are made of, with their parameters."""
    from evocompress.codecs import CODECS, STAGES

    stages = [
        {
            "id": name,
            "quantiser": stage.terminal,
            "parameters": {field.name: field.default for field in dataclasses.fields(stage)},
            "about": (stage.__doc__ or "").splitlines()[0],
        }
        for name, stage in STAGES.items()
    ]
    if as_json:
        typer.echo(json.dumps({"codecs": CODECS, "stages": stages}, indent=1))
        return
    typer.echo("Codecs (chains of stages; write your own in the same way):")
    for name, chain in CODECS.items():
        typer.echo(f"  {name:<20} {chain}")
    typer.echo("\nStages (a codec is any number of transforms and one quantiser):")
    for stage in stages:
        parameters = ", ".join(f"{key}={value}" for key, value in dict(stage["parameters"]).items())
        kind = "quantiser" if stage["quantiser"] else "transform"
        typer.echo(f"  {stage['id']:<12} {kind:<10} {parameters or '(no parameters)'}\n{'':15}{stage['about']}")
