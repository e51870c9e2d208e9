"""The command `evocompress` in a process of its own, forked from one that has imported it and torch already.

A fresh interpreter takes seconds of imports before it does anything. Signals, exit statuses and what a kill leaves are
the same here; tests of imports and of installed packages start interpreters of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

__all__ = ["CommandProcess"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "evocompress.cli", "evocompress.evolve.driver", "evocompress.packer.job"])


def _main(words: tuple[str, ...], output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    from evocompress.cli import main

    sys.argv = ["evocompress", *words]
    main()


class CommandProcess:
    """A call of the command, going on; `said` is what it has printed so far, on both streams."""

    def __init__(self, *words: str | Path, output: Path) -> None:
        self._output = output
        self._process = _CONTEXT.Process(target=_main, args=(tuple(map(str, words)), str(output)))
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
