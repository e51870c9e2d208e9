"""Plans of connections: special cases, genes, bytes, drawing."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from connection_plans import PLANS, SHAPES, shapes_of
from torch import nn

import evocompress
from evocompress.errors import ConfigError, FormatError
from evocompress.ideas.connections.drawing import MAX_CONNECTIONS, PlannedLayer, connect, foreseen, mask, origins
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.ideas.connections.plan import _BOUNDS, ConnectionPlan
from evocompress.ideas.connections.product import Product


def unrolled(convolution: nn.Conv2d, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """torch's convolution as a matrix (outputs, inputs): what it makes of every unit image."""
    channels = convolution.in_channels
    n = channels * size[0] * size[1]
    with torch.no_grad():
        columns = nn.functional.conv2d(
            torch.eye(n).reshape(n, channels, *size), convolution.weight, None, convolution.stride,
            convolution.padding, convolution.dilation, convolution.groups,
        )  # fmt: skip
    return columns.flatten(1).T.double().numpy()


CONVOLUTIONS = [
    ({"kernel_size": 3, "padding": 1}, ConnectionPlan(kernel=3)),
    ({"kernel_size": 3, "padding": 1}, ConnectionPlan(kernel=3, stride=1, padding=1)),
    ({"kernel_size": 5}, ConnectionPlan(kernel=5, stride=1)),
    ({"kernel_size": 1}, ConnectionPlan(kernel=1)),
    ({"kernel_size": 1, "stride": 2}, ConnectionPlan(kernel=1, stride=2)),
    ({"kernel_size": 2, "stride": 2}, ConnectionPlan(kernel=2, stride=2)),
    ({"kernel_size": 4, "stride": 3, "padding": 2}, ConnectionPlan(kernel=4, stride=3, padding=2)),
    ({"kernel_size": 3, "padding": 2, "dilation": 2}, ConnectionPlan(kernel=3, dilation=2)),
    ({"kernel_size": 3, "padding": 1, "groups": 2}, ConnectionPlan(kernel=3, groups=2)),
    ({"kernel_size": (3, 5), "padding": (1, 1)}, ConnectionPlan(kernel=3, kernel_width=5, stride=1, padding=1)),
    ({"kernel_size": 1, "padding": 1}, ConnectionPlan(kernel=1, stride=1, padding=1)),
]


@pytest.mark.parametrize(("arguments", "plan"), CONVOLUTIONS, ids=lambda value: str(value)[:60])
def test_a_convolution_is_a_plan(arguments: dict[str, Any], plan: ConnectionPlan) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 4, **arguments)
    matrix = unrolled(convolution, (9, 8))
    images = torch.randn(3, 2, 9, 8)
    expected = convolution(images)
    out_shape = tuple(expected.shape[1:])
    found = mask(plan, out_shape, (2, 9, 8))
    assert np.array_equal(found, matrix != 0)

    layer = OverProvisionedConv2d(2, 4, plan, in_size=(9, 8))
    layer.load_state_dict({"kernel": convolution.weight, "bias": convolution.bias, "plan": layer.plan})
    assert layer.links is None and layer.n_values == convolution.weight.numel()
    assert torch.allclose(layer(images), expected, atol=1e-6)
    assert np.allclose(layer.matrix().detach().numpy(), matrix, atol=1e-6)
    # Not by torch's convolution but by single connections, each of which knows its place in the kernel.
    everything = connect(plan, out_shape, (2, 9, 8))
    product = Product(everything, found.shape[0], found.shape[1], 0, None)
    by_connections = product(images.flatten(1), convolution.weight.flatten()).reshape(3, *out_shape)
    assert convolution.bias is not None
    assert torch.allclose(by_connections + convolution.bias[:, None, None], expected, atol=1e-5)


def test_a_convolution_takes_the_bytes_of_its_kernel_and_a_few_more() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    plan = ConnectionPlan(kernel=3)
    assert plan.to_bytes() == b"\x01\x00"
    layer = OverProvisionedConv2d(16, 32, plan, in_size=(14, 14), bias=False)
    with torch.no_grad():
        layer.state_dict()["kernel"].copy_(convolution.weight)
    ours, theirs = (evocompress.pack(module.state_dict(), 1e-6) for module in (layer, convolution))
    assert torch.equal(evocompress.unpack(ours)["kernel"], evocompress.unpack(theirs)["weight"])
    # two bytes of plan, and one more tensor's name and shape; `benchmarks.ideas.connections bytes` prints both sizes
    assert 0 < len(ours) - len(theirs) < 24


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_genes_and_bytes_come_back(plan: ConnectionPlan) -> None:
    assert ConnectionPlan.from_genes(plan.genes()) == plan
    assert ConnectionPlan.from_bytes(plan.to_bytes()) == plan
    assert 2 <= len(plan.to_bytes()) < 20
    assert all(isinstance(value, bool | int | float) for value in plan.genes().values())


def test_the_longest_plan_has_39_bytes() -> None:
    shares = dict.fromkeys(("near", "decay", "far"), 1.0)
    most = {name: high for name, (_, high) in _BOUNDS.items()}
    plan = ConnectionPlan.from_genes({**most, **shares, "shared": False})
    assert len(plan.to_bytes()) == 39 and ConnectionPlan.from_bytes(plan.to_bytes()) == plan


def test_every_cut_or_changed_byte_of_a_plan_is_refused_or_another_plan() -> None:
    data = ConnectionPlan(kernel=5, near=0.3, far=0.01, period=2, seed=99, stride=2, padding=2).to_bytes()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            ConnectionPlan.from_bytes(data[:end])
    with pytest.raises(FormatError, match="too long"):
        ConnectionPlan.from_bytes(data + b"\0")
    for place, value in itertools.product(range(len(data)), range(256)):
        changed = data[:place] + bytes([value]) + data[place + 1 :]
        try:
            assert ConnectionPlan.from_bytes(changed).to_bytes() == changed
        except FormatError:
            continue


def test_a_default_that_is_written_out_is_not_the_shortest_form() -> None:
    with pytest.raises(FormatError, match="shortest"):
        ConnectionPlan.from_bytes(bytes.fromhex("010206"))


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ({"near": 1.5}, r"near is 1.5; it is a share and must be a number in \[0, 1\]"),
        ({"far": -0.1}, "far is -0.1"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"near": "much"}, "near is 'much'"),
        ({"kernel": -1}, r"kernel is -1; it must be a whole number in \[0"),
        ({"kernel": 3.0}, "kernel is 3.0"),
        ({"groups": 0}, r"groups is 0; it must be a whole number in \[1"),
        ({"dilation": 0}, "dilation is 0"),
        ({"seed": 1 << 32}, "seed is 4294967296"),
        ({"shared": 1}, "shared is 1; it must be True or False"),
        ({"period": 0}, "Set period to 1 or more, or shared to False"),
        ({"padding": 1}, "Set stride to 1 or more, or padding to 0"),
        ({"kernel": 0}, "connects nothing"),
        ({"kernel": 0, "far": 1e-9}, "connects nothing"),
        ({"kernel": 0, "kernel_width": 3, "far": 0.1}, "kernel_width is 3 and kernel is 0"),
        ({"kernal": 3}, "Did you mean 'kernel'"),
    ],
)
def test_a_wrong_gene_says_what_is_wrong(genes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConnectionPlan.from_genes(genes)


@pytest.mark.parametrize(
    ("plan", "out_shape", "in_shape", "message"),
    [
        (ConnectionPlan(), (4, 6), (2, 6, 7), "as many axes"),
        (ConnectionPlan(), (4, 6, 7, 8), (2, 6, 7, 8), "up to two lengths"),
        (ConnectionPlan(), (), (), "up to two lengths"),
        (ConnectionPlan(), (0, 6), (2, 6), "each 1 or more"),
        (ConnectionPlan(groups=3), (3, 6), (2, 6), "in_shape has 2 channels and groups is 3"),
        (ConnectionPlan(kernel_width=2), (3, 6), (2, 6), "kernel_width is 2, and the layer has 1 spatial axes"),
        (ConnectionPlan(kernel=5, stride=2), (3, 6), (2, 13), "make 5"),
        (ConnectionPlan(kernel=9, stride=1), (3, 1), (2, 5), "make 0"),
        (ConnectionPlan(far=0.01), (64, 128, 128), (64, 128, 128), f"more than {MAX_CONNECTIONS} connections"),
        (ConnectionPlan(far=1e-6, period=0, shared=False), (64, 99, 99), (64, 99, 99), "pairs of places"),
        (ConnectionPlan(kernel=1), (1 << 14,), (1 << 14,), "smaller"),
        (ConnectionPlan(kernel=1 << 16), (8, 4, 4), (3, 4, 4), f"more than {MAX_CONNECTIONS} values of the kernel"),
        (ConnectionPlan(kernel=1, period=9), (99, 9, 9), (9999, 9, 9), "values of the kernel"),
        (ConnectionPlan(), (1, 9999, 9999), (1, 9, 9), f"more than {MAX_CONNECTIONS} outputs"),
        (ConnectionPlan(), (1, 9, 9), (9999, 99, 99), f"more than {MAX_CONNECTIONS} inputs"),
        ({"kernel": 3}, (4, 6), (2, 6), r"plan is {'kernel': 3}; it must be a ConnectionPlan.*from_genes"),
        (ConnectionPlan(), 4, (2, 6), "out_shape is 4; it must be"),
    ],
)
def test_shapes_that_do_not_fit_say_so(plan: Any, out_shape: Any, in_shape: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connect(plan, out_shape, in_shape)


def test_connections_are_the_same_on_every_machine() -> None:
    plan = ConnectionPlan(kernel=3, near=0.3, decay=0.6, far=0.02, period=2, shared=False, seed=12345)
    digest = hashlib.sha256(np.packbits(mask(plan, (3, 9, 8), (2, 9, 8))).tobytes()).hexdigest()
    assert digest[:16] == "f2a10f93d0e64731"


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_list_and_the_mask_agree_and_values_are_in_order(plan: ConnectionPlan) -> None:
    out_shape, in_shape = shapes_of(plan)
    found = connect(plan, out_shape, in_shape)
    place = found.outputs * np.prod(in_shape) + found.inputs
    assert (np.diff(place) > 0).all() and mask(plan, out_shape, in_shape).sum() == len(place)
    links = found.weights[found.weights >= found.n_kernel]
    assert set(links.tolist()) == set(range(found.n_kernel, found.n_kernel + found.n_links))
    if not plan.shared:
        assert found.kernel_shape == () and np.array_equal(found.weights, np.arange(len(place)))
    without = connect(plan, out_shape, in_shape, kernel=False)
    kept = (found.weights >= found.n_kernel) | (not plan.shared)
    assert np.array_equal(without.outputs, found.outputs[kept]) and np.array_equal(without.weights, found.weights[kept])


@pytest.mark.parametrize(
    ("plan", "out_shape", "in_shape"),
    [
        *((plan, *shapes_of(plan)) for plan in PLANS),
        (ConnectionPlan(near=1.0, decay=1.0), *SHAPES),
        (ConnectionPlan(groups=2, shared=False), *SHAPES),
        (ConnectionPlan(kernel=0, far=0.005, shared=False), (1, 400), (1, 400)),  # some four, of 200 links each
    ],
)
def test_what_is_foreseen_is_reached(
    plan: ConnectionPlan, out_shape: tuple[int, ...], in_shape: tuple[int, ...]
) -> None:
    for seed in range(20):
        found = connect(dataclasses.replace(plan, seed=seed), out_shape, in_shape)
        kernel, links = foreseen(dataclasses.replace(plan, seed=seed), out_shape, in_shape)
        assert kernel == found.kernel_shape and links <= found.n_links


def test_only_offsets_that_meet_an_input_are_looked_at() -> None:
    plan = ConnectionPlan(kernel=1, far=1.0, stride=1000, padding=1500)
    layer = PlannedLayer(plan, (1, 3, 3), (1, 2, 2))
    assert len(layer.entries((0, 0), kernel=True).offsets) == 36
    assert mask(plan, layer.out_shape, layer.in_shape).all()


def test_few_connections_of_a_large_layer_take_little_memory() -> None:
    tracemalloc.start()
    try:
        found = connect(ConnectionPlan(kernel=0, far=1e-6), (1, 200, 200), (1, 200, 200))
        assert len(found.outputs) < 10**5 and tracemalloc.get_traced_memory()[1] < 5e7
    finally:
        tracemalloc.stop()


def test_density_at_any_distance() -> None:
    assert ConnectionPlan(near=0.3, far=0.1).density(10**15) == 0.1
    assert ConnectionPlan(near=0.3, decay=1.0).density(10**15) == 0.3
    for distance in (-1, 1.5, True, "1"):
        with pytest.raises(ConfigError, match="distance is .*; it counts inputs"):
            ConnectionPlan().density(distance)  # type: ignore[arg-type]


def test_density_falls_with_distance_as_the_genes_say() -> None:
    plan = ConnectionPlan(kernel=3, near=0.8, decay=0.5, far=0.01, period=0, shared=False)
    connected = mask(plan, (2, 40, 40), (2, 40, 40)).reshape(2, 40, 40, 2, 40, 40)
    y, x = np.arange(40), np.arange(40)
    away = np.maximum(np.abs(y[:, None] - y)[:, None, :, None], np.abs(x[:, None] - x)[None, :, None, :]) - 1
    away = np.broadcast_to(np.maximum(away, 0), (2, 2, 40, 40, 40, 40)).transpose(0, 2, 3, 1, 4, 5)
    assert connected[away == 0].all()
    for distance in (1, 2, 3, 4, 20):
        here = connected[away == distance]
        expected = plan.density(distance)
        assert here.mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / here.size))
    assert plan.density(1) == pytest.approx(0.41, abs=1e-4) and plan.density(50) == pytest.approx(0.01, abs=1e-5)


def test_the_plan_repeats_with_its_period_and_another_seed_is_another_plan() -> None:
    def rows(period: int, seed: int = 0) -> npt.NDArray[np.bool_]:
        plan = ConnectionPlan(kernel=1, near=0.5, decay=0.8, far=0.1, period=period, shared=False, seed=seed)
        return mask(plan, (1, 60), (1, 60))

    def alike(connected: npt.NDArray[np.bool_], shift: int) -> bool:
        """Whether outputs that far apart have the same connections, as far as both can."""
        return all(np.array_equal(connected[y, : 60 - shift], connected[y + shift, shift:]) for y in range(60 - shift))

    assert alike(rows(1), 1) and alike(rows(1), 7)
    assert alike(rows(3), 3) and alike(rows(3), 6) and not alike(rows(3), 1)
    assert not any(alike(rows(0), shift) for shift in range(1, 50))
    assert not np.array_equal(rows(1), rows(1, seed=1))


def test_shared_weights_are_those_of_all_places_of_a_phase() -> None:
    plan = ConnectionPlan(kernel=3, near=0.3, far=0.05, period=2)
    layer = OverProvisionedConv2d(2, 3, plan, in_size=(6, 6))
    assert layer.kernel is not None and layer.kernel.shape == (4 * 3, 2, 3, 3)
    matrix = layer.matrix().detach().reshape(3, 6, 6, 2, 6, 6)
    assert torch.equal(matrix[:, 1:3, 1:3, :, 0:4, 0:4], matrix[:, 3:5, 1:3, :, 2:6, 0:4])
    tile = layer.kernel.detach().reshape(2, 2, 3, 2, 3, 3)
    assert torch.equal(matrix[:, 2, 3, :, 1:4, 2:5], tile[0, 1])


def test_windows_are_spread_evenly_without_a_stride() -> None:
    assert origins(ConnectionPlan(kernel=3), 5, 5, 3).tolist() == [-1, 0, 1, 2, 3]
    assert origins(ConnectionPlan(kernel=2), 4, 8, 2).tolist() == [0, 2, 4, 6]
    spread = origins(ConnectionPlan(kernel=5), 10, 28, 5) + 2
    assert (spread + spread[::-1]).tolist() == pytest.approx([27] * 10, abs=1) and np.ptp(np.diff(spread)) <= 1
    assert mask(ConnectionPlan(kernel=3), (1, 3), (1, 1)).all()
