"""What a run has found: its front with error bars, the points a user asks for, the knee, hypervolume as it grew.

Everything here is a pure function of a `History` (one run as read from its journal) or of the `FrontPoint`s made from
one. A size is always that of a file which was decoded and evaluated. How fronts compare is in `comparison`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from evocompress.errors import EvocompressError
from evocompress.search.records import Genome, Leaf

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = [
    "FrontPoint",
    "HypervolumePoint",
    "Reference",
    "audits",
    "best_under",
    "file_name",
    "float32_bytes",
    "front",
    "hypervolume_curve",
    "knee",
    "reference",
    "smallest_above",
    "wilson_interval",
]


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """One file of the front: its size, its accuracy in [0, 1] with the 95 % Wilson interval `low..high`, its origin.

    `accuracy` is the audited one where `audited`, else the (optimistic) validation accuracy that selection saw. `ratio`
    is the network's float32 bytes over `nbytes`; `file` is the name that `export` gives the file; `depth`, `epochs` and
    `seconds` are cumulative over the lineage.
    """

    file: str
    nbytes: int
    accuracy: float
    validation_accuracy: float
    ratio: float
    audited: bool
    correct: int | None
    total: int | None
    low: float
    high: float
    leaf_id: str
    segment_id: str
    depth: int
    epochs: int
    seconds: float
    sha256: str
    path: str
    genome: Genome


@dataclasses.dataclass(frozen=True)
class Reference:
    """The uncompressed network, trained plainly: `accuracy` in [0, 1] on the audit split, `nbytes` of float32."""

    accuracy: float
    nbytes: int
    low: float
    high: float
    epochs: int


@dataclasses.dataclass(frozen=True)
class HypervolumePoint:
    """Hypervolume after the `segments`-th result had been told, `seconds` after the first one began."""

    segments: int
    seconds: float
    hypervolume: float


def front(history: History, *, audited: bool | None = None) -> list[FrontPoint]:
    """The non-dominated files, smallest first; bytes and accuracy both rise strictly along it.

    Where the whole archive is audited (or with `audited=True`) the points are its audited leaves, ranked by audited
    accuracy, because selection is optimistic about the validation accuracy; else (a run that is going on, or
    `audited=False`) they are the whole archive by validation accuracy, and each point's `audited` says so. Leaves
    outside the archive never count: their files may be gone. Of equal points the first leaf id stays. Raises
    `EvocompressError` where `audited=True` finds no audit.
    """
    found = audits(history) if audited is not False else {}
    leaves = [leaf for leaf in history.archive if leaf.leaf_id in found] or history.archive
    if audited is None and len(leaves) < len(history.archive):
        leaves, found = history.archive, {}
    if audited and leaves[:1] and leaves[0].leaf_id not in found:
        raise EvocompressError("audited=True, but this run has no audit yet: let it finish, or use audited=None.")
    return _non_dominated(_point(history, leaf, found.get(leaf.leaf_id)) for leaf in leaves)


def audits(history: History) -> dict[str, dict[str, Any]]:
    """Audit results by leaf id; of several audits of a leaf the last one counts."""
    merged: dict[str, dict[str, Any]] = {}
    for event in history.events("audited"):
        merged.update(event["leaves"])
    return merged


def reference(history: History) -> Reference | None:
    """The last recorded plain training of the uncompressed network, or None."""
    events = history.events("reference")
    if not events:
        return None
    event = events[-1]
    accuracy = float(event["accuracy"])
    low, high = _interval(accuracy, event.get("correct"), event.get("total"))
    return Reference(accuracy, int(event["float32_bytes"]), low, high, int(event.get("epochs", 0)))


def float32_bytes(history: History, leaf: Leaf | None = None) -> int:
    """Bytes of the network's parameters as float32: what the leaf's segment measured, else what `run.json` says."""
    network: Mapping[str, Any] = history.run.get("network", {})
    measured = leaf.measurements.get("float32_bytes") if leaf is not None else None
    return int(measured or network.get("float32_bytes", 0))


def file_name(nbytes: int, accuracy: float) -> str:
    """Readable name of a front's file; sorting by name sorts by size.

    >>> file_name(3412, 0.9722)
    '003412B_0.9722.evc'
    """
    return f"{nbytes:06d}B_{accuracy:.4f}.evc"


def best_under(points: Iterable[FrontPoint], nbytes: int) -> FrontPoint | None:
    """The most accurate point of at most `nbytes` bytes (the smaller of equals), or None."""
    fitting = [point for point in points if point.nbytes <= nbytes]
    return max(fitting, key=lambda point: (point.accuracy, -point.nbytes), default=None)


def smallest_above(points: Iterable[FrontPoint], accuracy: float) -> FrontPoint | None:
    """The smallest point of at least `accuracy` in [0, 1] (the more accurate of equals), or None."""
    fitting = [point for point in points if point.accuracy >= accuracy]
    return min(fitting, key=lambda point: (point.nbytes, -point.accuracy), default=None)


def knee(points: Sequence[FrontPoint]) -> FrontPoint | None:
    """The point farthest above the chord that joins the front's ends, over (log2 bytes, accuracy) scaled to [0, 1].

    This is the bend of Das (1999, "On characterizing the knee of the Pareto curve"), on the axes of the search. None if
    no point lies above the chord: fewer than three points, or a front that bends the other way.
    """
    ordered = sorted(points, key=_size_order)
    if len(ordered) < 3:
        return None
    size = _unit_scale([math.log2(point.nbytes) for point in ordered])
    above = _unit_scale([point.accuracy for point in ordered]) - size
    best = int(np.argmax(above))
    return ordered[best] if above[best] > 1e-9 else None


def _size_order(point: FrontPoint) -> tuple[int, float]:
    """Sort key of a front: smallest first."""
    return point.nbytes, -point.accuracy


def hypervolume_curve(history: History) -> list[HypervolumePoint]:
    """Hypervolume (of validation objectives, as selection saw it) after each told result, in told order.

    Seconds count from the first submission, without the pauses between a driver's last result and its resume.
    """
    submitted = history.events("submitted")
    begin = float(submitted[0]["time"]) if submitted else min(history.finished_at, default=0.0)
    resumes = [float(event["time"]) for event in history.events("resumed")]
    curve: list[HypervolumePoint] = []
    last, idle = begin, 0.0
    for told, finished in zip(history.told, history.finished_at, strict=True):
        while resumes and resumes[0] <= finished:
            idle += max(0.0, resumes.pop(0) - last)
        curve.append(HypervolumePoint(len(curve) + 1, max(0.0, finished - begin - idle), told["hypervolume_after"]))
        last = finished
    return curve


@functools.lru_cache(maxsize=65536)
def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion seen as `correct` of `total` (Wilson, 1927).

    >>> low, high = wilson_interval(95, 100)
    >>> round(low, 4), round(high, 4)
    (0.8882, 0.9785)
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _point(history: History, leaf: Leaf, audit: Mapping[str, Any] | None) -> FrontPoint:
    measured: Mapping[str, Any] = leaf.measurements if audit is None else audit
    accuracy = leaf.accuracy if audit is None else float(audit["accuracy"])
    nbytes = leaf.nbytes if audit is None else int(audit["nbytes"])
    correct, total = measured.get("correct"), measured.get("total")
    low, high = _interval(accuracy, correct, total)
    return FrontPoint(
        file=file_name(nbytes, accuracy),
        nbytes=nbytes,
        accuracy=accuracy,
        validation_accuracy=leaf.accuracy,
        ratio=float32_bytes(history, leaf) / nbytes,
        audited=audit is not None,
        correct=correct,
        total=total,
        low=low,
        high=high,
        leaf_id=leaf.leaf_id,
        segment_id=history.segment_of[leaf.leaf_id],
        depth=leaf.depth,
        epochs=leaf.epochs,
        seconds=leaf.seconds,
        sha256=leaf.sha256,
        path=leaf.path,
        genome=leaf.genome,
    )


def _interval(accuracy: float, correct: int | None, total: int | None) -> tuple[float, float]:
    """Wilson's interval where the counts are known, else no width at all rather than a guessed one."""
    return wilson_interval(int(correct), int(total)) if correct is not None and total else (accuracy, accuracy)


def _non_dominated(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (*_size_order(point), point.leaf_id)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def _unit_scale(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    spread = float(np.ptp(array))
    return (array - array.min()) / spread if spread > 0 else np.zeros_like(array)
