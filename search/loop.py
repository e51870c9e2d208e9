"""Asynchronous loop of a search: keep segments in flight, tell each outcome as it comes, no generations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from evocompress.search.ask_tell import Search, Told
from evocompress.search.events import Ended, Finished, Reason, Submitted
from evocompress.search.executors import Executor
from evocompress.search.interrupts import Interrupts
from evocompress.search.records import Outcome, Task

__all__ = ["Loop", "NullRecorder", "Recorder"]

# How long a driver sits in one wait before it looks at the clock, the stop flag and its lease again.
_POLL_SECONDS = 1.0


class Recorder(Protocol):
    """What must be on the disk before the loop goes on."""

    def submitted(self, tasks: Sequence[tuple[Task, bool]]) -> None:
        """Before tasks go to the executor; the flag marks one that an earlier driver had submitted."""
        ...

    def finished(self, results: Sequence[tuple[Outcome, int, Told]]) -> None:
        """After outcomes (with their completion numbers) were told, before anything else is asked."""
        ...


class NullRecorder:
    """Remembers nothing; for simulations."""

    def submitted(self, tasks: Sequence[tuple[Task, bool]]) -> None:
        """Nothing."""

    def finished(self, results: Sequence[tuple[Outcome, int, Told]]) -> None:
        """Nothing."""


class Loop:
    """One drive of a search by an executor. `run` returns why it ended."""

    def __init__(
        self,
        search: Search,
        executor: Executor,
        recorder: Recorder | None = None,
        *,
        observer: Callable[[Any], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        resubmit: Iterable[Task] = (),
        completions: int = 0,
        elapsed: float = 0.0,
    ) -> None:
        self._search, self._executor = search, executor
        self._recorder: Recorder = recorder or NullRecorder()
        self._observer, self._should_stop = observer, should_stop
        self._resubmit = deque(resubmit)
        self._in_flight: set[str] = set()
        self._completions = completions
        self._began = executor.now() - elapsed
        self._interrupts = Interrupts()

    def run(self) -> Reason:
        """Drive until the budget is used up and everything in flight is in, or until stopped or interrupted."""
        with self._interrupts.installed():
            reason = self._run()
        if reason != "finished":
            self._executor.cancel()
        self._notify(Ended(reason, self._completions, self._search.hypervolume, len(self._search.archive)))
        return reason

    def _run(self) -> Reason:
        while True:
            self._fill()
            if self._interrupts.pending:
                return "interrupted"
            if self._should_stop is not None and self._should_stop():
                return "stopped"
            if not self._in_flight:
                return "finished"
            self._take(self._interrupts.during(lambda: self._executor.wait(_POLL_SECONDS), []))

    def _elapsed(self) -> float:
        return self._executor.now() - self._began

    def _out_of_time(self) -> bool:
        minutes = self._search.settings.minutes
        return minutes is not None and self._elapsed() >= 60.0 * minutes

    def _fill(self) -> None:
        """Ask for as many tasks as there are slots; all are recorded in one go before the first is submitted."""
        tasks: list[tuple[Task, bool]] = []
        out_of_time = self._out_of_time()
        while not self._interrupts.pending and len(self._in_flight) + len(tasks) < self._executor.slots:
            # What was in flight when an earlier driver ended is finished even when the time is up: it was paid for.
            resumed = bool(self._resubmit)
            task = self._resubmit.popleft() if resumed else None if out_of_time else self._search.ask()
            if task is None:
                break
            tasks.append((task, resumed))
        self._recorder.submitted(tasks)
        for task, resumed in tasks:
            self._in_flight.add(task.segment_id)
            self._executor.submit(task)
            self._notify(Submitted(task.index, task, len(self._in_flight), resumed))

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        """Tell what is new among `outcomes`, record it, then tell the observer."""
        results: list[tuple[Outcome, int, Told]] = []
        for outcome in outcomes:
            if outcome.segment_id in self._in_flight:
                self._in_flight.discard(outcome.segment_id)
                results.append((outcome, self._completions, self._search.tell(outcome)))
                self._completions += 1
        self._recorder.finished(results)
        if self._observer is None:
            return
        front, in_flight, elapsed = len(self._search.archive), len(self._in_flight), self._elapsed()
        for outcome, number, told in results:
            after = told.hypervolume_after
            self._notify(Finished(outcome.index, number, outcome, told, after, front, in_flight, elapsed))

    def _notify(self, event: Submitted | Finished | Ended) -> None:
        if self._observer is not None:
            self._observer(event)
