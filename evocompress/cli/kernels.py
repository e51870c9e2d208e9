"""`evocompress kernels`: what each kernel of a network does, and what compression made of it."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.checks import check_output
from evocompress.errors import ConfigError
from evocompress.wording import counted

if TYPE_CHECKING:
    import torch

    from evocompress.kernels import KernelRow
    from evocompress.kernels.panels import Section

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
        Path | None, typer.Option(metavar="PICTURE", help="Show in the gallery what each kernel makes of it.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="The most kernels of one class in a gallery.")] = 48,
) -> None:
    """Say what each kernel does (low-pass, derivative, Gabor, …) with a confidence; tables and galleries."""
    from evocompress.extras import wants
    from evocompress.kernels.analysis import analyse, chosen_layers
    from evocompress.kernels.analysis import compare as compared
    from evocompress.kernels.tables import write_csv, write_json
    from evocompress.weights import read_weights

    inputs = [path for path in (weights, compare, image) if path is not None]
    outputs = _outputs({"--json": json, "--csv": csv, "--html": html, "--png": png}, inputs)
    if image is not None and html is None and png is None:
        raise ConfigError("--image needs a gallery to show the picture in: add --png FILE or --html FILE.")
    if html is not None:
        with wants("report"):  # now, not after the work
            import jinja2  # noqa: F401
            import PIL  # noqa: F401
    if png is not None:
        with wants("report"):
            import evocompress.kernels.gallery_png  # noqa: F401
    state = read_weights(weights)
    layers = chosen_layers(state, layer or ())
    after = None if compare is None else _second(compare, state)
    picture = None
    if image is not None:
        from evocompress.kernels.panels import read_picture

        picture = read_picture(image)
    rows = analyse(state, layers) if after is None else compared(state, after, layers)
    if json is not None:
        write_json(rows, json)
    if csv is not None:
        write_csv(rows, csv)
    if html is not None or png is not None:
        from evocompress.kernels.panels import sections

        title = f"Kernels of {weights.name}" + (f", and of {compare.name}" if compare is not None else "")
        _galleries(sections(rows, state, after, image=picture, per_class=per_class), title, html, png)
    _print(rows, layers)
    if outputs:
        typer.echo(f"{counted(len(rows), 'kernel')}: {', '.join(str(path) for path in outputs)}")


def _galleries(shown: Sequence[Section], title: str, html: Path | None, png: Path | None) -> None:
    if html is not None:
        from evocompress.kernels.gallery_html import write_gallery_html

        write_gallery_html(shown, title, html)
    if png is not None:
        from evocompress.kernels.gallery_png import write_gallery_png

        write_gallery_png(shown, title, png)


def _outputs(paths: Mapping[str, Path | None], inputs: Sequence[Path]) -> list[Path]:
    """The files to write: each another one, and none that is read."""
    found: list[Path] = []
    for option, path in paths.items():
        if path is not None:
            check_output(path, inputs, option)
            if path.resolve() in map(Path.resolve, found):
                raise ConfigError(f"{option} {path} is written already by another option; give another name.")
            found.append(path)
    return found


def _second(path: Path, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The file to compare with; one that was packed without names has those of the first, in its order."""
    from evocompress.weights import read_weights

    second = read_weights(path)
    if not second.keys() & state.keys() and len(second) == len(state):
        return dict(zip(state, second.values(), strict=True))
    return second


def _print(rows: Sequence[KernelRow], layers: Sequence[str]) -> None:
    """Counts of the classes per layer, and what changed."""
    from rich.table import Table
    from rich.text import Text

    from evocompress.cli.console import output_console
    from evocompress.kernels.classify import CLASSES

    counts = {name: collections.Counter[str]() for name in layers}
    for row in rows:
        counts[row.layer][row.kernel.kernel_class] += 1
    used = [name for name in CLASSES if any(count[name] for count in counts.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    for name in used:
        table.add_column(name, justify="right")
    for layer, count in counts.items():
        table.add_row(Text(layer.removesuffix(".weight")), *(str(count[name] or "·") for name in used))
    if len(layers) > 1:
        table.add_row("all", *(str(sum(count[name] for count in counts.values())) for name in used), style="bold")
    output_console().print(table, highlight=False)
    if any(row.after is not None for row in rows):
        _print_changes(rows)


def _print_changes(rows: Sequence[KernelRow]) -> None:
    changed = [row for row in rows if row.changed]
    share = f"{100 * len(changed) / max(1, len(rows)):.1f} %"
    typer.echo(f"{len(changed)} of {counted(len(rows), 'kernel')} changed class ({share})")
    moves = collections.Counter(
        (_named(row.kernel.kernel_class, row.kernel.order), _named(row.after.kernel_class, row.after.order))
        for row in changed
        if row.after is not None
    )
    for (old, new), count in moves.most_common(_TRANSITIONS):
        typer.echo(f"  {count:6d}  {old} → {new}")
    rest = len(changed) - sum(count for _, count in moves.most_common(_TRANSITIONS))
    if rest:
        typer.echo(f"  {rest:6d}  otherwise")


def _named(kernel_class: str, order: int | None) -> str:
    return kernel_class if order is None else f"{kernel_class} {order}"
