"""The front as a picture for papers and README files: size against accuracy, one run or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.ticker as ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evocompress.runs.front import FrontPoint, Reference, front, knee, reference
from evocompress.support.figure_style import COLOURS, FAINT, INK, new_figure, style_axes
from evocompress.support.quantities import format_bytes

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["compare_figure", "front_figure", "write_front_png"]

_DOT_LIMIT = 20_000


def front_figure(history: History) -> Figure:
    """One run: its front with 95 % Wilson error bars and knee, the rest faint, the uncompressed network as a line."""
    figure, axes = new_figure(_heading(history))
    points = front(history)
    _dominated(axes, history, {point.leaf_id for point in points})
    label = "front, audited" if points and points[0].audited else "front, validation accuracy (no audit yet)"
    _front(axes, points, COLOURS[0], label)
    _reference(axes, reference(history), FAINT, "uncompressed")
    _dress(axes, points)
    _knee(axes, points)
    return figure


def compare_figure(runs: Mapping[str, History]) -> Figure:
    """Several runs by label, each front in its colour with error bars, reference lines where they differ."""
    figure, axes = new_figure("Fronts compared", f"{len(runs)} runs")
    fronts = {label: front(history) for label, history in runs.items()}
    drawn: set[tuple[float, int]] = set()
    for number, (label, points) in enumerate(fronts.items()):
        colour = COLOURS[number % len(COLOURS)]
        _front(axes, points, colour, label if not points or points[0].audited else f"{label} (validation, not audited)")
        line = reference(runs[label])
        if line is not None and (line.accuracy, line.nbytes) not in drawn:
            drawn.add((line.accuracy, line.nbytes))
            _reference(axes, line, FAINT, "uncompressed")
    _dress(axes, [point for points in fronts.values() for point in points])
    return figure


def write_front_png(history: History, path: str | Path, *, dpi: int = 160) -> None:
    """Write `front_figure` as a PNG to `path`, whole or not at all."""
    from evocompress.support.atomic_files import replacing

    with replacing(Path(path)) as temporary:
        front_figure(history).savefig(temporary, dpi=dpi, format="png")


def _heading(history: History) -> str:
    network, data = history.run.get("network", {}), history.run.get("data", {})
    done, leaves = len(history.outcomes), len(history.leaves)
    title = f"{network.get('name', 'network')} on {data.get('name', 'data')}"
    detail = [f"{done} segments", f"{leaves} files", f"seed {history.run.get('seed')}"]
    if parameters := network.get("parameters"):
        detail.insert(0, f"{parameters:,} parameters".replace(",", "\u202f"))
    return f"{title}: size against accuracy\n" + "  ·  ".join(detail)


def _dominated(axes: Axes, history: History, on_front: set[str]) -> None:
    rest = [leaf for leaf in history.leaves.values() if leaf.leaf_id not in on_front]
    shown = rest[:: max(1, -(-len(rest) // _DOT_LIMIT))]
    if not shown:
        return
    alpha = 0.45 if len(shown) < 1000 else 0.25
    axes.scatter(
        [leaf.nbytes for leaf in shown],
        [100 * leaf.accuracy for leaf in shown],
        s=9,
        color="#9aa6b5",
        alpha=alpha,
        linewidths=0,
        zorder=1,
        label="other files (validation)",
        rasterized=True,
    )


def _front(axes: Axes, points: Sequence[FrontPoint], colour: str, label: str) -> None:
    if not points:
        return
    sizes = [point.nbytes for point in points]
    accuracies = [100 * point.accuracy for point in points]
    below = [max(0.0, 100 * (point.accuracy - point.low)) for point in points]
    above = [max(0.0, 100 * (point.high - point.accuracy)) for point in points]
    axes.step(sizes, accuracies, where="post", color=colour, linewidth=1.1, alpha=0.55, zorder=3)
    axes.errorbar(
        sizes,
        accuracies,
        yerr=[below, above],
        fmt="none",
        ecolor=colour,
        elinewidth=0.9,
        capsize=2,
        alpha=0.45,
        zorder=2,
    )
    axes.plot(
        sizes, accuracies, "o", color=colour, markersize=5.2, markeredgecolor="white", markeredgewidth=0.7, zorder=4,
        label=label,
    )  # fmt: skip


def _knee(axes: Axes, points: Sequence[FrontPoint]) -> None:
    bend = knee(points)
    if bend is None:
        return
    spot = (bend.nbytes, 100 * bend.accuracy)
    axes.plot(*spot, "o", ms=11, mfc="none", mec="#c77700", mew=1.6, zorder=5)
    # Above and left of a front there is room; where there is not, below and right of it.
    low, high = axes.get_xlim()
    right = math.log(bend.nbytes / low) > 0.5 * math.log(high / low)
    axes.annotate(
        f"knee: {format_bytes(bend.nbytes)}, {100 * bend.accuracy:.1f} %, {bend.ratio:.0f}× smaller",
        spot,
        xytext=(-14, 9) if right else (14, -16),
        ha="right" if right else "left",
        textcoords="offset points",
        fontsize=9,
        color="#8a5200",
        zorder=6,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
    )


def _reference(axes: Axes, line: Reference | None, colour: str, label: str) -> None:
    if line is None:
        return
    axes.axhline(100 * line.accuracy, color=colour, linewidth=1, linestyle=(0, (5, 3)), zorder=2)
    words = axes.annotate(
        f"{label}: {100 * line.accuracy:.2f} % in {format_bytes(line.nbytes)}",
        (0.008, 100 * line.accuracy),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8.5,
        color=colour,
        zorder=6,
        annotation_clip=True,  # where the line is below the view, words outside would leave the picture no room
    )
    words.set_in_layout(False)


def _dress(axes: Axes, points: Sequence[FrontPoint]) -> None:
    """Axes, ticks and legend."""
    axes.set_xscale("log", base=10)
    _view(axes, points)
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5), numticks=14))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _tick(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel("size of the file on disk", color=INK)
    axes.set_ylabel("accuracy, 95 % interval", color=INK)
    style_axes(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK)


def _view(axes: Axes, points: Sequence[FrontPoint]) -> None:
    """Limits that show the part of the front at half its best accuracy or more; a note counts the files below that.

    Files of a few bytes that guess are always on a front; were they in view, they would take most of both axes.
    """
    if not points:
        axes.set_xlim(256, 65536)
        axes.set_ylim(0, 100)
        axes.text(0.5, 0.5, "no files yet", transform=axes.transAxes, ha="center", fontsize=12, color=FAINT)
        return
    useful = [point for point in points if point.accuracy >= 0.5 * max(point.accuracy for point in points)]
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    low = min(100 * point.low for point in useful)
    axes.set_xlim(0.85 * min(point.nbytes for point in useful), right)
    axes.set_ylim(low - 0.08 * (100 - low), min(101.0, top))
    if hidden := len(points) - len(useful):
        note = f"{hidden} smaller {'file' if hidden == 1 else 'files'} below this view"
        axes.text(0.008, 0.015, note, transform=axes.transAxes, fontsize=8.5, color=FAINT)


def _tick(nbytes: float) -> str:
    """Bytes of a round tick without needless digits: 2 kB, not 2.00 kB."""
    number, _, unit = format_bytes(nbytes).partition(" ")
    return f"{float(number):g} {unit}"
