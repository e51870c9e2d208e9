"""The cycle in a training loop of one's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evocompress import Cycle, RateTerm, Recipe, Rule, unpack
from evocompress.errors import CodecError, ConfigError, ModelError


def spirals(n: int = 240) -> tuple[torch.Tensor, torch.Tensor]:
    """Two interleaved spirals: a small task that a linear model cannot do."""
    t = torch.linspace(0.3, 1.0, n // 2)
    arm = torch.stack([t * torch.cos(6 * t), t * torch.sin(6 * t)], 1)
    return torch.cat([arm, -arm]), torch.arange(2).repeat_interleave(n // 2)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 48), nn.BatchNorm1d(48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2)
    )


def accuracy(module: nn.Module) -> float:
    x, y = spirals()
    module.eval()
    with torch.no_grad():
        return float((module(x).argmax(1) == y).float().mean())


def train(module: nn.Module, steps: int = 60) -> None:
    x, y = spirals()
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def holds(module: nn.Module, data: bytes) -> bool:
    decoded, state = unpack(data), module.state_dict()
    return list(decoded) == list(state) and all(torch.equal(decoded[name], state[name]) for name in state)


def test_training_and_compressing_in_turn_makes_a_small_good_network() -> None:
    module = model()
    cycle = Cycle(module, recipes=[1e-4, 1e-3, 3e-3], evaluate=accuracy, size_weight=0.02)
    for _ in range(4):
        train(module)
        step = cycle.compress()
        assert holds(module, step.data) and step.quality == accuracy(module)
    nbytes = sum(4 * tensor.numel() for tensor in module.state_dict().values())
    assert cycle.best.quality > 0.95 and cycle.best.nbytes < nbytes / 6
    assert cycle.best.score == max(step.score for step in cycle.history) and len(cycle.history) == 4
    cycle.restore()
    assert holds(module, cycle.best.data)


def test_the_score_weighs_size_against_quality() -> None:
    module = model()
    train(module)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    sizes = []
    for size_weight in (0.0, 10.0):
        module.load_state_dict(state)
        step = Cycle(module, recipes=[1e-6, 1.0], evaluate=accuracy, size_weight=size_weight).compress()
        assert step.score == step.quality - size_weight * math.log2(step.nbytes)
        sizes.append(step.nbytes)
    assert sizes[1] < sizes[0] / 4


def test_sensitivities_are_asked_for_and_used() -> None:
    module, asked = model(), []

    def sensitivities(given: nn.Module) -> dict[str, float]:
        asked.append(given)
        return {"3.weight": 1e4}

    plain = Cycle(model(), recipes=[1e-3], evaluate=accuracy).compress()
    exact = Cycle(module, recipes=[1e-3], evaluate=accuracy, sensitivities=sensitivities).compress()
    assert asked == [module] and exact.nbytes > plain.nbytes


def unchanged(module: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_failure_keeps_the_weights() -> None:
    module = model()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def fails(_: nn.Module) -> float:
        raise RuntimeError("no data today")

    cycle = Cycle(module, recipes=[1e-2], evaluate=fails)
    with pytest.raises(RuntimeError, match="no data today"):
        cycle.compress()
    assert unchanged(module, before) and cycle.history == []
    cycle = Cycle(module, recipes=[1e-2, Recipe(1e-2, (Rule("nowhere"),))], evaluate=accuracy)
    with pytest.raises(CodecError, match="nowhere"):
        cycle.compress()
    assert unchanged(module, before)


def test_diverged_weights_are_refused_by_name_and_kept() -> None:
    module = model()
    with torch.no_grad():
        next(module.parameters())[0, 0] = float("nan")
    with pytest.raises(CodecError, match=r"'0\.weight' holds NaN"):
        Cycle(module, recipes=[1e-2], evaluate=accuracy).compress()
    assert torch.isnan(next(module.parameters())[0, 0])


def test_a_quality_of_nan_never_wins() -> None:
    module = model()
    qualities = iter([float("nan"), 0.1, float("nan")])
    step = Cycle(module, recipes=[1e-4, 1e-3, 1e-2], evaluate=lambda _: next(qualities)).compress()
    assert step.quality == 0.1 and step.recipe.rate_weight == 1e-3 and holds(module, step.data)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (None, "evaluate returned None; it must return one number"),
        ("0.9", "evaluate returned '0.9'"),
        (torch.ones(3), "evaluate returned tensor"),
        (np.ones(2), "evaluate returned array"),
        (float("nan"), "evaluate returned nan, nan: for no recipe a quality to choose by"),
        (float("-inf"), "evaluate returned -inf, -inf"),
    ],
)
def test_what_is_no_quality_is_refused_and_the_weights_stay(quality: Any, message: str) -> None:
    module = model()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    cycle = Cycle(module, recipes=[1e-2, 1e-1], evaluate=lambda _: quality)
    with pytest.raises(ConfigError, match=message):
        cycle.compress()
    assert unchanged(module, before) and cycle.history == []


@pytest.mark.parametrize("quality", [torch.tensor(0.5), torch.tensor([0.5]), np.float32(0.5), np.array([0.5])])
def test_a_quality_may_be_a_tensor_of_one_number(quality: Any) -> None:
    assert Cycle(model(), recipes=[1e-2], evaluate=lambda _: quality).compress().quality == 0.5


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("recipes", []),
        ("recipes", 1e-4),
        ("recipes", "best"),
        ("size_weight", -1.0),
        ("size_weight", "a"),
        ("evaluate", 0.9),
        ("sensitivities", {"3.weight": 1.0}),
        ("model", {"w": torch.ones(2)}),
    ],
)
def test_wrong_arguments_are_refused(argument: str, value: Any) -> None:
    arguments: dict[str, Any] = {"model": model(), "recipes": [1e-3], "evaluate": accuracy, argument: value}
    with pytest.raises(ConfigError, match=f"^{argument} is"):
        Cycle(arguments.pop("model"), **arguments)


def test_there_is_no_best_before_the_first() -> None:
    with pytest.raises(ModelError, match="compress"):
        _ = Cycle(model(), recipes=[1e-3], evaluate=accuracy).best


def test_a_trained_grid_is_a_candidate_that_is_kept_exactly() -> None:
    module = model()
    recipes = [Recipe(1e-3, coder="mixing", names=False), Recipe(10.0)]
    cycle = Cycle(module, recipes=recipes, evaluate=accuracy, size_weight=0.0)
    rate = RateTerm(module, 0.1, examples=240, learning_rate=0.01)
    optimiser, (x, y) = torch.optim.Adam(rate.parameter_groups()), spirals()
    for step in range(400):
        optimiser.zero_grad()
        with rate.quantised(step / 400):
            loss: torch.Tensor = nn.functional.cross_entropy(module(x), y) + rate.loss()
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    grid = rate.finish()
    trained = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    kept = cycle.compress(grid)
    assert kept.quality > 0.8 and len(kept.grid) > 3
    assert all(kept.grid[name] == step for name, step in grid.items() if name in kept.grid)
    assert all(torch.equal(module.state_dict()[name], trained[name]) for name in grid)
    again = RateTerm(module, 1.0, examples=240, grid=kept.grid)
    assert len(again.parameter_groups()) >= 3
