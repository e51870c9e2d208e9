"""Layers whose kernels have a symmetry."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from symmetry_network import backward, images, normal
from torch import Tensor, nn

from evocompress.codecs import Cost
from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.symmetry import Symmetry
from evocompress.codecs.symmetry_groups import SYMMETRIES, group, needs_square
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.linearconv import LinearConv2d
from evocompress.ideas.symmetry.layers import constrain, make_radial, make_separable, make_separable_1d, release

POSSIBLE = [
    (name, size)
    for size in ((3, 3), (4, 4), (2, 5))
    for name in SYMMETRIES
    if not (needs_square(name) and size[0] != size[1]) and group(name, *size).n_free
]


@pytest.mark.parametrize(("name", "size"), POSSIBLE, ids=str)
def test_a_constrained_layer_keeps_its_symmetry_through_training(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(2, 3, size)
    before, found = layer.weight.detach().clone(), group(name, *size)
    assert constrain(layer, name) is layer
    expected = found.project(before.reshape(6, -1).double().numpy()).reshape(before.shape)
    assert np.allclose(layer.weight.detach(), expected, atol=1e-6)
    assert sum(p.numel() for p in layer.parameters()) == 6 * found.n_free + 3
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        backward(layer(images()).square().mean())
        optimiser.step()
    weight = layer.weight.detach()
    assert not torch.allclose(weight, torch.from_numpy(expected).float(), atol=1e-2)
    flat = weight.reshape(6, -1)
    for orbit in range(found.n_free):  # bit for bit
        signed = flat[:, found.index == orbit] * torch.from_numpy(found.sign[found.index == orbit])
        assert (signed == signed[:, :1]).all()
    outputs = layer(images())
    assert release(layer) == 1 and release(layer) == 0
    assert set(layer.state_dict()) == {"weight", "bias"} and torch.equal(layer(images()), outputs)


def test_a_free_number_has_the_gradient_of_the_projection() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False).double()
    plain = layer.weight.detach().clone()
    constrain(layer, "left-right")
    backward((layer.weight * normal(3, 3)).sum())
    free = layer.parametrizations["weight"].original  # type: ignore[index, union-attr]
    assert isinstance(free, nn.Parameter) and free.grad is not None
    expected = group("left-right", 3, 3).coefficients(normal(3, 3).reshape(1, 9).numpy())
    assert np.allclose(free.grad.reshape(1, -1), expected) and plain.shape == layer.weight.shape


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(2, 2, 5), nn.Conv3d(1, 2, (2, 3, 3)), nn.ConvTranspose2d(2, 3, 3), nn.Conv2d(4, 4, 3, groups=2)]
)
def test_other_convolutions_can_be_constrained(layer: nn.Module) -> None:
    constrain(layer, "constant")
    weight = layer.weight
    assert isinstance(weight, Tensor) and weight.flatten(2).std(dim=2).max() == 0


def test_one_dimensional_and_radial_layers() -> None:
    x, y, radial = (make(nn.Conv2d(2, 3, 5)).weight for make in (along_x, along_y, make_radial))
    assert (x == x[..., :1, :]).all() and (x[..., 0] != x[..., 1]).any()
    assert (y == y[..., :1]).all() and (y[..., 0, :] != y[..., 1, :]).any()
    assert torch.equal(radial, radial.transpose(2, 3)) and torch.equal(radial, radial.flip(3))


def along_x(layer: nn.Conv2d) -> nn.Conv2d:
    return make_separable_1d(layer, "x")


def along_y(layer: nn.Conv2d) -> nn.Conv2d:
    return make_separable_1d(layer, "y")


def test_separable_layers_have_rank_one_and_learn_from_zero() -> None:
    layer = nn.Conv2d(2, 3, (3, 5))
    nn.init.zeros_(layer.weight[0])
    best = torch.linalg.svdvals(layer.weight.detach())
    plain = layer.weight.detach().clone()
    make_separable(layer)
    assert torch.allclose((layer.weight - plain).square().sum((2, 3)), best[..., 1:].square().sum(-1), atol=1e-6)
    assert sum(p.numel() for p in layer.parameters()) == 6 * 8 + 3 and not layer.weight[0].any()
    backward(layer(images()).sum())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    weight = layer.weight.detach()
    assert weight[0].abs().sum((1, 2)).min() > 0 and torch.linalg.svdvals(weight)[..., 1:].max() < 1e-5
    assert release(nn.Sequential(layer)) == 1 and torch.equal(layer.weight, weight)


def test_releasing_a_copy_leaves_the_original_as_it_is() -> None:
    original = nn.Sequential(make_radial(nn.Conv2d(2, 3, 3)))
    outputs = original(images())
    copied = copy.deepcopy(original)
    assert release(copied) == 1 and type(copied[0]) is nn.Conv2d
    assert torch.equal(original(images()), outputs) and torch.equal(copied(images()), outputs)
    assert torch.equal(copy.deepcopy(original)(images()), outputs) and release(original) == 1


@pytest.mark.parametrize("make", [make_radial, make_separable])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_layers_can_be_constrained(make: Callable[[nn.Conv2d], nn.Conv2d], dtype: torch.dtype) -> None:
    layer = nn.Conv2d(2, 3, 5)
    half = make(copy.deepcopy(layer).to(dtype)).weight
    assert half.dtype == dtype and torch.allclose(half.float(), make(layer).weight, atol=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_layers_are_constrained_on_the_device_where_they_are() -> None:
    for make in (make_radial, make_separable):
        layer = make(nn.Conv2d(2, 3, 3).cuda())
        assert layer(images().cuda()).device.type == "cuda"


def test_a_constrained_network_is_smaller_in_the_codec() -> None:
    layer = make_radial(nn.Conv2d(16, 16, 5))
    release(layer)
    weight = layer.weight.detach().double().numpy()
    planes = Codec((Symmetry(), DeadZone())).encode(weight, Cost(1e-7)).planes
    assert sum(plane.symbols.size for plane in planes) == 256 * 6


def test_what_cannot_be_constrained_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no kernels"):
        constrain(nn.Linear(3, 3), "radial")
    with pytest.raises(ModelError, match="release it first"):
        make_radial(make_radial(nn.Conv2d(1, 1, 3)))
    with pytest.raises(ModelError, match="give a Conv2d"):
        make_separable(nn.Conv1d(1, 1, 3))
    with pytest.raises(ConfigError, match="only square kernels"):
        constrain(nn.Conv2d(1, 1, (3, 5)), "transpose")
    with pytest.raises(ConfigError, match="Did you mean 'constant'"):
        constrain(nn.Conv2d(1, 1, 3), "constnat")
    for name, size in (("zero", 3), ("left-right-odd", 1)):
        with pytest.raises(ConfigError, match="all zero"):
            constrain(nn.Conv2d(1, 1, size), name)
    with pytest.raises(ConfigError, match="axis is 0"):
        make_separable_1d(nn.Conv2d(1, 1, 3), 0)  # type: ignore[arg-type]
    assert make_radial(nn.Conv2d(2, 2, 1)).weight.shape == (2, 2, 1, 1)


@pytest.mark.parametrize("make", [make_radial, make_separable])
def test_a_weight_that_is_no_plain_parameter_is_refused(make: Callable[[nn.Module], nn.Module]) -> None:
    broken = nn.Conv2d(1, 1, 3)
    nn.init.constant_(broken.weight, math.nan)
    for layer, message in (
        (LinearConv2d(2, 8, 3), "LinearConv2d is made of other parameters"),
        (nn.utils.spectral_norm(nn.Conv2d(2, 3, 3)), "Conv2d is made of other parameters"),
        (broken, "NaN or infinity"),
    ):
        names = list(layer.state_dict())
        with pytest.raises(ModelError, match=message):
            make(layer)
        assert list(layer.state_dict()) == names
