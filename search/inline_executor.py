"""Inline executor: it runs a task in this process when it is waited for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from evocompress.errors import RunError
from evocompress.search.attempt import Lost, Segment, run_attempt
from evocompress.search.events import LateJob
from evocompress.search.executors import Executor, ExecutorResources
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.storage import Storage

__all__ = ["InlineExecutor", "inline_executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class InlineExecutor:
    """One worker, one task at a time; for debugging, small runs and tests."""

    workers = 1
    slots = 1

    def __init__(self, segment: Segment, storage: Storage) -> None:
        self._segment = segment
        self._storage = storage
        self._queue: deque[SegmentTask] = deque()

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def submit(self, task: SegmentTask) -> None:
        """Queue a task; `wait` runs it."""
        self._queue.append(task)

    def wait(self, timeout: float | None = None) -> list[Outcome | Lost]:
        """Run the oldest task; `timeout` cannot be kept here."""
        if not self._queue:
            return []
        task = self._queue.popleft()
        try:
            return [run_attempt(self._segment, task, self._storage)]
        except RunError as error:
            return [Lost(task, str(error))]

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        what: str = "a job",
        observer: Callable[[LateJob], object] | None = None,
    ) -> list[Result]:
        """One after the other, here."""
        return [function(item) for item in items]

    def cancel(self) -> None:
        """Drop the queue."""
        self._queue.clear()

    def close(self) -> None:
        """Drop the queue."""
        self.cancel()


def inline_executor(segment: Segment, storage: Storage, resources: ExecutorResources) -> Executor:
    """One segment at a time, in this process."""
    return InlineExecutor(segment, storage)
