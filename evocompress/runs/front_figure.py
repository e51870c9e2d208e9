"""The front as a picture for papers and README files: size against quality, one run or several."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.ticker as ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evocompress.runs.comparison import (
    Step,
    attained,
    attainment,
    bd_rates,
    seed_groups,
    steps,
)
from evocompress.runs.front import FrontPoint, Reference, front, in_view, knee, reference
from evocompress.search.quality import Quality
from evocompress.support.figure_style import COLOURS, FAINT, INK, new_figure, style_axes
from evocompress.support.quantities import format_bytes

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["compare_figure", "front_figure", "write_front_png"]

_DOT_LIMIT = 20_000


def front_figure(history: History, beside: Mapping[str, Sequence[tuple[int, float]]] | None = None) -> Figure:
    """One run: its front with 95 % error bars and knee, the rest faint, the uncompressed network as a line.

    Args:
        history: The run.
        beside: What else to show: by label files that were made in another way, as bytes and quality, smallest first.
    """
    figure, axes = new_figure(_heading(history))
    points, quality = front(history), history.quality
    _dominated(axes, history, {point.leaf_id for point in points})
    label = "front, audited" if points and points[0].audited else f"front, validation {quality.name} (no audit yet)"
    _front(axes, points, quality, COLOURS[0], label)
    line = reference(history)
    _reference(axes, line, quality, FAINT, "uncompressed")
    _packed(axes, line, quality)
    for colour, (other, files) in zip(itertools.cycle(COLOURS[2:]), (beside or {}).items(), strict=False):
        _others(axes, files, quality, colour, other)
    _dress(axes, points, quality)
    _knee(axes, points, quality)
    return figure


def compare_figure(runs: Mapping[str, History], *, chance_level: bool = False) -> Figure:
    """Several runs by label, each front in its colour with error bars, reference lines where they differ.

    The runs must measure the same quality, or the axis has no meaning; the first one's is shown. Of runs that differ in
    their seeds alone, where they are enough (`comparison.LEAST_SEEDS`), the median attainment surface is drawn, with a
    band from the worst to the best and a darker one of the middle half (Fonseca and Fleming, 1996). Below the axes is
    the BD-rate of each run, or group of runs, against the first. Files of chance level (those that are not `in_view`)
    count in what several attain and in BD-rates only with `chance_level`.
    """
    quality = next((history.quality for history in runs.values()), Quality("quality"))
    figure, axes = new_figure("Fronts compared", f"{len(runs)} runs")
    fronts = {label: front(history) for label, history in runs.items()}
    drawn: set[tuple[float, int]] = set()
    surfaces: dict[str, list[Step]] = {}
    colours = itertools.cycle(COLOURS)
    for name, labels in seed_groups({label: runs[label] for label in runs if fronts[label]}).items():
        members = [fronts[label] for label in labels]
        judged = "" if all(points[0].audited for points in members) else " (validation, not audited)"
        reached = [steps(points if chance_level else in_view(points, quality), quality) for points in members]
        surfaces[name] = attainment(reached)
        if labels[1:]:
            _attainment(axes, reached, quality, next(colours), f"{name}: median, middle half, all{judged}")
        else:
            _front(axes, members[0], quality, next(colours), f"{name}{judged}")
        for line in map(reference, (runs[label] for label in labels)):
            if line is not None and (line.quality, line.nbytes) not in drawn:
                drawn.add((line.quality, line.nbytes))
                _reference(axes, line, quality, FAINT, "uncompressed")
    _dress(axes, [point for points in fronts.values() for point in points], quality)
    if len(surfaces) > 1:
        _bd_rates(figure, surfaces)
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
    return f"{title}: size against {history.quality.name}\n" + "  ·  ".join(detail)


def _dominated(axes: Axes, history: History, on_front: set[str]) -> None:
    rest = [leaf_id for leaf_id in history.leaves if leaf_id not in on_front]
    places = (history.leaves[leaf_id] for leaf_id in rest[:: max(1, -(-len(rest) // _DOT_LIMIT))])
    shown = [(leaf.nbytes, history.quality.scale * leaf.quality) for leaf in places]
    if not shown:
        return
    alpha = 0.45 if len(shown) < 1000 else 0.25
    axes.scatter(
        [nbytes for nbytes, _ in shown],
        [value for _, value in shown],
        s=9,
        color="#9aa6b5",
        alpha=alpha,
        linewidths=0,
        zorder=1,
        label="other files (validation)",
        rasterized=True,
    )


def _front(axes: Axes, points: Sequence[FrontPoint], quality: Quality, colour: str, label: str) -> None:
    if not points:
        return
    sizes = [point.nbytes for point in points]
    values = [quality.scale * point.quality for point in points]
    below = [max(0.0, quality.scale * (point.quality - point.low)) for point in points]
    above = [max(0.0, quality.scale * (point.high - point.quality)) for point in points]
    axes.step(sizes, values, where="post", color=colour, linewidth=1.1, alpha=0.55, zorder=3)
    axes.errorbar(
        sizes,
        values,
        yerr=[below, above],
        fmt="none",
        ecolor=colour,
        elinewidth=0.9,
        capsize=2,
        alpha=0.45,
        zorder=2,
    )
    axes.plot(
        sizes, values, "o", color=colour, markersize=5.2, markeredgecolor="white", markeredgewidth=0.7, zorder=4,
        label=label,
    )  # fmt: skip


def _attainment(axes: Axes, fronts: Sequence[Sequence[Step]], quality: Quality, colour: str, label: str) -> None:
    """What several runs attain: the median as a staircase, bands of the middle half and of all."""
    sizes = sorted({size for front in fronts for size, _ in front})
    sizes.append(2 * sizes[-1])  # beyond the last file everything stays as it is

    def values(level: float) -> list[float]:
        surface = attainment(fronts, level)
        reached = (attained(surface, size) for size in sizes)
        return [math.nan if merit is None else quality.scale * quality.merit(merit) for merit in reached]

    for levels, alpha in (((1.0, 1e-9), 0.13), ((0.75, 0.25), 0.22)):
        worst, best = map(values, levels)
        axes.fill_between(sizes, worst, best, step="post", color=colour, alpha=alpha, linewidth=0, zorder=2)
    axes.step(sizes, values(0.5), where="post", color=colour, linewidth=1.8, zorder=4, label=label)


def _bd_rates(figure: Figure, surfaces: Mapping[str, Sequence[Step]]) -> None:
    """Below the axes: how much larger or smaller files are than the first's at equal quality."""
    first, *others = surfaces
    rates = bd_rates(surfaces)[first]
    shown = (f"{other}: {'no common range' if rates[other] is None else f'{rates[other]:+.1f} %'}" for other in others)
    text = figure.supxlabel(
        f"BD-rate against {first}:  " + "   ".join(shown), x=0.01, ha="left", fontsize=9, color=FAINT, wrap=True
    )
    text.set_parse_math(False)


def _knee(axes: Axes, points: Sequence[FrontPoint], quality: Quality) -> None:
    bend = knee(points, quality)
    if bend is None:
        return
    position = (bend.nbytes, quality.scale * bend.quality)
    axes.plot(*position, "o", ms=11, mfc="none", mec="#c77700", mew=1.6, zorder=5)
    # Above and left of a front that rises there is room, and below and left of one that falls; else on its other side.
    low, high = axes.get_xlim()
    right = math.log(bend.nbytes / low) > 0.5 * math.log(high / low)
    axes.annotate(
        f"knee: {format_bytes(bend.nbytes)}, {_short(quality, bend.quality)}, {bend.ratio:.0f}× smaller",
        position,
        xytext=(-14 if right else 14, 9 if right == quality.is_maximised else -16),
        ha="right" if right else "left",
        textcoords="offset points",
        fontsize=9,
        color="#8a5200",
        zorder=6,
        parse_math=False,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8},
    )


def _reference(axes: Axes, line: Reference | None, quality: Quality, colour: str, label: str) -> None:
    if line is None:
        return
    axes.axhline(quality.scale * line.quality, color=colour, linewidth=1, linestyle=(0, (5, 3)), zorder=2)
    words = axes.annotate(
        f"{label}: {quality.show(line.quality)} in {format_bytes(line.nbytes)}",
        (0.008 if quality.is_maximised else 0.992, quality.scale * line.quality),
        ha="left" if quality.is_maximised else "right",  # where the front is not
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=8.5,
        color=colour,
        zorder=6,
        parse_math=False,
        annotation_clip=True,  # where the line is below the view, words outside would leave the picture no room
    )
    words.set_in_layout(False)


def _packed(axes: Axes, line: Reference | None, quality: Quality) -> None:
    """What training once and packing gave."""
    if line is None or not line.packed:
        return
    label = f"train once ({line.epochs} epochs), then pack" if line.epochs else "the initial weights, packed"
    _others(axes, [(file.nbytes, file.quality) for file in line.packed], quality, COLOURS[1], label)


def _others(axes: Axes, files: Sequence[tuple[int, float]], quality: Quality, colour: str, label: str) -> None:
    """Files that were made in another way, as a staircase."""
    sizes, values = [nbytes for nbytes, _ in files], [quality.scale * value for _, value in files]
    axes.step(sizes, values, where="post", color=colour, linewidth=1.0, alpha=0.55, zorder=2)
    axes.plot(
        sizes, values, "s", color=colour, markersize=4.6, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
        label=label,
    )  # fmt: skip


def _dress(axes: Axes, points: Sequence[FrontPoint], quality: Quality) -> None:
    """Axes, ticks and legend."""
    suffix, of_unit = (" %", "") if quality.unit == "%" else ("", f" in {quality.unit}" if quality.unit else "")
    axes.set_xscale("log", base=10)
    _view(axes, points, quality)
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5), numticks=14))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _tick(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}{suffix}"))
    axes.set_xlabel("size of the file on disk", color=INK)
    axes.set_ylabel(f"{quality.name}{of_unit}, 95 % interval", color=INK, parse_math=False)  # a name is no formula
    style_axes(axes)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(
            loc="lower right" if quality.is_maximised else "upper right", frameon=False, fontsize=9, labelcolor=INK
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _view(axes: Axes, points: Sequence[FrontPoint], quality: Quality) -> None:
    """Limits that show the useful part of the front (`front.in_view`); a note counts the other files."""
    if not points:
        axes.set_xlim(256, 65536)
        axes.set_ylim(0, 100 if quality.is_share else 1)
        axes.text(0.5, 0.5, "no files yet", transform=axes.transAxes, ha="center", fontsize=12, color=FAINT)
        return
    useful = in_view(points, quality)
    (_, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    low, high = (quality.scale * end for end in (min(p.low for p in useful), max(p.high for p in useful)))
    axes.set_xlim(0.85 * min(point.nbytes for point in useful), right)
    if quality.is_share:
        axes.set_ylim(low - 0.08 * (100.0 - low), min(101.0, top))
    else:  # the good end shows everything, the bad end what is useful
        ends = (low, axes.dataLim.y1) if quality.is_maximised else (axes.dataLim.y0, high)
        room = 0.06 * (ends[1] - ends[0]) or 1.0
        axes.set_ylim(ends[0] - room, ends[1] + room)
    if hidden := len(points) - len(useful):
        side = "below" if quality.is_maximised else "above"
        note = f"{hidden} smaller {'file' if hidden == 1 else 'files'} {side} this view"
        axes.text(0.008, 0.015, note, transform=axes.transAxes, fontsize=8.5, color=FAINT)


def _short(quality: Quality, value: float) -> str:
    """With one digit fewer than elsewhere."""
    return dataclasses.replace(quality, digits=max(0, quality.digits - 1)).show(value)


def _tick(nbytes: float) -> str:
    """Bytes of a round tick without needless digits: 2 kB, not 2.00 kB."""
    number, _, unit = format_bytes(nbytes).partition(" ")
    return f"{float(number):g} {unit}"
