"""The command `curve`: rate-distortion curves of codecs and presets on one checkpoint."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.errors import ConfigError
from evocompress.support.command_line import MaxOutputBytes, about, check_output, echo, output_limit
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.support.wording import counted

if TYPE_CHECKING:
    from evocompress.packer.curve import Curves

__all__ = ["register"]

_BASELINE = "deadzone"
_TABLE_ROWS = 6


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("curve")(curve)


def curve(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS.safetensors", help="A checkpoint (safetensors, or .evc).")
    ],
    codecs: Annotated[
        str | None,
        typer.Option(help="Codecs, names or stages written out, with commas between; default all that are lossy."),
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option(help="Presets of `pack` to draw too, without data: fast,balanced,best; default none."),
    ] = None,
    rate_weights: Annotated[
        str | None,
        typer.Option(help="Values of λ with commas between; default eight, for about 8 to 0.5 bits per weight."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="STEM: writes STEM.csv and STEM.png; default WEIGHTS_curve in the current folder."
        ),
    ] = None,
    png: Annotated[bool, typer.Option(help="Draw the picture; without it, matplotlib is not needed.")] = True,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Pack one checkpoint with every codec over a range of rates: rate-distortion curves as CSV, picture and table."""
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.cli.progress_bars import ProgressBars
    from evocompress.packer.curve import by_codec, curve_points, preset_label, write_csv
    from evocompress.packer.curve import rate_weights as default_ladder
    from evocompress.support.optional_libraries import needs_extra

    csv_path, png_path = _outputs(weights, output)
    limit = output_limit(max_output_bytes)
    if png:
        with needs_extra("report"):  # now, not after the work
            import evocompress.packer.curve_figure  # noqa: F401
    chosen, named = _codecs(codecs), _presets(presets)
    ladder = None if rate_weights is None else _ladder(rate_weights)
    state = read_weights(weights, say=functools.partial(echo, err=True), max_output_bytes=limit)
    points = list(curve_points(state, chosen, ladder or default_ladder(state), named, observer=ProgressBars()))
    curves, baseline = by_codec(points), _BASELINE if _BASELINE in chosen else chosen[0]
    write_csv(points, csv_path)
    if png:
        from evocompress.packer.curve_figure import write_curve_png

        subject = "Codecs and presets" if named else "Codecs"
        write_curve_png(curves, baseline, f"{subject} on {weights.name}", png_path, heavy=map(preset_label, named))
    _print_best(curves, baseline)
    if all(tensor.dim() < 2 for tensor in state.values()):
        echo("No tensor has two dimensions; vectors follow one rule whatever the codec, so all curves are alike.")
    if named:
        echo("Presets spend more bits on small tensors, where errors matter most; plain error counts all alike.")
    echo(f"{csv_path}: {counted(len(points), 'file')}" + (f"; {png_path}" if png else ""))


def _outputs(weights: Path, output: Path | None) -> tuple[Path, Path]:
    """Where the CSV and the picture go."""
    default = f"{weights.stem}_curve"
    stem = Path(default) if output is None else output / default if output.is_dir() else output
    if stem.suffix in (".csv", ".png"):
        stem = stem.with_suffix("")
    paths = tuple(stem.with_name(stem.name + suffix) for suffix in (".csv", ".png"))
    for path in paths:
        check_output(path, [weights])
    return paths[0], paths[1]


def _codecs(text: str | None) -> list[str]:
    from evocompress.codecs import CODECS, LOSSLESS, parse_codec

    if text is None:
        return [name for name in CODECS if parse_codec(name) != LOSSLESS]
    names = [name.strip() for name in re.split(r",(?![^(]*\))", text)]  # not at commas between parameters
    chosen = list(dict.fromkeys(name for name in names if name))
    if not chosen:
        raise ConfigError("--codecs is empty; name at least one codec, see `evocompress codecs`.")
    return chosen


def _presets(text: str | None) -> list[str]:
    from evocompress.checkpoint.presets import PRESETS, preset

    if text is None:
        return []
    chosen = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not chosen:
        raise ConfigError(f"--presets is empty; name at least one of {', '.join(PRESETS)}, or leave it out.")
    with about("--presets"):
        for name in chosen:
            preset(name, 1e-4)  # says what is wrong with it before any work
    return chosen


def _ladder(text: str) -> list[float]:
    try:
        ladder = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        ladder = []
    if not ladder or not all(math.isfinite(weight) and weight > 0 for weight in ladder):
        raise ConfigError(f"--rate-weights {text!r}: write positive numbers with commas between, such as 1e-5,1e-4.")
    return ladder


def _print_best(curves: Curves, baseline: str) -> None:
    """At a few signal-to-noise ratios the codec or preset that is smallest, and by how much."""
    from rich.table import Table
    from rich.text import Text

    from evocompress.packer.curve import bits_at
    from evocompress.support.command_line import output_console

    ratios = _round_ratios([point.snr_db for point in curves[baseline] if math.isfinite(point.snr_db)])
    bits = {codec: bits_at(points, ratios) for codec, points in curves.items()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SNR", "smallest", "bits/weight", baseline, f"smaller than {baseline}"):
        table.add_column(title, justify="left" if title == "smallest" else "right")
    for row, ratio in enumerate(ratios):
        at_ratio = {codec: values[row] for codec, values in bits.items() if math.isfinite(values[row])}
        if baseline not in at_ratio:
            continue
        best, base = min(at_ratio, key=lambda codec: at_ratio[codec]), at_ratio[baseline]
        gain = f"{100 * (1 - at_ratio[best] / base):.1f} %" if at_ratio[best] < base else "—"
        table.add_row(f"{ratio} dB", Text(best), f"{at_ratio[best]:.3f}", f"{base:.3f}", gain)
    if table.row_count:
        output_console().print(table, highlight=False)


def _round_ratios(measured: Sequence[float]) -> list[int]:
    """A few whole numbers of dB within the range measured, evenly apart."""
    if not measured:
        return []
    low, high = math.ceil(min(measured)), math.floor(max(measured))
    spacing = max(1, math.ceil((high - low) / (_TABLE_ROWS - 1)))
    spacing = next(nice for nice in (1, 2, 5, 10, 20, 50, 100, spacing) if nice >= spacing)
    return [ratio for ratio in range(math.ceil(low / spacing) * spacing, high + 1, spacing)]
