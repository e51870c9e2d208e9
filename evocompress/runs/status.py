"""Status of a run, read from its folder alone: what is done, in flight and failed, who drives it, what is left."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal, TypeAlias

from evocompress.search.history import History, read_history
from evocompress.search.lease import holder_of
from evocompress.search.quality import Quality
from evocompress.support.quantities import format_bytes, format_duration
from evocompress.support.wording import counted

__all__ = [
    "NO_FILE",
    "Failure",
    "InFlight",
    "State",
    "Status",
    "failures_of",
    "read_status",
    "shown_failures",
    "shown_status",
    "status_of",
]

#: "held": by a driver of another machine, whose process cannot be looked up from here.
State: TypeAlias = Literal["running", "held", "finished", "stopped", "dead"]

#: What a driver's reasons to end mean.
_ENDS = {
    "finished": "its budget is used up",
    "stopped": "by request",
    "interrupted": "by Ctrl-C or a signal",
    "gave_up": "its first segments all failed alike; a resume tries them again",
}
#: What is said of a run that has no file of its own so far.
NO_FILE = "no file yet"
_SHOWN = 5  # failures and segments in flight that have a line


@dataclasses.dataclass(frozen=True)
class InFlight:
    """A segment without an outcome: its number from 1, how it came to be, and seconds since it was last submitted."""

    segment_id: str
    number: int
    operator: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Failure:
    """A way in which segments ended without a file, and how many did."""

    status: str
    error: str
    count: int


@dataclasses.dataclass(frozen=True)
class Status:
    """What is known of a run just now.

    `driver` says in words who has the lease, or how the last one ended. `segments` and `minutes` are the budget, None
    where there is none. `elapsed` and `left` are seconds; `left` is None where nothing tells. `silent` is how many
    seconds ago the journal got its last line, by this machine's clock.
    """

    name: str
    folder: Path
    state: State
    driver: str
    done: int
    segments: int | None
    minutes: float | None
    elapsed: float
    left: float | None
    silent: float
    hypervolume: float
    front: tuple[tuple[int, float], ...]
    quality: Quality
    in_flight: tuple[InFlight, ...]
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> int:
        """How many segments left no file."""
        return sum(failure.count for failure in self.failures)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data; the front as pairs of bytes and quality on validation data, by ascending bytes."""
        return dataclasses.asdict(self) | {"folder": str(self.folder), "failed": self.failed}


def read_status(folder: Path, *, now: float | None = None) -> Status:
    """The status of the run in a folder; imports nothing that the folder names.

    Raises:
        RunError: There is no run, or its journal is damaged.
    """
    return status_of(read_history(folder), now=now)


def status_of(history: History, *, now: float | None = None) -> Status:
    """The status of a run whose journal has been read just now; `now` is in unix seconds."""
    now = time.time() if now is None else now
    state, driver = _driver(history)
    settings, done, elapsed = history.settings, len(history.outcomes), history.elapsed
    waiting = history.in_flight
    submitted = _last_submissions(history, {task.segment_id for task in waiting})
    in_flight = [
        InFlight(task.segment_id, task.number, task.operator, max(0.0, now - submitted[task.segment_id]))
        for task in waiting
    ]
    ends = [
        *([elapsed / done * (settings.segments - done)] if settings.segments and done else []),
        *([60.0 * settings.minutes - elapsed] if settings.minutes else []),
    ]
    return Status(
        name=str(history.run.get("config", {}).get("name") or history.folder.name),
        folder=history.folder,
        state=state,
        driver=driver,
        done=done,
        segments=settings.segments,
        minutes=settings.minutes,
        elapsed=elapsed,
        left=None if state == "finished" or not ends else max(0.0, min(ends)),
        silent=max(0.0, now - float(history.records[-1]["time"])) if history.records else 0.0,
        hypervolume=float(history.hypervolumes[-1]) if len(history.hypervolumes) else 0.0,
        front=tuple((leaf.nbytes, leaf.quality) for leaf in history.archive),
        quality=history.quality,
        in_flight=tuple(in_flight),
        failures=failures_of(history),
    )


def failures_of(history: History) -> tuple[Failure, ...]:
    """The ways in which segments of a run ended without a file, the most frequent first; also of one given up."""
    failed = collections.Counter((outcome.status, outcome.error) for outcome in history.failed)
    if (given_up := history.given_up) is not None:
        failed[given_up["status"], given_up["error"]] = len(given_up["segments"])
    return tuple(Failure(status, error, count) for (status, error), count in failed.most_common())


def _last_submissions(history: History, segment_ids: Set[str]) -> dict[str, float]:
    """When tasks were last submitted, unix seconds; looked for from the journal's end, where those in flight are."""
    times: dict[str, float] = {}
    for record in reversed(history.records):
        if len(times) == len(segment_ids):
            break
        if record["type"] == "submitted" and (segment_id := record["task"]["segment_id"]) in segment_ids:
            times.setdefault(segment_id, float(record["time"]))
    return times


def _driver(history: History) -> tuple[State, str]:
    """Whether a driver is alive, and in words which, or how the last one ended."""
    holder = holder_of(history.folder)
    if holder is not None and holder.alive:
        return "running", f"pid {holder.pid} on this machine"
    if holder is not None and holder.alive is None:
        return "held", f"pid {holder.pid} on {holder.host}, which cannot be looked up from here"
    closed = history.events("closed")
    ended = bool(history.records) and history.records[-1]["type"] == "closed"
    if holder is None and ended:
        reason = str(closed[-1].get("reason", "closed"))
        return ("finished" if reason == "finished" else "stopped"), _ENDS.get(reason, reason)
    gone = f"pid {holder.pid} is gone" if holder is not None else "nobody drives it"
    return "dead", f"{gone}, and has not closed the run; a resume goes on"


def shown_status(status: Status) -> list[str]:
    """The status as lines for people."""
    of = f" of {status.segments}" if status.segments else ""
    waiting = "in flight" if status.state in ("running", "held") else "to be run again"
    parts = [f"{status.done}{of} segments", f"{len(status.in_flight)} {waiting}", f"{status.failed} failed"]
    lines = [f"{status.name}: {status.state} ({status.driver})", "  " + ", ".join(parts)]
    used = f"{format_duration(status.elapsed)} used"
    if status.minutes:
        used += f" of {format_duration(60 * status.minutes)}"
    if status.left is not None:
        used += f", about {format_duration(status.left)} left"
    if status.state in ("running", "held"):
        used += f"; the journal's last line is {format_duration(status.silent)} old"
    lines += [f"  {used}", f"  {_front(status)}"]
    lines += shown_failures(status.failures)
    for segment in status.in_flight[:_SHOWN]:
        lines.append(
            f"  segment {segment.number} ({segment.operator}), submitted {format_duration(segment.seconds)} ago"
        )
    return [*lines, *_more(status.in_flight, f"segment {waiting}", f"segments {waiting}")]


def shown_failures(failures: Sequence[Failure]) -> list[str]:
    """How often segments ended without a file and why, as lines for people; of many ways the most frequent."""
    lines = [f"  {one.count} × {one.status}: {one.error or 'no reason was given'}" for one in failures[:_SHOWN]]
    return [*lines, *_more(failures, "way of failing", "ways of failing")]


def _front(status: Status) -> str:
    if not status.front:
        return NO_FILE
    ends = [f"{format_bytes(nbytes)} @ {status.quality.show(quality)}" for nbytes, quality in status.front]
    between = f"{ends[0]} to {ends[-1]}" if len(ends) > 1 else ends[0]
    return f"front: {counted(len(ends), 'file')}, {between}; hypervolume {status.hypervolume:.4f}"


def _more(items: Sequence[object], one: str, several: str) -> list[str]:
    rest = len(items) - _SHOWN
    return [] if rest <= 0 else [f"  and {rest} more {one if rest == 1 else several}"]
