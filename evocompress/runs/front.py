"""The front of a run, with error bars; the points a user asks for, the knee, hypervolume as it grew.

Everything here is a pure function of a `History` (one run as read from its journal) or of the `FrontPoint`s made from
one. A size is always that of a file which was decoded and evaluated. How fronts compare is in `comparison`.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from evocompress.errors import ConfigError, EvocompressError
from evocompress.runs.recorded_measurements import Recorded, of_event, of_leaf
from evocompress.search.quality import Quality
from evocompress.search.records import Genome, Leaf
from evocompress.support.quantities import parse_fraction

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = [
    "KNEE",
    "AgainstPacking",
    "FrontPoint",
    "HypervolumePoint",
    "PackedReference",
    "Reference",
    "against_packing",
    "audits",
    "best_under",
    "detail_names",
    "file_name",
    "float32_bytes",
    "front",
    "hypervolume_curve",
    "in_view",
    "knee",
    "measured_float32_bytes",
    "parse_level",
    "reference",
    "smallest_meeting",
]


#: What the knee is, in words that every view of a front has.
KNEE = (
    "the knee is the file farthest below the straight line between the front's ends, over log size and error; "
    "files of chance level are no end"
)


class _Placed(Protocol):
    """What has a place in the plane of size and quality: a point of a front, a leaf."""

    @property
    def nbytes(self) -> int: ...

    @property
    def quality(self) -> float: ...

    @property
    def error(self) -> float: ...


PlacedT = TypeVar("PlacedT", bound=_Placed)


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """One file of the front: its size, its quality with the 95 % interval `low..high`, its origin.

    What the quality is says `History.quality`; `error` is what the search minimises. Both are the audited ones where
    `audited`, else the (optimistic) ones on validation data that selection saw. `total` is over how many things the
    quality was measured, `details` are further numbers of the task. `ratio` is the network's float32 bytes over
    `nbytes`; `file` is the name that `export` gives the file; `depth`, `epochs` and `seconds` are cumulative over the
    lineage.
    """

    file: str
    nbytes: int
    quality: float
    error: float
    validation_quality: float
    ratio: float
    audited: bool
    total: int | None
    details: Mapping[str, float | int | None]
    low: float
    high: float
    leaf_id: str
    segment_id: str
    depth: int
    epochs: int
    seconds: float
    sha256: str
    path: str
    genome: Genome = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Reference:
    """The uncompressed network, trained plainly: its quality on the audit split, `nbytes` of float32.

    `packed` are the non-dominated files that packing it gave, smallest first, judged on the audit split too.
    """

    quality: float
    nbytes: int
    low: float
    high: float
    epochs: int
    packed: tuple[PackedReference, ...] = ()


@dataclasses.dataclass(frozen=True)
class PackedReference:
    """What training once and packing gave: bytes, quality and error on the audit split, at a λ of packing."""

    nbytes: int
    quality: float
    error: float
    rate_weight: float


@dataclasses.dataclass(frozen=True)
class AgainstPacking:
    """A file that training once and packing gave, and the front's smallest that is as good, if there is one."""

    packed: PackedReference
    point: FrontPoint | None

    @property
    def times_smaller(self) -> float | None:
        """How many times smaller the front's file is."""
        return None if self.point is None else self.packed.nbytes / self.point.nbytes


@dataclasses.dataclass(frozen=True)
class HypervolumePoint:
    """Hypervolume after the `segments`-th result had been told, `seconds` after the first one began."""

    segments: int
    seconds: float
    hypervolume: float


def front(history: History, *, audited: bool | None = None) -> list[FrontPoint]:
    """The non-dominated files, smallest first; along it bytes rise strictly and the error falls strictly.

    Where the whole archive is audited (or with `audited=True`) the points are its audited leaves, ranked by audited
    error, because selection is optimistic about what it saw of the validation data; else (a run that is going on, or
    `audited=False`) they are the whole archive by validation, and each point's `audited` says so. Leaves outside the
    archive never count: their files may be gone; nor do those whose audited quality is not finite. Of equal points the
    first leaf id stays. Raises `EvocompressError` where `audited=True` finds no audit.
    """
    by_leaf = audits(history) if audited is not False else {}
    leaves = [leaf for leaf in history.archive if leaf.leaf_id in by_leaf] or history.archive
    if audited is None and len(leaves) < len(history.archive):
        leaves, by_leaf = history.archive, {}
    if audited and leaves[:1] and leaves[0].leaf_id not in by_leaf:
        raise EvocompressError("audited=True, but this run has no audit yet: let it finish, or use audited=None.")
    points = (_point(history, leaf, by_leaf.get(leaf.leaf_id)) for leaf in leaves)
    return _non_dominated(point for point in points if point is not None)


def audits(history: History) -> dict[str, Recorded]:
    """Audit results by leaf id; of several audits of a leaf the last one counts."""
    merged: dict[str, Recorded] = {}
    for event in history.events("audited"):
        merged |= {leaf_id: of_event(entry) for leaf_id, entry in event["leaves"].items()}
    return merged


def reference(history: History) -> Reference | None:
    """The last recorded plain training of the uncompressed network, or None, also where its quality is not finite."""
    events = history.events("reference")
    recorded = of_event(events[-1]) if events else None
    if recorded is None or recorded.quality is None:
        return None
    low, high = (recorded.quality if end is None else end for end in (recorded.low, recorded.high))
    epochs, packed = int(events[-1].get("epochs", 0)), _packed(events[-1].get("packed", ()))
    return Reference(recorded.quality, int(events[-1]["float32_bytes"]), low, high, epochs, packed)


def _packed(entries: Iterable[Mapping[str, Any]]) -> tuple[PackedReference, ...]:
    judged = [
        PackedReference(int(entry["nbytes"]), entry["quality"], entry["error"], float(entry["rate_weight"]))
        for entry in entries
        if entry["quality"] is not None and entry["error"] is not None
    ]
    kept: list[PackedReference] = []
    for file in sorted(judged, key=lambda file: (file.nbytes, file.error)):
        if not kept or file.error < kept[-1].error:
            kept.append(file)
    return tuple(kept)


def against_packing(history: History, points: Sequence[FrontPoint]) -> list[AgainstPacking]:
    """What training once and packing gave, where it is of use (`in_view`), beside a front; smallest first."""
    line = reference(history)
    if line is None or not line.packed:
        return []
    merit = history.quality.merit
    useful = [merit(point.quality) for point in in_view(points, history.quality)]
    files = [file for file in line.packed if not useful or merit(file.quality) >= min(useful)]
    return [AgainstPacking(file, smallest_meeting(points, file.quality, history.quality)) for file in files]


def float32_bytes(history: History, leaf: Leaf | None = None) -> int:
    """Bytes of the network's parameters as float32: what the leaf's segment measured, else what `run.json` says."""
    network: Mapping[str, Any] = history.run.get("network", {})
    measured = measured_float32_bytes(leaf) if leaf is not None else 0
    return measured or int(network.get("float32_bytes", 0))


def measured_float32_bytes(leaf: Leaf) -> int:
    """Bytes of the network's parameters as float32, as the leaf's segment measured it; 0 where it did not."""
    return int(leaf.measurements.get("float32_bytes") or 0)


def file_name(nbytes: int, value: float, quality: Quality) -> str:
    """Readable name of a front's file, with as many digits of the quality as are shown; names sort by size.

    >>> file_name(3412, 0.9722, Quality("accuracy", unit="%", scale=100.0))
    '003412B_0.9722.evc'
    """
    decimals = max(0, quality.digits + round(math.log10(quality.scale)))
    return f"{nbytes:06d}B_{value:.{decimals}f}.evc"


def detail_names(points: Iterable[FrontPoint]) -> list[str]:
    """The names of all further numbers that the task has measured of these files, in its order."""
    return list(dict.fromkeys(name for point in points for name in point.details))


def best_under(points: Iterable[FrontPoint], nbytes: int) -> FrontPoint | None:
    """The point of least error of at most `nbytes` bytes (the smaller of equals), or None."""
    fitting = [point for point in points if point.nbytes <= nbytes]
    return min(fitting, key=lambda point: (point.error, point.nbytes), default=None)


def smallest_meeting(points: Iterable[FrontPoint], level: float, quality: Quality) -> FrontPoint | None:
    """The smallest point whose quality is at least as good as `level` (the better of equals), or None."""
    fitting = [point for point in points if quality.merit(point.quality) >= quality.merit(level)]
    return min(fitting, key=lambda point: (point.nbytes, point.error), default=None)


def parse_level(text: str, quality: Quality) -> float:
    """A value of a quality as people write it: as it is shown, with or without the unit; of a share also as a fraction.

    Raises:
        ConfigError: It is no number, has another unit, or is no share where it must be.

    >>> share = Quality("accuracy", unit="%", scale=100.0)
    >>> parse_level("95%", share), parse_level("0.95", share)
    (0.95, 0.95)
    >>> parse_level("250 mm", Quality("RMSE", unit="mm", direction="minimise", scale=1000.0))
    0.25
    """
    if quality.is_share:
        return parse_fraction(text, what=quality.name)
    try:
        value = float(text.strip().removesuffix(quality.unit)) / quality.scale
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        unit = f", with or without the unit {quality.unit}" if quality.unit else ""
        raise ConfigError(f"{quality.name}={text!r} is not a number{unit}: write for example {quality.show(0.5)}.")
    return value


def in_view(points: Sequence[PlacedT], quality: Quality) -> list[PlacedT]:
    """The points that pictures show at first, and that runs are compared by: of at least half the best quality.

    Files of a few bytes that guess are always on a front; in view, they would take most of both axes. Half the best
    says nothing of a quality that is minimised, or not above 0: then those are left out that are more than four times
    as far from the best as the front's median is.
    """
    if not points:
        return []
    merits = [quality.merit(point.quality) for point in points]
    best = max(merits)
    least = 0.5 * best if quality.is_maximised and best > 0 else best - 4.0 * (best - statistics.median(merits))
    return [point for point, merit in zip(points, merits, strict=True) if merit >= least]


def knee(points: Sequence[PlacedT], quality: Quality) -> PlacedT | None:
    """The point farthest below the chord that joins the front's ends, over (log2 bytes, error) scaled to [0, 1].

    The ends are those of the points `in_view`: a file that guesses would make a knee of one that is hardly better.
    This is the bend of Das (1999, "On characterizing the knee of the Pareto curve"), on the axes of the search. None if
    no point lies below the chord: fewer than three points, or a front that bends the other way.
    """
    ordered = sorted(in_view(points, quality), key=_size_order)
    if len(ordered) < 3:
        return None
    size = _unit_scale([math.log2(point.nbytes) for point in ordered])
    below = _unit_scale([-point.error for point in ordered]) - size
    best = int(np.argmax(below))
    return ordered[best] if below[best] > 1e-9 else None


def _size_order(point: _Placed) -> tuple[int, float]:
    """Sort key of a front: smallest first."""
    return point.nbytes, point.error


def hypervolume_curve(history: History) -> list[HypervolumePoint]:
    """Hypervolume (of validation objectives, as selection saw it) after each told result, in told order.

    Seconds count from the first submission, without the pauses between a driver's last result and its resume.
    """
    submitted = history.first_event("submitted")
    begin = float(submitted["time"]) if submitted else min(history.finished_at, default=0.0)
    resumes = [float(event["time"]) for event in history.events("resumed")]
    curve: list[HypervolumePoint] = []
    last, idle = begin, 0.0
    for volume, finished in zip(history.hypervolumes, history.finished_at, strict=True):
        while resumes and resumes[0] <= finished:
            idle += max(0.0, resumes.pop(0) - last)
        curve.append(HypervolumePoint(len(curve) + 1, max(0.0, finished - begin - idle), volume))
        last = finished
    return curve


def _point(history: History, leaf: Leaf, audit: Recorded | None) -> FrontPoint | None:
    measured = of_leaf(leaf) if audit is None else audit
    if measured.quality is None or measured.error is None:
        return None
    return FrontPoint(
        file=file_name(leaf.nbytes, measured.quality, history.quality),
        nbytes=leaf.nbytes,
        quality=measured.quality,
        error=measured.error,
        validation_quality=leaf.quality,
        ratio=float32_bytes(history, leaf) / leaf.nbytes,
        audited=audit is not None,
        total=measured.total,
        details=measured.details,
        low=measured.quality if measured.low is None else measured.low,
        high=measured.quality if measured.high is None else measured.high,
        leaf_id=leaf.leaf_id,
        segment_id=history.segment_of[leaf.leaf_id],
        depth=leaf.depth,
        epochs=leaf.epochs,
        seconds=leaf.seconds,
        sha256=leaf.sha256,
        path=leaf.path,
        genome=leaf.genome,
    )


def _non_dominated(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda point: (*_size_order(point), point.leaf_id)):
        if not kept or point.error < kept[-1].error:
            kept.append(point)
    return kept


def _unit_scale(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    spread = float(np.ptp(array))
    return (array - array.min()) / spread if spread > 0 else np.zeros_like(array)
