"""Data of the views that the page draws when they are opened: importances, learning curves, the workers' timeline.

Like the rest of the page, they hold everything of a run of usual size, and of a large one a part that the page counts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evocompress.errors import EvocompressError
from evocompress.runs.front import FrontPoint, front, in_view
from evocompress.runs.importance import importances
from evocompress.runs.segment_table import renamed_value
from evocompress.search.interrupts import asked_to_end
from evocompress.search.records import Outcome

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["MAX_BARS", "MAX_CURVE_POINTS", "views"]

MAX_BARS = 3000
MAX_CURVE_POINTS = 20_000
_MAX_JUDGED = 3000
_CURVES = {
    "validationQuality": ("validation_quality", "validation_accuracy"),
    "trainQuality": ("train_quality", "train_accuracy"),
    "trainLoss": ("train_loss", "train_loss"),
}


def views(history: History, *, max_bars: int = MAX_BARS, max_curve_points: int = MAX_CURVE_POINTS) -> dict[str, Any]:
    """Made of JSON scalars, lists and dicts, as `payload` is."""
    points = front(history)
    lines = _lineages(history, points)
    curves = _Curves(lines, max_curve_points)
    timeline = _Timeline()
    for outcome, told_at in zip(history.outcomes, history.finished_at, strict=True):
        curves.add(history, outcome)
        timeline.add(history, outcome, told_at)
    return {
        "importances": _importances(history, points),
        "curves": curves.to_json(),
        "timeline": timeline.to_json(max_bars),
    }


def _importances(history: History, points: Sequence[FrontPoint]) -> dict[str, Any]:
    """Over the files that are not of chance level; where there is none, a note says why."""
    merit = history.quality.merit
    least = min((merit(point.quality) for point in in_view(points, history.quality)), default=-math.inf)
    leaf_ids = list(history.leaves)
    some = (history.leaves[leaf_id] for leaf_id in leaf_ids[:: max(1, -(-len(leaf_ids) // _MAX_JUDGED))])
    leaves = [leaf for leaf in some if merit(leaf.quality) >= least]
    try:
        return {"judged": len(leaves), **importances(leaves)}
    except EvocompressError as problem:
        return {"note": str(problem)}
    except Exception as failure:  # a report is of use without it
        if asked_to_end(failure):
            raise
        return {"note": f"Optuna cannot say which genes matter here: {type(failure).__name__}: {failure}"}


def _lineages(history: History, points: Sequence[FrontPoint]) -> dict[str, tuple[str | None, int]]:
    """The segments of the front's lineages: from which segment each went on, and after how many epochs."""
    segments: dict[str, tuple[str | None, int]] = {}
    for point in points:
        leaf_id: str | None = point.leaf_id
        while leaf_id is not None and (segment := history.segment_of[leaf_id]) not in segments:
            parents = history.tasks[segment].parents
            leaf_id = parents[0].leaf_id if parents else None
            segments[segment] = (
                None if leaf_id is None else history.segment_of[leaf_id],
                parents[0].epochs if parents else 0,
            )
    return segments


class _Curves:
    """Learning curves of the front's lineages, a value for each epoch, as far as they fit the limit."""

    def __init__(self, lines: dict[str, tuple[str | None, int]], limit: int) -> None:
        self._lines, self._left = lines, limit
        self._shown: dict[str, dict[str, Any]] = {}

    def add(self, history: History, outcome: Outcome) -> None:
        if outcome.segment_id not in self._lines:
            return
        recorded = outcome.metrics.get("curves") or {}
        curves = {name: _numbers(renamed_value(recorded, *names)) for name, names in _CURVES.items()}
        self._left -= sum(map(len, curves.values()))
        if self._left >= 0:
            self._shown[outcome.segment_id] = {"number": outcome.number, **curves}

    def to_json(self) -> dict[str, Any]:
        place = {segment: number for number, segment in enumerate(self._shown)}
        shown = []
        for segment, curve in self._shown.items():
            parent, begin = self._lines[segment]
            shown.append({**curve, "parent": -1 if parent is None else place.get(parent, -1), "begin": begin})
        return {"segments": shown, "count": len(self._lines)}


class _Timeline:
    """When each segment ran, and where: the lanes of a node are as many as ran there at once."""

    def __init__(self) -> None:
        self._bars: list[tuple[float, float, str, int, str, str]] = []

    def add(self, history: History, outcome: Outcome, told_at: float) -> None:
        started, finished = _numbers([outcome.metrics.get(name) for name in ("started", "finished")], digits=17)
        if started is None or finished is None:
            started, finished = told_at - outcome.seconds, told_at
        node = str(outcome.metrics.get("node") or "unknown node")
        operator = history.tasks[outcome.segment_id].operator
        self._bars.append((started, max(started, finished), node, outcome.number, outcome.status, operator))

    def to_json(self, limit: int) -> dict[str, Any]:
        self._bars.sort()
        lanes = self._lanes()
        every = max(1, -(-len(self._bars) // limit))
        begin = self._bars[0][0] if self._bars else 0.0
        # Failures are few, and what one looks for.
        kept = [
            (*bar, lane)
            for number, (bar, lane) in enumerate(zip(self._bars, lanes, strict=True))
            if number % every == 0 or (bar[4] != "ok" and number % max(1, every // 10) == 0)
        ]
        names = sorted(set(lanes))
        place = {lane: number for number, lane in enumerate(names)}
        return {
            "count": len(self._bars),
            "begin": begin,
            "lanes": [f"{node} · {number}" for node, number in names],
            "lane": [place[lane] for *_, lane in kept],
            "start": [round(started - begin, 2) for started, *_ in kept],
            "seconds": [round(finished - started, 2) for started, finished, *_ in kept],
            "number": [number for _, _, _, number, _, _, _ in kept],
            "status": [status for _, _, _, _, status, _, _ in kept],
            "operator": [operator for _, _, _, _, _, operator, _ in kept],
        }

    def _lanes(self) -> list[tuple[str, int]]:
        """Each bar's node and lane: the first lane there that is free again."""
        free: dict[str, list[int]] = {}
        busy: dict[str, list[tuple[float, int]]] = {}
        lanes = []
        for started, finished, node, *_ in self._bars:
            idle, running = free.setdefault(node, []), busy.setdefault(node, [])
            while running and running[0][0] <= started:
                heapq.heappush(idle, heapq.heappop(running)[1])
            lane = heapq.heappop(idle) if idle else len(running) + 1
            heapq.heappush(running, (finished, lane))
            lanes.append((node, lane))
        return lanes


def _numbers(values: Any, digits: int = 5) -> list[float | None]:
    """Recorded numbers; None where something is no finite number."""
    return [
        float(f"{value:.{digits}g}") if isinstance(value, int | float) and math.isfinite(value) else None
        for value in values or ()
    ]
