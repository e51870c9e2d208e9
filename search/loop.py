"""Asynchronous loop of a search: keep segments in flight, tell each outcome as it comes, no generations."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from evocompress.errors import HopelessError, InfrastructureError
from evocompress.search.ask_tell import Search, Told
from evocompress.search.attempt import Lost, OutOfMemory, Running
from evocompress.search.events import Delayed, Ended, Finished, LargerShare, Late, Reason, Submitted
from evocompress.search.executors import Executor, HasNodeNews, SeveralAttempts, SharesGpus
from evocompress.search.interrupts import Interrupts
from evocompress.search.node_roll import NodeNews
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.time_limit import ATTEMPTS, FLOOR_SECONDS, TimeLimit, Watched

__all__ = ["PAUSES", "Loop", "NullRecorder", "Recorder"]

#: Seconds before each further try of a task that was lost: a store that is away for a minute costs nothing.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)

# How long a driver sits in one wait before it looks at the clock, the stop flag and its lease again.
_POLL_SECONDS = 1.0
_LONGEST_ERROR = 400  # letters of an error that a line has


class Recorder(Protocol):
    """What must be on the disk before the loop goes on."""

    def submitted(self, tasks: Sequence[tuple[SegmentTask, bool]]) -> None:
        """Before tasks go to the executor; the flag marks one that an earlier driver had submitted."""
        ...

    def finished(self, results: Sequence[tuple[Outcome, int, Told]]) -> None:
        """After outcomes (with their completion numbers) were told, before anything else is asked."""
        ...

    def larger_share(self, failure: OutOfMemory) -> None:
        """Before a task that ran out of memory goes to the executor again, with a larger share of a GPU."""
        ...


class NullRecorder:
    """Remembers nothing; for simulations."""

    def submitted(self, tasks: Sequence[tuple[SegmentTask, bool]]) -> None:
        """Nothing."""

    def finished(self, results: Sequence[tuple[Outcome, int, Told]]) -> None:
        """Nothing."""

    def larger_share(self, failure: OutOfMemory) -> None:
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
        resubmit: Iterable[SegmentTask] = (),
        completions: int = 0,
        elapsed: float = 0.0,
        pauses: Sequence[float] = PAUSES,
        limit: TimeLimit | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._search, self._executor = search, executor
        self._recorder: Recorder = recorder or NullRecorder()
        self._observer, self._should_stop = observer, should_stop
        self._resubmit = deque(resubmit)
        self._in_flight: set[str] = set()
        self._completions = completions
        self._began = executor.now() - elapsed
        self._interrupts = Interrupts()
        self._pauses = pauses
        self._tries: dict[str, int] = {}
        self._later: list[tuple[float, int, SegmentTask]] = []  # by when they are due
        self._limit = limit or TimeLimit()
        self._shares = dict(shares or {})  # of a GPU, by segment_id, of tasks that ran out of memory
        self._watched: dict[str, Watched] = {}  # what the executor has, by segment_id

    def run(self) -> Reason:
        """Drive until the budget is used up and everything in flight is in, or until stopped or interrupted.

        Raises:
            InfrastructureError: A task was lost again and again. All that is recorded of it is that it was submitted,
                so that a resume runs it.
            HopelessError: The first segments all failed with the same error.
        """
        with self._interrupts.installed():
            try:
                reason = self._run()
            except (HopelessError, InfrastructureError):
                self._executor.cancel()
                raise
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
            self._take(self._interrupts.during(self._wait, []))
            if isinstance(self._executor, HasNodeNews):
                for news in self._executor.node_news():
                    self._notify(news)
            self._check_hope()
            self._look_for_late()

    def _check_hope(self) -> None:
        """Raise where the first segments all failed alike, before anything more is begun."""
        if (end := self._search.hopeless) is not None:
            text = " ".join((end[1] or end[0]).split())
            text = text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]} …"
            raise HopelessError(
                f"the first {self._search.settings.give_up_after} segments all failed with the same error ({text}), so "
                "the run has ended. Mend that, and resume the run, which tries them again: its budget is not spent. "
                "With search.give_up_after = 0 it goes on all the same."
            )

    def _wait(self) -> Sequence[Outcome | Lost | OutOfMemory]:
        """Start again what is due; outcomes, or nothing after a while."""
        now = self._executor.now()
        while self._later and self._later[0][0] <= now:
            task = heapq.heappop(self._later)[2]
            if task.segment_id in self._in_flight:
                self._submit(task)
        if len(self._later) < len(self._in_flight):
            return self._executor.wait(_POLL_SECONDS)
        self._executor.sleep(min(self._later[0][0] - now, _POLL_SECONDS))
        return []

    def _delay(self, lost: Lost) -> None:
        """Have a task run again after a pause, which grows from one try to the next.

        Raises:
            InfrastructureError: The pauses are used up.
        """
        task = lost.task
        if task.segment_id not in self._in_flight:
            return
        self._watched.pop(task.segment_id, None)
        tries = self._tries[task.segment_id] = self._tries.get(task.segment_id, 0) + 1
        if tries > len(self._pauses):
            raise InfrastructureError(
                f"segment {task.number} ({task.segment_id}) could not be run in {tries} tries: {lost.reason}. "
                "Mend that, and resume the run: nothing is lost, and its budget is not spent."
            )
        pause = self._pauses[tries - 1]
        heapq.heappush(self._later, (self._executor.now() + pause, task.index, task))
        self._notify(Delayed(task, lost.reason, tries, pause))

    def _submit(self, task: SegmentTask) -> None:
        self._watched[task.segment_id] = Watched(task, self._executor.now())
        share = self._shares.get(task.segment_id)
        if share is not None and isinstance(self._executor, SharesGpus):
            self._executor.submit_larger(task, share)
        else:
            self._executor.submit(task)

    def _give_more(self, failure: OutOfMemory) -> None:
        """Have a task that ran out of memory run again with a larger share of a GPU."""
        if failure.task.segment_id not in self._in_flight:
            return
        self._recorder.larger_share(failure)
        self._shares[failure.task.segment_id] = failure.share
        self._submit(failure.task)
        self._notify(LargerShare(failure.task, failure.share, failure.error))

    def _took(self, outcome: Outcome) -> None:
        """Let the limit follow what segments take, waiting for a worker included."""
        if (watched := self._watched.pop(outcome.segment_id, None)) is not None:
            self._limit.observe(self._executor.now() - watched.since)

    def _look_for_late(self) -> None:
        """Start another attempt at what takes too long, and say so; also of what only waits.

        Raises:
            InfrastructureError: There were enough attempts.
        """
        if not isinstance(self._executor, SeveralAttempts):
            return
        limit, now = self._limit.seconds, self._executor.now()
        step = FLOOR_SECONDS if limit is None else limit
        late = [w for w in self._watched.values() if now - w.since > min(w.patience(step), w.said_until(step))]
        running = self._executor.running() if late else {}
        for watched in late:
            attempt = running.get(watched.task.segment_id)
            if attempt is not None and limit is not None:
                self._another(watched, attempt, limit)
            elif (seconds := now - watched.since if attempt is None else attempt.seconds) > watched.said_until(step):
                watched.lines += 1
                self._notify(Late(watched.task, seconds, step, None if attempt is None else attempt.node))

    def _another(self, watched: Watched, first: Running, limit: float) -> None:
        if first.seconds <= watched.patience(limit):
            return
        task = watched.task
        if watched.attempts >= ATTEMPTS:
            raise InfrastructureError(
                f"segment {task.number} ({task.segment_id}) has not ended in {watched.attempts} attempts, the first "
                f"on {first.node}, where it has run for {first.seconds:.0f} s. "
                "Mend that, or raise the limit, and resume the run: nothing is lost, and its budget is not spent."
            )
        watched.attempts += 1
        assert isinstance(self._executor, SeveralAttempts)
        self._executor.attempt(task)
        self._notify(Late(task, first.seconds, limit, first.node, watched.attempts))

    def elapsed(self) -> float:
        """Seconds that this run has been driven, earlier drives included, on the executor's clock."""
        return self._executor.now() - self._began

    def _out_of_time(self) -> bool:
        minutes = self._search.settings.minutes
        return minutes is not None and self.elapsed() >= 60.0 * minutes

    def _fill(self) -> None:
        """Ask for as many tasks as there are slots; all are recorded in one go before the first is submitted."""
        tasks: list[tuple[SegmentTask, bool]] = []
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
            self._submit(task)
            self._notify(Submitted(task.index, task, len(self._in_flight), resumed))

    def _take(self, outcomes: Sequence[Outcome | Lost | OutOfMemory]) -> None:
        """Tell what is new among `outcomes`, record it, then tell the observer; what was lost is tried again."""
        results: list[tuple[Outcome, int, Told]] = []
        for outcome in outcomes:
            if isinstance(outcome, Outcome) and outcome.segment_id in self._in_flight:
                self._in_flight.discard(outcome.segment_id)
                self._shares.pop(outcome.segment_id, None)
                self._took(outcome)
                results.append((outcome, self._completions, self._search.tell(outcome)))
                self._completions += 1
        self._recorder.finished(results)
        for outcome in outcomes:
            if isinstance(outcome, Lost):
                self._delay(outcome)
            elif isinstance(outcome, OutOfMemory):
                self._give_more(outcome)
        if self._observer is None:
            return
        front, in_flight, elapsed = len(self._search.archive), len(self._in_flight), self.elapsed()
        for outcome, number, told in results:
            after = told.hypervolume_after
            self._notify(Finished(outcome.index, number, outcome, told, after, front, in_flight, elapsed))

    def _notify(self, event: Submitted | Finished | Delayed | LargerShare | Late | NodeNews | Ended) -> None:
        if self._observer is not None:
            self._observer(event)
