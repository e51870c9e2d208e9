"""The command `inspect`: what each tensor of a compressed file takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.support.wording import counted

if TYPE_CHECKING:
    from evocompress.codecs import TensorInfo

__all__ = ["register", "size_line"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect")(inspect)


def size_line(nbytes: int, weights: int, tensors: int) -> str:
    """A file in figures: what it holds, and what each weight takes if there is one."""
    if not weights:
        held = f"{counted(tensors, 'tensor')} without weights" if tensors else "no tensors"
        return f"{nbytes} bytes, {held}"
    each = f"{8 * nbytes / weights:.3f} bits per weight"
    return f"{nbytes} bytes, {counted(weights, 'weight')} in {counted(tensors, 'tensor')}, {each}"


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.evc", help="A compressed file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what each tensor of a file takes: shape, codec, bits per weight, payload and side bytes."""
    from evocompress.checkpoint.weight_files import errors_name, read_evc
    from evocompress.codecs import inspect as inspect_file

    data = read_evc(file)
    with errors_name(file):
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
    from rich.table import Table
    from rich.text import Text

    from evocompress.support.command_line import output_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    table.add_column("shape")
    table.add_column("dtype")
    table.add_column("codec", overflow="fold")
    for title in ("bits/weight", "payload B", "side B"):
        table.add_column(title, justify="right")
    for info in tensors:
        shape = "×".join(map(str, info.shape)) or "scalar"
        bits = f"{info.bits_per_weight:.3f}" if info.weights else "—"
        numbers = (bits, f"{info.payload_bytes:.1f}", str(info.side_bytes))
        codec = info.codec if info.tied_to is None else f"tied to {info.tied_to}"
        table.add_row(Text(info.name), shape, info.dtype, Text(codec), *numbers)
    weights = sum(info.weights for info in tensors)
    output_console().print(table)
    typer.echo(f"{size_line(nbytes, weights, len(tensors))}; {header} bytes of header")
