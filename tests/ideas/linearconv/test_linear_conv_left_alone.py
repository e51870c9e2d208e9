"""LinearConv: which layers `convert` and `fold` leave alone, and what `compare` says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from evocompress.checkpoint.forms import changed, loaded
from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, compare, convert, fold


def _attribute(layer: Any) -> None:
    layer.own = [3]


def _name_in_use(layer: Any) -> None:
    layer.sparsity = 0.5  # a LinearConv layer computes with it


def _patch(layer: Any) -> None:
    usual = layer.forward
    layer.forward = lambda images: 2 * usual(images)


BEHAVIOUR: dict[str, tuple[Callable[[Any], object], str]] = {
    "forward hook": (lambda layer: layer.register_forward_hook(lambda *_: None), "hooks"),
    "hook with keywords": (lambda layer: layer.register_forward_pre_hook(lambda *_: None, with_kwargs=True), "hooks"),
    "backward hook": (lambda layer: layer.register_full_backward_hook(lambda *_: None), "hooks"),
    "backward pre-hook": (lambda layer: layer.register_full_backward_pre_hook(lambda *_: None), "hooks"),
    "forward": (_patch, "a forward of its own"),
}
ADDITIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "hook on a weight": (lambda layer: layer.weight.register_hook(lambda grad: grad), "hooks on its weight"),
    "hook on the state": (lambda layer: layer._register_state_dict_hook(lambda *_: None), "hooks on its state dict"),
    "buffer": (lambda layer: layer.register_buffer("own", torch.zeros(2)), "own of its own"),
    "parameter": (lambda layer: layer.register_parameter("own", nn.Parameter(torch.zeros(2))), "own of its own"),
    "child": (lambda layer: layer.add_module("own", nn.ReLU()), "own of its own"),
    "attribute": (_attribute, "own of its own"),
    "name in use": (_name_in_use, "sparsity of its own"),
}


@pytest.mark.parametrize("kind", [*BEHAVIOUR, *ADDITIONS])
def test_a_layer_that_does_or_holds_more_is_left_alone(kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    change, expected = (BEHAVIOUR | ADDITIONS)[kind]
    change(network[1])
    converted = convert(network, 0.5)
    assert (
        type(converted.get_submodule("1")) is nn.Conv2d and converted.state_dict().keys() == network.state_dict().keys()
    )
    assert compare(network, converted)[1].reason == f"it has {expected}"


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_what_a_layer_does_beside_is_not_folded_away(kind: str) -> None:
    network = nn.Sequential(nn.ReLU(), LinearConv2d(3, 8, 3))
    change, expected = BEHAVIOUR[kind]
    change(network[1])
    with pytest.raises(ModelError, match=f"layer '1' has {expected}, and fold would drop that; remove it"):
        fold(network)


def test_a_shared_bias_stays_shared() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    network[1].bias = network[2].bias
    converted: Any = convert(network, 0.5)
    assert compare(network, converted)[1].reason == "another layer shares its bias"
    assert converted[1].bias is converted[2].bias


def test_a_comparison_knows_whether_the_first_layer_was_skipped() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1))
    converted = convert(network, 0.5, skip_first=False)
    assert compare(network, converted, skip_first=False)[0].reason == "would not have fewer parameters"
    assert compare(network, convert(network, 0.5))[0].reason == "the first layer"
    for other in (nn.Conv2d(8, 8, 3), nn.Conv2d(8, 6, 1), LinearConv2d(4, 8, 1), nn.Linear(8, 8)):
        with pytest.raises(ModelError, match=r"layer '1' was Conv2d\(8, 8.* and is .*made of this one\?"):
            compare(network, nn.Sequential(network[0], other))


def test_plain_attributes_go_on_to_the_layer_that_comes() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3))
    network[1].tag, network[1].initialised = "second", True
    converted = convert(network, 0.5)
    smaller = changed(converted, network, {"alpha": 0.25, "rank": 0.5})
    forms: list[Any] = [converted, fold(converted), smaller, changed(smaller, network, {})]
    forms.append(loaded(network, smaller.state_dict(), "x.evc"))
    for form in forms:
        assert (form[1].tag, form[1].initialised) == ("second", True)
        assert type(form[1]) is LinearConv2d or vars(form[1]).keys() == vars(network[1]).keys()


def test_a_folded_layer_of_low_rank_can_be_given_its_full_rank() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3))
    folded = fold(convert(network, 0.5, 0.25))
    images = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(convert(folded, 0.5)(images), folded(images), atol=1e-4, rtol=1e-4)
