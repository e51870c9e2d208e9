"""Resumes: a run that is killed or stopped at any moment ends as if nothing had been."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_process import ForkedProcess
from toy_driver import SEGMENTS, drive_toy

from evocompress.errors import RunError
from evocompress.search.attempt import run_attempt
from evocompress.search.events import Finished
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import Run, open_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

pytestmark = pytest.mark.slow


def start(folder: Path, mode: str, log: Path, seconds: float, name: str = "said") -> ForkedProcess:
    log.mkdir(exist_ok=True)
    output, errors = (folder.parent / f"{name}-{stream}.txt" for stream in ("output", "errors"))
    return ForkedProcess(drive_toy, folder, mode, str(seconds), log, output=output, errors=errors)


def open_toy(folder: Path, resume: bool = False, **changes: Any) -> Run:
    settings = toy_settings(**{"segments": SEGMENTS, "deterministic": True, "lag": 4, **changes})
    return open_run(folder, header={"config": {}}, space=toy_space(), settings=settings, resume=resume)


def result(folder: Path) -> list[tuple[str, int, float, str]]:
    """The archive, after a check that it is made of real files."""
    history = read_history(folder)
    assert len(history.outcomes) == len(history.tasks)
    for leaf in history.archive:
        assert len(history.storage.read(leaf.path)) == leaf.nbytes
    return [(leaf.leaf_id, leaf.nbytes, leaf.quality, leaf.sha256) for leaf in history.archive]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, float, str]]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with open_toy(folder) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    return result(folder)


def leftovers(folder: Path) -> list[str]:
    """Files below seg/ that a finished run has no use for."""
    history = read_history(folder)
    won = {f"seg/{outcome.segment_id}/{outcome.attempt}" for outcome in history.outcomes}
    paths = [path for path in history.storage.find("seg") if not path.endswith("COMMIT.json")]
    return [path for path in paths if path.rpartition("/")[0] not in won or path.endswith(".tmp")]


def test_killed_at_random_times_and_resumed_it_ends_as_if_nothing_had_been(
    tmp_path: Path, uninterrupted: list[tuple[str, int, float, str]]
) -> None:
    folder, log, rng = tmp_path / "run", tmp_path / "log", np.random.default_rng(0)
    kills = 0
    for attempt in range(60):
        mode = "resume" if (folder / "run.json").exists() else "new"
        process = start(folder, mode, log, seconds=0.03, name=str(attempt))
        # The first few die anywhere, also while they create or fold; later ones in the loop, so that the test ends.
        if attempt < 4:
            seconds = float(rng.uniform(0.0, 0.1))
        else:
            process.wait_until_it_says("open")
            # Ever longer, so that a busy machine gets to the end as well.
            seconds = float(rng.uniform(0.05, 1.0)) * (1 + attempt / 10)
        status = process.status_after(seconds)
        if status is None:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert status == 0, process.complaints
        assert process.said.endswith("finished\n")
        break
    assert kills >= 2
    assert result(folder) == uninterrupted
    assert leftovers(folder) == []
    calls = [int(path.name.split("-")[0]) for path in log.iterdir()]
    # One worker: each kill loses at most the one segment in flight.
    assert set(calls) == set(range(SEGMENTS)) and len(calls) <= SEGMENTS + kills


def test_what_a_kill_left_of_a_commit_is_swept(tmp_path: Path) -> None:
    with open_toy(tmp_path / "run") as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        storage = run.storage
    committed = [path for path in storage.find("seg") if path.endswith("COMMIT.json")]
    storage.write(f"{committed[3]}.427acc69.tmp", b"{")
    assert leftovers(tmp_path / "run") != []
    with open_toy(tmp_path / "run", resume=True) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    assert leftovers(tmp_path / "run") == []
    assert [path for path in storage.find("seg") if path.endswith("COMMIT.json")] == committed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_cleanly(
    tmp_path: Path, uninterrupted: list[tuple[str, int, float, str]], number: signal.Signals
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(folder, "new", log, seconds=0.1)
    process.wait_until_it_says("open")
    deadline = time.monotonic() + 60
    while len(list(log.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    assert (process.wait(60), process.said, process.complaints) == (0, "open\ninterrupted\n", "")
    history = read_history(folder)
    assert history.events("closed")[0]["reason"] == "interrupted"
    assert 0 < len(history.outcomes) < SEGMENTS and len(history.in_flight) <= 1
    assert not (folder / "lease.json").exists()
    with open_toy(folder, resume=True) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    assert result(folder) == uninterrupted


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_stopped_again_and_again_with_faults_and_other_workers(
    tmp_path: Path, uninterrupted: list[tuple[str, int, float, str]], workers: int
) -> None:
    folder = tmp_path / "run"
    reason, attempt = "", -1
    while reason != "finished":
        attempt += 1
        assert attempt < 100
        with open_toy(folder, resume=attempt > 0) as run:
            done = 0

            def observer(event: object) -> None:
                nonlocal done
                done += isinstance(event, Finished)

            faults = {"crash": 0.1, "duplicate": 0.1, "lost": 0.1}
            executor = SimulatedExecutor(ToySegment(), run.storage, workers=workers, seed=attempt, **faults)  # type: ignore[arg-type]
            reason = run.drive(executor, observer=observer, should_stop=lambda: done >= 7)  # noqa: B023
    assert attempt >= 4
    assert result(folder) == uninterrupted
    assert leftovers(folder) == []


def test_the_journal_cut_at_any_line_resumes_to_the_same_end(
    tmp_path: Path, uninterrupted: list[tuple[str, int, float, str]]
) -> None:
    """What a kill between any two steps leaves: commits without their journal lines."""
    folder = tmp_path / "run"
    with open_toy(folder, pool_size=10_000) as run:  # a pool that lets nothing go, so that every file is still there
        run.drive(InlineExecutor(ToySegment(), run.storage))
    expected = result(folder)
    journal = folder / "journal" / "000001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for count in range(0, len(lines), 7):
        for path in (folder / "journal").iterdir():
            path.unlink()
        journal.write_bytes(b"".join(lines[:count]) + lines[count][:20])
        with open_toy(folder, resume=True, pool_size=10_000) as run:
            assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
        assert result(folder) == expected


def test_what_was_committed_is_adopted_and_not_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    with open_toy(tmp_path / "run", deterministic=False) as run:
        tasks = [task for _ in range(3) if (task := run.search.ask()) is not None]
        run.submitted([(task, False) for task in tasks])
        committed = run_attempt(ToySegment(), tasks[1], run.storage)
    with open_toy(tmp_path / "run", resume=True, deterministic=False) as run:
        assert [outcome.segment_id for outcome in run.history().outcomes] == [tasks[1].segment_id]
        assert run.history().outcomes == [committed]
        run.drive(InlineExecutor(ToySegment(log=str(log)), run.storage))
        assert list(run.history().tasks)[:3] == [task.segment_id for task in tasks]
    calls = sorted(int(path.name.split("-")[0]) for path in log.iterdir())
    assert calls == [0, *range(2, SEGMENTS)]


def test_files_of_killed_attempts_go_once_their_segment_is_finished(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        task = run.search.ask()
        assert task is not None
        run.submitted([(task, False)])
        stray = f"seg/{task.segment_id}/dead/0.evc"
        run.storage.write(stray, b"half")
    with open_toy(tmp_path, resume=True) as run:
        # The attempt may still be alive on a cluster; what it wrote stays until it can only lose.
        assert stray in run.storage.find("seg")
        run.drive(InlineExecutor(ToySegment(), run.storage))
        assert stray not in run.storage.find("seg")


def test_deleted_files_stay_deleted_and_needed_ones_stay(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        gone = {leaf.path for leaf in run.history().leaves.values() if not run.search.needs(leaf.leaf_id)}
        assert gone
        victim = sorted(gone)[0]
        run.storage.write(victim, b"as if the kill came before the deletion")
    with open_toy(tmp_path, resume=True) as run:
        assert victim not in run.storage.find("seg")
        assert all(run.storage.read(leaf.path) for leaf in run.search.front())


def test_a_full_disk_ends_the_run_with_advice_and_it_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: list[tuple[str, int, float, str]]
) -> None:
    from evocompress.search import journal as module

    real, calls = module._write_all, iter(range(1000))

    def full(descriptor: int, data: bytes) -> None:
        if next(calls) == 21:
            raise OSError(28, "No space left on device")
        real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_all", full)
        with pytest.raises(RunError, match="make room"), open_toy(tmp_path) as run:
            run.drive(InlineExecutor(ToySegment(), run.storage))
    with open_toy(tmp_path, resume=True) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    assert result(tmp_path) == uninterrupted
