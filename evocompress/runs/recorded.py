"""What was measured of files, as a run recorded it; runs of before there were tasks are read alike.

They recorded an accuracy with its counts `correct` and `total`, and a loss that was not finite as -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evocompress.search.records import Leaf
from evocompress.support.intervals import wilson_interval

__all__ = ["Recorded", "of_event", "of_leaf"]


class Recorded(NamedTuple):
    """As `protocols.Measured`, but None where nothing was recorded, or something that was not finite.

    `low` and `high` are the quality itself where no interval is known.
    """

    quality: float | None
    low: float | None
    high: float | None
    error: float | None
    loss: float | None
    total: int | None
    details: Mapping[str, float | int | None]


def of_event(event: Mapping[str, Any]) -> Recorded:
    """From an entry of an `audited` event, or a `reference` event."""
    if "accuracy" in event:
        accuracy = float(event["accuracy"])
        return _of_counts(accuracy, 1.0 - accuracy, None, event)
    return _recorded(event.get("quality"), event.get("error"), event.get("low"), event.get("high"), event)


def of_leaf(leaf: Leaf) -> Recorded:
    """From a leaf: what selection saw of it."""
    found = leaf.measurements
    if "correct" in found and "details" not in found:
        return _of_counts(leaf.quality, leaf.error, found.get("loss"), found)
    return _recorded(leaf.quality, leaf.error, found.get("quality_low"), found.get("quality_high"), found)


def _recorded(quality: Any, error: Any, low: Any, high: Any, found: Mapping[str, Any]) -> Recorded:
    low, high = (quality if end is None else end for end in (low, high))
    return Recorded(quality, low, high, error, found.get("loss"), found.get("total"), found.get("details") or {})


def _of_counts(accuracy: float, error: float, loss: float | None, found: Mapping[str, Any]) -> Recorded:
    correct, total = found.get("correct"), found.get("total")
    loss = None if loss is None or loss < 0 else loss
    if correct is None or not total:  # no width at all rather than a guessed one
        return Recorded(accuracy, accuracy, accuracy, error, loss, total, {})
    low, high = wilson_interval(int(correct), int(total))
    return Recorded(accuracy, low, high, error, loss, int(total), {"correct": correct, "total": total})
