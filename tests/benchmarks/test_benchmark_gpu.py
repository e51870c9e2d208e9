"""The benchmark that compares a GPU with the CPU, run on the CPU alone: its own logic."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def test_the_cpu_agrees_with_itself() -> None:
    command = [sys.executable, "-m", "benchmarks.training.gpu", "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["passed"] and {"rate_term", "dead_parts", "calibration", "segment"} <= line["checks"].keys()
    assert all(check["passed"] for check in line["checks"].values())
    assert len(line["steps"]["ms"]) == 4 and min(line["steps"]["ms"].values()) > 0
    assert line["at_once"]["processes"]["1"]["images_per_s"] > 0
    rows = list(runpy.run_path(str(ROOT / "benchmarks" / "table.py"))["ROWS"]["gpu"](line))
    assert len(rows) == 6 and rows[0].met


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_what_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr("sys.argv", ["gpu"])
    runpy.run_module("benchmarks.training.gpu", run_name="__main__")
    said = capsys.readouterr()
    assert not said.out
    assert len(said.err.splitlines()) == 1 and "there is no CUDA device here" in said.err
