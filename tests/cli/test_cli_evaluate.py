"""The command `evaluate`, and `save` beside `load`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import evocompress
from evocompress.cli import app
from evocompress.errors import ConfigError, DataError, EvocompressError, ModelError

SOURCE = """
import torch
from torch import nn
def net():
    return nn.Linear(4, 2)
def classes(seed):
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 0] > 0).long()
    return (x[:100], y[:100]), (x[100:200], y[100:200]), (x[200:], y[200:])
def numbers(seed):
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(seed))
    y = x[:, :2] * 3
    return (x[:100], y[:100]), (x[100:200], y[100:200]), (x[200:], y[200:])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "judged_module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-3.0, 0, 0, 0], [3.0, 0, 0, 0]]))
        model.bias.zero_()
    evocompress.save(tmp_path / "w.evc", model, 1e-6)
    safetensors.torch.save_file(
        {"weight": -model.weight.detach(), "bias": model.bias.detach()}, tmp_path / "b.safetensors"
    )
    return tmp_path


def test_from_python_a_network_goes_by_name_and_a_device_that_is_none_is_refused(folder: Path) -> None:
    named = evocompress.evaluate(folder / "w.evc", "judged_module:net", "judged_module:classes")
    assert named.value == 1.0
    for device in ("blah", "meta", "cuda:99"):
        with pytest.raises(ConfigError, match=f"'{device}' (is no device|cannot be used).*torch can use cpu") as caught:
            evocompress.evaluate(folder / "w.evc", "judged_module:net", "judged_module:classes", device=device)
        assert caught.value.argument == "device"
    with pytest.raises(ModelError, match="no_such_network") as unknown:
        evocompress.evaluate(folder / "w.evc", "no_such_network", "judged_module:classes")
    assert unknown.value.argument == "model"


def test_from_python_data_are_what_a_loader_returns(folder: Path) -> None:
    module = importlib.import_module("judged_module")
    assert evocompress.evaluate(folder / "w.evc", module.net(), module.classes(0)).value == 1.0
    for wrong in (module.classes(0)[0], module.classes):
        with pytest.raises(DataError, match="must be three pairs") as caught:
            evocompress.evaluate(folder / "w.evc", module.net(), wrong)
        assert caught.value.argument == "data"


def test_both_files_are_judged(folder: Path) -> None:
    words = ["evaluate", str(folder / "w.evc"), "--model", "judged_module:net", "--data", "judged_module:classes"]
    words += ["--against", str(folder / "b.safetensors")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert "accuracy 100.00 % (96.30 % to 100.00 %)" in first and "on 100 of audit" in first and "bytes" in first
    assert "accuracy 0.00 %" in second
    rows = json.loads(CliRunner().invoke(app, [*words, "--json", "--split", "validation"]).stdout)
    assert [row["value"] for row in rows] == [1.0, 0.0] and rows[0]["split"] == "validation"
    assert rows[0]["bytes"] == (folder / "w.evc").stat().st_size


def test_any_task(folder: Path) -> None:
    words = ["evaluate", str(folder / "w.evc"), "--model", "judged_module:net", "--data", "judged_module:numbers"]
    result = CliRunner().invoke(app, [*words, "--task", "regression"])
    assert result.exit_code == 0 and "R² " in result.stdout and "rmse" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test"], "must be audit, validation or train"),
        (["--task", "regresion"], "Did you mean 'regression'"),
        (["--task", "regression"], "labels are classes"),
        (["--data", "judged_module:nothing"], "nothing"),
    ],
)
def test_mistakes(folder: Path, words: list[str], message: str) -> None:
    given = ["evaluate", str(folder / "w.evc"), "--model", "judged_module:net"]
    given += words if "--data" in words else ["--data", "judged_module:classes", *words]
    with pytest.raises(EvocompressError, match=message):
        CliRunner().invoke(app, given, catch_exceptions=False)


def test_save_writes_whole_files_and_refuses_what_is_no_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    nbytes = evocompress.save(tmp_path / "new" / "w.evc", model, evocompress.Recipe(1e-9))
    assert nbytes == (tmp_path / "new" / "w.evc").stat().st_size
    other = evocompress.load(tmp_path / "new" / "w.evc", nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)))
    torch.testing.assert_close(other[0].weight, model[0].weight, atol=1e-3, rtol=1e-3)
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Module"):
        evocompress.save(tmp_path / "x.evc", model.state_dict())  # type: ignore[arg-type]
    assert not (tmp_path / "x.evc").exists()
