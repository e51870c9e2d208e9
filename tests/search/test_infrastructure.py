"""Faults of machines and storage are no outcomes: the same front as without them, or a stop that loses nothing."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_runs import leaves, open_toy, undisturbed_leaves

from evocompress.errors import InfrastructureError, RunError
from evocompress.search import run_folder
from evocompress.search.events import Delayed
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.run_folder import Run, open_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.storage import LocalStorage, Storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    return undisturbed_leaves(tmp_path_factory.mktemp("undisturbed"))


class Flaky(LocalStorage):
    """One operation of eight fails, with what stores and disks say."""

    errors = (errno.ENOSPC, errno.ECONNRESET, errno.ETIMEDOUT, errno.EIO)

    def __init__(self, root: str, seed: int) -> None:
        super().__init__(root)
        object.__setattr__(self, "random", random.Random(seed))

    def _maybe(self) -> None:
        luck: random.Random = self.random  # type: ignore[attr-defined]
        if luck.random() < 1 / 8:
            raise OSError(luck.choice(self.errors), "on purpose")

    def read(self, path: str) -> bytes:
        self._maybe()
        return super().read(path)

    def take(self, local: str, path: str) -> None:
        self._maybe()
        super().take(local, path)

    def create(self, path: str, data: bytes) -> bool:
        self._maybe()
        return super().create(path, data)


class Quick(InlineExecutor):
    """Sleeps without time, and counts."""

    slept = 0.0

    def now(self) -> float:
        return super().now() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize("seed", range(4))
def test_storage_that_fails_now_and_then_costs_nothing_but_time(
    tmp_path: Path, undisturbed: list[tuple[str, str]], seed: int
) -> None:
    heard: list[Any] = []
    with open_toy(tmp_path) as run:
        executor = Quick(ToySegment(), Flaky(str(tmp_path), seed))
        assert run.drive(executor, observer=heard.append) == "finished"
    assert leaves(tmp_path) == undisturbed
    assert {outcome.status for outcome in read_history(tmp_path).outcomes} == {"ok"}
    delayed = [event for event in heard if isinstance(event, Delayed)]
    assert len(delayed) >= 2 and executor.slept > 0
    assert {event.pause for event in delayed if event.tries == 1} == {1.0}
    assert all("on purpose" in event.reason for event in delayed)


class Away:
    """A segment whose machine lacks something for its first `times` calls."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        if self.times > 0:
            self.times -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return ToySegment()(task, folder, parent_files)


def test_pauses_grow_and_then_the_driver_stops_with_the_budget_unspent(
    tmp_path: Path, undisturbed: list[tuple[str, str]]
) -> None:
    heard: list[Any] = []
    with open_toy(tmp_path) as run:
        executor = Quick(Away(1000), run.storage)
        with pytest.raises(InfrastructureError, match=r"in 8 tries: .*Stale file handle.*resume the run"):
            run.drive(executor, observer=heard.append)
    pauses = [event.pause for event in heard if isinstance(event, Delayed)]
    assert pauses == [1, 2, 4, 8, 16, 30, 60]
    assert read_history(tmp_path).outcomes == [] and not list((tmp_path / "seg").rglob("*.evc"))
    with open_toy(tmp_path, resume=True) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    assert leaves(tmp_path) == undisturbed


def test_a_parent_that_is_away_for_a_while(tmp_path: Path, undisturbed: list[tuple[str, str]]) -> None:
    """As where storage is not mounted at a resume."""

    class Unmounted(LocalStorage):
        def read(self, path: str) -> bytes:
            if path.endswith(".evc") and executor.slept < 5:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            return super().read(path)

    with open_toy(tmp_path) as run:
        executor = Quick(ToySegment(), Unmounted(str(tmp_path)))
        assert run.drive(executor) == "finished"
    assert executor.slept >= 5 and leaves(tmp_path) == undisturbed


def test_others_go_on_meanwhile(tmp_path: Path, undisturbed: list[tuple[str, str]]) -> None:
    """On a virtual clock: the segments that are not away are run while one waits for its turn."""
    tries: dict[int, int] = {}

    def segment(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        tries[task.index] = tries.get(task.index, 0) + 1
        if task.index == 1 and tries[1] <= 3:
            raise OSError(errno.EIO, "Input/output error")
        return ToySegment()(task, folder, parent_files)

    with open_toy(tmp_path) as run:
        storage: Storage = run.storage
        assert run.drive(SimulatedExecutor(segment, storage, workers=3)) == "finished"
    assert tries[1] == 4 and leaves(tmp_path) == undisturbed
    order = [outcome.index for outcome in read_history(tmp_path).outcomes]
    assert order.index(1) > order.index(2)


def open_elsewhere(folder: Path, files: Path, resume: bool = False) -> Run:
    settings = toy_settings(segments=12, deterministic=True, lag=3)
    return open_run(
        folder,
        header={"config": {"name": folder.name}},
        space=toy_space(),
        settings=settings,
        storage_uri=str(files),
        resume=resume,
    )


def test_a_resume_asks_storage_whose_it_is(tmp_path: Path, undisturbed: list[tuple[str, str]]) -> None:
    with open_elsewhere(tmp_path / "a", tmp_path / "files-a") as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    with open_elsewhere(tmp_path / "b", tmp_path / "files-b") as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage), should_stop=lambda: True) == "stopped"
    (tmp_path / "files-b").rename(tmp_path / "unmounted")
    with pytest.raises(RunError, match=r"files-b' has no RUN.json, the mark of this run: mount or restore it"):
        open_elsewhere(tmp_path / "b", tmp_path / "files-b", resume=True)
    shutil.copytree(tmp_path / "files-a", tmp_path / "files-b")
    with pytest.raises(RunError, match="holds the files of another run"):
        open_elsewhere(tmp_path / "b", tmp_path / "files-b", resume=True)
    shutil.rmtree(tmp_path / "files-b")
    (tmp_path / "unmounted").rename(tmp_path / "files-b")
    with open_elsewhere(tmp_path / "b", tmp_path / "files-b", resume=True) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    assert leaves(tmp_path / "b") == leaves(tmp_path / "a") == undisturbed


@pytest.mark.parametrize("where", ["storage", "run"])
def test_what_is_stored_while_storage_is_not_mounted_is_no_result(
    tmp_path: Path, undisturbed: list[tuple[str, str]], where: str
) -> None:
    """Segments without parents missed nothing: they were stored in the folder below the mount point, and were lost."""
    files = tmp_path / ("files" if where == "storage" else "run")
    settings = toy_settings(segments=12, deterministic=True, lag=3)

    def segment(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        if task.index == 2 and not (tmp_path / "away").exists() and executor.slept == 0:
            files.rename(tmp_path / "away")
            files.mkdir()
        return ToySegment()(task, folder, parent_files)

    class Mounting(Quick):
        def sleep(self, seconds: float) -> None:
            if (tmp_path / "away").exists():
                assert not list(files.glob("seg/*/COMMIT.json"))
                shutil.rmtree(files)
                (tmp_path / "away").rename(files)
            super().sleep(seconds)

    with open_run(
        tmp_path / "run",
        header={"config": {}},
        space=toy_space(),
        settings=settings,
        storage_uri=str(files) if where == "storage" else "",
    ) as run:
        executor = Mounting(segment, run.storage)
        heard: list[Any] = []
        assert run.drive(executor, observer=heard.append) == "finished"
    assert any("not mounted" in event.reason for event in heard if isinstance(event, Delayed))
    assert leaves(tmp_path / "run") == undisturbed
    assert all((files / leaf.path).exists() for leaf in read_history(tmp_path / "run").archive)


class Repeating(LocalStorage):
    """A store whose first creation succeeds, and is repeated by its library, since the answer was lost."""

    def create(self, path: str, data: bytes) -> bool:
        return super().create(path, data) and super().create(path, data)


def test_a_claim_whose_answer_was_lost_is_this_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "open_storage", lambda uri, mark="": Repeating(str(uri), mark))
    with open_elsewhere(tmp_path / "a", tmp_path / "files") as run:
        assert run.drive(InlineExecutor(ToySegment(), LocalStorage(str(tmp_path / "files")))) == "finished"
    with pytest.raises(RunError, match="already holds a run's files"):
        open_elsewhere(tmp_path / "b", tmp_path / "files")


def test_a_driver_that_is_killed_as_soon_as_it_has_claimed_storage_may_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "__init__", killed)
        open_elsewhere(tmp_path / "a", tmp_path / "files")
    (tmp_path / "a" / "run.json").unlink()
    with pytest.raises(RunError, match="already holds a run's files"):
        open_elsewhere(tmp_path / "b", tmp_path / "files")
    with open_elsewhere(tmp_path / "a", tmp_path / "files") as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    (tmp_path / "a").rename(tmp_path / "moved")
    with pytest.raises(RunError, match="already holds a run's files"):
        open_elsewhere(tmp_path / "a", tmp_path / "files")
