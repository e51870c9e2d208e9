"""Functions, and the command `evocompress`, in processes forked from one that has imported it and torch already.

A fresh interpreter takes seconds of imports before it does anything. Signals, exit statuses, what a kill leaves and
which modules of a user's are imported are the same here; tests of imports and of installed packages start interpreters
of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["CommandProcess", "ForkedProcess", "evocompress_in"]

_CONTEXT = multiprocessing.get_context("forkserver")
#: What `run` imports until it has written its report.
_CONTEXT.set_forkserver_preload(
    [
        *("torch", "torch.fx.experimental.proxy_tensor", "torch._dynamo", "torch._inductor"),
        *("matplotlib.figure", "matplotlib.backends.backend_agg"),
        *("pyarrow.parquet", "jinja2", "scipy.optimize", "scipy.interpolate", "sklearn.datasets"),
        *("evocompress.cli", "evocompress.evolve.driver", "evocompress.packer.job"),
    ]
)


def _main(function: Callable[..., object], arguments: Sequence[str], stdout: str, stderr: str, folder: str) -> None:
    os.chdir(folder)
    # A shell that runs the tests in the background has had Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    files = {path: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in {stdout, stderr}}
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        os.dup2(files[path], stream.fileno())
    function(*arguments)


def _command(*words: str) -> None:
    from evocompress.cli import main

    sys.argv = ["evocompress", *words]
    main()


class ForkedProcess:
    """A call of a function, going on; `said` is what it has printed so far, on both streams or on the first.

    Args:
        function: Of a module that the tests can import.
        arguments: Its arguments, as texts.
        output: The file that gets what is printed.
        errors: The file that gets what goes to the standard error stream; the same unless given.
        folder: Where it is called; the current folder unless given.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: str | Path,
        output: Path,
        errors: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self._output, self._errors = output, errors or output
        paths = (str(self._output), str(self._errors), str(folder or Path.cwd()))
        self._process = _CONTEXT.Process(target=_main, args=(function, tuple(map(str, arguments)), *paths))
        self._process.start()

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    @property
    def complaints(self) -> str:
        """What the standard error stream has got so far."""
        return self._errors.read_text(encoding="utf-8") if self._errors.exists() else ""

    def wait_until_it_says(self, text: str, seconds: float = 200) -> None:
        """Until a line starts with `text`."""
        deadline, running = time.monotonic() + seconds, True
        while not any(line.startswith(text) for line in self.said.splitlines()):
            assert running and time.monotonic() < deadline, f"it did not get that far: {self.said}{self.complaints}"
            running = self._process.is_alive()  # what it said at its very end is read once more
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds: float = 120) -> int:
        """Its exit status; minus the signal that ended it."""
        status = self.status_after(seconds)
        assert status is not None, f"it goes on: {self.said}"
        return status

    def status_after(self, seconds: float) -> int | None:
        """Its exit status, or none where it has not ended by then."""
        self._process.join(seconds)
        return self._process.exitcode


class CommandProcess(ForkedProcess):
    """A call of the command with these words."""

    def __init__(
        self, *words: str | Path, output: Path, errors: Path | None = None, folder: Path | None = None
    ) -> None:
        super().__init__(_command, *words, output=output, errors=errors, folder=folder)


def evocompress_in(folder: Path, *words: str | Path, seconds: float = 250) -> subprocess.CompletedProcess[str]:
    """A call of the command from a folder, up to its end."""
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        process = CommandProcess(*words, output=output, errors=errors, folder=folder)
        status = process.wait(seconds)
        return subprocess.CompletedProcess(list(map(str, words)), status, process.said, process.complaints)
