"""Attempts at a segment: one wins and is committed, parents are verified, an exception is a recorded outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.errors import DataError, InfrastructureError, RunError
from evocompress.search import storage as storage_module
from evocompress.search.ask_tell import Search
from evocompress.search.attempt import plain, run_attempt
from evocompress.search.records import Leaf, Outcome, Parent, SegmentTask
from evocompress.search.segment_commit import read_commit, sha256
from evocompress.search.storage import Storage, open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def first_task() -> SegmentTask:
    task = Search(toy_space(), toy_settings()).ask()
    assert task is not None
    return task


def child_of(leaf: Leaf) -> SegmentTask:
    parent = Parent(leaf.leaf_id, leaf.path, leaf.sha256)
    return dataclasses.replace(first_task(), segment_id="child", index=1, parents=(parent,))


def test_files_and_commit(tmp_path: Path) -> None:
    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(ToySegment(), task, storage)
    assert (outcome.segment_id, outcome.status) == (task.segment_id, "ok")
    for leaf in outcome.leaves:
        data = (tmp_path / leaf.path).read_bytes()
        assert (leaf.nbytes, leaf.sha256) == (os.path.getsize(tmp_path / leaf.path), sha256(data))
        assert leaf.path.startswith(f"seg/{task.segment_id}/{outcome.attempt}/")
        assert leaf.leaf_id.startswith(task.segment_id)
    commit = json.loads((tmp_path / "seg" / task.segment_id / "COMMIT.json").read_text())
    assert commit["attempt"] == outcome.attempt
    for name, digest in commit["files"].items():
        assert sha256((tmp_path / "seg" / task.segment_id / outcome.attempt / name).read_bytes()) == digest
    assert read_commit(storage, task.segment_id) == outcome
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_second_attempt_returns_the_first_one_s_outcome_without_running(tmp_path: Path) -> None:
    storage, task = open_storage(tmp_path), first_task()
    first = run_attempt(ToySegment(), task, storage)

    def never(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        raise AssertionError

    assert run_attempt(never, task, storage) == first


def test_the_loser_of_a_race_takes_its_files_away(tmp_path: Path) -> None:
    storage, task = open_storage(tmp_path), first_task()
    winner: list[Outcome] = []

    def overtaken(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        winner.append(run_attempt(ToySegment(), task, storage))
        return ToySegment()(task, folder, files)

    assert run_attempt(overtaken, task, storage) == winner[0]
    assert {path.split("/")[2] for path in storage.find("seg")} == {winner[0].attempt, "COMMIT.json"}


def _race(folder: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    for index in range(8):
        task = dataclasses.replace(first_task(), segment_id=f"s{index}", index=index)
        results.put((index, run_attempt(ToySegment(), task, open_storage(folder)).attempt))


def test_two_processes_commit_one_wins_and_both_report_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    reported = [results.get(timeout=60) for _ in range(16)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    storage = open_storage(tmp_path)
    for index in range(8):
        attempts = {attempt for i, attempt in reported if i == index}
        assert len(attempts) == 1
        assert {path.split("/")[2] for path in storage.find(f"seg/s{index}")} == {*attempts, "COMMIT.json"}


def test_parents_are_passed_on_and_verified(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    leaf = run_attempt(ToySegment(), first_task(), storage).leaves[0]
    seen: list[bytes] = []

    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        seen.extend(files)
        return ToySegment()(task, folder, files)

    assert run_attempt(segment, child_of(leaf), storage).status == "ok"
    assert [sha256(data) for data in seen] == [leaf.sha256]


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_or_missing_parent_says_nothing_of_the_child(tmp_path: Path, damage: str) -> None:
    storage = open_storage(tmp_path)
    leaf = run_attempt(ToySegment(), first_task(), storage).leaves[0]
    path = tmp_path / leaf.path
    if damage == "flip":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    else:
        path.unlink()
    with pytest.raises(InfrastructureError, match=re.escape(str(path))):
        run_attempt(ToySegment(), child_of(leaf), storage)
    assert read_commit(storage, "child") is None and not storage.find("seg/child")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), "failed"),
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("CUDA"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("other"), "failed"),
    ],
)
def test_an_exception_is_a_recorded_outcome(tmp_path: Path, error: Exception, status: str) -> None:
    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        raise error

    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(segment, task, storage)
    assert (outcome.status, outcome.leaves) == (status, ())
    assert type(error).__name__ in outcome.error and "traceback" in outcome.metrics
    assert read_commit(storage, task.segment_id) == outcome


def broken(**changes: object) -> Callable[[SegmentTask, str, Sequence[bytes]], Outcome]:
    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        outcome = ToySegment()(task, folder, files)
        good, bad = outcome.leaves[0], dataclasses.replace(outcome.leaves[0], **changes)  # type: ignore[arg-type]
        Path(folder, "good.evc").write_bytes(Path(folder, good.path).read_bytes())
        return dataclasses.replace(outcome, leaves=(dataclasses.replace(good, path="good.evc"), bad))

    return segment


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nbytes": 3}, "says 3 bytes"),
        ({"nbytes": 10**9}, "says 1000000000 bytes"),
        ({"quality": float("nan")}, "quality nan"),
        ({"error": float("inf")}, "error inf"),
        ({"error": -0.1}, "error -0.1"),
        ({"sha256": "00"}, "sha256"),
        ({"sha256": "f" * 65}, "sha256"),
        ({"path": "../x.evc"}, "not a file name"),
        *(({"path": path}, "not a file name") for path in ("", ".", "..", "metrics.json", "a/b.evc")),
        ({"path": "good.evc"}, "two leaves have the same path"),
        ({"path": "none.evc"}, "not written"),
        ({"leaf_id": "other"}, "must start with"),
        ({"measurements": {"x": object()}}, "JSON data"),
    ],
)
def test_a_leaf_that_is_not_as_it_says_is_a_failed_outcome(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(broken(**changes), task, storage)
    assert (outcome.status, outcome.leaves) == ("failed", ()) and text in outcome.error
    assert not [path for path in storage.find("seg") if path.endswith(".evc")]


def test_ids_are_the_segment_s_own_and_no_error_at_all_is_allowed(tmp_path: Path) -> None:
    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(broken(error=0.0), task, storage)
    assert [leaf.leaf_id for leaf in outcome.leaves] == [f"{task.segment_id}-0", f"{task.segment_id}-1"]
    assert outcome.leaves[1].error == 0.0 and len({leaf.path for leaf in outcome.leaves}) == 2
    other = dataclasses.replace(task, segment_id="twice")
    twice = run_attempt(broken(leaf_id="twice-0"), other, storage)
    assert (twice.status, twice.leaves) == ("failed", ()) and "two leaves have the same leaf_id" in twice.error


@pytest.mark.parametrize("changes", [{"index": 8}, {"index": -1}, {"segment_id": "other"}, {"segment_id": "~"}])
def test_an_outcome_of_another_task_is_a_failed_one_that_took_its_time(tmp_path: Path, changes: dict[str, Any]) -> None:
    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        return dataclasses.replace(ToySegment()(task, folder, files), seconds=2.5, **changes)

    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(segment, task, storage)
    assert (outcome.status, outcome.seconds, outcome.segment_id) == ("failed", 2.5, task.segment_id)
    assert "the segment returned an outcome of" in outcome.error


def test_numbers_and_paths_are_kept_as_they_are() -> None:
    assert plain([2.5, True, 3, "x", None, Path("a") / "b"]) == [2.5, True, 3, "x", None, os.path.join("a", "b")]
    assert plain({1: (float("-inf"),)}) == {"1": [None]}


def test_measurements_become_json(tmp_path: Path) -> None:
    given = {
        "loss": np.float32("nan"),
        "n": np.int64(3),
        "curve": np.array([1.0, np.inf]),
        "pair": (1, True),
        "none": None,
    }
    expected = {"loss": None, "n": 3, "curve": [1.0, None], "pair": [1, True], "none": None}
    assert plain(given) == expected
    outcome = run_attempt(broken(measurements=given), first_task(), open_storage(tmp_path))
    assert outcome.leaves[1].measurements == expected


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        DataError("data set 'x' is not on this machine"),
        ModuleNotFoundError("No module named 'theirs'"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_machine_lacks_is_no_outcome(tmp_path: Path, error: Exception, wrapped: bool) -> None:
    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        Path(folder, "half.evc").write_bytes(b"half")
        if wrapped:
            raise ValueError("could not go on") from error
        raise error

    storage, task = open_storage(tmp_path), first_task()
    with pytest.raises(InfrastructureError, match=re.escape(str(error)) if not wrapped else "could not go on"):
        run_attempt(segment, task, storage)
    assert storage.find("seg") == [] and run_attempt(ToySegment(), task, storage).status == "ok"


@pytest.mark.parametrize("fails_at", ["leaf", "metrics", "commit"])
@pytest.mark.parametrize("other_disk", [False, True])
def test_a_full_disk_is_no_outcome_and_leaves_no_half_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str, other_disk: bool
) -> None:
    """The disk is full for one write, and takes those after it."""
    storage, task = open_storage(tmp_path), first_task()
    marks = {"leaf": ".evc", "metrics": "metrics.json", "commit": "COMMIT.json"}
    real_write, real_replace, full = storage_module.write_whole, os.replace, [True]

    def check(path: str) -> None:
        if full and marks[fails_at] in path:
            full.clear()
            raise OSError(errno.ENOSPC, "No space left on device", path)

    def write_whole(path: str, data: bytes) -> str:
        check(path)
        return real_write(path, data)

    def replace(source: str, target: str) -> None:
        if other_disk and "evocompress-" in source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        check(target)
        real_replace(source, target)

    monkeypatch.setattr(storage_module, "write_whole", write_whole)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(InfrastructureError, match="No space left"):
        run_attempt(ToySegment(), task, storage)
    assert not full and storage.find("seg") == []
    assert run_attempt(ToySegment(), task, storage).status == "ok"  # the next try


def test_scratch_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def replace(source: str, target: str) -> None:
        if "evocompress-" in source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    outcome = run_attempt(ToySegment(), first_task(), open_storage(tmp_path))
    assert outcome.status == "ok"
    assert all(sha256((tmp_path / leaf.path).read_bytes()) == leaf.sha256 for leaf in outcome.leaves)


def test_a_scratch_folder_that_stays_costs_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a file that is still open keeps its folder from being removed."""
    real, refused = os.rmdir, list[str]()

    def rmdir(path: str, **keywords: Any) -> None:
        if "evocompress-" in str(path):
            refused.append(path)
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        real(path, **keywords)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "rmdir", rmdir)
    storage, task = open_storage(tmp_path / "run"), first_task()
    outcome = run_attempt(ToySegment(), task, storage)
    assert refused and outcome.status == "ok" and read_commit(storage, task.segment_id) == outcome


_FULL = """
import resource, signal, sys
from evocompress.search.attempt import run_attempt
from evocompress.search.storage import open_storage
from evocompress.search.ask_tell import Search
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
try:
    run_attempt(ToySegment(), Search(toy_space(), toy_settings()).ask(), open_storage(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_takes_nothing_at_all_leaves_nothing(tmp_path: Path) -> None:
    """Writes really fail here, those of COMMIT.json too, by a limit on file size in a process of its own."""
    result = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("InfrastructureError "), result.stdout
    assert open_storage(tmp_path).find("seg") == []


def test_a_kill_in_mid_segment_takes_its_files_away(tmp_path: Path) -> None:
    def segment(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_attempt(segment, first_task(), open_storage(tmp_path))
    assert open_storage(tmp_path).find("seg") == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"attempt": "../../x", "files": {}}', b"\xff"])
def test_a_damaged_commit_is_an_error_of_the_run(tmp_path: Path, content: bytes) -> None:
    storage: Storage = open_storage(tmp_path)
    storage.write("seg/s/COMMIT.json", content)
    with pytest.raises(RunError):
        read_commit(storage, "s")


def test_metrics_of_another_attempt_do_not_pass_for_the_committed_ones(tmp_path: Path) -> None:
    storage, task = open_storage(tmp_path), first_task()
    outcome = run_attempt(ToySegment(), task, storage)
    storage.write(f"seg/{task.segment_id}/{outcome.attempt}/metrics.json", b"{}")
    with pytest.raises(RunError, match="sha256"):
        read_commit(storage, task.segment_id)


def test_remote_storage(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    storage = open_storage(f"memory://{tmp_path.name}")
    outcome = run_attempt(ToySegment(), first_task(), storage)
    assert run_attempt(ToySegment(), child_of(outcome.leaves[0]), storage).status == "ok"


def _unlink_fails_once(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The first removal of COMMIT.json's temporary file fails, after COMMIT.json is there."""
    real, failed = os.unlink, list[str]()

    def unlink(path: str, *arguments: object, **keywords: object) -> None:
        if "COMMIT.json" in str(path) and not failed:
            failed.append(path)
            raise error
        real(path, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", unlink)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "i/o error"), KeyboardInterrupt()], ids=["OSError", "Ctrl-C"])
def test_what_goes_wrong_after_the_commit_leaves_the_committed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    storage, task = open_storage(tmp_path), first_task()
    _unlink_fails_once(monkeypatch, error)
    with contextlib.suppress(KeyboardInterrupt):
        run_attempt(ToySegment(), task, storage)
    committed = read_commit(storage, task.segment_id)
    assert committed is not None and committed.status == "ok" and committed.leaves
    for leaf in committed.leaves:
        assert sha256(storage.read(leaf.path)) == leaf.sha256
    assert run_attempt(ToySegment(), task, storage) == committed


def test_a_store_that_repeats_a_creation_does_not_cost_the_winner_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store's client may retry a put that had succeeded, and then report that the name is taken."""
    storage, task = open_storage(tmp_path), first_task()
    real = type(storage).create
    monkeypatch.setattr(type(storage), "create", lambda self, path, data: real(self, path, data) and False)
    outcome = run_attempt(ToySegment(), task, storage)
    assert outcome.status == "ok" and all(storage.read(leaf.path) for leaf in outcome.leaves)


@pytest.mark.parametrize("told", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("through_numba", [False, True])
def test_a_worker_that_is_asked_to_end_leaves_no_outcome(
    told: BaseException, through_numba: bool, tmp_path: Path
) -> None:
    """Ray ends the workers of a driver that died by SIGTERM; where compiled code runs, that comes as a SystemError."""
    storage, task = open_storage(tmp_path), first_task()

    def ended(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        if through_numba:
            raise SystemError("a compiled function returned a result with an exception set") from told
        raise told

    with pytest.raises(type(told)):
        run_attempt(ended, task, storage)
    assert read_commit(storage, task.segment_id) is None
    assert run_attempt(ToySegment(), task, storage).status == "ok"


def test_a_system_error_of_its_own_is_a_failed_outcome(tmp_path: Path) -> None:
    def broken(task: SegmentTask, folder: str, files: Sequence[bytes]) -> Outcome:
        raise SystemError("something else")

    assert run_attempt(broken, first_task(), open_storage(tmp_path)).status == "failed"
