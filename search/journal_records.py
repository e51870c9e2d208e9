"""Journal lines read as what they are: their types checked, with one error that names file and line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from evocompress.errors import ConfigError, RunError
from evocompress.search.journal import Line, Record, damage
from evocompress.search.old_runs import OLD_KEY
from evocompress.search.records import Outcome, SegmentTask

__all__ = ["BULK", "GAVE_UP", "LARGER_SHARE", "Elapsed", "about_line", "checked_record", "outcome_of", "task_of"]

#: The types of lines that a long run has many of; the others are few and are kept in memory.
BULK = frozenset({"submitted", "finished"})
#: The type of the line that says that a run was given up: segments before it count no more, and begin anew after it.
GAVE_UP = "gave_up"
#: The type of the line that says that a segment ran out of memory, and gets a larger share of a GPU from then on.
LARGER_SHARE = "larger_share"

_EVENTS: dict[str, dict[str, type]] = {
    "submitted": {"task": dict},
    "finished": {"outcome": dict, "told": dict},
    "override": {"changes": dict},
    "audited": {"leaves": dict},
    "seeded": {"evaluated": int},
    LARGER_SHARE: {"segment_id": str, "error": str},
    GAVE_UP: {"status": str, "error": str, "segments": list},
}
_OF_AUDIT = ("quality", "low", "high", "error", "loss", "total", OLD_KEY, "nbytes", "float32_bytes", "epochs")


@contextlib.contextmanager
def about_line(line: Line) -> Iterator[None]:
    """Turn what goes wrong with a line's content into an error that names file and line."""
    try:
        yield
    except RunError as error:
        if str(line.path) in str(error):
            raise
        raise damage(line, str(error)) from error
    except KeyError as error:
        raise damage(line, f"it has no {error}") from error
    except (ArithmeticError, AttributeError, ConfigError, IndexError, TypeError, ValueError) as error:
        raise damage(line, str(error)) from error


def checked_record(line: Line) -> Record:
    """The record of a line, whose fields of its own have the right types; those of tasks and outcomes are seen later.

    Raises:
        RunError: It names file and line.
    """
    record = line.record()
    with about_line(line):
        _number("time", record["time"])
        if "elapsed" in record:
            _number("elapsed", record["elapsed"])
        for name, kind in _EVENTS.get(line.kind, {}).items():
            _typed(name, record[name], kind)
        if line.kind == "finished":
            _check_told(record["told"])
            if type(record.get("completion", 0)) is not int:
                raise TypeError(f"completion is {record['completion']!r:.40}; it must be a whole number")
        if line.kind == LARGER_SHARE:
            _number("share", record["share"])
        if line.kind == "override":
            for name in ("search", "config"):
                _typed(name, record.get(name, {}), dict)
        for entry in record["leaves"].values() if line.kind == "audited" else ():
            _check_measured(entry)
        if line.kind == "reference":
            _check_measured(record)
            for entry in _typed("packed", record.get("packed", []), list):
                _check_measured(entry)
    return record


def task_of(line: Line, record: Record) -> SegmentTask:
    """The task of a submitted line."""
    with about_line(line):
        return SegmentTask.from_json(record["task"])


def outcome_of(line: Line, record: Record) -> Outcome:
    """The outcome of a finished line."""
    with about_line(line):
        return Outcome.from_json(record["outcome"])


def _check_told(told: dict[str, Any]) -> None:
    for name in ("hypervolume_before", "hypervolume_after"):
        _number(name, told[name])
    for name in ("accepted", "displaced"):
        if not all(isinstance(leaf_id, str) for leaf_id in _typed(name, told.get(name, []), list)):
            raise TypeError(f"{name} holds something that is no leaf_id")


def _check_measured(entry: Any) -> None:
    _typed("a measurement", entry, dict)
    for name in _OF_AUDIT:
        if entry.get(name) is not None:
            _number(name, entry[name])
    for name, value in _typed("details", entry.get("details") or {}, dict).items():
        if value is not None:
            _number(name, value)


def _typed(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}; it must be a {kind.__name__}")
    return value


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{name} is {value!r:.40}; it must be a finite number")


class Elapsed:
    """Seconds that drivers spent on segments, by monotonic clocks; time of a suspended machine is not counted.

    Of journals without such counts: from the first submission to the last outcome of each driver.
    """

    def __init__(self, counted: float | None = None) -> None:
        self._counted = counted
        self._seconds = self._last = 0.0
        self._first: float | None = None

    def observe(self, record: Record) -> None:
        """Take in the next record."""
        if "elapsed" in record:
            self._counted = float(record["elapsed"])
        if self._counted is not None:
            return
        kind = record["type"]
        if kind == "resumed" and self._first is not None:
            self._seconds, self._first = self._seconds + max(0.0, self._last - self._first), None
        if kind == "submitted" and self._first is None:
            self._first = self._last = float(record["time"])
        if kind == "finished":
            self._last = float(record["time"])

    @property
    def seconds(self) -> float:
        """As far as was observed."""
        if self._counted is not None:
            return self._counted
        return self._seconds + (max(0.0, self._last - self._first) if self._first is not None else 0.0)
