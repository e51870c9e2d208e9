"""Fisher information of weights: against gradients example by example, for every network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress.calibration.fisher import sensitivities
from evocompress.data import Examples, Splits
from evocompress.networks import NETWORKS, build
from evocompress.training.trainer import TrainingGenes, train


def examples(n: int, *shape: int) -> Examples:
    rng = np.random.default_rng(0)
    return Examples(torch.tensor(rng.normal(size=(n, *shape)).astype(np.float32)), torch.zeros(n, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "shape"), [("digits_cnn", (1, 8, 8)), ("lenet5_caffe", (1, 28, 28)), ("resnet20", (3, 32, 32))]
)
def test_every_float_tensor_has_a_positive_scale_of_geometric_mean_one(name: str, shape: tuple[int, ...]) -> None:
    assert name in NETWORKS
    model = build(name)
    found = sensitivities(model, examples(40, *shape), samples=32, seed=0)
    state = model.state_dict()
    assert list(found) == [key for key, t in state.items() if t.is_floating_point()]
    assert all(math.isfinite(scale) and scale > 0 for scale in found.values())
    total = sum(state[key].numel() for key in found)
    assert sum(state[key].numel() * math.log(found[key]) for key in found) / total == pytest.approx(0, abs=1e-9)


def test_it_is_the_exact_fisher_information_of_a_linear_softmax() -> None:
    """For logits W x the expected squared gradient is Σ_o p_o (1 - p_o) x², in closed form."""
    model = nn.Linear(6, 3)
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(1))
    data = examples(3000, 6)
    found = [sensitivities(model, data, samples=480, seed=seed) for seed in range(150)]
    with torch.no_grad():
        p = model(data.inputs).softmax(1)
        spread = p * (1 - p)
        weight = float((spread[:, :, None] * data.inputs[:, None, :].square()).mean())
        bias = float(spread.mean())
    ratio = np.exp(np.mean([math.log(scales["weight"] / scales["bias"]) for scales in found]))
    assert ratio == pytest.approx(weight / bias, rel=0.1)


def test_it_predicts_how_much_the_loss_rises_under_noise(digits: Splits) -> None:
    """KL after noise of variance v in one tensor is v/2 · elements · Fisher to second order."""
    model = build("digits_cnn", seed=0)
    train(model, digits.train, TrainingGenes(batch_size=32), epochs=3, seed=0)
    found = sensitivities(model, digits.train, samples=256, seed=0)
    images = digits.train.batch(slice(0, 400))[0]
    generator = torch.Generator().manual_seed(0)

    def rise(name: str) -> float:
        tensor = model.get_parameter(name)
        total = 0.0
        with torch.no_grad():
            base, old = model(images).log_softmax(1), tensor.clone()
            for _ in range(20):
                tensor.add_(3e-3 * torch.randn(tensor.shape, generator=generator))
                total += float((base.exp() * (base - model(images).log_softmax(1))).sum(1).mean())
                tensor.copy_(old)
        return total / tensor.numel()

    names = [name for name, p in model.named_parameters() if p.ndim >= 2]
    measured = np.array([rise(name) for name in names])
    predicted = np.array([found[name] for name in names])
    ratio = np.log(measured / predicted)
    assert np.ptp(np.log(measured)) > 2  # the tensors differ by a factor above 7 ...
    assert np.abs(ratio - ratio.mean()).max() < 0.7  # ... and the prediction is within a factor of 2


def test_running_statistics_follow_the_chain_rule() -> None:
    class WithExplicitStatistics(nn.Module):
        """Batch normalisation in evaluation mode, its statistics as parameters."""

        def __init__(self, norm: nn.BatchNorm1d, head: nn.Linear) -> None:
            super().__init__()
            self.running_mean = nn.Parameter(_there(norm.running_mean).clone())
            self.running_var = nn.Parameter(_there(norm.running_var).clone())
            self.weight, self.bias, self.head, self.eps = norm.weight, norm.bias, head, norm.eps

        def forward(self, x: Tensor) -> Tensor:
            y = (x - self.running_mean) / (self.running_var + self.eps).sqrt() * self.weight + self.bias
            out: Tensor = self.head(y)
            return out

    generator = torch.Generator().manual_seed(0)
    norm, head = nn.BatchNorm1d(5), nn.Linear(5, 3)
    for tensor in (norm.weight, norm.bias, _there(norm.running_mean), head.weight):
        nn.init.normal_(tensor, generator=generator)
    nn.init.uniform_(_there(norm.running_var), 0.5, 2.0, generator=generator)
    data = examples(64, 5)
    found = sensitivities(nn.Sequential(norm, head), data, seed=0)
    truth = sensitivities(WithExplicitStatistics(norm, head), data, seed=0)
    for name in ("running_mean", "running_var", "weight"):
        assert found[f"0.{name}"] / found["0.bias"] == pytest.approx(truth[name] / truth["bias"], rel=1e-4)


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def test_dead_frozen_shared_and_neutral_tensors() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight
            self.unused = nn.Linear(4, 4)
            self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
            self.register_buffer("scale", torch.ones(3))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x)) * self.frozen
            return out

    model = Odd()
    found = sensitivities(model, examples(32, 4), seed=0)
    assert "count" not in found and found["scale"] == 1.0
    assert found["first.weight"] == found["second.weight"]
    assert 0 < found["unused.weight"] < 1e-3 * found["first.weight"]
    assert found["frozen"] > found["unused.weight"]
    assert not model.frozen.requires_grad and model.frozen.grad is None


def test_a_network_without_any_gradient_gets_neutral_scales() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return 0 * self.weight[:2].repeat(len(x), 1)

    assert sensitivities(Constant(), examples(8, 4), seed=0) == {"weight": 1.0}


def test_overflowing_networks_still_get_finite_scales() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for name in ("0.weight", "1.weight"):
        nn.init.constant_(model.get_parameter(name), 1e30)
    found = sensitivities(model, examples(8, 4), seed=0)
    assert all(math.isfinite(scale) and scale > 0 for scale in found.values())


def test_it_is_reproducible_and_changes_nothing() -> None:
    model = build("resnet20", {"width": 4}).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    data = examples(20, 3, 32, 32)
    first = sensitivities(model, data, samples=16, seed=3)
    assert first == sensitivities(model, data, samples=16, seed=3)
    assert first != sensitivities(model, data, samples=16, seed=4)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
