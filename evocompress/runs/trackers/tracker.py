"""Tracker protocol, and what a tracker is given; those that there are by name: `extensions.TRACKERS`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evocompress.search.quality import Quality
from evocompress.search.records import Genome, Outcome, SegmentTask

__all__ = ["TrackedFront", "TrackedRun", "TrackedSegment", "Tracker", "tracked_segment"]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A run as it is opened, or opened again.

    `kept` is what the tracker has put there before, JSON data such as an id; it is written down with each segment, and
    comes back at a resume.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    quality: Quality
    kept: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TrackedSegment:
    """A segment that has ended.

    `number` counts from 1 in the order of submission, `completion` from 0 in the order of ends; `parent` is the leaf
    that it went on from, empty for one from initial weights. `numbers` are of the file under its own genome (bytes,
    quality, error, depth, epochs) and of the segment (seconds, files), `curves` have a value for each epoch.
    `hypervolume` is the run's after it.
    """

    number: int
    completion: int
    segment_id: str
    operator: str
    parent: str
    status: str
    error: str
    genome: Genome
    numbers: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    hypervolume: float


@dataclasses.dataclass(frozen=True)
class TrackedFront:
    """The front where a driver ends: its rows (`runs.export.front_rows`), and files, once the run has been exported."""

    rows: Sequence[Mapping[str, Any]]
    files: Sequence[Path]
    finished: bool


class Tracker(Protocol):
    """Logs one run; made without arguments, when it says what library is missing. Called by one thread of its own.

    What one of the methods raises is said, and ends no run; a segment that could not be logged is tried again with the
    next.
    """

    def begin(self, run: TrackedRun) -> None:
        """Before all others."""
        ...

    def log(self, segment: TrackedSegment) -> None:
        """Log a segment; after a kill the last one may come again."""
        ...

    def end(self, front: TrackedFront) -> None:
        """Log the front, and close what is open."""
        ...


def tracked_segment(task: SegmentTask, outcome: Outcome, completion: int, hypervolume: float) -> TrackedSegment:
    """What is told of a segment."""
    numbers = {"seconds": outcome.seconds, "files": float(len(outcome.leaves))}
    if outcome.leaves:
        leaf = outcome.leaves[0]
        numbers |= {"bytes": leaf.nbytes, "quality": leaf.quality, "error": leaf.error}
        numbers |= {"depth": leaf.depth, "epochs": leaf.epochs}
    curves = outcome.metrics.get("curves", {})
    return TrackedSegment(
        number=task.number,
        completion=completion,
        segment_id=task.segment_id,
        operator=task.operator,
        parent=task.parents[0].leaf_id if task.parents else "",
        status=outcome.status,
        error=outcome.error,
        genome=task.genome,
        numbers={name: float(value) for name, value in numbers.items() if math.isfinite(value)},
        curves={name: kept for name, values in curves.items() if (kept := _finite(values))},
        hypervolume=hypervolume,
    )


def _finite(values: Any) -> list[float]:
    """The numbers of a curve up to the first that is none."""
    kept: list[float] = []
    for value in values if isinstance(values, list | tuple) else ():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            break
        kept.append(float(value))
    return kept
