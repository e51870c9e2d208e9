"""The command `inspect`: what each tensor of a compressed file takes."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.network_options import check_settings, names_by, network_of
from evocompress.support.command_line import MaxOutputBytes, NetworkOptions, echo, output_limit
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.support.wording import counted

if TYPE_CHECKING:
    from evocompress.checkpoint.weight_errors import TensorError, WeightErrors
    from evocompress.codecs import TensorInfo
    from evocompress.codecs.container import Contents

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
    model: Annotated[
        str | None,
        typer.Option(
            help="The network that the file is of, or module:factory: for a file that was packed with --bare or "
            "--no-names."
        ),
    ] = None,
    settings: NetworkOptions = None,
    against: Annotated[
        Path | None,
        typer.Option(help="The checkpoint that the file was made of: also show how far each tensor has moved."),
    ] = None,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Show what each tensor of a file takes: shape, codec, bits per weight, payload and side bytes."""
    from evocompress.checkpoint.weight_files import errors_name, read_evc
    from evocompress.codecs import inspect as inspect_file
    from evocompress.codecs.container import parse

    check_settings(model, settings)
    limit = output_limit(max_output_bytes)
    data = read_evc(file)
    with errors_name(file):
        contents = parse(data, max_output_bytes=limit)
        names = None if model is None else names_by(model, network_of(model, settings))(contents)
        if names is None and contents.unread:
            _print_unread(file, data, contents, as_json)
            return
        tensors, header = inspect_file(data, names, max_output_bytes=limit)
        errors = None if against is None else _errors(data, names, against, limit)
    if as_json:
        error_of = {} if errors is None else {error.name: error for error in errors.tensors}
        rows = [_row(info, error_of.get(info.name)) for info in tensors]
        whole = {} if errors is None else {"relative_error": errors.relative}
        everything = {"file": str(file), "bytes": len(data), "header_bytes": header, **whole, "tensors": rows}
        echo(json.dumps(everything, indent=1))
        return
    _print_tensors(tensors, header, len(data), errors)
    if errors is not None:
        echo(errors.sentence if errors.tensors else f"{against} has none of these tensors")


def _errors(data: bytes, names: Collection[str] | None, against: Path, limit: int) -> WeightErrors:
    from evocompress.checkpoint.weight_errors import weight_errors
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.codecs.container import iterate

    state = read_weights(against, say=functools.partial(echo, err=True), max_output_bytes=limit)
    return weight_errors(state, iterate(data, names or state, max_output_bytes=limit))


def _print_unread(file: Path, data: bytes, contents: Contents, as_json: bool) -> None:
    """What a bare file says without its network."""
    from evocompress.codecs.coders import CODERS

    coder = next(name for name, coder in CODERS.items() if coder == contents.coder)
    if as_json:
        head = {"file": str(file), "bytes": len(data), "version": data[3], "coder": coder, "tensors": None}
        echo(json.dumps(head, indent=1))
        return
    echo(
        f"{len(data)} bytes, a bare file (version {data[3]}, entropy coder {coder}): it holds neither names nor shapes "
        "nor dtypes of its tensors. Name its network with --model (and --set) to see them."
    )


def _row(info: TensorInfo, error: TensorError | None) -> dict[str, object]:
    moved = {} if error is None else {"relative_error": error.relative, "zeroed": error.zeroed}
    return {**info._asdict(), "shape": list(info.shape), "bits_per_weight": info.bits_per_weight, **moved}


def _print_tensors(tensors: list[TensorInfo], header: int, nbytes: int, errors: WeightErrors | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from evocompress.support.command_line import output_console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    table.add_column("shape")
    table.add_column("dtype")
    table.add_column("codec", overflow="fold")
    error_of = {} if errors is None else {error.name: error for error in errors.tensors}
    for title in ("bits/weight", "payload B", "side B", *([] if errors is None else ["error %", "zeroed %"])):
        table.add_column(title, justify="right")
    for info in tensors:
        shape = "×".join(map(str, info.shape)) or "scalar"
        bits = f"{info.bits_per_weight:.3f}" if info.weights else "—"
        numbers = (bits, f"{info.payload_bytes:.1f}", str(info.side_bytes))
        codec = info.codec if info.tied_to is None else f"tied to {info.tied_to}"
        moved = [] if errors is None else ["—", "—"]
        if error := error_of.get(info.name):
            moved = [f"{100 * error.relative:.2f}", f"{100 * error.zeroed:.1f}"]
        table.add_row(Text(info.name), shape, info.dtype, Text(codec), *numbers, *moved)
    weights = sum(info.weights for info in tensors)
    output_console().print(table)
    echo(f"{size_line(nbytes, weights, len(tensors))}; {header} bytes of header")
