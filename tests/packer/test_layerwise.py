"""Layer by layer: the order of layers, what each of them sees, and what it is worth."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress import pack, unpack
from evocompress.calibration.layer_views import view_of
from evocompress.calibration.layer_views.base import LayerViewBase, by_channel
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.fold_statistics import fold_statistics
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.size_prior import size_prior
from evocompress.data import Examples
from evocompress.data.synthetic_inputs import noise_images
from evocompress.errors import DataError, ModelError
from evocompress.packer import layerwise
from evocompress.packer.calibrated import calibrate, pack_calibrated
from evocompress.packer.layerwise import layerwise_records
from evocompress.packer.layerwise_forward import Stop, forward_in_steps


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = nn.Sequential(
            nn.Conv2d(2, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, stride=2, groups=3, padding=1), nn.ReLU(),
            nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 16, 5),
        )  # fmt: skip
        model(examples(500).inputs)  # running statistics of their own
        return model.eval()


def examples(n: int, seed: int = 1) -> Examples:
    images = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Examples((images + images.roll(1, 3)) * 2, torch.zeros(n, dtype=torch.int64))


def damage(model: nn.Module, data: bytes) -> float:
    """Mean squared change of the outputs on examples that nobody has seen."""
    other, images = network(), examples(400, seed=9).inputs
    other.load_state_dict(unpack(data), strict=False)
    with torch.no_grad():
        return float((other(images) - model(images)).square().mean())


class Twice(nn.Module):
    """A layer that runs twice, one that never runs, one that is only called, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0, 0.5, 1.0, 1.5]))
        self.shared, self.idle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.shared(torch.relu(self.shared(x * self.scale))))
        return outputs


def test_the_pass_stops_at_each_layer_once_and_gives_its_inputs() -> None:
    model, batches = Twice(), [torch.ones(2, 4), torch.zeros(3, 4)]
    stops = [
        Stop(stop.path, [*stop.inputs]) for stop in forward_in_steps(model, batches, ["", "shared", "idle", "last"])
    ]
    assert [stop.path for stop in stops] == ["", "shared", "last"]
    assert torch.equal(stops[1].inputs[0], torch.ones(2, 4) * model.scale)
    assert [len(x) for x in stops[2].inputs] == [2, 3]


def test_what_is_changed_at_a_stop_counts_in_the_same_pass() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    steps = forward_in_steps(model, [torch.ones(1, 2)], ["0", "1"])
    assert next(steps).path == "0"
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(3)
    assert torch.equal(next(steps).inputs[0], torch.full((1, 2), 6.0))


def test_no_thread_or_hook_is_left_behind() -> None:
    model, before = Twice(), threading.active_count()
    steps = forward_in_steps(model, [torch.ones(2, 4)] * 3, ["shared", "last"])
    next(steps)
    assert threading.active_count() == before + 3
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_network_that_fails_or_branches_is_refused() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = (self.a if x.sum() > 0 else self.b)(x)
            return outputs

    with pytest.raises(ModelError, match="same way"):
        list(forward_in_steps(Branching(), [torch.ones(1, 2), -torch.ones(1, 2)], ["a", "b"]))
    with pytest.raises(ModelError, match="fails on calibration examples"):
        list(forward_in_steps(nn.Linear(2, 2), [torch.ones(1, 3)], [""]))


def test_layer_by_layer_does_less_damage_in_as_many_bytes() -> None:
    model, data = network(), examples(300)
    state = model.state_dict()
    sensitivities = second_order_sensitivities(model, data, samples=300, seed=0)
    recipe = preset("balanced", 3e-4, calibrated=True)
    plain = pack(state, recipe, sensitivities=sensitivities)
    records = layerwise_records(model, state, recipe, data, sensitivities)
    assert set(records) == set(state)
    better = pack(state, recipe, sensitivities=sensitivities, records=records)
    assert abs(len(better) - len(plain)) < 0.05 * len(plain)
    assert damage(model, better) < 0.8 * damage(model, plain)


def test_the_model_is_left_as_it_was_and_the_same_comes_out_twice() -> None:
    model, data = network().train(), examples(100)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sensitivities = second_order_sensitivities(model, data, samples=50, seed=0)
    files = []
    for _ in range(2):
        recipe = preset("best", 1e-3, layerwise=True)
        records = layerwise_records(model, model.state_dict(), recipe, data, sensitivities)
        files.append(pack(model.state_dict(), recipe, records=records))
    assert files[0] == files[1]
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_odd_networks_are_coded_whole() -> None:
    model = Twice()
    data = Examples(torch.randn(80, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(80, dtype=torch.int64))
    sensitivities = second_order_sensitivities(model, data, samples=80, seed=0)
    recipe = preset("best", 1e-6, layerwise=True)
    records = layerwise_records(model, model.state_dict(), recipe, data, sensitivities)
    decoded = unpack(pack(model.state_dict(), recipe, records=records))
    other = Twice()
    other.load_state_dict(decoded)
    with torch.no_grad():
        assert torch.allclose(other(data.inputs), model(data.inputs), atol=0.05)


def test_half_precision_checkpoints_keep_their_dtype() -> None:
    model, data = network(), examples(60)
    state = {name: x.half() if x.is_floating_point() else x for name, x in model.state_dict().items()}
    recipe = preset("best", 1e-3, layerwise=True)
    records = layerwise_records(model, state, recipe, data, {})
    decoded = unpack(pack(state, recipe, records=records))
    assert {name: x.dtype for name, x in decoded.items()} == {name: x.dtype for name, x in state.items()}


def test_folding_keeps_what_the_network_computes() -> None:
    model, images = network(), examples(50).inputs
    with torch.no_grad():
        for name in ("1.weight", "1.bias", "6.weight", "6.bias"):
            model.get_parameter(name).uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    other = network()
    other.load_state_dict(fold_statistics(model.state_dict()))
    with torch.no_grad():
        assert torch.allclose(model(images), other(images), atol=1e-4)
    recipe = preset("best", 1e-4)
    folded = fold_statistics(model.state_dict())
    assert not folded["1.running_mean"].any()
    assert float(folded["6.running_var"].max() - folded["6.running_var"].min()) == 0
    assert len(pack(folded, recipe)) < len(pack(model.state_dict(), recipe)) - 15


def test_the_better_file_on_held_out_examples_is_kept() -> None:
    model = network()
    train, held_out = examples(300), examples(200, seed=5)
    with torch.no_grad():
        held_out = Examples(held_out.inputs, model(held_out.inputs).argmax(1))
    calibration = calibrate(model, train, held_out, samples=200, seed=3)
    assert len(calibration.examples) == 200
    recipe, state = preset("best", 1e-2, layerwise=True), model.state_dict()
    shares: list[float] = []
    found = pack_calibrated(state, recipe, calibration, progress=shares.append)
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert found.layerwise
    assert found.loss == pytest.approx(calibration.loss(found.data))
    blind = Examples(torch.zeros_like(train.inputs), train.labels)  # nothing to learn from, and all is wrong
    misled = pack_calibrated(state, recipe, type(calibration)(model, blind, held_out, calibration.sensitivities))
    assert misled.loss is not None
    assert misled.loss <= calibration.loss(pack(state, recipe, sensitivities=calibration.sensitivities)) + 1e-9
    assert np.isfinite(misled.loss)


def test_without_labels_the_file_that_changes_outputs_less_is_kept() -> None:
    model = network()
    unlabelled = Examples.unlabelled(examples(200, seed=5).inputs)
    calibration = calibrate(model, examples(300), unlabelled, samples=200, seed=3)
    assert calibration.loss() == 0
    found = pack_calibrated(model.state_dict(), preset("best", 1e-2, layerwise=True), calibration)
    assert found.loss is not None
    assert (
        0
        < found.loss
        <= calibration.loss(
            pack(model.state_dict(), preset("best", 1e-2, layerwise=True), sensitivities=calibration.sensitivities)
        )
    )


def test_noise_stands_in_for_data() -> None:
    images = noise_images("3x16x16", 200, seed=1)
    assert images.inputs.mean().abs() < 0.3
    assert float(images.inputs.std()) == pytest.approx(1, rel=1e-3)
    assert torch.equal(images.inputs, noise_images("3X16x16", 200, seed=1).inputs)
    neighbours = float((images.inputs[..., 1:] * images.inputs[..., :-1]).mean())
    assert neighbours > 0.6  # as in natural images
    for shape in ("3x16x16x2", "3x0x4", "axbxc", "3x-1x4", ""):
        with pytest.raises(DataError, match="channels x height x width"):
            noise_images(shape, 1, seed=0)


def test_the_prior_says_what_size_says() -> None:
    state = {"a": torch.zeros(8, 8), "b": torch.zeros(64, 64), "n": torch.zeros(4, 4, dtype=torch.int64)}
    prior = size_prior(state)
    assert set(prior) == {"a", "b"}
    assert prior["a"] > 2 * prior["b"]
    logs = sum(state[name].numel() * np.log(scale) for name, scale in prior.items())
    assert logs == pytest.approx(0, abs=1e-9)
    assert size_prior({}) == {}


class RMSNormView(LayerViewBase):
    kinds = (nn.RMSNorm,)
    scales = True

    def channels(self, module: nn.RMSNorm, outputs: Tensor) -> Tensor | None:
        return by_channel(outputs, len(module.weight), last=True)


def test_a_scale_without_a_bias_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.RMSNorm(32), nn.ReLU(), nn.Linear(32, 5)).eval()
    images = Examples.unlabelled(torch.randn(200, 3, 4, 4))
    scales = second_order_sensitivities(model, images, samples=200, seed=0)

    def weight() -> np.ndarray:
        records = layerwise_records(model, model.state_dict(), preset("best", 3e-2), images, scales)
        data = pack(model.state_dict(), preset("best", 3e-2), sensitivities=scales, records=records)
        return unpack(data, "numpy")["2.weight"]

    plain = weight()
    assert np.allclose(plain, 1, atol=0.01)  # as it was
    monkeypatch.setattr(
        layerwise, "view_of", lambda module: RMSNormView() if isinstance(module, nn.RMSNorm) else view_of(module)
    )
    assert np.abs(weight() - 1).max() > 0.02  # what quantised weights lose in size, the scale makes good


def test_what_a_stop_showed_is_not_held_while_the_passes_go_on() -> None:
    shown: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            outputs = x + 1
            del x
            alive.extend(reference() is not None for reference in shown)
            return outputs

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), Looking(), nn.Linear(4, 2))
    for stop in forward_in_steps(model, [torch.randn(3, 4)], ["2", "4"]):
        if stop.path == "2":
            shown += [weakref.ref(x) for x in stop.inputs]
    assert alive == [False]
