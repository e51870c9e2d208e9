"""`evocompress kernels`: what each kernel of a network does, and what compression made of it."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.errors import ConfigError
from evocompress.support.command_line import MaxOutputBytes, check_output, echo, output_limit
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.support.wording import counted, listed

if TYPE_CHECKING:
    import torch

    from evocompress.ideas.kernels import Kernel, KernelRow
    from evocompress.ideas.kernels.panels import Section

__all__ = ["register"]

_TRANSITIONS = 8


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("kernels")(kernels)


def kernels(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A checkpoint (safetensors, or .evc).")],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A layer, or a glob such as 'layer1*'; repeatable. Default all with kernels above 1×1."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a list of objects, one per kernel.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the same as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a gallery by class, one page.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a gallery by class, one picture.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same network compressed (.evc): which kernels changed?")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE",
            help="Show in the gallery what each kernel makes of it. What is transparent becomes white.",
        ),
    ] = None,
    response: Annotated[
        bool,
        typer.Option("--response", help="In --json, also each kernel's gains at 0, 1/32, …, 1/2 cycles per pixel."),
    ] = False,
    per_class: Annotated[int, typer.Option(min=1, help="The most kernels of one class in a gallery.")] = 48,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Say what each kernel does (low-pass, derivative, Gabor, …) with a confidence; tables and galleries."""
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.ideas.kernels.analysis import analyse, chosen_layers, responses
    from evocompress.ideas.kernels.analysis import compare as compared
    from evocompress.ideas.kernels.linearconv_banks import with_banks
    from evocompress.ideas.kernels.tables import write_csv, write_json

    inputs = [path for path in (weights, compare, image) if path is not None]
    outputs = _outputs({"--json": json, "--csv": csv, "--html": html, "--png": png}, inputs)
    if response and json is None:
        raise ConfigError("--response is written to a JSON file: add --json FILE.")
    _check_galleries(image, html, png)
    limit = output_limit(max_output_bytes)
    first = read_weights(weights, say=functools.partial(echo, err=True), max_output_bytes=limit)
    state, after = with_banks(first), None if compare is None else with_banks(_second(compare, first, limit))
    layers = chosen_layers(state, layer or ())
    if not layer:
        layers = _with_a_class(layers, [state] if after is None else [state, after])
    picture = None
    if image is not None:
        from evocompress.ideas.kernels.panels import read_picture

        picture = read_picture(image)
    rows = analyse(state, layers) if after is None else compared(state, after, layers)
    if json is not None:
        write_json(rows, json, responses(state, layers) if response else None)
    if csv is not None:
        write_csv(rows, csv)
    if html is not None or png is not None:
        from evocompress.ideas.kernels.panels import sections

        title = f"Kernels of {weights.name}" + (f", and of {compare.name}" if compare is not None else "")
        _galleries(sections(rows, state, after, image=picture, per_class=per_class), title, html, png)
    _print(rows, layers)
    if outputs:
        echo(f"{counted(len(rows), 'kernel')}: {', '.join(str(path) for path in outputs)}")


def _check_galleries(image: Path | None, html: Path | None, png: Path | None) -> None:
    """Refuse galleries that cannot be made, and a picture for none, before any work."""
    from evocompress.support.optional_libraries import needs_extra

    if image is not None and html is None and png is None:
        raise ConfigError("--image needs a gallery to show the picture in: add --png FILE or --html FILE.")
    if png is not None and png.suffix.lower() != ".png":
        raise ConfigError(f"--png {png}: must end in .png")
    if html is not None:
        with needs_extra("report"):
            import jinja2  # noqa: F401
            import PIL  # noqa: F401
    if png is not None:
        with needs_extra("report"):
            import evocompress.ideas.kernels.gallery_png  # noqa: F401


def _galleries(shown: Sequence[Section], title: str, html: Path | None, png: Path | None) -> None:
    if html is not None:
        from evocompress.ideas.kernels.gallery_html import write_gallery_html

        write_gallery_html(shown, title, html)
    if png is not None:
        from evocompress.ideas.kernels.gallery_png import write_gallery_png

        write_gallery_png(shown, title, png)


def _outputs(paths: Mapping[str, Path | None], inputs: Sequence[Path]) -> list[Path]:
    """The files to write: each another one, and none that is read."""
    outputs: list[Path] = []
    for option, path in paths.items():
        if path is not None:
            check_output(path, inputs, option)
            if path.resolve() in map(Path.resolve, outputs):
                raise ConfigError(f"{option} {path} is written already by another option; give another name.")
            outputs.append(path)
    return outputs


def _with_a_class(layers: Sequence[str], states: Sequence[Mapping[str, object]]) -> list[str]:
    """The layers whose kernels can have a class; the others are named on standard error.

    Raises:
        ConfigError: None can.
    """
    from evocompress.ideas.kernels.analysis import why_not

    reasons = {
        name: reason for name in layers for state in states if name in state and (reason := why_not(name, state[name]))
    }
    if len(reasons) == len(layers):
        listing = listed([f"{name!r} {reason}" for name, reason in reasons.items()])
        raise ConfigError(f"No layer's kernels can have a class: {listing}.")
    for name, reason in reasons.items():
        echo(f"left out: {name} {reason}", err=True)
    return [name for name in layers if name not in reasons]


def _second(path: Path, state: Mapping[str, object], limit: int) -> dict[str, torch.Tensor]:
    """The file to compare with; one that was packed without names has those of the first.

    Raises:
        ConfigError: It has no names, and they were not those of the first file.
    """
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.ideas.kernels.pairing import in_order, names_from

    second = read_weights(path, functools.partial(names_from, state), max_output_bytes=limit)
    paired = in_order(state, second)
    if paired is not None:
        echo(f"{path.name} has numbers for names; paired with {len(paired)} tensors by their order", err=True)
    return second if paired is None else paired


def _print(rows: Sequence[KernelRow], layers: Sequence[str]) -> None:
    """Counts of the classes per layer, and what changed."""
    from rich.table import Table
    from rich.text import Text

    from evocompress.ideas.kernels.analysis import short_name
    from evocompress.ideas.kernels.classify import CLASSES
    from evocompress.support.command_line import output_console

    counts = {name: collections.Counter[str]() for name in layers}
    for row in rows:
        counts[row.layer]["zero" if row.is_zero else row.kernel.kernel_class] += 1
    used = [name for name in (*CLASSES, "zero") if any(count[name] for count in counts.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    for name in used:
        table.add_column(name, justify="right")
    for layer, count in counts.items():
        table.add_row(Text(short_name(layer)), *(str(count[name] or "·") for name in used))
    if len(layers) > 1:
        table.add_row("all", *(str(sum(count[name] for count in counts.values())) for name in used), style="bold")
    output_console().print(table, highlight=False)
    if any(row.after is not None for row in rows):
        _print_changes(rows)


def _print_changes(rows: Sequence[KernelRow]) -> None:
    changed = [row for row in rows if row.changed]
    share = f"{100 * len(changed) / max(1, len(rows)):.1f} %"
    echo(f"{len(changed)} of {counted(len(rows), 'kernel')} changed class ({share})")
    moves = collections.Counter(
        (_named(row.kernel), "zero" if row.became_zero else _named(row.after))
        for row in changed
        if row.after is not None
    )
    for (old, new), count in moves.most_common(_TRANSITIONS):
        echo(f"  {count:6d}  {old} → {new}")
    rest = len(changed) - sum(count for _, count in moves.most_common(_TRANSITIONS))
    if rest:
        echo(f"  {rest:6d}  otherwise")


def _named(kernel: Kernel) -> str:
    return kernel.kernel_class if kernel.order is None else f"{kernel.kernel_class} {kernel.order}"
