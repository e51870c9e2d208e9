"""The limit of time of a segment, after which another attempt begins beside it: said, or a multiple of the median."""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque
from collections.abc import Iterable

from evocompress.search.records import SegmentTask

__all__ = ["ATTEMPTS", "FLOOR_SECONDS", "TimeLimit", "Watched", "doubled"]

#: How many attempts at a segment there are at most, and then once more the time of the last.
ATTEMPTS = 4
#: The least limit that follows from a median: starting a worker takes its time, however short the segments.
FLOOR_SECONDS = 600.0
_TIMES_MEDIAN = 10.0
_REMEMBERED = 101


class TimeLimit:
    """Seconds that a segment may run; by default ten times the median of the last ones, ten minutes at least.

    Args:
        seconds: The limit that somebody said; infinite for none. None for the default.
        seen: Seconds of earlier segments.
    """

    def __init__(self, seconds: float | None = None, seen: Iterable[float] = ()) -> None:
        self._said = seconds
        self._seen = deque((value for value in seen if value > 0), maxlen=_REMEMBERED)

    def observe(self, seconds: float) -> None:
        """Take in how long a segment took."""
        self._seen.append(seconds)

    @property
    def seconds(self) -> float | None:
        """The limit; None while there is nothing that it could follow from."""
        if self._said is not None:
            return self._said
        return max(FLOOR_SECONDS, _TIMES_MEDIAN * statistics.median(self._seen)) if self._seen else None


def doubled(first: float, count: int) -> float:
    """The sum of so many times, each twice as long as the one before.

    >>> [doubled(10.0, count) for count in (1, 2, 3, 4)]
    [10.0, 30.0, 70.0, 150.0]
    """
    return first * (2.0**count - 1.0)


@dataclasses.dataclass
class Watched:
    """A task at an executor since a reading of its clock, with so many attempts and lines about it so far."""

    task: SegmentTask
    since: float
    attempts: int = 1
    lines: int = 0

    def patience(self, limit: float) -> float:
        """Seconds from the first attempt's beginning to the next: each attempt has twice the time of the one before."""
        return doubled(limit, self.attempts)

    def said_until(self, limit: float) -> float:
        """Seconds until the next line about one that only waits, by the same ladder."""
        return doubled(limit, self.lines + 1)
