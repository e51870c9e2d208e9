"""Exit codes: the same for every command, and those of the page."""

from __future__ import annotations

import multiprocessing
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from command_process import CommandProcess
from synthetic_run import synthetic_run, write_synthetic_run

from evocompress import errors
from evocompress.cli import app, main
from evocompress.cli.exit_codes import ExitCode, exit_code_of
from evocompress.search.interrupts import sigterm_interrupts
from evocompress.search.lease import Lease

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_same_codes() -> None:
    page = ROOT / "docs" / "exit_codes.md"
    if not page.exists():
        pytest.skip("not run from a source tree")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page.read_text("utf-8"), re.MULTILINE)] == list(ExitCode)


def test_no_command_has_a_number_of_its_own() -> None:
    for path in (ROOT / "evocompress").glob("*/**/*.py"):
        assert not re.search(r"Exit\(\d|exit\(\d|_exit\(", path.read_text("utf-8")), path


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"about_argument"}))
def test_what_a_user_can_put_right_is_2_and_what_a_machine_does_is_1(name: str) -> None:
    machine = {"InfrastructureError", "StorageError"}
    expected = 1 if name in machine else 4 if name == "HopelessError" else 2
    error = errors.JournalError("torn") if name == "JournalError" else getattr(errors, name)()
    assert exit_code_of(error) == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("no"), 2),
        (errors.InfrastructureError("no"), 1),
        (OSError(28, "No space left on device"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_any_command(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("evocompress.evolve.settings_table.setting_rows", failing)
    monkeypatch.setattr("evocompress.cli.command_group.os.dup2", lambda *descriptors: None)
    monkeypatch.setattr("sys.argv", ["evocompress", "settings"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code and "Traceback" not in capfd.readouterr().err


def test_a_reader_that_goes_away() -> None:
    command = [sys.executable, "-m", "evocompress", "settings"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(120) == ExitCode.READER_GONE and not process.stderr.read()


@pytest.mark.parametrize(
    ("words", "begin"),
    [(("watch", "--port", "0"), "http://"), (("status", "--watch", "--json"), "{")],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_command_that_only_looks_is_stopped(
    tmp_path: Path, words: tuple[str, ...], begin: str, how: signal.Signals
) -> None:
    write_synthetic_run(tmp_path / "run", synthetic_run(5))
    with Lease(tmp_path / "run"):  # it is being driven, so that there is something to wait for
        command = CommandProcess(words[0], tmp_path / "run", *words[1:], output=tmp_path / "said")
        command.wait_until_it_says(begin)
        command.send_signal(how)
        assert command.wait() == ExitCode.STOPPED and "Traceback" not in command.said


def test_a_fork_of_a_command_ends_by_sigterm() -> None:
    with sigterm_interrupts():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which this child has nothing to do with
            child.start()
        child.terminate()
        child.join(20)
    assert child.exitcode == -signal.SIGTERM


def test_an_unknown_option_is_2(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        app(["front", "--no-such-option"])
    assert caught.value.code == ExitCode.UNUSABLE
