"""The run folder: a run from beginning to end, the order of journal and files, and resumes with other settings."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import RunError
from evocompress.search.events import Ended, Finished, Submitted
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.journal import read_journal
from evocompress.search.pareto import hypervolume
from evocompress.search.run_folder import Run, open_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.space import Float, Space
from evocompress.search.storage import LocalStorage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

HEADER: dict[str, Any] = {
    "config": {"search": {"segments": 30}, "resources": {"cpus": 1}},
    "versions": {"python": "3"},
    "data": {"sha256": "d"},
    "network": {"name": "toy"},
}


def open_toy(folder: Path, *, resume: bool = False, override: bool = False, **changes: Any) -> Run:
    arguments: dict[str, Any] = {"header": HEADER, "space": toy_space(), "settings": toy_settings(segments=30)}
    return open_run(folder, **{**arguments, **changes}, resume=resume, override=override)


def files(run: Run) -> set[str]:
    return {path for path in run.storage.find("seg") if path.endswith(".evc")}


def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    events: list[Any] = []
    with open_toy(tmp_path / "run") as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage), observer=events.append) == "finished"
        run.record("audited", leaves={"x": {"quality": 0.5}})
        front = run.search.front()
        needed = {leaf.path for leaf in (*front, *run.search.pool)}
        assert files(run) == needed
        for leaf in front:
            assert os.path.getsize(run.storage.url(leaf.path)) == leaf.nbytes
    history = read_history(tmp_path / "run")
    assert [len(x) for x in (history.outcomes, history.told, history.finished_at, history.tasks)] == [30] * 4
    assert history.archive == front
    assert history.run["reference_point"] == [1.1, 1.1] and history.run["seed"] == 0
    assert history.run["ranges"] == {"bytes": [24.0, 512.0], "error": [0.0, 1.0]}
    assert history.events("audited")[0]["leaves"] == {"x": {"quality": 0.5}}
    assert history.events("closed")[0]["reason"] == "finished"
    assert history.told[-1]["hypervolume_after"] == pytest.approx(run.search.hypervolume)
    assert not (tmp_path / "run" / "lease.json").exists()
    assert [type(event) for event in events[:3]] == [Submitted, Finished, Submitted]
    assert events[-1] == Ended("finished", 30, run.search.hypervolume, len(front))
    finished = [event for event in events if isinstance(event, Finished)]
    assert [event.completion for event in finished] == list(range(30))
    assert [event.hypervolume for event in finished] == [told["hypervolume_after"] for told in history.told]


def test_the_journal_s_hypervolume_is_that_of_the_front(tmp_path: Path) -> None:
    from evocompress.search.objectives import Scale

    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        scale = Scale.of(run.settings)
        points = [scale.point(leaf.nbytes, leaf.error) for leaf in run.search.front()]
        assert run.search.hypervolume == pytest.approx(hypervolume(points, run.settings.reference), abs=1e-12)


def test_lineages(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    history = read_history(tmp_path)
    for leaf in history.archive:
        line = history.lineage(leaf.leaf_id)
        assert line[-1] == leaf and history.parent_of(line[0].leaf_id) is None
        assert [ancestor.depth for ancestor in line] == list(range(len(line)))
    assert max(leaf.depth for leaf in history.archive) > 1


def test_submitted_comes_before_the_segment_and_finished_before_deletion(tmp_path: Path) -> None:
    with open_toy(tmp_path / "run") as run:
        deleted: list[str] = []
        storage = run.storage

        class Watched(LocalStorage):
            def delete(self, path: str) -> None:
                deleted.append(path)
                kinds = [record["type"] for record in read_journal(tmp_path / "run" / "journal")]
                assert kinds.count("finished") == kinds.count("submitted")
                super().delete(path)

        def segment(task: Any, folder: str, parents: Any) -> Any:
            last = read_journal(tmp_path / "run" / "journal")[-1]
            assert (last["type"], last["task"]["segment_id"]) == ("submitted", task.segment_id)
            return ToySegment()(task, folder, parents)

        run.storage = Watched(storage.url("x").removesuffix("/x"))
        run.drive(InlineExecutor(segment, storage))
        assert deleted
    assert all(outcome.status == "ok" for outcome in read_history(tmp_path / "run").outcomes)


def test_at_every_moment_exactly_the_needed_files_are_there(tmp_path: Path) -> None:
    with open_toy(tmp_path, settings=toy_settings(segments=30, pool_size=4)) as run:

        def observer(event: object) -> None:
            if isinstance(event, Finished):
                made = run.history().leaves.values()
                assert files(run) == {leaf.path for leaf in made if run.search.needs(leaf.leaf_id)}

        run.drive(InlineExecutor(ToySegment(), run.storage), observer=observer)


def test_results_that_come_twice_are_journalled_once(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=3, duplicate=0.6)
        run.drive(executor)
    finished = [r for r in read_journal(tmp_path / "journal") if r["type"] == "finished"]
    assert len({record["outcome"]["segment_id"] for record in finished}) == len(finished) == 30
    assert [record["completion"] for record in finished] == list(range(30))


def test_should_stop_leaves_work_for_a_resume(tmp_path: Path) -> None:
    done = 0

    def observer(event: object) -> None:
        nonlocal done
        done += isinstance(event, Finished)

    with open_toy(tmp_path) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=3)
        assert run.drive(executor, observer=observer, should_stop=lambda: done >= 10) == "stopped"
    history = read_history(tmp_path)
    assert len(history.in_flight) == 3 and len(history.outcomes) == 10
    assert sorted(history.events("closed")[0]["in_flight"]) == sorted(task.segment_id for task in history.in_flight)
    with open_toy(tmp_path, resume=True) as run:
        events: list[Any] = []
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=3)
        assert run.drive(executor, observer=events.append) == "finished"
    assert [event.resumed for event in events if isinstance(event, Submitted)][:4] == [True, True, True, False]
    assert len(read_history(tmp_path).outcomes) == 30


def test_minutes_end_a_run_and_count_over_resumes(tmp_path: Path) -> None:
    settings = toy_settings(minutes=0.2)
    with open_toy(tmp_path, settings=settings) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=2, duration=lambda task, rng: 1.0)
        assert run.drive(executor) == "finished"
        assert run.search.asked == 24 and executor.now() == pytest.approx(12.0)
    assert read_history(tmp_path).elapsed == pytest.approx(12.0)
    with open_toy(tmp_path, settings=settings, resume=True) as run:
        assert run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=2)) == "finished"
        assert run.search.asked == 24


def test_a_clock_that_jumps_eats_no_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter([0.0, 7200.0, -86400.0] * 1000)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + next(jumps))
    settings = toy_settings(minutes=0.2)
    for resume in (False, True, True):
        with open_toy(tmp_path, settings=settings, resume=resume) as run:
            executor = SimulatedExecutor(ToySegment(), run.storage, workers=1, duration=lambda task, rng: 1.0)
            reason = run.drive(executor, should_stop=lambda: executor.now() >= 5.0)  # noqa: B023
    assert reason == "finished" and run.search.asked == 12
    assert read_history(tmp_path).elapsed == pytest.approx(12.0)


def test_old_journals_count_minutes_by_their_times(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
    history = read_history(tmp_path)
    old = [{key: value for key, value in record.items() if key != "elapsed"} for record in history.records]
    history = dataclasses.replace(history, records=old)
    assert history.elapsed == pytest.approx(history.finished_at[-1] - history.records[0]["time"], abs=0.01)


def test_an_existing_run_is_not_overwritten_and_a_missing_one_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        open_toy(tmp_path / "run", resume=True)
    open_toy(tmp_path / "run").__exit__(None, None, None)
    with pytest.raises(RunError, match="already holds a run"):
        open_toy(tmp_path / "run")


def test_a_run_is_begun_unless_a_resume_is_asked_for(tmp_path: Path) -> None:
    open_run(tmp_path, header=HEADER, space=toy_space(), settings=toy_settings()).__exit__(None, None, None)
    with pytest.raises(RunError, match="already holds a run"):
        open_run(tmp_path, header=HEADER, space=toy_space(), settings=toy_settings())


def test_what_a_driver_killed_at_once_left_is_no_obstacle(tmp_path: Path) -> None:
    for name in ("lease.json.0a1b2c3d.tmp", "run.json.0a1b2c3d.tmp", "lease.lock"):
        (tmp_path / name).touch()
    with open_toy(tmp_path) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.json.0a1b2c3d.tmp").touch()
    with pytest.raises(RunError, match="is no run, and not empty"):
        open_toy(tmp_path / "other")


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with open_toy(tmp_path), pytest.raises(RunError, match=f"held by pid {os.getpid()}"):
        open_toy(tmp_path, resume=True)
    with open_toy(tmp_path, resume=True) as run:
        assert run.search.asked == 0


def test_a_changed_configuration_is_refused_then_overridden_and_journalled(tmp_path: Path) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    header = {**HEADER, "config": {"search": {"segments": 30, "probes": 3}, "resources": {"cpus": 1}}}
    changed: dict[str, Any] = {"header": header, "settings": toy_settings(segments=30, probes=3)}
    with pytest.raises(
        RunError, match=r"configuration: search.probes was null, is 3; undo that, or go on with override=True$"
    ):
        open_toy(tmp_path, resume=True, **changed)
    open_toy(tmp_path, resume=True, override=True, **changed).__exit__(None, None, None)
    history = read_history(tmp_path)
    assert history.events("override")[0]["changes"]["search.probes"] == [history.run["search"]["probes"], 3]
    assert history.settings.probes == 3
    open_toy(tmp_path, resume=True, **changed).__exit__(None, None, None)
    with pytest.raises(RunError, match="probes was 3"):
        open_toy(tmp_path, resume=True)


def test_the_budget_may_change_without_an_override_and_is_journalled(tmp_path: Path) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    header = {**HEADER, "config": {"search": {"segments": 35}, "resources": {"cpus": 1}}}
    changed: dict[str, Any] = {"header": header, "settings": toy_settings(segments=35)}
    with open_toy(tmp_path, resume=True, **changed) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        assert run.search.asked == 35
    history = read_history(tmp_path)
    assert history.events("override")[0]["changes"]["search.segments"] == [30, 35]
    assert history.settings.segments == 35 and history.run["search"]["segments"] == 30


def test_free_keys_may_change(tmp_path: Path) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    header = {**HEADER, "config": {**HEADER["config"], "resources": {"cpus": 4}}, "versions": {"python": "4"}}
    with pytest.raises(RunError, match=" resources.cpus"):
        open_toy(tmp_path, resume=True, header=header)
    with open_toy(tmp_path, resume=True, header=header, free=["config.resources"]):
        pass
    assert read_history(tmp_path).events("resumed")[0]["versions"] == {"python": "4"}


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": toy_settings(segments=30, seed=1)},
        {"settings": toy_settings(segments=30, error_range=(0.0, 0.5))},
        {"settings": toy_settings(segments=30, deterministic=True, lag=2)},
        {"space": Space({"a": Float(0, 1)})},
        {"header": {**HEADER, "data": {"sha256": "other"}}},
        {"storage_uri": "memory://elsewhere"},
    ],
)
def test_what_makes_results_comparable_cannot_be_overridden(tmp_path: Path, changes: dict[str, Any]) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    with pytest.raises(RunError, match="start a new run"):
        open_toy(tmp_path, resume=True, override=True, **changes)


def test_the_lag_is_fixed_at_creation_whatever_workers_a_resume_has(tmp_path: Path) -> None:
    settings = toy_settings(segments=30, deterministic=True)
    with open_toy(tmp_path, settings=settings, workers=3) as run:
        assert run.settings.lag == 6
    with open_toy(tmp_path, settings=settings, workers=50, resume=True) as run:
        assert run.settings.lag == 6


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 99}'])
def test_a_damaged_run_json_is_an_error_of_the_run(tmp_path: Path, damage: str) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    (tmp_path / "run.json").write_text(damage)
    with pytest.raises(RunError, match=r"run\.json"):
        open_toy(tmp_path, resume=True)


@pytest.mark.parametrize("search", [{"segmants": 3}, {"initial": 0}, {"bytes_range": 3}, {"bytes_range": [1]}])
def test_damaged_settings_are_said(tmp_path: Path, search: dict[str, Any]) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    run_json = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**run_json, "search": search}))
    with pytest.raises(RunError, match=r"run\.json is damaged \(search: .*restore it from a copy"):
        read_history(tmp_path)


def test_a_failed_open_gives_the_lease_back(tmp_path: Path) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    with pytest.raises(RunError, match="another configuration"):
        open_toy(tmp_path, resume=True, settings=toy_settings(segments=30, pool_size=31))
    open_toy(tmp_path, resume=True).__exit__(None, None, None)


def test_an_error_inside_is_journalled_as_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_toy(tmp_path):
        raise ZeroDivisionError("by zero")
    assert read_history(tmp_path).events("closed")[0]["reason"] == "ZeroDivisionError: by zero"


def test_files_can_lie_in_another_storage_but_of_one_run_only(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    uri = f"memory://{tmp_path.name}"
    with open_toy(tmp_path / "a", storage_uri=uri) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        assert files(run) and not (tmp_path / "a" / "seg").exists()
    assert read_history(tmp_path / "a").storage == run.storage
    with open_toy(tmp_path / "a", storage_uri=uri, resume=True) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    with pytest.raises(RunError, match="already holds a run's files"):
        open_toy(tmp_path / "b", storage_uri=uri)


def test_the_history_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    seen: list[int] = []

    def observer(event: object) -> None:
        if isinstance(event, Finished):
            history = read_history(tmp_path)
            seen.append(len(history.outcomes))
            assert len(history.archive) == event.front_size

    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage), observer=observer)
    assert seen == list(range(1, 31))


def test_run_json_is_plain_json(tmp_path: Path) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    run_json = json.loads((tmp_path / "run.json").read_text())
    assert run_json["format"] == 1 and run_json["storage"] == "" and run_json["config"] == HEADER["config"]
    with pytest.raises(RunError, match="header"):
        open_toy(tmp_path / "b", header={"config": {"x": float("nan")}})
