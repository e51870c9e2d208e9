"""Rate-distortion curves as a picture: bits per weight over signal-to-noise ratio, and sizes against a baseline."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.ticker as ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evocompress.packer.curve import Curve, Curves, bits_at
from evocompress.support.atomic_files import replacing
from evocompress.support.figure_style import COLOURS, INK, new_figure, plain, style_axes

__all__ = ["curve_figure", "write_curve_png"]

_DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1, 1.5)))
_LIGHT, _HEAVY = 1.3, 2.6  # widths of lines, in points
_GRID_POINTS = 200


class _Line(NamedTuple):
    """How one curve is drawn."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    width: float


def curve_figure(curves: Curves, baseline: str, title: str, *, heavy: Iterable[str] = ()) -> Figure:
    """Above, bits per weight over signal-to-noise ratio, where codecs lie close; below, how they differ.

    Args:
        curves: Curves by codec.
        baseline: The codec whose size is zero in the lower part.
        title: What was packed.
        heavy: The curves that are drawn with thick lines: presets among codecs.
    """
    figure, above = new_figure(title, "bits per weight of the whole file, at the error of the decoded weights")
    figure.set_size_inches(8.4, 8.0)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = figure.add_gridspec(2, 1)
    above.set_subplotspec(grid[0])
    below = figure.add_subplot(grid[1], sharex=above)
    differences = _differences(curves, baseline)
    styles = _styles(curves, baseline, frozenset(heavy))
    for codec in _ranked(differences):
        _curve(above, curves[codec], codec, styles[codec])
        (snr, percent), line = differences[codec], styles[codec]
        below.plot(snr, percent, color=line.colour, linestyle=line.dashes, linewidth=line.width + 0.3, zorder=3)
    _dress(above, below, baseline)
    figure.legend(
        *above.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK,
        title="smallest in the mean first", title_fontsize=9, handlelength=2.8, alignment="left",
    )  # fmt: skip
    return figure


def write_curve_png(
    curves: Curves, baseline: str, title: str, path: Path, *, heavy: Iterable[str] = (), dpi: int = 160
) -> None:
    """Write `curve_figure` as a PNG to `path`, whole or not at all."""
    with replacing(path) as temporary:
        curve_figure(curves, baseline, title, heavy=heavy).savefig(temporary, dpi=dpi, format="png")


def _styles(curves: Curves, baseline: str, heavy: Collection[str]) -> dict[str, _Line]:
    """The baseline in ink, every other curve in a colour and, once they are used up, other dashes; heavy ones first."""
    others = sorted((codec for codec in curves if codec != baseline), key=lambda codec: codec not in heavy)
    rounds = len(COLOURS)
    styles = {
        codec: _Line(
            COLOURS[number % rounds], _DASHES[number // rounds % len(_DASHES)], _HEAVY if codec in heavy else _LIGHT
        )
        for number, codec in enumerate(others)
    }
    return {baseline: _Line(INK, "-", _HEAVY if baseline in heavy else _LIGHT), **styles}


def _differences(curves: Curves, baseline: str) -> dict[str, tuple[list[float], list[float]]]:
    """Per codec the ratios (dB) within the baseline's range, and there its size less the baseline's, per cent."""
    ratios = [point.snr_db for point in curves[baseline] if math.isfinite(point.snr_db)]
    grid = np.linspace(min(ratios), max(ratios), _GRID_POINTS).tolist() if ratios else []
    base = bits_at(curves[baseline], grid)
    return {
        codec: (grid, [100 * (bits / other - 1) for bits, other in zip(bits_at(curve, grid), base, strict=True)])
        for codec, curve in curves.items()
    }


def _ranked(differences: dict[str, tuple[list[float], list[float]]]) -> Iterator[str]:
    """Codecs by their mean size, smallest first; those that cannot be compared last."""

    def mean(codec: str) -> float:
        values = [value for value in differences[codec][1] if math.isfinite(value)]
        return sum(values) / len(values) if values else math.inf

    yield from sorted(differences, key=mean)


def _curve(axes: Axes, curve: Curve, label: str, line: _Line) -> None:
    points = sorted((point.snr_db, point.bits_per_weight) for point in curve if math.isfinite(point.snr_db))
    axes.plot(
        [snr for snr, _ in points], [bits for _, bits in points], "o", color=line.colour, linestyle=line.dashes,
        linewidth=line.width, markersize=3.4, markeredgewidth=0, label=plain(label),
    )  # fmt: skip


def _dress(above: Axes, below: Axes, baseline: str) -> None:
    """Axes, ticks and grid."""
    above.set_ylabel("bits per weight", color=INK)
    above.set_ylim(bottom=0)
    above.tick_params(labelbottom=False)
    below.set_ylabel(f"size against {plain(baseline)} at equal error", color=INK)
    below.set_xlabel("signal-to-noise ratio of the decoded weights, dB", color=INK)
    below.yaxis.set_major_formatter(ticker.FuncFormatter(_percent))
    for axes in (above, below):
        style_axes(axes)


def _percent(value: float, _: object) -> str:
    return f"{value:+g} %".replace("-", "\N{MINUS SIGN}") if value else "0 %"
