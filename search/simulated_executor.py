"""The executor with a virtual clock: thousands of workers, crashes, duplicates and lost results, without waiting."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from evocompress.errors import ConfigError, RunError
from evocompress.search.attempt import Lost, Running, Segment, run_attempt
from evocompress.search.events import LateJob
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.storage import Storage

__all__ = ["Duration", "SimulatedExecutor", "lognormal"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Duration: TypeAlias = Callable[[SegmentTask, np.random.Generator], float]
_Kind: TypeAlias = Literal["end", "crash", "again"]


def lognormal(median: float = 1.0, sigma: float = 0.3) -> Duration:
    """Durations in seconds as they are seen on real workers."""
    return lambda task, rng: median * math.exp(sigma * float(rng.standard_normal()))


class SimulatedExecutor:
    """Workers on a virtual clock, as unreliable as asked for.

    An attempt crashes half way with probability `crash`, its finished result gets lost with `lost`, and either way the
    task is run again, as Ray does; a result comes a second time with `duplicate`. With `storage` the segment runs by
    `run_attempt` and leaves real files; without, it is called as `segment(task, "", ())` and leaves none. An attempt
    whose duration is infinite is frozen with its worker, until another attempt has an outcome.
    """

    def __init__(
        self,
        segment: Segment,
        storage: Storage | None = None,
        *,
        workers: int,
        seed: int = 0,
        duration: Duration | None = None,
        crash: float = 0.0,
        duplicate: float = 0.0,
        lost: float = 0.0,
    ) -> None:
        for name, value in (("crash", crash), ("duplicate", duplicate), ("lost", lost)):
            if not 0.0 <= value < 1.0:
                raise ConfigError(
                    f"{name} = {value}; a probability in [0, 1) is needed, at 1 nothing would ever finish"
                )
        self.workers = self.slots = workers
        self.busy_seconds = 0.0
        self.attempts = 0
        self._segment, self._storage = segment, storage
        self._crash, self._duplicate, self._lost = crash, duplicate, lost
        self._duration = duration or lognormal()
        self._rng = np.random.default_rng(seed)
        self._clock = 0.0
        self._count = itertools.count()
        self._events: list[tuple[float, int, _Kind, SegmentTask, Outcome | None]] = []
        self._queue: deque[SegmentTask] = deque()
        self._running: dict[int, tuple[SegmentTask, int, float]] = {}  # by attempt: what, on which worker, since when
        self._idle = list(range(workers))

    def now(self) -> float:
        """Seconds of the virtual clock."""
        return self._clock

    def submit(self, task: SegmentTask) -> None:
        """Start a task, or queue it where all workers are busy."""
        self._queue.append(task)
        self._start()

    def sleep(self, seconds: float) -> None:
        """Turn the clock on."""
        self._clock += seconds

    def wait(self, timeout: float | None = None) -> list[Outcome | Lost]:
        """Turn the clock on to the next outcome, or by `timeout` seconds."""
        limit = self._clock + timeout if timeout is not None else float("inf")
        while self._events and self._events[0][0] <= limit:
            at, number, kind, task, outcome = heapq.heappop(self._events)
            if kind != "again" and number not in self._running:
                continue  # given up
            self._clock = at
            if kind == "again":
                assert outcome is not None
                return [outcome]
            self._free(number)
            try:
                result: Outcome | Lost | None = self._end(task) if kind == "end" else None
            except RunError as error:
                result = None if self._others(task) else Lost(task, str(error))
            else:
                if result is None:
                    self._queue.appendleft(task)
            if isinstance(result, Outcome):
                self._give_up(task)
            self._start()
            if result is not None:
                return [result]
        self._clock = limit if timeout is not None else self._clock
        return []

    def running(self) -> Mapping[str, Running]:
        """The oldest attempt of each task."""
        oldest: dict[str, Running] = {}
        for task, worker, began in self._running.values():
            oldest.setdefault(task.segment_id, Running(f"worker {worker}", self._clock - began))
        return oldest

    def attempt(self, task: SegmentTask) -> None:
        """Start another attempt, or queue it."""
        self.submit(task)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        what: str = "a job",
        observer: Callable[[LateJob], object] | None = None,
    ) -> list[Result]:
        """One after the other, in no virtual time."""
        return [function(item) for item in items]

    def cancel(self) -> None:
        """Drop everything in flight."""
        self._events.clear()
        self._queue.clear()
        for number in list(self._running):
            self._free(number)

    def close(self) -> None:
        """Drop everything in flight."""
        self.cancel()

    def _start(self) -> None:
        while self._queue and self._idle:
            task = self._queue.popleft()
            seconds = self._duration(task, self._rng)
            crashes = self._crash > 0 and self._rng.random() < self._crash
            seconds = seconds * float(self._rng.random()) if crashes else seconds
            self.attempts += 1
            number = self._push(self._clock + seconds, "crash" if crashes else "end", task, None)
            self._running[number] = (task, self._idle.pop(0), self._clock)
            self.busy_seconds += seconds if math.isfinite(seconds) else 0.0

    def _free(self, number: int) -> None:
        self._idle.append(self._running.pop(number)[1])

    def _others(self, task: SegmentTask) -> list[int]:
        """Attempts at a task that are still running."""
        return [number for number, (other, _, _) in self._running.items() if other.segment_id == task.segment_id]

    def _give_up(self, task: SegmentTask) -> None:
        for number in self._others(task):
            self._free(number)
        self._queue = deque(other for other in self._queue if other.segment_id != task.segment_id)

    def _end(self, task: SegmentTask) -> Outcome | None:
        """The result of an attempt that ran through, None if it gets lost on the way."""
        if self._storage is not None:
            outcome = run_attempt(self._segment, task, self._storage)
        else:
            outcome = self._segment(task, "", ())
        if self._lost > 0 and self._rng.random() < self._lost:
            return None
        if self._duplicate > 0 and self._rng.random() < self._duplicate:
            self._push(self._clock + self._duration(task, self._rng), "again", task, outcome)
        return outcome

    def _push(self, at: float, kind: _Kind, task: SegmentTask, outcome: Outcome | None) -> int:
        number = next(self._count)
        if math.isfinite(at):
            heapq.heappush(self._events, (at, number, kind, task, outcome))
        return number
