"""`status` and `stop`: what is said of a run that goes on, has ended, was killed, or is driven from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import invoke_caught
from small_digits_run import small_digits_run
from synthetic_run import synthetic_run, write_synthetic_run

from evocompress.errors import ConfigError, RunError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.runs.status import read_status, shown_status
from evocompress.search.events import Opened
from evocompress.search.history import read_history
from evocompress.search.lease import Holder, Lease
from evocompress.search.stop_request import ask_to_stop, is_asked_to_stop

SMALL = small_digits_run()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_synthetic_run(tmp_path / "run", synthetic_run(40))
    return tmp_path / "run"


def hold(folder: Path, **changes: Any) -> None:
    (folder / "lease.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(Holder.here(), **changes))))


def test_a_run_without_a_driver(folder: Path) -> None:
    status, history = read_status(folder), read_history(folder)
    assert [outcome for outcome in history.outcomes if outcome.status != "ok"] == history.failed != []
    assert status.hypervolume == history.told[-1]["hypervolume_after"]
    assert status.state == "dead" and "a resume goes on" in status.driver
    assert status.done == 40 and status.failed == sum(failure.count for failure in status.failures)
    lines = shown_status(status)
    assert lines[0].startswith(f"{status.name}: dead") and f"{status.failed} failed" in lines[1]
    assert any(line.startswith("  front: ") and "hypervolume" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "running", "on this machine"),
        ({"pid": 2**22 + 1}, "dead", "is gone, and has not closed the run"),
        ({"host": "gpu-3"}, "held", "gpu-3, which cannot be looked up from here"),
    ],
)
def test_who_drives_it(folder: Path, changes: dict[str, Any], state: str, words: str) -> None:
    hold(folder, **changes)
    status = read_status(folder)
    assert status.state == state and words in status.driver
    seen = json.loads(invoke_caught("status", folder, "--json").output)
    assert seen["state"] == state and seen["done"] == 40 and seen["front"] == [list(point) for point in status.front]


def test_a_damaged_lease_and_no_run(folder: Path, tmp_path: Path) -> None:
    (folder / "lease.json").write_text("[")
    with pytest.raises(RunError, match="lease .* is damaged"):
        read_status(folder)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("nothing", "is no run: it does not exist"),
        ("file", "is no run: it is a file, not a folder"),
        ("empty", "is no run: it has no run.json"),
    ):
        with pytest.raises(RunError, match=f"{name} {words}"):
            ask_to_stop(tmp_path / name)


def test_a_driver_stops_when_it_is_asked_and_a_resume_goes_on_for_longer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    endless = parse_config({**SMALL, "search": {**SMALL["search"], "segments": 100_000}})
    summaries = []
    driver = threading.Thread(target=lambda: summaries.append(run_experiment(endless, folder)))
    driver.start()
    deadline = time.monotonic() + 120
    while not (folder / "run.json").exists() or not read_status(folder).done:
        assert driver.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    running = read_status(folder)
    assert running.state == "running" and running.segments == 100_000 and running.left is not None
    said = invoke_caught("stop", folder)
    driver.join(60)
    assert said.exit_code == 0 and "--resume" in said.output and not driver.is_alive()
    assert not summaries[0].finished and not is_asked_to_stop(folder)
    stopped = read_status(folder)
    assert (stopped.state, stopped.driver) == ("stopped", "by request")
    begun = stopped.done + len(stopped.in_flight)
    assert f"{begun - stopped.done} to be run again" in shown_status(stopped)[1]
    assert " in flight, " in shown_status(running)[1]
    assert "no driver to stop" in invoke_caught("stop", folder).output

    again = invoke_caught("run", "--resume", "--out", folder, "--more", 2)
    assert again.exit_code == 0, again.output
    finished = read_status(folder)
    assert (finished.state, finished.done, finished.segments) == ("finished", begun + 2, begun + 2)
    assert invoke_caught("status", folder, "--watch").exit_code == 0  # ends, as the run has
    nothing = invoke_caught("run", "--resume", "--out", folder)
    assert nothing.exit_code == 0 and "no segment was trained; --more 100 or --until 2h goes on" in nothing.output
    assert "no segment was trained" not in again.output

    longer = invoke_caught("run", "--resume", "--out", folder, "--until", "0.5 s")
    assert longer.exit_code == 0, longer.output
    assert read_status(folder).segments is None and read_status(folder).done > begun + 2


def test_a_request_is_heard_that_comes_before_the_first_segment(tmp_path: Path) -> None:
    def observer(event: object) -> None:
        if isinstance(event, Opened):
            ask_to_stop(tmp_path / "run")

    summary = run_experiment(parse_config(SMALL), tmp_path / "run", observer=observer)
    assert not summary.finished and read_status(tmp_path / "run").done <= 1
    assert not is_asked_to_stop(tmp_path / "run")


def test_a_request_of_before_does_not_stop_the_next_driver(tmp_path: Path) -> None:
    config = parse_config({**SMALL, "search": {**SMALL["search"], "segments": 1, "initial": 1}})
    run_experiment(config, tmp_path / "run")
    ask_to_stop(tmp_path / "run")
    misspelt = invoke_caught("run", "--resume", "--out", tmp_path / "run", "--set", "search.segmets=3")
    assert isinstance(misspelt.exception, ConfigError)
    assert str(misspelt.exception).startswith(f"search.segmets=3, given beside {tmp_path / 'run'}/run.json:")
    assert invoke_caught("run", "--resume", "--out", tmp_path / "run", "--more", 1).exit_code == 0
    assert read_status(tmp_path / "run").done == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--more", "5"), "give --resume"),
        (("--resume", "--until", "soon"), "write for example 2h or 90min"),
        (("--resume", "--until", "0h"), "no time above 0"),
    ],
)
def test_budgets_that_cannot_be(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    (tmp_path / "small.toml").write_text('model = "digits_cnn"\ndata = "digits"\n')
    result = invoke_caught("run", tmp_path / "small.toml", "--out", tmp_path / "run", *words)
    assert result.exception is not None and text in str(result.exception)


def test_a_live_lease_is_shown_as_running(folder: Path) -> None:
    with Lease(folder):
        assert read_status(folder).state == "running"
    assert read_status(folder).state == "dead"
