"""The command `evocompress` in a process of its own, forked from one that has imported it and torch already.

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
from pathlib import Path

__all__ = ["CommandProcess", "evocompress_in"]

_CONTEXT = multiprocessing.get_context("forkserver")
#: What `run` imports until it has written its report.
_CONTEXT.set_forkserver_preload(
    [
        *("torch", "torch.fx.experimental.proxy_tensor", "torch._dynamo", "torch._inductor"),
        *("matplotlib.figure", "matplotlib.backends.backend_agg"),
        *("pyarrow.parquet", "jinja2", "scipy.optimize", "scipy.interpolate", "scipy.cluster"),
        *("evocompress.cli", "evocompress.evolve.driver", "evocompress.packer.job"),
    ]
)


def _main(words: tuple[str, ...], stdout: str, stderr: str, folder: str) -> None:
    os.chdir(folder)
    files = {path: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in {stdout, stderr}}
    for stream, path in ((sys.stdout, stdout), (sys.stderr, stderr)):
        os.dup2(files[path], stream.fileno())
    from evocompress.cli import main

    sys.argv = ["evocompress", *words]
    main()


class CommandProcess:
    """A call of the command, going on; `said` is what it has printed so far, on both streams or on the first.

    Args:
        words: Of the command line.
        output: The file that gets what is printed.
        errors: The file that gets what goes to the standard error stream; the same unless given.
        folder: Where the command is started; the current folder unless given.
    """

    def __init__(
        self, *words: str | Path, output: Path, errors: Path | None = None, folder: Path | None = None
    ) -> None:
        self._output = output
        arguments = (tuple(map(str, words)), str(output), str(errors or output), str(folder or Path.cwd()))
        self._process = _CONTEXT.Process(target=_main, args=arguments)
        self._process.start()

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def wait_until_it_says(self, text: str, seconds: float = 200) -> None:
        """Until a line starts with `text`."""
        deadline = time.monotonic() + seconds
        while not any(line.startswith(text) for line in self.said.splitlines()):
            running = self._process.is_alive()
            assert running and time.monotonic() < deadline, f"it did not get that far: {self.said}"
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds: float = 120) -> int:
        """Its exit status; minus the signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it goes on: {self.said}"
        return self._process.exitcode


def evocompress_in(folder: Path, *words: str | Path, seconds: float = 250) -> subprocess.CompletedProcess[str]:
    """A call of the command from a folder, up to its end."""
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        process = CommandProcess(*words, output=output, errors=errors, folder=folder)
        status = process.wait(seconds)
        texts = (path.read_text(encoding="utf-8") for path in (output, errors))
        return subprocess.CompletedProcess(list(map(str, words)), status, *texts)
