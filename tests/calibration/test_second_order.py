"""Calibration: sensitivities measured on a network predict what errors in its weights do to its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress import Recipe, Rule, pack, unpack
from evocompress.calibration.fisher import sensitivities
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.presets import preset
from evocompress.codecs import Sensitivity
from evocompress.data import Examples
from evocompress.errors import ModelError
from evocompress.packer.targets import Try, find_rate_weight


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, groups=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5),
        ).eval()  # fmt: skip


def examples(n: int = 300) -> Examples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, 2, 8, 8, generator=generator)
    return Examples((images + images.roll(1, 3)) * 2, torch.zeros(n, dtype=torch.int64))


def test_every_layer_gets_what_fits_it() -> None:
    found = second_order_sensitivities(network(), examples(), samples=128, seed=0)
    shapes = {name: (s.H.shape, s.g.shape) for name, s in found.items() if isinstance(s, Sensitivity)}
    assert shapes == {
        "0.weight": ((1, 18, 18), (8,)),
        "3.weight": ((4, 18, 18), (8,)),
        "6.weight": ((1, 128, 128), (5,)),
    }
    assert all(isinstance(found[name], float) for name in ("0.bias", "1.weight", "1.running_var", "6.bias"))


def test_the_sensitivity_predicts_the_change_of_the_outputs() -> None:
    model, data = network(), examples()
    found = second_order_sensitivities(model, data, samples=300, seed=0)
    with torch.no_grad():
        before = model(data.inputs)
        ratios = []
        for name in ("0.weight", "3.weight", "6.weight"):
            sensitivity, parameter = found[name], model.get_parameter(name)
            assert isinstance(sensitivity, Sensitivity)
            generator, changed, cost = torch.Generator().manual_seed(2), 0.0, 0.0
            for _ in range(30):  # in the mean, as a Kronecker product has the right trace and not every entry
                error = 1e-3 * torch.randn(parameter.shape, generator=generator)
                parameter.add_(error)
                change = model(data.inputs) - before
                parameter.sub_(error)
                changed += float((change - change.mean(1, keepdim=True)).square().sum(1).mean()) / 2
                cost += sensitivity.distortion(error.double().numpy().reshape(len(error), -1))
            ratios.append(changed / cost)
    assert max(ratios) / min(ratios) < 1.6  # one normalisation for all layers


def test_calibration_pays_at_the_outputs() -> None:
    model, data = network(), examples()
    state = model.state_dict()
    found = second_order_sensitivities(model, data, samples=256, seed=0)
    with torch.no_grad():
        before = model(data.inputs)

    def measured(data_bytes: bytes) -> float:
        other = network()
        other.load_state_dict(unpack(data_bytes))
        with torch.no_grad():
            return float((other(data.inputs) - before).square().mean())

    plain = [pack(state, preset("fast", rate_weight)) for rate_weight in np.geomspace(1e-5, 3e-3, 12)]
    aware = pack(state, preset("fast", 3e-4, calibrated=True), sensitivities=found)
    assert measured(aware) < min(measured(p) for p in plain if len(p) <= len(aware) * 1.02)


def test_the_model_is_left_as_it_was() -> None:
    model = network().train()
    model.get_parameter("0.weight").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    second_order_sensitivities(model, examples(), samples=64, seed=0)
    assert model.training and not model.get_parameter("0.weight").requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "value", "factor", "why"),
    [
        ("6.bias", float("nan"), 1, r"not finite.*first .*'6' \(Linear\).*; its weights are as large, or NaN"),
        ("0.bias", 1, 1e20, r"'0.weight' are too large.*inputs are as large as [0-9.]+e\+2[01]; normalise them"),
        ("1.weight", 1e4, 1e16, r"are too large.*first the outputs of '1' \(BatchNorm2d\).*; normalise the inputs"),
    ],
)
def test_numbers_that_are_too_large_are_refused_by_name(name: str, value: float, factor: float, why: str) -> None:
    model, data = network(), examples()
    model.get_parameter(name).detach().fill_(value)
    with pytest.raises(ModelError, match=why):
        second_order_sensitivities(model, Examples(data.inputs * factor, data.labels), samples=64, seed=0)


class _Sealed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class _Detached(_Sealed):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found.detach()


@pytest.mark.parametrize("measure", [second_order_sensitivities, sensitivities])
@pytest.mark.parametrize(
    ("kind", "why"),
    [(_Sealed, r"gradients are off in 'layers.0' \(Conv2d\)"), (_Detached, "its forward detaches them")],
)
def test_networks_without_gradients_are_told_why(measure: Any, kind: type[nn.Module], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        measure(kind(), examples(), samples=64, seed=0)


def test_a_network_without_parameters_has_nothing_to_measure() -> None:
    assert second_order_sensitivities(nn.Flatten(), examples(), samples=8, seed=0) == {}


def sized(nbytes: float, *, meets: bool) -> Try:
    return Try(0.0, bytes(int(nbytes)), meets)


def test_a_size_is_met_from_below() -> None:
    found = find_rate_weight(
        lambda w: sized(100 / w, meets=100 / w <= 5000)._replace(rate_weight=w), start=1.0, small_is_good=True
    )
    assert found is not None and 4500 < len(found.data) <= 5000


def test_a_loss_limit_gives_the_smallest_file_that_was_seen_to_meet_it() -> None:
    def attempt(w: float) -> Try:
        return Try(w, bytes(int(1000 / w)), w <= 3, w)

    found = find_rate_weight(attempt, start=0.01, small_is_good=False)
    assert found is not None and 2.7 < found.rate_weight <= 3


def test_an_impossible_target_gives_none() -> None:
    assert find_rate_weight(lambda w: Try(w, b"abc", meets=False), start=1.0, small_is_good=True) is None


def test_a_recipe_with_presets_survives_json() -> None:
    recipe = preset("balanced", 1e-3, (Rule("fc*", ("lossless",)),))
    assert Recipe.from_json(recipe.to_json()) == recipe
