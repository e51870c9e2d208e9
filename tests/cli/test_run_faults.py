"""Faults of machines and stores, as the command `run` tells them: one line, and how to go on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evocompress.cli import main
from evocompress.errors import HopelessError, InfrastructureError, RunError, StorageError
from evocompress.evolve import driver
from evocompress.evolve.config import parse_config
from evocompress.runs.display import RunDisplay
from evocompress.runs.status import read_status
from evocompress.search.events import Late, Watching
from evocompress.search.history import read_history
from evocompress.search.records import SegmentTask

LEAST: dict[str, Any] = {"model": "digits_cnn", "data": "digits"}


def fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: object
) -> tuple[int, str]:
    def failing(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(driver, "run_experiment", failing)
    monkeypatch.setattr("sys.argv", ["evocompress", "run", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.err or said.out


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "c.toml").write_text('model = "digits_cnn"\ndata = "digits"\n')
    return tmp_path / "c.toml"


@pytest.mark.parametrize("kind", [InfrastructureError, StorageError])
def test_a_fault_is_one_line_with_the_command_to_go_on(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    out = config.parent / "run"
    words = (config, "--out", out, "--address", "10.0.0.1:6379")
    code, error = fail(capsys, monkeypatch, kind("the head of the Ray cluster is gone."), *words)
    assert (code, error) == (1, "error: the head of the Ray cluster is gone.\n")  # there is nothing to resume
    out.mkdir()
    (out / "run.json").write_text("{}")
    code, error = fail(capsys, monkeypatch, kind("the head of the Ray cluster is gone."), *words)
    again = f"evocompress run --resume --out {out} --address 10.0.0.1:6379"
    assert (code, error) == (1, f"error: the head of the Ray cluster is gone. Go on with: {again}\n")


def test_a_stop_before_the_run_began_leaves_nothing_to_go_on_with(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = config.parent / "a run"
    code, error = fail(capsys, monkeypatch, KeyboardInterrupt(), config, "--out", out)
    assert code == 130 and "before the run began; nothing was written" in error and "--resume" not in error
    out.mkdir()
    (out / "run.json").write_text("{}")
    code, error = fail(capsys, monkeypatch, KeyboardInterrupt(), config, "--out", out)
    assert code == 130 and f"evocompress run --resume --out '{out}'" in error


def test_files_of_another_run_need_a_configuration(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = fail(capsys, monkeypatch, AssertionError(), "--from", config.parent)
    assert code == 2 and "--from" in error and "give a configuration file, too" in error
    code, error = fail(capsys, monkeypatch, AssertionError(), config, "--from", config.parent, "--from", "other")
    assert code == 2 and "--from takes one run, and 2 are given" in error


def test_a_run_that_cannot_succeed_has_an_exit_code_of_its_own_and_begins_anew(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = config.parent / "run"
    words = ["run", config, "--out", out, "--set", "search.give_up_after=2", "--set", "genes.learning_rate=1e30"]
    words += ["--set", "genes.epochs=1", "--set", "reference_epochs=0", "--set", "resources.executor=inline"]
    monkeypatch.setattr("sys.argv", ["evocompress", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 4 and line.startswith("error: the first 2 segments all failed with the same error (")
    assert line.endswith(f"Go on with: evocompress run --resume --out {out}") and not read_history(out).outcomes
    (failure,) = read_status(out).failures
    assert (failure.status, failure.count) == ("diverged", 2)
    code, error = fail(capsys, monkeypatch, HopelessError("as before."), "--resume", "--out", out)
    assert (code, error) == (4, f"error: as before. Go on with: evocompress run --resume --out {out}\n")


def test_other_errors_are_what_they_were(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = fail(capsys, monkeypatch, RunError("another configuration"), config, "--out", config.parent)
    assert (code, error) == (2, "error: another configuration\n")


def lines(*events: object) -> list[str]:
    console = Console(width=400, force_terminal=False, file=io.StringIO())
    display = RunDisplay(console=console)
    for event in events:
        display(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_lines_about_what_takes_long() -> None:
    task = SegmentTask(4, "s", "initial", "none", (), {}, (), 0, 0)
    assert lines(
        Late(task, 725.0, 600.0, "gpu-3", 2),
        Late(task, 660.0, 600.0, "gpu-3"),
        Late(task, 660.0, 600.0),
        Watching(77, "gpu-3", 30.0),
    ) == [
        "segment 5 has been running on gpu-3 for 12:05, longer than its limit of 10:00: attempt 2 begins, on another "
        "node if there is one; the first that is stored counts",
        "segment 5 has been running on gpu-3 for 11:00; no other has ended yet that it could be held against "
        "(resources.segment_timeout sets a limit)",
        "segment 5 has been waiting for a free worker for 11:00",
        "waiting 30 s to see whether another driver (pid 77 on gpu-3) is alive",
    ]


@pytest.mark.parametrize(("minutes", "seconds"), [("auto", None), (0, float("inf")), (1.5, 90.0)])
def test_the_limit_of_a_segment_is_configured_in_minutes(minutes: Any, seconds: float | None) -> None:
    config = parse_config({**LEAST, "resources": {"segment_timeout": minutes}})
    assert config.resources.time_limit == seconds
