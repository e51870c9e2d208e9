"""Measurements that a run recorded, read again; what is measured, a further metric too, is in its task's file.

Runs of before there were tasks are read alike.
They recorded an accuracy with its counts `correct` and `total`, and a loss that was not finite as -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evocompress.errors import RunError
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
    """From a leaf: what selection saw of it.

    Raises:
        RunError: A measurement is of a wrong type.
    """
    measurements = leaf.measurements
    details = measurements.get("details") or {}
    numbers = {name: measurements.get(name) for name in ("quality_low", "quality_high", "loss", "total", "correct")}
    for name, value in (numbers | details if isinstance(details, dict) else {"details": details}).items():
        if value is not None and not isinstance(value, int | float):
            raise RunError(
                f"The journal says of leaf {leaf.leaf_id} that {name} is {value!r:.40}; it must be a number."
            )
    if "correct" in measurements and "details" not in measurements:
        return _of_counts(leaf.quality, leaf.error, measurements.get("loss"), measurements)
    return _recorded(
        leaf.quality, leaf.error, measurements.get("quality_low"), measurements.get("quality_high"), measurements
    )


def _recorded(quality: Any, error: Any, low: Any, high: Any, measurements: Mapping[str, Any]) -> Recorded:
    low, high = (quality if end is None else end for end in (low, high))
    return Recorded(
        quality,
        low,
        high,
        error,
        measurements.get("loss"),
        measurements.get("total"),
        measurements.get("details") or {},
    )


def _of_counts(accuracy: float, error: float, loss: float | None, measurements: Mapping[str, Any]) -> Recorded:
    correct, total = measurements.get("correct"), measurements.get("total")
    loss = None if loss is None or loss < 0 else loss
    if correct is None or not total:  # no width at all rather than a guessed one
        return Recorded(accuracy, accuracy, accuracy, error, loss, total, {})
    low, high = wilson_interval(int(correct), int(total))
    return Recorded(accuracy, low, high, error, loss, int(total), {"correct": correct, "total": total})
