"""Segments that run out of memory beside others on a GPU get a larger share of it, and only then count as failed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from evocompress.errors import RunError
from evocompress.search.attempt import Lost, OutOfMemory, TooLittleMemory, larger_share, run_attempt
from evocompress.search.events import LargerShare
from evocompress.search.executors import SharesGpus
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.run_folder import Run, open_run
from evocompress.search.storage import Storage, open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def need(task: SegmentTask) -> float:
    """The share of a GPU that a segment needs: some are small, some large, and some larger than a GPU."""
    return (0.2, 0.3, 0.9, 2.0)[task.index % 4]


@dataclasses.dataclass
class Hungry:
    """The toy, whose step runs out of memory where it has less than it needs."""

    share: float = 1.0
    freed: int = 0

    def free(self) -> None:
        self.freed += 1

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        if self.share < need(task):
            Path(folder, "half.evc").write_bytes(b"half")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return ToySegment()(task, folder, parent_files)


class SharedGpu(InlineExecutor):
    """One GPU, of which each task has a share; tasks are run one after the other, here."""

    def __init__(self, segment: Hungry, storage: Storage, share: float = 0.25) -> None:
        super().__init__(segment, storage)
        self.hungry, self.store, self.share = segment, storage, share
        self.shares: dict[str, float] = {}
        self.tries: list[tuple[int, float]] = []

    def submit_larger(self, task: SegmentTask, share: float) -> None:
        self.shares[task.segment_id] = share
        self.submit(task)

    def wait(self, timeout: float | None = None) -> list[Outcome | Lost | OutOfMemory]:  # type: ignore[override]
        if not self._queue:
            return []
        task = self._queue.popleft()
        self.hungry.share = self.shares.get(task.segment_id, self.share)
        self.tries.append((task.index, self.hungry.share))
        larger = larger_share(self.hungry.share)
        try:
            return [run_attempt(self.hungry, task, self.store, more_memory=larger is not None)]
        except TooLittleMemory as error:
            assert larger is not None
            return [OutOfMemory(task, larger, str(error))]


def open_toy(folder: Path, *, resume: bool = False) -> Run:
    settings = toy_settings(segments=8, deterministic=True, lag=4, give_up_after=0)
    return open_run(folder, header={"config": {}}, space=toy_space(), settings=settings, resume=resume)


def what_came_of(folder: Path) -> list[tuple[int, str, str, list[str]]]:
    outcomes = sorted(read_history(folder).outcomes, key=lambda outcome: outcome.index)
    return [(o.index, o.status, o.error, [leaf.sha256 for leaf in o.leaves]) for o in outcomes]


def test_a_larger_share_is_tried_before_a_segment_counts_as_failed(tmp_path: Path) -> None:
    heard: list[object] = []
    with open_toy(tmp_path / "run") as run:
        executor = SharedGpu(Hungry(), run.storage)
        assert isinstance(executor, SharesGpus)
        assert run.drive(executor, observer=heard.append) == "finished"
        assert not [path for path in run.storage.find("seg") if "half" in path]
    tries = [executor.tries[place : place + 9] for place in (0, 9)]
    assert tries[0] == [
        *((0, 0.25), (1, 0.25), (1, 0.5), (2, 0.25), (2, 0.5), (2, 1.0)),
        *((3, 0.25), (3, 0.5), (3, 1.0)),
    ]
    assert executor.hungry.freed == len(executor.tries) == 18
    statuses = [status for _, status, _, _ in what_came_of(tmp_path / "run")]
    assert statuses == ["ok", "ok", "ok", "out_of_memory"] * 2
    said = [(event.task.index, event.share) for event in heard if isinstance(event, LargerShare)]
    assert said[:5] == [(1, 0.5), (2, 0.5), (2, 1.0), (3, 0.5), (3, 1.0)]
    journalled = read_history(tmp_path / "run").events("larger_share")
    assert [event["share"] for event in journalled[:5]] == [share for _, share in said[:5]]
    assert journalled[0]["error"].startswith("OutOfMemoryError: CUDA out of memory")
    # The same files as where each has a whole GPU from the beginning.
    with open_toy(tmp_path / "whole") as run:
        whole = SharedGpu(Hungry(), run.storage, share=1.0)
        assert run.drive(whole) == "finished" and len(whole.tries) == 8
    assert what_came_of(tmp_path / "run") == what_came_of(tmp_path / "whole")


def test_a_resume_goes_on_with_the_share_that_was_journalled(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), open_toy(tmp_path / "run") as run:

        def interrupt(event: object) -> None:
            if isinstance(event, LargerShare) and event.task.index == 2 and event.share == 1.0:
                raise KeyboardInterrupt

        run.drive(SharedGpu(Hungry(), run.storage), observer=interrupt)
    with open_toy(tmp_path / "run", resume=True) as run:
        executor = SharedGpu(Hungry(), run.storage)
        assert run.drive(executor) == "finished"
    assert executor.tries[0] == (2, 1.0)
    with open_toy(tmp_path / "whole") as run:
        run.drive(SharedGpu(Hungry(), run.storage, share=1.0))
    assert what_came_of(tmp_path / "run") == what_came_of(tmp_path / "whole")


def test_without_more_to_be_had_it_is_an_outcome(tmp_path: Path) -> None:
    with open_toy(tmp_path / "run") as run:
        task = run.search.ask()
        assert task is not None
        hungry = dataclasses.replace(task, index=3)
        with pytest.raises(TooLittleMemory, match="CUDA out of memory"):
            run_attempt(Hungry(), hungry, run.storage, more_memory=True)
        assert run.storage.find("seg") == []
        assert run_attempt(Hungry(), hungry, run.storage).status == "out_of_memory"


def test_another_failure_is_no_reason_for_more(tmp_path: Path) -> None:
    def broken(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        raise ValueError("on purpose")

    with open_toy(tmp_path / "run") as run:
        task = run.search.ask()
        assert task is not None
        assert run_attempt(broken, task, open_storage(tmp_path / "files"), more_memory=True).status == "failed"


def test_damaged_lines_are_named(tmp_path: Path) -> None:
    with open_toy(tmp_path / "run") as run:
        run.record("larger_share", segment_id="a", share="much", error="")
    with pytest.raises(RunError, match="share is 'much'; it must be a finite number"):
        read_history(tmp_path / "run")
