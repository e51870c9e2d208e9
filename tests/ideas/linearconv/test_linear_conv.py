"""LinearConv: the layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from network_shapes import parameters
from torch import Tensor, nn

from evocompress.checkpoint.packing import pack, unpack
from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, fold

pytestmark = pytest.mark.usefixtures("seeded")

SHAPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((6, 10, 3), {"padding": 1}),
    ((6, 10, 1), {}),
    ((6, 10, (2, 4)), {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}),
    ((6, 9, 3), {"groups": 3, "bias": False}),
    ((6, 8, (1, 5)), {"groups": 2, "padding": "same", "alpha": 0.3}),
    ((6, 8, 4), {"padding": "same", "padding_mode": "circular", "dilation": (1, 2)}),
    ((6, 8, 3), {"padding": (2, 1), "padding_mode": "reflect", "alpha": 0.25, "rank": 0.5}),
    ((6, 12, 3), {"groups": 2, "alpha": 0.5, "rank": 0.3}),
    ((6, 6, 3), {"groups": 6}),  # depthwise: nothing to combine
    ((6, 7, 3), {"alpha": 1.0}),
    ((6, 10, 3), {"sparsity": 0.6}),
    ((6, 1, 3), {"alpha": 0.01}),
]
NUMBERS: tuple[Any, ...] = (np.float32, np.int64, np.int8, np.int32)


def reference(layer: LinearConv2d) -> Tensor:
    """The bank filter by filter, in float64."""
    groups, p = layer.geometry.groups, layer.primaries
    a = layer.coefficients
    if layer.coefficients_left is not None and layer.coefficients_right is not None:
        a_parts = [
            left.double() @ right.double()
            for left, right in zip(
                layer.coefficients_left.chunk(groups), layer.coefficients_right.chunk(groups), strict=True
            )
        ]
    else:
        a_parts = [] if a is None else [part.double() for part in a.chunk(groups)]
    filters = []
    for g, primaries in enumerate(layer.primary.double().reshape(groups, p, *layer.geometry.filter_shape)):
        filters += list(primaries)
        if a_parts:
            filters += [
                sum((c * w for c, w in zip(row, primaries, strict=True)), torch.zeros(())) for row in a_parts[g]
            ]
    return torch.stack(filters)


@pytest.mark.parametrize(("arguments", "options"), SHAPES)
def test_the_layer_is_a_convolution_with_its_combined_bank(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    layer = LinearConv2d(*arguments, **options)
    shapes = {key: value for key, value in options.items() if key not in ("alpha", "rank", "sparsity")}
    plain = nn.Conv2d(*arguments, **shapes)
    assert layer.weight.shape == plain.weight.shape
    if not layer.sparsity:
        torch.testing.assert_close(layer.weight.double(), reference(layer))
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        if plain.bias is not None and layer.bias is not None:
            plain.bias.copy_(layer.bias)
    images = torch.randn(2, arguments[0], 11, 9)
    torch.testing.assert_close(layer(images), plain(images))
    torch.testing.assert_close(layer.eval()(images), plain(images))
    folded = fold(layer)
    assert type(folded) is nn.Conv2d and not folded.training
    torch.testing.assert_close(folded(images), plain(images))
    assert repr(folded) == repr(plain)


@pytest.mark.parametrize(("arguments", "options"), SHAPES)
def test_gradients_reach_every_factor(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    layer = LinearConv2d(*arguments, **options).eval()  # evaluation must not lose gradients either
    layer(torch.randn(2, arguments[0], 11, 9)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_the_gradients_are_those_of_finite_differences() -> None:
    layer = LinearConv2d(2, 6, 3, alpha=0.5, rank=0.5, groups=2, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (images,))
        return result

    images = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(run, [p.detach().clone().requires_grad_() for p in layer.parameters()])


@pytest.mark.parametrize(
    ("alpha", "groups", "outputs", "expected"),
    [
        (0.5, 1, 9, 5),
        (0.1, 1, 30, 3),
        (0.7, 1, 10, 7),
        (1e-12, 1, 8, 1),
        (1.0, 1, 8, 8),
        (0.5, 3, 9, 6),
        (0.01, 4, 8, 4),
    ],
)
def test_the_number_of_primaries_is_rounded_up_in_each_group(
    alpha: float, groups: int, outputs: int, expected: int
) -> None:
    layer = LinearConv2d(12, outputs, 3, groups=groups, alpha=alpha)
    assert len(layer.primary) == expected and layer.weight.shape[0] == outputs


def test_parameters_fall_where_the_coefficients_are_fewer_than_the_weights() -> None:
    def count(**options: Any) -> int:
        return parameters(LinearConv2d(16, 32, 3, bias=False, **options))

    assert count() == 16 * 144 + 16 * 16
    assert count(rank=0.25) == 16 * 144 + 4 * 32
    assert count(rank=1.0) == count(rank=None) == count(sparsity=0.9)
    assert parameters(LinearConv2d(4, 32, 1, bias=False)) == 16 * 4 + 16 * 16 > 32 * 4


@pytest.mark.parametrize("options", [{}, {"alpha": 0.1}, {"rank": 0.1}, {"groups": 2}, {"sparsity": 0.9}])
def test_all_filters_start_with_the_variance_of_torchs(options: dict[str, Any]) -> None:
    plain = nn.Conv2d(64, 256, 3)
    layer = LinearConv2d(64, 256, 3, **options)
    primaries = layer.primaries
    weight = layer.weight.reshape(layer.geometry.groups, -1, layer.geometry.fan_in)
    expected = 1 / (3 * layer.geometry.fan_in)
    assert plain.weight.var().item() == pytest.approx(1 / (3 * 576), rel=0.02)
    assert weight[:, :primaries].var().item() == pytest.approx(expected, rel=0.03)
    # Few components are few draws: the variance of their product has a wide spread.
    assert weight[:, primaries:].var().item() == pytest.approx(expected, rel=0.25)
    assert layer.bias is not None and layer.bias.abs().max() <= 1 / math.sqrt(layer.geometry.fan_in)


def test_other_dtypes_and_devices() -> None:
    layer = LinearConv2d(4, 6, 3, dtype=torch.float64, device="meta")
    images = torch.zeros(1, 4, 5, 5, device="meta", dtype=torch.float64)
    assert layer(images).shape == (1, 6, 3, 3)
    with torch.no_grad():
        assert layer.eval()(images).shape == (1, 6, 3, 3)


def test_numbers_of_numpy_will_do() -> None:
    half, eight, two, three = (kind(x) for kind, x in zip(NUMBERS, (0.5, 8, 2, 3), strict=True))
    layer = LinearConv2d(eight, eight, (three, 3), groups=two, alpha=half, rank=half)
    plain = LinearConv2d(8, 8, 3, groups=2, alpha=0.5, rank=0.5)
    assert layer.geometry == plain.geometry and repr(layer) == repr(plain)
    assert type(layer.geometry.in_channels) is int and type(layer.alpha) is float


@pytest.mark.parametrize("options", [{}, {"rank": 0.5}, {"sparsity": 0.7}, {"groups": 2, "bias": False}])
def test_a_state_dict_makes_the_same_layer(options: dict[str, Any]) -> None:
    layer, other = LinearConv2d(4, 12, 3, **options), LinearConv2d(4, 12, 3, **options)
    assert not torch.equal(layer.weight, other.weight)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(layer.weight, other.weight)
    decoded = unpack(pack(layer.state_dict(), 1e-9))
    other.load_state_dict(decoded, strict=True)
    torch.testing.assert_close(other.weight, layer.weight, atol=1e-3, rtol=0.0)


def test_sparse_coefficients_are_the_largest_and_may_change() -> None:
    layer = LinearConv2d(4, 20, 3, bias=False, sparsity=0.75)
    assert layer.coefficients is not None
    saved = layer.state_dict()["coefficients"]
    assert int((saved != 0).sum()) == 25
    kept = saved != 0
    assert layer.coefficients.detach()[kept].abs().min() >= layer.coefficients.detach()[~kept].abs().max()
    flat = layer.primary.detach().reshape(10, -1)
    torch.testing.assert_close(layer.weight.detach()[10:].reshape(10, -1), saved @ flat)
    place = tuple((~kept).nonzero()[0].tolist())
    with torch.no_grad():
        layer.coefficients[place] = 100.0  # grown by training, it comes back and the least one goes
    assert layer.state_dict()["coefficients"][place] == 100
    assert int((layer.state_dict()["coefficients"] != 0).sum()) == 25


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, 8, 3), {"alpha": 0.0}, r"alpha is 0.0; it is a share and must be a number in \(0, 1\]"),
        ((3, 8, 3), {"alpha": 1.5}, "alpha is 1.5"),
        ((3, 8, 3), {"alpha": math.nan}, "alpha is nan"),
        ((3, 8, 3), {"alpha": "half"}, "alpha is 'half'"),
        ((3, 8, 3), {"alpha": True}, "alpha is True"),
        ((3, 8, True), {}, "kernel_size is True"),
        ((3, 8, 3), {"rank": 0}, "rank is 0"),
        ((3, 8, 3), {"rank": 10}, "rank is 10"),
        ((3, 8, 3), {"sparsity": 1.0}, r"sparsity is 1.0; it is a share and must be a number in \[0, 1\)"),
        ((3, 8, 3), {"rank": 0.5, "sparsity": 0.5}, "give one of them"),
        ((3, 8, 3), {"groups": 2}, "in_channels is 3 and groups is 2; in_channels must be a multiple"),
        ((4, 9, 3), {"groups": 2}, "out_channels is 9 and groups is 2"),
        ((3, 0, 3), {}, "out_channels is 0"),
        ((3, 8, 0), {}, "kernel_size is 0"),
        ((3, 8, (3, 3, 3)), {}, r"kernel_size is \(3, 3, 3\)"),
        ((3, 8, 3), {"stride": 0}, "stride is 0"),
        ((3, 8, 3), {"dilation": (1, 0)}, r"dilation is \(1, 0\)"),
        ((3, 8, 3), {"padding": -1}, "padding is -1"),
        ((3, 8, 3), {"padding": "most"}, "padding is 'most'"),
        ((3, 8, 3), {"padding": "same", "stride": 2}, "'same' goes with stride 1"),
        ((3, 8, 3), {"padding_mode": "mirror"}, "padding_mode is 'mirror'"),
    ],
)
def test_what_no_layer_can_have(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LinearConv2d(*arguments, **options)
