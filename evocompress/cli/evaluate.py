"""The command `evaluate`: how good the network of a file is, on data of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.network_options import network_of
from evocompress.cli.pack_options import errors_name_options
from evocompress.errors import ConfigError, DataError, about_argument
from evocompress.support.command_line import MaxOutputBytes, NetworkOptions, about, echo, output_limit
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.tasks import DEFAULT_TASK

if TYPE_CHECKING:
    from evocompress.packer.evaluation import Part
    from evocompress.protocols import Measured

__all__ = ["register"]

_SPLITS: tuple[Part, ...] = ("audit", "validation", "train")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A compressed file, or a checkpoint as `pack` takes.")],
    model: Annotated[
        str, typer.Option(help="The network that the file is of, or module:factory that returns a torch module.")
    ],
    data: Annotated[str, typer.Option(help="What to judge it on: a data set's name, or module:loader.")],
    settings: NetworkOptions = None,
    task: Annotated[str, typer.Option(help="What the network is for: a name, or module:Class.")] = DEFAULT_TASK,
    split: Annotated[str, typer.Option(help="Which part of the data: audit, validation or train.")] = "audit",
    seed: Annotated[int, typer.Option(help="Of the data's split.", min=0, max=2**63 - 1)] = 0,
    against: Annotated[
        Path | None, typer.Option(help="Another file or checkpoint of the network, to judge beside it.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Judge the network of a file on data, and with --against that of another file beside it.

    The quality is that of the task: accuracy, R², mean average precision, or what your own task says, with its 95 %
    interval.
    """
    if split not in _SPLITS:
        raise ConfigError(f"--split {split}: must be {', '.join(_SPLITS[:-1])} or {_SPLITS[-1]}.")
    limit = output_limit(max_output_bytes)

    from evocompress.data import load
    from evocompress.packer.evaluation import evaluate as evaluate_file
    from evocompress.protocols import Said
    from evocompress.support.devices import check_device
    from evocompress.tasks import build

    def say(event: object) -> None:
        if isinstance(event, Said):
            echo(event.text, err=True)

    with about("--device"):
        check_device(device)
    with about("--task", task, ConfigError):
        purpose = build(task)
    network = network_of(model, settings)
    rows: list[tuple[Path, Measured]] = []
    with errors_name_options(context):
        with about_argument("data", DataError):
            splits = load(data, seed=seed)
        for path in (file, *([against] if against else [])):
            measured = evaluate_file(
                path, network, splits, task=purpose, split=split, device=device, max_output_bytes=limit,
                observer=None if rows else say,
            )  # fmt: skip
            rows.append((path, measured))
    if as_json:
        echo(
            json.dumps(
                [
                    {"file": str(path), "bytes": _size(path), "quality": purpose.quality.name, "split": split}
                    | measured._asdict()
                    for path, measured in rows
                ],
                indent=1,
            )
        )
        return
    for path, measured in rows:
        quality = purpose.quality
        low, high = sorted((measured.low, measured.high))
        details = "".join(f", {name} {value:.6g}" for name, value in measured.details.items() if name != "total")
        echo(
            f"{path}: {quality.name} {quality.show(measured.value)} ({quality.show(low)} to {quality.show(high)}), "
            f"loss {measured.loss:.4f} on {measured.total} of {split}{details}; {_size(path)} bytes"
        )


def _size(path: Path) -> int:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
