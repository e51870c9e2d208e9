"""Limit of time of segments: a frozen one is run again beside it, or the driver stops; the front is the same."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_runs import leaves, open_toy, undisturbed_leaves

from evocompress.errors import InfrastructureError
from evocompress.search.events import Finished, Late
from evocompress.search.executors import SeveralAttempts
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import SegmentTask
from evocompress.search.run_folder import Run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.time_limit import TimeLimit
from evocompress.search.toy_segment import ToySegment

SETTINGS: dict[str, Any] = {"segments": 16, "lag": 4}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    return undisturbed_leaves(tmp_path_factory.mktemp("undisturbed"), **SETTINGS)


def frozen(index: int, times: int, seconds: float = 60.0) -> Callable[[SegmentTask, np.random.Generator], float]:
    """Durations of a second or so, but of one segment's first attempts without end."""
    left = [times]

    def duration(task: SegmentTask, rng: np.random.Generator) -> float:
        if task.index == index and left[0] > 0:
            left[0] -= 1
            return math.inf
        return seconds

    return duration


def drive(run: Run, executor: SimulatedExecutor, **changes: Any) -> tuple[str, list[Late]]:
    heard: list[Any] = []
    reason = run.drive(executor, observer=heard.append, **changes)
    return reason, [event for event in heard if isinstance(event, Late)]


def test_the_limit_is_said_or_follows_from_the_median() -> None:
    assert TimeLimit(seen=[0.0, -3.0]).seconds is None  # nothing measured, and a clock that jumped
    limit = TimeLimit()
    limit.observe(1.0)
    assert limit.seconds == 600.0
    for seconds in (100.0, 3600.0):
        limit.observe(seconds)
    assert limit.seconds == 1000.0
    assert TimeLimit(5.0, seen=[100.0]).seconds == 5.0 and TimeLimit(math.inf).seconds == math.inf


@pytest.mark.parametrize("index", [0, 5, 15])
def test_beside_a_frozen_attempt_another_begins_and_the_front_is_the_same(
    tmp_path: Path, undisturbed: list[tuple[str, str]], index: int
) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=3, duration=frozen(index, 1))
        reason, late = drive(run, executor)
    assert reason == "finished" and leaves(tmp_path) == undisturbed
    (event,) = late
    assert (event.task.index, event.limit, event.attempt) == (index, 600.0, 2)
    assert event.node is not None and event.node.startswith("worker ") and 600.0 < event.seconds < 602.0
    assert executor.attempts == 17 and executor._idle != [] and not executor._running


def test_each_attempt_has_twice_the_time_of_the_one_before(tmp_path: Path, undisturbed: list[tuple[str, str]]) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=4, duration=frozen(5, 3))
        reason, late = drive(run, executor, time_limit=100.0)
    assert reason == "finished" and leaves(tmp_path) == undisturbed
    assert [event.attempt for event in late] == [2, 3, 4]
    assert [round(event.seconds, -1) for event in late] == [100, 300, 700]


def test_after_enough_attempts_the_driver_stops_with_the_budget_unspent(
    tmp_path: Path, undisturbed: list[tuple[str, str]]
) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=5, duration=frozen(5, 1000))
        with pytest.raises(
            InfrastructureError, match=r"segment 6 .* not ended in 4 attempts, the first on worker .*resume the run"
        ):
            drive(run, executor, time_limit=100.0)
        assert executor.attempts < 24
    assert 5 in {task.index for task in read_history(tmp_path).in_flight}
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:
        assert drive(run, SimulatedExecutor(ToySegment(), run.storage, workers=2)) == ("finished", [])
    assert leaves(tmp_path) == undisturbed


def test_what_only_waits_for_a_worker_is_said_and_not_started_again(tmp_path: Path) -> None:
    """The one worker is frozen: attempts at what it has, but lines only about what waits behind it."""
    with open_toy(tmp_path, deterministic=False, **SETTINGS) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=1, duration=frozen(2, 1000))
        executor.slots = 2
        heard: list[Any] = []
        with pytest.raises(InfrastructureError, match="segment 3 "):
            run.drive(executor, observer=heard.append, time_limit=100.0)
    late = [event for event in heard if isinstance(event, Late)]
    assert [event.attempt for event in late if event.task.index == 2] == [2, 3, 4]
    waiting = [event for event in late if event.task.index == 3]
    assert [(event.node, event.attempt, round(event.seconds, -1)) for event in waiting] == [
        (None, 0, 100),
        (None, 0, 300),
        (None, 0, 700),
    ]


def test_before_any_segment_has_ended_there_is_a_line_and_no_other_attempt(tmp_path: Path) -> None:
    with open_toy(tmp_path, deterministic=False, **SETTINGS) as run:
        executor = SimulatedExecutor(
            ToySegment(), run.storage, workers=2, duration=lambda task, rng: 3000.0 + 100 * task.index
        )
        reason, late = drive(run, executor)
    assert reason == "finished" and executor.attempts == 16
    assert [(event.task.index, event.attempt) for event in late] == [(0, 0), (1, 0), (0, 0), (1, 0)]
    assert [round(event.seconds, -1) for event in late] == [600, 600, 1800, 1800]


def test_a_resume_knows_what_segments_take(tmp_path: Path) -> None:
    def segment(task: Any, folder: str, parents: Any) -> Any:
        return dataclasses.replace(ToySegment()(task, folder, parents), seconds=200.0)

    done: list[object] = []

    def count(event: object) -> None:
        done.extend([event] if isinstance(event, Finished) else [])

    with open_toy(tmp_path, **SETTINGS) as run:
        executor = SimulatedExecutor(segment, run.storage, workers=2)
        run.drive(executor, should_stop=lambda: len(done) >= 9, observer=count)
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:
        reason, late = drive(run, SimulatedExecutor(segment, run.storage, workers=2, duration=frozen(12, 1)))
    assert reason == "finished" and [event.limit for event in late] == [2000.0]


def test_an_attempt_that_is_lost_beside_another_is_not_tried_again(
    tmp_path: Path, undisturbed: list[tuple[str, str]]
) -> None:
    calls: list[int] = []

    def segment(task: Any, folder: str, parents: Any) -> Any:
        calls.append(task.index)
        if calls.count(5) == 1 and task.index == 5:
            raise OSError(5, "Input/output error")
        return ToySegment()(task, folder, parents)

    durations = iter([1000.0, 1000.0])
    with open_toy(tmp_path, **SETTINGS) as run:
        executor = SimulatedExecutor(
            segment,
            run.storage,
            workers=3,
            duration=lambda task, rng: next(durations) if task.index == 5 else 60.0,
        )
        heard: list[Any] = []
        assert run.drive(executor, observer=heard.append) == "finished"
    assert leaves(tmp_path) == undisturbed and calls.count(5) == 2
    assert [type(event).__name__ for event in heard if type(event).__name__ in ("Late", "Delayed")] == ["Late"]


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    with open_toy(tmp_path, **{**SETTINGS, "segments": 2}) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=1, duration=lambda task, rng: 3e3)
        reason, late = drive(run, executor, time_limit=math.inf)
    assert reason == "finished" and late == [] and executor.attempts == 2


def test_inline_there_is_no_other_attempt(tmp_path: Path) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        assert not isinstance(InlineExecutor(ToySegment(), run.storage), SeveralAttempts)
        assert isinstance(SimulatedExecutor(ToySegment(), run.storage, workers=1), SeveralAttempts)
