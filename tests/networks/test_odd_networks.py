"""Networks with the odd parts that real ones have: packed, calibrated, loaded and trained with the rate as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evocompress
from evocompress.checkpoint.packing import TensorError, pack, unpack
from evocompress.checkpoint.recipe import Recipe
from evocompress.data import Examples
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples
from evocompress.support.modules import copied, tensors_of
from evocompress.training.cycle import Cycle
from evocompress.training.trainer import TrainingGenes, train


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def weight_norm() -> nn.Module:
    """The old one, by a hook (speech networks have it)."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 16)), nn.ReLU(), nn.Linear(16, 3))


def spectral_norm() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 16)), nn.ReLU(), nn.Linear(16, 3))


class Extra(nn.Module):
    """An entry of the state dict that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x)
        return outputs

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("a file has no such entry")


class Mask(nn.Module):
    """Infinities that are meant, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 0.0]))
        self.register_buffer("positions", torch.arange(3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x) + self.get_buffer("mask").isinf() * self.get_buffer("positions")
        return outputs


class Named(nn.Module):
    """Returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"hidden": x, "logits": self.body(x)}


def examples() -> Examples:
    inputs = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    return Examples(inputs, 2 * (inputs[:, 0] > 0).long())


@pytest.fixture(params=[weight_norm, spectral_norm, Extra, Mask, Named], ids=lambda make: make.__name__)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    make: Callable[[], nn.Module] = request.param
    return make()


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found = model.eval()(inputs)
    kept: Tensor = found["logits"] if isinstance(found, dict) else found
    return kept


def test_packed_by_weights_alone_and_calibrated(network: nn.Module, tmp_path: Path) -> None:
    data, inputs = examples(), torch.randn(5, 4)
    wanted = outputs(network, inputs)
    for calibrated in (False, True):
        job = PackJob(tensors_of(network))
        if calibrated:
            job.calibrate(NetworkAndExamples(network, data, data), samples=64)
        result = job.at(1e-7)
        result.write(tmp_path / "w.evc")
        found = outputs(evocompress.load(tmp_path / "w.evc", copied(network)), inputs)
        torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)


def test_trained_with_the_rate_and_written(network: nn.Module) -> None:
    genes = TrainingGenes(rate_term="on", batch_size=32, symbol_trials=20)
    curves = train(network, examples(), genes, epochs=2, seed=0, rate_weight=0.1)
    state = tensors_of(network)
    recipe = Recipe(coder="mixing", names=False, shapes=False)
    data = pack(state, recipe, grid=curves.grid)
    decoded = unpack(data, names=state)
    assert curves.grid and all(torch.equal(decoded[name], state[name]) for name in curves.grid)


def test_in_a_cycle(network: nn.Module) -> None:
    step = Cycle(network, recipes=[Recipe(1e-6)], evaluate=lambda model: 0.0).compress()
    assert set(unpack(step.data)) == set(tensors_of(network))


def test_a_copy_is_independent_and_the_original_as_it_was() -> None:
    torch.manual_seed(0)
    original = weight_norm()
    before = {name: value for module in original.modules() for name, value in vars(module).items()}
    other = copied(original)
    assert {name: value for module in original.modules() for name, value in vars(module).items()} == before
    inputs = torch.randn(3, 4)
    with torch.no_grad():
        other[0].weight_g.mul_(2)  # type: ignore[index]
    assert not torch.equal(other(inputs), original(inputs))


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([0.0, -torch.inf], True),
        ([[1.0, 0.0], [torch.inf, 0.0]], True),
        ([0.1, 0.2, 0.3, torch.inf], False),  # a network that has diverged
        ([torch.inf, -torch.inf, 0.0], False),
        ([torch.inf, torch.nan, 0.0], False),
        ([torch.inf, torch.inf], False),
    ],
)
def test_infinities_that_are_meant_are_kept(values: Any, kept: bool) -> None:
    state = {"blocks[0].mask": torch.tensor(values), "w": torch.ones(3)}
    if kept:
        assert torch.equal(unpack(pack(state))["blocks[0].mask"], state["blocks[0].mask"])
        return
    with pytest.raises(TensorError, match=r"Rule\('blocks\[\[\]0\]\.mask', \('lossless',\)\)") as caught:
        pack(state)
    assert caught.value.match == "blocks[[]0].mask"
    from evocompress.checkpoint.recipe import Rule

    mended = Recipe(rules=(Rule(caught.value.match, ("lossless",)),))  # the hint is right as it stands
    assert torch.equal(
        unpack(pack(state, mended))["blocks[0].mask"].nan_to_num(7), state["blocks[0].mask"].nan_to_num(7)
    )
