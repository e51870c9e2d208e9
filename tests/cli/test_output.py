"""`--json` and `--quiet`, which mean the same for all commands that have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from commands import invoke
from synthetic_run import synthetic_run, write_synthetic_run

from evocompress.cli.output import Output
from evocompress.cli.pack_report import PackReport
from evocompress.protocols import Began, Said
from evocompress.runs.front import front
from evocompress.search.history import read_history


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    safetensors.torch.save_file({"fc.weight": torch.randn(40, 30), "fc.bias": torch.zeros(40)}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    write_synthetic_run(path, synthetic_run(20))
    return path


def test_pack(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "w.evc"
    text = invoke("pack", checkpoint, "-o", output)
    assert "weights changed by" in text.stdout and "λ = " in text.stdout
    said = invoke("pack", checkpoint, "-o", output, "--json")
    found: dict[str, Any] = json.loads(said.stdout)
    assert found["bytes"] == output.stat().st_size and found["file"] == str(output)
    assert (found["weights"], found["tensors"], found["float32_bytes"]) == (1240, 2, 4960)
    assert found["met"] and not found["stopped"] and found["held_out"] is None and 0 < found["weights_changed"] < 1
    quiet = invoke("pack", checkpoint, "-o", output, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    missed = invoke("pack", checkpoint, "-o", output, "-q", "--json", "--max-bytes", 20)
    assert missed.exit_code == 3 and missed.stderr.startswith("warning: ") and not json.loads(missed.stdout)["met"]


def test_pack_on_held_out_examples(tmp_path: Path) -> None:
    from evocompress.networks import build

    path = tmp_path / "n.safetensors"
    safetensors.torch.save_file(build("digits_cnn", {"width": 4}).state_dict(), path)
    words = ("--model", "digits_cnn", "--set", "width=4", "--data", "digits", "--samples", 64, "--preset", "fast")
    said = invoke("pack", path, "-o", tmp_path / "n.evc", *words, "--json")
    held_out = json.loads(said.stdout)["held_out"]
    assert held_out["quality"]["name"] == "accuracy" and held_out["total"] > 100 and said.stdout.startswith("{")


def test_front(folder: Path) -> None:
    rows = json.loads(invoke("front", folder, "--json", "--quiet").stdout)[str(folder)]["front"]
    assert [row["bytes"] for row in rows] == [point.nbytes for point in front(read_history(folder))]
    met, missed = (invoke("front", folder, "--quiet", "--under", size) for size in ("1MB", "1"))
    assert (met.exit_code, met.output, missed.exit_code, missed.output) == (0, "", 3, "")


def test_status(folder: Path) -> None:
    said = invoke("status", folder, "--json").stdout
    assert json.loads(said)["done"] == 20 and said.count("\n") == 1
    quiet = invoke("status", folder, "--quiet", "--watch")  # ends at once: nobody drives the run
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_run(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        'model = "digits_cnn"\ndata = "digits"\nreference_epochs = 0\n[model_options]\nwidth = 4\n'
        "[search]\nsegments = 2\ninitial = 2\nprobes = 0\n[genes]\nepochs = 1\nrate_weight = [0.03, 3.0]\n"
        "[resources]\nexecutor = 'inline'\n"
    )
    out = tmp_path / "run"
    said = invoke("run", tmp_path / "small.toml", "--out", out, "--json")
    found: dict[str, Any] = json.loads(said.stdout)
    assert said.exit_code == 0 and "segments 2/2" in said.stderr  # how it went on
    assert found["finished"] and found["segments"] == 2 and found["failed"] == 0 and found["folder"] == str(out)
    points = front(read_history(out))
    assert [row["bytes"] for row in found["front"]] == [point.nbytes for point in points]
    assert all(Path(path).exists() for path in found["export"])
    quiet = invoke("run", "--resume", "--out", out, "--more", 1, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "") and len(read_history(out).outcomes) == 3


def test_warnings_are_never_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    report = PackReport(Output(quiet=True))
    for event in (Began("packing"), Said("so it is"), Said("warning: this matters", "warning")):
        report(event)
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "warning: this matters\n")
