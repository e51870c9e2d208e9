"""NNCodec (ISO/IEC 15938-17) over a grid of its settings, in a Python of its own, its decoded files kept."""

from __future__ import annotations

import csv
import os
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.pack.runs import ROOT, THREADS

__all__ = ["QPS", "Peer", "Setting", "add_peer_options"]

#: Quantisation parameters of the grid, fine to coarse: the step halves every four.
QPS = (-32, -30, -28, -26, -25, -24, -23, -22, -20, -18)
_GRID = ROOT.parent / "shared" / "peers" / "nncodec_grid.py"


class Setting(NamedTuple):
    """One row of the grid: NNCodec's settings, the bytes of its file, what it took, and the decoded weights."""

    name: str
    nbytes: int
    encode_s: float
    decode_s: float
    decoded: Path


class Peer:
    """Runs the grid script with NNCodec's Python; where a folder has a whole grid already, that is read."""

    def __init__(self, python: str, script: Path = _GRID) -> None:
        self.python, self.script = python, script

    @property
    def version(self) -> str:
        """NNCodec's version."""
        command = [self.python, "-c", "from importlib.metadata import version; print(version('nncodec'))"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def grid(self, weights: Path, out: Path, qps: Sequence[int] = QPS, extra: Sequence[str] = ()) -> Iterator[Setting]:
        """The grid's rows, one quantisation parameter after the other; `extra` narrows the script's other axes."""
        for qp in qps:
            folder = out / f"qp{qp}"
            done = folder / "done"
            if not done.exists():
                command = [self.python, str(self.script), str(weights), str(folder), "--qp", str(qp), *extra]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **THREADS})
                done.touch()
            with (folder / "grid.csv").open(newline="") as file:
                for row in csv.DictReader(file):
                    seconds = float(row["encode_s"]), float(row["decode_s"])
                    name = row["setting"]
                    yield Setting(name, int(row["bytes"]), *seconds, folder / f"{name}.safetensors")


def add_peer_options(parser: ArgumentParser) -> None:
    """`--peer-python` and `--peer-script`."""
    parser.add_argument("--peer-python", default=os.environ.get("NNCODEC_PYTHON", ""), help="a Python with NNCodec")
    parser.add_argument("--peer-script", type=Path, default=_GRID, help="runs it over its grid, see peer.py")
