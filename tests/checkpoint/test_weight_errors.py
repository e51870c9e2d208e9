"""Weight errors of a file against what it was made of: by their definition, and as the commands say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from evocompress.checkpoint.weight_errors import weight_errors
from evocompress.cli import app


def test_errors_are_relative_and_the_worst_come_first() -> None:
    state = {
        "a": torch.tensor([3.0, 4.0, 0.0]),
        "b": torch.ones(2, 2, dtype=torch.bfloat16),
        "zero": torch.zeros(3),
        "count": torch.tensor([5]),
        "other shape": torch.ones(2),
    }
    decoded: dict[str, Any] = {
        "a": np.array([3.0, 3.0, 0.0]),
        "b": np.zeros((2, 2)),
        "zero": np.zeros(3),
        "count": np.array([7]),
        "other shape": np.ones(3),
        "unknown": np.ones(3),
    }
    found = weight_errors(state, decoded.items())
    assert [tensor.name for tensor in found.tensors] == ["b", "a", "zero"]
    assert [tensor.relative for tensor in found.tensors] == pytest.approx([1.0, 0.2, 0.0])
    assert [tensor.zeroed for tensor in found.tensors] == [1.0, 0.0, 0.0]
    assert found.relative == pytest.approx(((1 + 4) / (25 + 4)) ** 0.5)
    assert found.sentence == "weights changed by 41.5 %, most in b (100 %), a (20 %); all zero now: b"
    assert "more than 10 %" in found.warning and "half of" not in found.warning
    assert weight_errors(state, [("a", np.array([3.0, 4.0, 0.0]))]).warning == ""


def test_infinities_do_not_count() -> None:
    state = {"a": torch.tensor([1.0, float("inf")])}
    assert weight_errors(state, [("a", np.array([1.0, np.inf]))]).relative == 0.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    safetensors.torch.save_file({"a.weight": torch.randn(40, 30), "a.bias": torch.randn(40), "n": torch.ones(1)}, path)
    return path


@pytest.mark.parametrize("form", [[], ["--no-names"], ["--bare"]])
@pytest.mark.parametrize(("rate_weight", "warned"), [("1e-6", False), ("3e-1", True)])
def test_pack_says_what_was_lost(
    weights: Path, tmp_path: Path, form: list[str], rate_weight: str, warned: bool
) -> None:
    command = ["pack", str(weights), "-o", str(tmp_path / "w.evc"), "--rate-weight", rate_weight, *form]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "weights changed by" in result.stdout and ("warning: " in result.stderr) == warned
    if not form:
        shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.evc"), "--against", str(weights)])
        assert shown.exit_code == 0 and "error %" in shown.stdout
        line = next(line for line in result.stdout.splitlines() if line.startswith("weights changed"))
        assert line in shown.stdout
        table = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.evc"), "--json", "--against", str(weights)])
        content = json.loads(table.stdout)
        assert content["relative_error"] > 0 and all("relative_error" in row for row in content["tensors"])
