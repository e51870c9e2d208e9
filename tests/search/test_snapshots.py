"""Snapshots: a resume from one goes on as without it, and one that does not fit is passed over."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from evocompress.search import snapshots as module
from evocompress.search.events import Finished, SnapshotIgnored
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.journal import Line, read_journal
from evocompress.search.run_folder import Run, open_run
from evocompress.search.run_state import RunState
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def open_toy(folder: Path, *, resume: bool = False, observer: Any = None, every: int = 5, **changes: Any) -> Run:
    settings = toy_settings(**{"segments": 40, "deterministic": True, "lag": 3, **changes})
    arguments: dict[str, Any] = {"header": {"config": {}}, "space": toy_space(), "settings": settings}
    return open_run(folder, **arguments, resume=resume, observer=observer, snapshot_every=every, override=resume)


def drive(run: Run, segments: int = 1000) -> str:
    done = 0

    def observer(event: object) -> None:
        nonlocal done
        done += isinstance(event, Finished)

    executor = InlineExecutor(ToySegment(), run.storage)
    return run.drive(executor, observer=observer, should_stop=lambda: done >= segments)


def decisions(folder: Path) -> list[Any]:
    """What was asked and what came of it, without what depends on clocks and attempts."""
    kept: list[Any] = []
    for record in read_journal(folder / "journal"):
        if record["type"] == "submitted" and not record["attempt_of_resume"]:
            kept.append({**record["task"], "parents": [parent["leaf_id"] for parent in record["task"]["parents"]]})
        if record["type"] == "finished":
            leaves = [(leaf["leaf_id"], leaf["sha256"], leaf["error"]) for leaf in record["outcome"]["leaves"]]
            kept.append((record["outcome"]["segment_id"], leaves, record["told"], record["completion"]))
    return kept


@pytest.fixture(scope="module", params=["deterministic", "free"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was stopped, with its snapshots, and the settings of its mode."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    changes: dict[str, Any] = {} if request.param == "deterministic" else {"deterministic": False}
    with open_toy(folder, **changes) as run:
        assert drive(run, 23) == "stopped"
    assert len(list((folder / "snapshots").iterdir())) == 2
    return folder, changes


def test_a_resume_from_a_snapshot_goes_on_as_one_without(stopped: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, changes = stopped
    ends, heard = {}, {}
    for name in ("with", "without", "damaged", "older"):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        newest = sorted((copy / "snapshots").iterdir())[-1]
        if name == "without":
            shutil.rmtree(copy / "snapshots")
        if name == "damaged":
            for path in (copy / "snapshots").iterdir():
                path.write_bytes(path.read_bytes().replace(b'"next":', b'"next": ', 1))
        if name == "older":
            newest.write_bytes(newest.read_bytes()[:-200])
        said: list[Any] = []
        with open_toy(copy, resume=True, observer=said.append, **changes) as run:
            state = run.search.state_dict()
            assert drive(run) == "finished"
        ends[name] = (state, decisions(copy), [leaf.to_json() | {"path": ""} for leaf in run.search.front()])
        heard[name] = [event for event in said if isinstance(event, SnapshotIgnored)]
    assert ends["with"] == ends["without"] == ends["damaged"] == ends["older"]
    assert [len(heard[name]) for name in heard] == [0, 0, 2, 1]
    assert "it is damaged" in heard["older"][0].reason


def test_a_snapshot_spares_what_is_before_it(
    stopped: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, changes = stopped
    taken: list[int] = []
    real = RunState.take

    def take(self: RunState, line: Line) -> None:
        taken.append(line.seq)
        real(self, line)

    monkeypatch.setattr(RunState, "take", take)
    shutil.copytree(folder, tmp_path / "run")
    with open_toy(tmp_path / "run", resume=True, **changes) as run:
        assert run.completions == 23
    lines = len(read_journal(folder / "journal"))
    assert 0 < len(taken) < lines / 3 and taken[-1] == lines - 1


@pytest.mark.parametrize("change", ["settings", "version", "journal", "shorter"])
def test_a_snapshot_that_does_not_fit_is_passed_over(
    stopped: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder, changes = stopped
    shutil.copytree(folder, tmp_path / "run")
    journal = tmp_path / "run" / "journal" / "000001.jsonl"
    if change == "settings":
        changes = {**changes, "pool_size": 5}
    if change == "version":
        monkeypatch.setattr(module, "_FORMAT", module._FORMAT + 1)
    if change == "journal":  # whole in itself, and another one
        lines = journal.read_bytes().splitlines(keepends=True)
        text = json.loads(lines[1])
        text.pop("crc")
        text["time"] += 1.0
        body = json.dumps(text, separators=(",", ":")).encode()
        lines[1] = b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body[1:])
        journal.write_bytes(b"".join(lines))
    if change == "shorter":
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:12]))
    said: list[Any] = []
    with open_toy(tmp_path / "run", resume=True, observer=said.append, **changes) as run:
        assert drive(run) == "finished"
    assert len([event for event in said if isinstance(event, SnapshotIgnored)]) == 2
    assert len(read_history(tmp_path / "run").outcomes) == 40


def test_a_kill_while_a_snapshot_is_written_harms_nothing(stopped: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """What it leaves is a file of another name, of any length, and the snapshots of before."""
    folder, changes = stopped
    shutil.copytree(folder, tmp_path / "whole")
    with open_toy(tmp_path / "whole", resume=True, **changes) as run:
        expected = run.search.state_dict()
    newest = sorted((folder / "snapshots").iterdir())[-1]
    data = newest.read_bytes()
    for number, length in enumerate((0, 64, 65, len(data) - 1)):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        (copy / "snapshots" / newest.name).unlink()
        (copy / "snapshots" / f"{newest.name}.0123abcd.tmp").write_bytes(data[:length])
        with open_toy(copy, resume=True, **changes) as run:
            assert run.search.state_dict() == expected
            assert drive(run) == "finished"
        assert not list((copy / "snapshots").glob("*.tmp"))


def test_lines_of_an_overtaken_driver_are_in_no_snapshot_that_counts(tmp_path: Path) -> None:
    with open_toy(tmp_path / "run") as run:
        drive(run, 11)
        shutil.copytree(tmp_path / "run", tmp_path / "before", ignore=shutil.ignore_patterns("lease.*"))
        drive(run, 6)
    folder = tmp_path / "run"
    # Another driver began from what it saw after 11 segments, and this one's later lines and snapshots are stray.
    with open_toy(tmp_path / "before", resume=True) as run:
        drive(run, 2)
    shutil.copy(tmp_path / "before" / "journal" / "000002.jsonl", folder / "journal" / "000002.jsonl")
    said: list[Any] = []
    with open_toy(folder, resume=True, observer=said.append) as run:
        assert run.completions >= 13
    assert any("written anew" in event.reason for event in said if isinstance(event, SnapshotIgnored))


def test_a_disk_that_takes_no_snapshot_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: bytes) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_whole", full)
    with open_toy(tmp_path / "run") as run:
        assert drive(run) == "finished"
    assert list((tmp_path / "run" / "snapshots").iterdir()) == []
