"""A run whose first segments all fail with the same error: it ends, says why, and a resume begins with them again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_runs import leaves, open_toy, undisturbed_leaves

from evocompress.errors import HopelessError
from evocompress.runs.status import read_status
from evocompress.search.attempt import run_attempt
from evocompress.search.events import Finished
from evocompress.search.first_failures import FirstFailures
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.repair import repair_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment

SETTINGS: dict[str, Any] = {"give_up_after": 4}


@dataclasses.dataclass(frozen=True)
class Failing:
    """The toy segment, which some indices do not survive; the error's number differs from one to the next."""

    indices: range = range(1000)
    text: str = "no such kernel at {}"

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        if task.index in self.indices:
            raise ValueError(self.text.format(task.index))
        return ToySegment()(task, folder, parent_files)


def outcome(index: int, status: Any = "failed", error: str = "") -> Outcome:
    return Outcome(f"s{index}", index, status, error=error)


def test_the_first_count_whenever_they_end() -> None:
    first = FirstFailures(3)
    for index in (7, 2, 8, 0):
        first.observe(outcome(index, error=f"no kernel of {index} x {index}"))
    assert not first.complete
    again = FirstFailures(3)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for one in (first, again):
        one.observe(outcome(1, error="no kernel of 5 x 7"))
        assert one.complete and one.last == ("failed", "no kernel of 5 x 7")
        one.go_on()  # as in a run of before there was such a rule
        assert not one.complete


@pytest.mark.parametrize(
    "other", [outcome(1, "ok"), outcome(1, "failed", "another error"), outcome(1, "diverged", "an error")]
)
def test_one_other_end_is_enough(other: Outcome) -> None:
    first = FirstFailures(3)
    for one in (outcome(0, error="an error"), other, outcome(2, error="an error")):
        first.observe(one)
    assert not first.complete
    assert not FirstFailures(0).complete


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_ends_with_the_budget_unspent_and_a_resume_begins_anew(tmp_path: Path, deterministic: bool) -> None:
    settings = {**SETTINGS, "deterministic": deterministic, "minutes": 1000.0}
    expected = undisturbed_leaves(tmp_path / "undisturbed", **settings)
    folder = tmp_path / "run"
    with pytest.raises(HopelessError, match="all failed with the same error .ValueError: no such kernel at 3"):
        with open_toy(folder, **settings) as run:
            run.drive(InlineExecutor(Failing(), run.storage))
    history, status = read_history(folder), read_status(folder)
    (said,) = history.events("gave_up")
    assert len(said["segments"]) == 4 and "no such kernel" in said["error"]
    assert history.events("closed")[-1]["reason"] == "gave_up"
    assert not history.outcomes and not history.tasks and history.elapsed == 0.0
    assert (status.state, status.done, status.failed) == ("stopped", 0, 4) and "all failed alike" in status.driver

    with open_toy(folder, resume=True, **settings) as run:
        assert run.completions == 0 and run.elapsed == 0.0
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    assert leaves(folder) == expected
    assert [leaf.leaf_id for leaf in read_history(folder).archive] == [leaf.leaf_id for leaf in run.search.front()]
    assert read_status(folder).failed == 0
    with open_toy(folder, resume=True, **settings) as run:  # and the journal folds to the same
        assert run.completions == 12
    assert leaves(folder) == expected


@pytest.mark.parametrize("workers", [1, 3, 7])
def test_the_same_files_for_any_number_of_workers(tmp_path: Path, workers: int) -> None:
    """Whatever else had ended by then: one that succeeded is not run again, and nothing depends on it."""
    expected = undisturbed_leaves(tmp_path / "undisturbed", lag=9)
    with pytest.raises(HopelessError), open_toy(tmp_path / "run", lag=9, **SETTINGS) as run:
        run.drive(SimulatedExecutor(Failing(range(5)), run.storage, workers=workers, seed=workers))
    with open_toy(tmp_path / "run", resume=True, lag=9, **SETTINGS) as run:
        run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=workers, seed=0))
    assert leaves(tmp_path / "run") == expected


@pytest.mark.parametrize("failing", [range(1, 12), range(3), range(4, 12)])
def test_a_run_in_which_something_succeeds_goes_on(tmp_path: Path, failing: range) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        assert run.drive(InlineExecutor(Failing(failing), run.storage)) == "finished"
    assert len(read_history(tmp_path).failed) == len(failing)


def test_a_free_run_with_a_file_goes_on_though_the_first_fail(tmp_path: Path) -> None:
    """They end last here, when another has succeeded."""
    with open_toy(tmp_path, deterministic=False, **SETTINGS) as run:
        tasks = [task for _ in range(5) if (task := run.search.ask()) is not None]
        run.submitted([(task, False) for task in tasks])
        for task in reversed(tasks):
            told = run_attempt(Failing(range(4)), task, run.storage)
            run.finished([(told, run.completions, run.search.tell(told))])
        assert run.search.hopeless is None


def test_failures_of_other_kinds_and_the_setting_0_go_on(tmp_path: Path) -> None:
    class Various(Failing):
        def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
            raise ValueError("odd" if task.index % 2 else "even")

    for name, segment, count in (("various", Various(), 4), ("zero", Failing(), 0)):
        with open_toy(tmp_path / name, give_up_after=count) as run:
            assert run.drive(InlineExecutor(segment, run.storage)) == "finished"


def test_it_can_be_given_up_again_and_the_setting_may_change_at_a_resume(tmp_path: Path) -> None:
    for resume in (False, True):
        with pytest.raises(HopelessError), open_toy(tmp_path, resume=resume, **SETTINGS) as run:
            run.drive(InlineExecutor(Failing(), run.storage))
    assert len(read_history(tmp_path).events("gave_up")) == 2
    with open_toy(tmp_path, resume=True, give_up_after=0) as run:
        assert run.drive(InlineExecutor(Failing(), run.storage)) == "finished"
    assert len(read_history(tmp_path).failed) == 12


@pytest.mark.parametrize("journalled", [3, 4])
def test_a_driver_that_is_killed_before_it_can_say_so(tmp_path: Path, journalled: int) -> None:
    """The last failure is stored, or in the journal too; the next driver says so, and begins anew."""
    settings = {**SETTINGS, "lag": 5}
    expected = undisturbed_leaves(tmp_path / "undisturbed", **settings)
    with open_toy(tmp_path / "run", **settings) as run:
        tasks = [task for _ in range(4) if (task := run.search.ask()) is not None]
        run.submitted([(task, False) for task in tasks])
        for number, task in enumerate(tasks):
            told = run_attempt(Failing(), task, run.storage)
            if number < journalled:
                run.finished([(told, number, run.search.tell(told))])
    with open_toy(tmp_path / "run", resume=True, **settings) as run:
        assert len(run.events("gave_up")) == 1 and run.search.asked == 0
        run.drive(InlineExecutor(ToySegment(), run.storage))
    assert leaves(tmp_path / "run") == expected


def test_failures_that_came_back_since_are_deleted_by_the_next_driver(tmp_path: Path) -> None:
    """As by a worker that committed late, or where the driver was killed before all were deleted."""
    with pytest.raises(HopelessError), open_toy(tmp_path, **SETTINGS) as run:
        run.drive(InlineExecutor(Failing(), run.storage))
    task = run.search.peek()
    assert task is not None
    run_attempt(Failing(), task, open_storage(tmp_path))
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    assert not read_history(tmp_path).failed


def test_an_observer_hears_of_each_failure_first(tmp_path: Path) -> None:
    heard: list[object] = []
    with pytest.raises(HopelessError), open_toy(tmp_path, **SETTINGS) as run:
        run.drive(InlineExecutor(Failing(), run.storage), observer=heard.append)
    assert sum(isinstance(event, Finished) for event in heard) == 4


def test_a_repair_keeps_what_came_after(tmp_path: Path) -> None:
    with pytest.raises(HopelessError), open_toy(tmp_path, **SETTINGS) as run:
        run.drive(InlineExecutor(Failing(), run.storage))
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    before = leaves(tmp_path)
    journal = sorted((tmp_path / "journal").glob("*.jsonl"))[-1]
    lines = journal.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"finished"' in line)
    lines[place] = lines[place].replace(b'"finished"', b'"finXshed"')
    journal.write_bytes(b"".join(lines))
    done = repair_run(tmp_path)
    assert done.outcomes == 1 and not done.given_up
    assert leaves(tmp_path) == before
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:
        assert run.completions == 12
