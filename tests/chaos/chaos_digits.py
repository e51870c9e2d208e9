"""A real run, on digits, by the command `evocompress run`: few segments, deterministic, audited and exported."""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from chaos_driver import what_a_run_came_to
from chaos_run import DisturbedRun

from evocompress.search.lease import holder_of

__all__ = ["DigitsRun"]

_CONFIG = """
model = "digits_cnn"
data = "digits"
reference_epochs = 1
[search]
segments = 8
initial = 3
probes = 1
deterministic = true
lag = 4
[genes]
epochs = [2, 4]
batch_size = 64
"""


def _command(folder: Path, *options: str) -> list[str]:
    words = ["--resume"] if (folder / "run.json").exists() else [str(folder.with_suffix(".toml"))]
    return [sys.executable, "-m", "evocompress", "run", *words, "--out", str(folder), *options]


def _came_to(folder: Path) -> dict[str, Any]:
    """Beside what a run of toys has: the rows of front.csv without seconds, and the hashes of the exported files."""
    with open(folder / "export" / "front.csv", newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    exported = sorted((folder / "export" / "front").glob("*.evc"))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in exported}
    came_to = what_a_run_came_to(str(folder))
    for audited in came_to["audited"].values():
        audited.pop("seconds", None)
    return came_to | {"rows": rows, "exported": files}


@functools.cache
def _undisturbed() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        folder.with_suffix(".toml").write_text(_CONFIG)
        command = _command(folder, "--set", "resources.executor=inline")
        subprocess.run(command, check=True, capture_output=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return _came_to(folder)


class DigitsRun(DisturbedRun):
    """As `DisturbedRun`, whose settings do not count."""

    def command(self) -> list[str]:
        """The words of `evocompress run`."""
        self.run_folder.with_suffix(".toml").write_text(_CONFIG)
        return _command(self.run_folder, "--address", self.address())

    @property
    def opened(self) -> bool:
        """Whether the newest driver has the run."""
        holder = holder_of(self.run_folder)
        return holder is not None and holder.pid == self.driver.pid

    @property
    def finished(self) -> bool:
        """Whether the run is exported."""
        return (self.run_folder / "export" / "report.html").exists() and self.driver.poll() == 0

    def segments_that_ended(self) -> set[Hashable]:
        """Those that are committed."""
        return {path.parent.name for path in self.run_folder.glob("seg/*/COMMIT.json")}

    def expected(self) -> dict[str, Any]:
        """What the undisturbed run came to."""
        return _undisturbed()

    def found(self) -> dict[str, Any]:
        """What this one came to."""
        return _came_to(self.run_folder)
