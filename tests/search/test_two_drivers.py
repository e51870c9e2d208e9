"""Two drivers on one folder, the first of them frozen and awake again: one writes, and the journal stays readable."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import RunError
from evocompress.search import run_folder
from evocompress.search.events import Finished, Watching
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.lease import Holder, Lease
from evocompress.search.run_folder import Run, open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

_DRIVER = """
import sys
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space
settings = toy_settings(segments=24, deterministic=True, lag=4)
with open_run(sys.argv[1], header={"config": {}}, space=toy_space(), settings=settings) as run:
    run.drive(InlineExecutor(ToySegment(seconds=0.03), run.storage), observer=lambda event: print(event, flush=True))
"""


class Time:
    """A monotonic clock that goes on by sleeping only."""

    now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def open_toy(folder: Path, resume: bool = False, **changes: Any) -> Run:
    settings = toy_settings(segments=24, deterministic=True, lag=4)
    return open_run(folder, header={"config": {}}, space=toy_space(), settings=settings, resume=resume, **changes)


def leaves(folder: Path) -> list[tuple[str, str]]:
    return [(leaf.leaf_id, leaf.sha256) for leaf in read_history(folder).archive]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with open_toy(folder) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    return leaves(folder)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Time:
    passing = Time()
    quick = functools.partial(Lease, clock=passing.clock, sleep=passing.sleep)
    monkeypatch.setattr(run_folder, "Lease", quick)
    return passing


def move_lease(folder: Path) -> None:
    """As if the holder were on a machine whose processes cannot be looked up, and whose clock is two minutes ahead."""
    fields = json.loads((folder / "lease.json").read_text())
    fields |= {"host": "elsewhere", "boot": "b", "since": fields["since"] + 120.0}
    (folder / "lease.json").write_text(json.dumps(fields))


def test_a_frozen_driver_is_overtaken_and_stops_when_it_wakes(
    tmp_path: Path, passing: Time, undisturbed: list[tuple[str, str]]
) -> None:
    command = [sys.executable, "-c", _DRIVER, str(tmp_path / "run")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stdout is not None
    while not first.stdout.readline().startswith("Finished(index=3"):
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)
    move_lease(tmp_path / "run")
    heard: list[Any] = []

    def observer(event: object) -> None:
        heard.append(event)
        if isinstance(event, Finished) and event.index == 12:
            first.send_signal(signal.SIGCONT)
            assert "taken over" in first.communicate(timeout=60)[1].splitlines()[-1]

    with open_toy(tmp_path / "run", resume=True, observer=observer) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage), observer=observer) == "finished"
    assert first.returncode == 1 and passing.now > 30
    assert heard[0] == Watching(first.pid, "elsewhere", 30.0)
    assert leaves(tmp_path / "run") == undisturbed
    assert not (tmp_path / "run" / "lease.json").exists()


def test_the_later_of_two_writers_counts_whatever_the_earlier_one_still_writes(
    tmp_path: Path, passing: Time, undisturbed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst of it: the overtaken one never looks, so that both write by turns to the end."""
    old = open_toy(tmp_path)
    asleep = old.drive(InlineExecutor(ToySegment(), old.storage), should_stop=lambda: old.search.asked >= 6)
    assert asleep == "stopped"
    other = dataclasses.replace(Holder.here(), host="elsewhere", boot="b")
    (tmp_path / "lease.json").write_text(json.dumps(dataclasses.asdict(other)))
    monkeypatch.setattr(old, "_check", lambda: None)
    monkeypatch.setattr(old._lease, "check", lambda: None)
    monkeypatch.setattr(old._journal, "check", lambda: None)
    wrote = 0

    def observer(event: object) -> None:
        nonlocal wrote
        if isinstance(event, Finished):
            old.record("noise", number=wrote)
            wrote += 1

    with open_toy(tmp_path, resume=True) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage), observer=observer) == "finished"
    assert wrote == 19
    history = read_history(tmp_path)
    assert history.events("noise") == [] and leaves(tmp_path) == undisturbed
    assert [event["reason"] for event in history.events("closed")] == ["finished"]
    with open_toy(tmp_path, resume=True) as run:
        assert run.search.done
    old._journal.close()


def test_a_driver_that_lost_its_run_deletes_nothing(tmp_path: Path) -> None:
    deleted: list[str] = []
    other = dataclasses.replace(Holder.here(), host="elsewhere", boot="b")
    with pytest.raises(RunError, match="taken over by pid"), open_toy(tmp_path) as run:
        run._delete = deleted.append  # type: ignore[assignment,method-assign]

        def segment(task: Any, folder: str, parents: Any) -> Any:
            if task.index == 8:
                (tmp_path / "lease.json").write_text(json.dumps(dataclasses.asdict(other)))
                deleted.clear()
            return ToySegment()(task, folder, parents)

        run.drive(InlineExecutor(segment, run.storage))
    assert deleted == [] and len(read_history(tmp_path).outcomes) == 8
