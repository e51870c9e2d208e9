"""Layers that have the connections of a plan, and thinning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from connection_plans import PLANS, shapes_of
from torch import nn

import evocompress
from evocompress.calibration.fisher import sensitivities
from evocompress.checkpoint.forms import loaded
from evocompress.data.examples import Examples
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.connections.drawing import MAX_CONNECTIONS, connect
from evocompress.ideas.connections.overprovisioned import (
    OverProvisioned,
    OverProvisionedConv2d,
    OverProvisionedLinear,
    thin,
)
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.product import Product
from evocompress.training.trainer import TrainingGenes, train


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_layer_computes_with_its_matrix_and_so_do_its_gradients(plan: ConnectionPlan, dense: bool) -> None:
    torch.manual_seed(0)
    out_shape, in_shape = shapes_of(plan)
    layer = OverProvisionedConv2d(2, 4, plan, in_size=(6, 7), dtype=torch.float64)
    layer.product.dense = dense
    images = torch.randn(3, *in_shape, dtype=torch.float64, requires_grad=True)
    y = layer(images)
    assert layer.bias is not None and y.shape == (3, *out_shape)
    expected = (images.flatten(1) @ layer.matrix().T).reshape(3, *out_shape) + layer.bias[:, None, None]
    assert torch.allclose(y, expected, atol=1e-12)
    parameters = list(layer.parameters())
    weighting = torch.randn_like(y)
    ours = torch.autograd.grad((y * weighting).sum(), [images, *parameters], allow_unused=True)
    theirs = torch.autograd.grad((expected * weighting).sum(), [images, *parameters], allow_unused=True)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


def test_few_connections_are_summed_one_by_one_to_the_same_values() -> None:
    torch.manual_seed(0)
    found = connect(ConnectionPlan(kernel=0, near=0.03, shared=False), (500,), (800,))
    product = Product(found, 500, 800, 0, None)
    assert not product.dense
    dense = copy.deepcopy(product)
    dense.dense = True
    x, values = torch.randn(5, 800, requires_grad=True), torch.randn(found.n_links, requires_grad=True)
    results = [torch.autograd.grad(way(x, values).square().sum(), [x, values]) for way in (product, dense)]
    assert torch.allclose(product(x, values), dense(x, values), atol=1e-5)
    # A penalty on the inputs' gradient reaches the weights too.
    slopes = [torch.autograd.grad(way(x, values).square().sum(), x, create_graph=True)[0] for way in (product, dense)]
    penalties = [torch.autograd.grad(slope.square().sum(), values)[0] for slope in slopes]
    assert torch.allclose(penalties[0], penalties[1], rtol=1e-3, atol=1e-3)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*results, strict=True))


def test_a_dense_layer_is_a_plan_too() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(12, 5)
    layer = OverProvisionedLinear(12, 5, ConnectionPlan(kernel=1))
    layer.load_state_dict({"kernel": plain.weight, "bias": plain.bias, "plan": layer.plan})
    x = torch.randn(2, 3, 12)
    assert torch.allclose(layer(x), plain(x), atol=1e-6)


def test_features_of_a_dense_layer_may_lie_in_space() -> None:
    plan = ConnectionPlan(kernel=5, near=0.2, far=0.01, period=0, shared=False)
    layer = OverProvisionedLinear(784, 500, plan, in_shape=(1, 28, 28), out_shape=(5, 10, 10))
    assert layer(torch.zeros(2, 784)).shape == (2, 500)
    share = layer.n_values / (784 * 500)
    assert 0.03 < share < 0.12
    middle = layer.matrix().reshape(5, 10, 10, 28, 28)[0, 5, 5]
    assert (middle[12:17, 12:17] != 0).all()


def build() -> nn.Sequential:
    torch.manual_seed(0)
    plan = ConnectionPlan(kernel=3, near=0.3, far=0.02, stride=2, padding=1)
    local = ConnectionPlan(kernel=0, near=0.3, shared=False, seed=5)
    return nn.Sequential(
        OverProvisionedConv2d(1, 6, plan, in_size=(8, 8)), nn.ReLU(), nn.Flatten(), OverProvisionedLinear(96, 10, local)
    )


def test_thinning_drops_the_weakest_and_they_stay_dropped() -> None:
    network = build()
    first, last = (layer for layer in network if isinstance(layer, OverProvisioned))
    before = [value.detach().clone() for value in (first.kernel, first.links) if value is not None]
    left, total = thin(network, 0.5)
    assert total == first.n_values + last.n_values and left == first.n_alive + last.n_alive
    assert (first.n_alive, last.n_alive) == (-(-first.n_values // 2), -(-last.n_values // 2))
    flat = torch.cat([value.flatten() for value in before])
    now = torch.cat([value.detach().flatten() for value in (first.kernel, first.links) if value is not None])
    assert flat[now == 0].abs().max() <= flat[now != 0].abs().min() and torch.equal(now[now != 0], flat[now != 0])
    assert thin(network, 0.5)[0] == pytest.approx(left / 2, abs=1.1)
    dropped = {name: value == 0 for name, value in network.state_dict().items() if value.is_floating_point()}
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 10
    train(network, Examples(images, labels), TrainingGenes(learning_rate=1e-2, weight_decay=0.1), epochs=2, seed=0)
    after = network.state_dict()
    assert all((after[name][zero] == 0).all() for name, zero in dropped.items() if "bias" not in name)
    assert any((after[name] != value).any() for name, value in build().state_dict().items())


def test_thinning_to_nothing_and_a_wrong_share() -> None:
    layer = OverProvisionedLinear(12, 5, ConnectionPlan(kernel=0, near=0.5, shared=False))
    assert layer.thin(1.0) == layer.n_values
    assert layer.thin(1e-9) == 1
    assert layer.thin(0) == 0 and layer.bias is not None and torch.equal(layer(torch.ones(1, 12))[0], layer.bias)
    for keep in (-0.1, 1.5, float("nan"), "half", True):
        with pytest.raises(ModelError, match="keep is .* such as 0.8"):
            layer.thin(keep)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Linear has no OverProvisionedLinear"):
        thin(nn.Linear(3, 2), 0.5)


def test_a_plan_that_by_lot_has_no_connection_gives_the_bias() -> None:
    layer = OverProvisionedLinear(2, 2, ConnectionPlan(kernel=0, near=1e-4, shared=False))
    assert layer.n_values == 0 and layer.bias is not None and torch.equal(layer(torch.ones(1, 2))[0], layer.bias)
    assert layer.thin(0.5) == 0 and set(layer.state_dict()) == {"bias", "plan"}
    assert torch.equal(layer.matrix(), torch.zeros(2, 2))
    assert layer.double().matrix().dtype == torch.float64


def test_values_that_are_loaded_are_whole_in_a_thinned_layer() -> None:
    layer = OverProvisionedConv2d(2, 4, ConnectionPlan(near=0.3), in_size=(6, 7))
    before = copy.deepcopy(layer.state_dict())
    layer.thin(0.2)
    layer.load_state_dict(before)
    assert layer.n_alive == layer.n_values
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_file_holds_values_and_plan_and_no_mask(tmp_path: Any) -> None:
    network = build()
    thin(network, 0.3)
    state = network.state_dict()
    data = evocompress.pack(state, 1e-7)
    path = tmp_path / "net.evc"
    path.write_bytes(data)
    again = evocompress.load(path, build())
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(again(images), network(images), atol=0.05)
    (layer,) = (layer for layer in again if isinstance(layer, OverProvisionedLinear))
    assert layer.n_alive == layer.n_values
    assert layer.hold() <= 0.31 * layer.n_values  # a codec makes no zero into something else
    assert ConnectionPlan.from_bytes(bytes(state["3.plan"].tolist())) == layer.genes
    whole = evocompress.pack(build().state_dict(), 1e-7)
    assert len(data) < 0.7 * len(whole)


def test_what_an_error_costs_is_known_of_kernel_and_links() -> None:
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = sensitivities(build(), Examples.unlabelled(images), samples=32, seed=0)
    assert {"0.kernel", "0.links", "3.links"} <= set(found) and all(value > 0 for value in found.values())


def test_values_of_another_plan_are_refused() -> None:
    layer = OverProvisionedLinear(12, 5, ConnectionPlan(kernel=0, near=0.5, shared=False))
    other = OverProvisionedLinear(12, 5, ConnectionPlan(kernel=0, near=0.5, shared=False, seed=3))
    with pytest.raises(RuntimeError, match="plan is .* ConnectionPlan.from_bytes"):
        layer.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (lambda plan: plan.float() + 1, "float32 .*"),
        (lambda plan: plan.long() + 300, "int64 .*"),
        (lambda plan: -plan.long() - 1, "int64 .*"),
        (lambda plan: plan[None], "uint8 .1, .*"),
        (lambda plan: torch.tensor(1 << 62), r"int64 \(\)"),
    ],
)
def test_what_is_no_plan_is_refused(damaged: Callable[[torch.Tensor], torch.Tensor], kind: str, tmp_path: Path) -> None:
    network = build()
    state = dict(network.state_dict())
    state["0.plan"] = damaged(state["0.plan"])
    others = {"3.links": torch.zeros_like(state["3.links"])}
    with pytest.raises(RuntimeError, match=f"0.plan is {kind}, which are not the bytes of a plan"):
        network.load_state_dict(state)
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(state | others, path)
    last = network[3]
    assert isinstance(last, OverProvisionedLinear) and last.thin(0.5)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ModelError, match="does not fit the .*0.plan"):
        evocompress.load(path, network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert last.n_alive < last.n_values
    with pytest.raises(ModelError, match="does not fit the .*0.plan"):
        loaded(network, state, "x")


def test_inputs_and_shapes_that_do_not_fit_are_refused() -> None:
    layer = OverProvisionedConv2d(1, 2, ConnectionPlan(), in_size=(8, 8))
    with pytest.raises(ModelError, match=r"input is \(1, 1, 9, 8\); this layer takes \(n, 1, 8, 8\)"):
        layer(torch.zeros(1, 1, 9, 8))
    with pytest.raises(ModelError, match="its last dimension must be 12"):
        OverProvisionedLinear(12, 5, ConnectionPlan())(torch.zeros(2, 13))
    with pytest.raises(ModelError, match=r"in_shape is \(1, 3, 3\) and in_features is 12"):
        OverProvisionedLinear(12, 5, ConnectionPlan(), in_shape=(1, 3, 3), out_shape=(5, 1, 1))
    with pytest.raises(ConfigError, match="as many axes"):
        OverProvisionedLinear(12, 5, ConnectionPlan(), in_shape=(12, 1))


@pytest.mark.parametrize(
    ("plan", "sizes", "message"),
    [
        (
            ConnectionPlan(kernel=9, stride=1),
            {"in_size": (4, 4)},
            r"in_size is \(4, 4\), and a window of \(9, 9\) with",
        ),
        (ConnectionPlan(kernel=3, stride=1), {"in_size": (2, 8)}, "does not fit into it. Set padding, or stride to 0"),
        (ConnectionPlan(kernel=3, stride=1), {"in_size": (8, 8), "out_size": (7, 6)}, "make 6"),
        (ConnectionPlan(stride=1, padding=60_000), {"in_size": (8, 8)}, f"more than {MAX_CONNECTIONS} outputs"),
        (ConnectionPlan(kernel=1 << 16), {"in_size": (8, 8)}, "values of the kernel"),
        ({"kernel": 3}, {"in_size": (8, 8)}, "plan is {'kernel': 3}; it must be a ConnectionPlan"),
        (ConnectionPlan(), {"in_size": 4}, r"in_size is 4; it must be \(height, width\), each 1 or more"),
        (ConnectionPlan(), {"in_size": (4,)}, r"in_size is \(4,\); it must be"),
        (ConnectionPlan(), {"in_size": (4, 4), "out_size": (4, "4")}, r"out_size is \(4, '4'\); it must be"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(plan: Any, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OverProvisionedConv2d(3, 8, plan, **sizes)


def test_wrong_arguments_of_a_dense_layer_say_what_is_wrong() -> None:
    wrong: list[tuple[Any, Any, str]] = [
        ("x", None, "plan is 'x'"),
        (ConnectionPlan(), 12, "in_shape is 12; it must be"),
    ]
    for plan, shape, message in wrong:
        with pytest.raises(ConfigError, match=message):
            OverProvisionedLinear(12, 12, plan, in_shape=shape)


def test_layers_copy_move_and_say_what_they_are() -> None:
    network = build()
    thin(network, 0.5)
    twin = copy.deepcopy(network).double()
    images = torch.randn(2, 1, 8, 8)
    assert torch.allclose(twin(images.double()).float(), network(images), atol=1e-5)
    assert "kernel=3, near=0.3, far=0.02, stride=2" in repr(network) and "weights=" in repr(network)
    assert "plan" in network[0].state_dict() and network[0].plan.dtype == torch.uint8
