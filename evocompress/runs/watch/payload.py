"""Data of the live page, as JSON: all texts as they are to be shown, and the points of its two charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evocompress.runs.front import FrontPoint, front, in_view, knee
from evocompress.runs.status import Status, status_of
from evocompress.search.history import History
from evocompress.search.quality import Quality
from evocompress.support.printable import printable
from evocompress.support.quantities import format_bytes, format_duration
from evocompress.support.wording import counted

__all__ = ["round_numbers", "round_sizes", "watch_payload"]

_MOST_ROWS = 200  # of a table
_LONGEST_ERROR = 2000
_MOST_STEPS = 2000  # of the hypervolume's curve
_TICKS = 5


def watch_payload(history: History, *, now: float | None = None) -> dict[str, Any]:
    """What the page shows of a run just now; `now` is in unix seconds."""
    status, points = status_of(history, now=now), front(history)
    return {
        "title": printable(status.name),
        "state": status.state,
        "driver": printable(status.driver),
        "facts": _facts(status),
        "tiles": _tiles(status, points),
        "front": _front(points, status.quality),
        "hypervolume": _hypervolume(history),
        "inFlight": _table(
            [
                [str(segment.number), segment.operator, f"{format_duration(segment.seconds)} ago"]
                for segment in status.in_flight
            ],
            ("segment", "operator", "submitted"),
        ),
        "failures": _table(
            [
                [
                    str(failure.count),
                    failure.status.replace("_", " "),
                    failure.error[:_LONGEST_ERROR] or "no reason given",
                ]
                for failure in status.failures
            ],
            ("segments", "status", "error"),
        ),
    }


def _facts(status: Status) -> str:
    facts = [str(status.folder)]
    if status.state in ("running", "held"):
        facts.append(f"the journal's last line is {format_duration(status.silent)} old")
    return printable(" · ".join(facts))


def _tiles(status: Status, points: Sequence[FrontPoint]) -> list[list[str]]:
    """What stands in large letters, and below it."""
    of = f" / {status.segments}" if status.segments else ""
    left = "" if status.left is None else f", about {format_duration(status.left)} left"
    budget = f" of {format_duration(60 * status.minutes)}" if status.minutes else ""
    tiles = [
        [f"{status.done}{of}", "segments done"],
        [str(len(status.in_flight)), "in flight"],
        [str(status.failed), "failed"],
        [format_duration(status.elapsed), f"used{budget}{left}"],
        [f"{status.hypervolume:.4f}", "hypervolume"],
    ]
    if points:
        best, least = min(points, key=lambda point: point.error), points[0]
        tiles.append([status.quality.show(best.quality), f"best {status.quality.name}, {format_bytes(best.nbytes)}"])
        tiles.append([format_bytes(least.nbytes), f"smallest, {status.quality.show(least.quality)}"])
    return [[printable(text) for text in tile] for tile in tiles]


def _front(points: Sequence[FrontPoint], quality: Quality) -> dict[str, Any]:
    audited = bool(points) and points[0].audited
    shown, bend = in_view(points, quality), knee(points, quality)
    rows = [
        [
            str(point.nbytes),
            quality.show(point.quality),
            f"{quality.scale * (point.high - point.low) / 2:.{quality.digits}f}",
            f"{point.ratio:.1f}×",
            str(point.depth),
            str(point.epochs),
            f"{point.leaf_id}{' (knee)' if point is bend else ''}",
        ]
        for point in points
    ]
    name = printable(f"{quality.name} in {quality.unit}" if quality.unit else quality.name)
    ends = [quality.scale * end for point in shown for end in (point.low, point.high)]
    sizes = [point.nbytes for point in shown]
    return {
        "note": f"{counted(len(points), 'file')}, "
        + ("audited: judged on data that selection never saw." if audited else "judged on validation data."),
        "axis": name,
        "rises": quality.is_maximised,
        "points": [
            [point.nbytes, quality.scale * point.quality, quality.scale * point.low, quality.scale * point.high]
            for point in shown
        ],
        "hidden": len(points) - len(shown),
        "xTicks": round_sizes(min(sizes), max(sizes)) if sizes else [],
        "yTicks": round_numbers(min(ends), max(ends)) if ends else [],
        **_table(rows, ("bytes", printable(quality.name), "±", "ratio", "depth", "epochs", "file")),
    }


def _hypervolume(history: History) -> dict[str, Any]:
    """The curve as pairs of segments and hypervolume, from nothing on: only where it rose, and its end."""
    volumes = history.hypervolumes
    steps = [
        [number, float(volume)]
        for number, volume in enumerate(volumes, start=1)
        if number in (1, len(volumes)) or volume != volumes[number - 2]
    ]
    every = -(-len(steps) // _MOST_STEPS) or 1
    kept = [[0, 0.0], *steps[:-1:every], *steps[-1:]] if steps else []
    most = max((volume for _, volume in kept), default=0.0)
    return {
        "points": kept,
        "xTicks": round_numbers(0, len(volumes), whole=True) if kept else [],
        "yTicks": round_numbers(0.0, most) if most > 0 else [],
    }


def _table(rows: list[list[str]], columns: Sequence[str]) -> dict[str, Any]:
    shown = [[printable(cell) for cell in row] for row in rows[:_MOST_ROWS]]
    return {"columns": list(columns), "rows": shown, "more": len(rows) - len(shown)}


def round_sizes(low: float, high: float) -> list[tuple[float, str]]:
    """Round sizes between two, with how they are written: 1, 2 and 5 times powers of ten. The two where there are none.

    >>> round_sizes(900, 6000)
    [(1000, '1.00 kB'), (2000, '2.00 kB'), (5000, '5.00 kB')]
    >>> round_sizes(1430, 1430)
    [(1430, '1.43 kB')]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sizes = [first * 10**power for power in decades for first in (1, 2, 5)]
    between = [size for size in sizes if low <= size <= high] or sorted({low, high})
    return [(size, format_bytes(size)) for size in between]


def round_numbers(low: float, high: float, *, whole: bool = False) -> list[tuple[float, str]]:
    """A few round numbers between two, with how they are written.

    >>> round_numbers(0.0, 0.43)
    [(0.0, '0.0'), (0.1, '0.1'), (0.2, '0.2'), (0.3, '0.3'), (0.4, '0.4')]
    >>> round_numbers(0, 3, whole=True)
    [(0.0, '0'), (1.0, '1'), (2.0, '2'), (3.0, '3')]
    """
    if not low < high:
        return [(low, f"{low:.4g}")]
    rough = (high - low) / _TICKS
    power = math.floor(math.log10(rough))
    step = next(first * 10.0**power for first in (1, 2, 5, 10) if first * 10.0**power >= 0.7 * rough)
    step = max(1.0, step) if whole else step
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(round(number * step, 12), f"{number * step:.{digits}f}") for number in range(first, last + 1)]
