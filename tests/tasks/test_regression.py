"""Regression: R² by its definition, a loss without units, and a run from a user's loader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from task_conformance import assert_conforms
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.errors import DataError, ModelError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.runs.front import front
from evocompress.search.history import read_history
from evocompress.tasks.regression import Regression
from evocompress.training.trainer import TrainingGenes, train


def targets(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(outputs: Tensor, wanted: Tensor) -> Any:
    meter = Regression().meter()
    meter.add(outputs, wanted)
    return meter.measured()


@pytest.mark.parametrize("shape", [(24,), (24, 3), (24, 2, 5)])
def test_conformance(shape: tuple[int, ...]) -> None:
    wanted = targets(*shape)
    assert_conforms(Regression(), wanted + 0.3 * targets(*shape, seed=1), wanted)


def test_r_squared_is_what_it_is() -> None:
    wanted = targets(400, 2) * torch.tensor([1.0, 1000.0]) + torch.tensor([0.0, 5e5])  # far from zero, other units
    outputs = wanted + 0.5 * wanted.std(0) * targets(400, 2, seed=1)
    found = measured(outputs, wanted)
    errors = (outputs - wanted).double().square().mean(0) / wanted.double().var(0, correction=0)
    assert found.value == pytest.approx(1 - float(errors.mean()), rel=1e-6) and found.error == 1 - found.value
    assert found.details["rmse"] == pytest.approx(float((outputs - wanted).square().mean().sqrt()), rel=1e-5)
    assert found.low < found.value < found.high <= 1.0
    constant = torch.cat([wanted, torch.ones(400, 1)], 1)  # a column that never varies says nothing
    assert measured(torch.cat([outputs, torch.zeros(400, 1)], 1), constant).value == pytest.approx(found.value)
    perfect = measured(wanted, wanted)
    assert perfect.value == 1.0 and perfect.error == 0.0 and perfect.loss == 0.0


def test_the_loss_has_no_unit_and_every_column_counts_alike() -> None:
    wanted, noise = targets(64, 2), targets(64, 2, seed=1)
    losses = [
        Regression().loss(scale * (wanted + 0.1 * noise), scale * wanted, {}).item()
        for scale in (torch.tensor(1.0), torch.tensor(1e4), torch.tensor([1.0, 1e3]))
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)
    exact = Regression().loss(wanted.clone().requires_grad_(), wanted, {})
    exact.backward()  # type: ignore[no-untyped-call]
    assert exact.item() == 0.0


def test_targets_are_drawn_with_errors_as_large_as_there_are() -> None:
    wanted = targets(4000, 2)
    outputs = wanted + torch.tensor([0.1, 2.0]) * targets(4000, 2, seed=1)
    drawn = Regression().draw(outputs, wanted, torch.Generator().manual_seed(0))
    assert (drawn - outputs).std(0).tolist() == pytest.approx([0.1, 2.0], rel=0.1)


def test_what_does_not_fit() -> None:
    task, inputs = Regression(), torch.zeros(4, 3)
    good = Examples(inputs, targets(4, 2))
    task.check(nn.Linear(3, 2), good, 2)
    task.check(nn.Linear(3, 1), Examples(inputs, targets(4)), 1)  # (n, 1) for (n,) is what layers give
    with pytest.raises(ModelError, match=r"returned shape \(2, 5\) for numbers \(2, 2\)"):
        task.check(nn.Linear(3, 5), good, 2)
    with pytest.raises(DataError, match="labels are classes"):
        task.check(nn.Linear(3, 2), Examples(inputs, torch.zeros(4, dtype=torch.int64)), 2)
    with pytest.raises(DataError, match="nothing to learn"):
        task.check(nn.Linear(3, 2), Examples(inputs, torch.ones(4, 2)), 2)
    with pytest.raises(ModelError, match="network fails on inputs"):
        task.check(nn.Linear(7, 2), good, 2)


def test_it_learns_and_stays_calm_where_it_has_learned_everything() -> None:
    inputs = targets(256, 4)
    examples = Examples(inputs, inputs @ targets(4, 2, seed=2) * 100 + 7)
    model = nn.Linear(4, 2)
    curves = train(
        model, examples, TrainingGenes("regression", learning_rate=1.0), epochs=80, seed=0, task=Regression()
    )
    assert not curves.diverged and curves.train_quality[-1] > 0.999


@pytest.mark.slow
def test_a_run_of_a_users_regressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ink_line.py").write_text(
        "import numpy, torch\n"
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))\n"
        "def loader(seed):\n"
        "    x = numpy.random.default_rng(seed).normal(size=(700, 6)).astype('float32')\n"
        "    y = numpy.stack([x[:, 0] + x[:, 1], 50 * numpy.tanh(x[:, 2])], 1)\n"
        "    return (x[:400], y[:400]), (x[400:550], y[400:550]), (x[550:], y[550:])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {
        "model": "ink_line:net", "data": "ink_line:loader", "task": "regression", "reference_epochs": 5,
        "search": {"segments": 4, "initial": 2, "deterministic": True, "lag": 2, "error_range": [0.0, 1.0]},
        "genes": {"epochs": 40, "batch_size": 16, "learning_rate": 0.02, "symbol_trials": 30},
        "resources": {"executor": "inline"},
    }  # fmt: skip
    run_experiment(parse_config(config), tmp_path / "run")
    history = read_history(tmp_path / "run")
    best = max(point.quality for point in front(history) if point.quality is not None)
    assert 0.9 < best <= 1.0 and history.quality.name == "R²"
    assert min(point.nbytes for point in front(history)) < 200
    assert all(math.isfinite(leaf.error) for leaf in history.archive)
    assert (tmp_path / "run" / "export" / "front.csv").read_text().count("\n") > 1
