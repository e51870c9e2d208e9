"""Networks that torch.jit has made are refused in one line, wherever a network is taken."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from evocompress import RateTerm, load, pack
from evocompress.cli import app
from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.networks import build
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated
        made: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    return made


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Callable[..., Any] = torch.jit.trace
        made: nn.Module = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4))
    return made


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("made_by_jit")
    module.__dict__["scripted"] = scripted
    monkeypatch.setitem(sys.modules, "made_by_jit", module)
    path = tmp_path / "w.evc"
    path.write_bytes(pack(nn.Sequential(nn.Linear(4, 3)).state_dict(), 1e-4))
    return path


@pytest.mark.parametrize("make", [scripted, traced])
def test_they_are_refused_in_one_line(make: Callable[[], nn.Module], weights: Path) -> None:
    model = make()
    inputs = Examples.unlabelled(torch.ones(4, 4))
    takes: list[Callable[[], object]] = [
        lambda: load(weights, model),
        lambda: RateTerm(model, 0.1, examples=10),
        lambda: PackJob(dict(model.state_dict())).calibrate(NetworkAndExamples(model, inputs, inputs)),
    ]
    for take in takes:
        with pytest.raises(ModelError, match=r"^the network is a torch.jit.ScriptModule.*give the module") as failure:
            take()
        assert "\n" not in str(failure.value)


def test_a_factory_of_one_is_named(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^network 'made_by_jit:scripted': the network is a torch.jit.ScriptModule"):
        build("made_by_jit:scripted")
    words = ["pack", str(weights), "-o", str(tmp_path / "o.evc"), "--model", "made_by_jit:scripted", "--noise", "4"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ModelError) and "torch.jit.ScriptModule" in str(result.exception)
    assert not (tmp_path / "o.evc").exists()
