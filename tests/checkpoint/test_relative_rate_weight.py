"""λ where nobody says one: the same network in other units loses as much, and small tensors are not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.relative_rate_weight import rate_weight_for, with_small_raised
from evocompress.cli import app
from evocompress.errors import ConfigError
from evocompress.packer.job import PackJob


def network(scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.bias": (48,), "a.weight": (48, 64), "b.bias": (10,), "b.weight": (10, 48)}  # safetensors' order
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def relative_errors(state: dict[str, torch.Tensor], data: bytes) -> dict[str, float]:
    decoded = unpack(data)
    return {name: float((decoded[name] - tensor).norm() / tensor.norm()) for name, tensor in state.items()}


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 2.0**20])
def test_all_scales_lose_as_much(scale: float) -> None:
    state = network(scale)
    data = pack(state)
    errors = relative_errors(state, data)
    assert all(0.005 < errors[name] < 0.05 for name in ("a.weight", "b.weight"))
    assert len(data) == pytest.approx(len(pack(network())), rel=0.03)


def test_a_tensor_of_small_weights_is_not_lost() -> None:
    state = network()
    state |= {name: 1e-5 * state[name] for name in ("b.weight", "b.bias")}
    assert relative_errors(state, pack(state))["b.weight"] < 0.5
    assert (
        relative_errors(state, pack(state, rate_weight_for({k: v.numpy() for k, v in state.items()})))["b.weight"] == 1
    )
    raised = with_small_raised({name: tensor.numpy() for name, tensor in state.items()}, {"a.weight": 2.0})
    assert raised.keys() == {"a.weight", "b.weight"} and raised["a.weight"] == 2.0


def test_what_has_no_scale() -> None:
    zeros: dict[str, Any] = {
        "weight": np.zeros((4, 4), np.float32),
        "empty": np.zeros((0, 3)),
        "count": np.ones(3, np.int64),
    }
    assert rate_weight_for(zeros) == rate_weight_for({}) == 1e-4
    assert with_small_raised(zeros, {}) == {}
    assert rate_weight_for({"bias": np.full(5, 2.0)}) == pytest.approx(4e-3)
    assert unpack(pack(zeros), "numpy")["weight"].any() == np.False_


def test_the_command_says_its_rate_weight_and_writes_what_the_library_does(tmp_path: Path) -> None:
    weights, output = tmp_path / "w.safetensors", tmp_path / "w.evc"
    state = network(0.01)
    save_file(state, weights)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, ["pack", str(weights), "-o", str(output), *words])

    said = invoke()
    assert said.exit_code == 0 and "which is 0.001 of the weights' mean square" in said.output
    assert output.read_bytes() == pack(state) == PackJob(state).at().data
    assert invoke("--relative-rate-weight", "0.1").exit_code == 0
    assert output.stat().st_size < 0.6 * len(pack(state))
    for words in (("0",), ("0.1", "--rate-weight", "1")):
        refused = invoke("--relative-rate-weight", *words)
        assert isinstance(refused.exception, ConfigError) and "--relative-rate-weight" in str(refused.exception)
