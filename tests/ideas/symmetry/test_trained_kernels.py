"""Trained kernels: which parameters are kernels, by the kind of their layer, not by their shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from evocompress.errors import ModelError
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d, OverProvisionedLinear
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.linearconv import LinearConv2d
from evocompress.ideas.symmetry.layers import make_radial
from evocompress.ideas.symmetry.penalties import KernelPenalties, nearest_symmetry_distance
from evocompress.ideas.symmetry.snap import snap
from evocompress.ideas.symmetry.trained_kernels import living_places, trained_kernels


class _Own(nn.Conv2d):
    """A convolution of somebody's own."""


class _Tokens(nn.Module):
    """What a vision transformer has beside its layers, and a layer with a weight of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.positions = nn.Parameter(torch.randn(1, 1, 64)), nn.Parameter(torch.randn(1, 17, 64))
        self.table, self.pairs = nn.Parameter(torch.randn(4, 16, 16)), nn.Bilinear(3, 3, 3)


def thinned(keep: float = 0.6) -> OverProvisionedConv2d:
    torch.manual_seed(0)
    layer = OverProvisionedConv2d(4, 8, ConnectionPlan(kernel=3), in_size=(8, 8))
    layer.thin(keep)
    return layer


LAYERS = {
    **{kind.__name__: (kind(2, 2, 3), ["weight"]) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, _Own)},
    **{
        kind.__name__: (kind(2, 2, 3), ["weight"])
        for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    },
    "LinearConv2d": (LinearConv2d(2, 4, 3), ["primary"]),
    "over-provisioned": (OverProvisionedConv2d(1, 2, ConnectionPlan(kernel=3, near=0.5), in_size=(8, 8)), ["kernel"]),
    "over-provisioned, dense": (OverProvisionedLinear(9, 5, ConnectionPlan(kernel=0, near=0.5, shared=False)), []),
    "of one place": (nn.Conv2d(2, 2, 1), []),
    "not trained": (nn.Conv2d(2, 2, 3).requires_grad_(False), []),
    "constrained": (make_radial(nn.Conv2d(2, 2, 3)), []),
    "normalised": (parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), []),
    "no convolution": (_Tokens(), []),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_kernels_are_those_of_convolutions(kind: str) -> None:
    layer, names = LAYERS[kind]
    assert [name for name, _ in trained_kernels(layer)] == names


def test_a_weight_that_two_layers_share_is_one_of_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    model[1].weight = model[0].weight
    assert [name for name, _ in trained_kernels(model)] == ["0.weight"]


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_layer_without_a_shape_has_no_kernels_yet() -> None:
    assert not list(trained_kernels(nn.LazyConv2d(2, 3)))


def test_what_is_no_kernel_is_neither_snapped_nor_penalised() -> None:
    model = nn.Sequential(_Tokens(), nn.Conv2d(2, 2, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snap(model)
    after = model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == ["1.weight"]
    with pytest.raises(ModelError, match="nothing to snap"):
        snap(_Tokens())
    assert KernelPenalties(symmetry=1.0, distinct=1.0)(_Tokens()) == 0


@pytest.mark.parametrize("term", ["symmetry", "entropy", "distinct"])
def test_penalties_see_the_kernels_that_are_computed_with(term: str) -> None:
    """What an optimiser's momentum has put into dropped places is not among them."""
    layer, plain = thinned(), nn.Conv2d(4, 8, 3)
    kernel, alive = layer.kernel, living_places(layer)["kernel"]
    assert kernel is not None
    with torch.no_grad():
        plain.weight.copy_(kernel)
        kernel.add_(torch.randn(kernel.shape) * ~alive)
    penalties = KernelPenalties(**{term: 1.0})
    found = penalties(layer)
    assert found.item() == penalties(plain).item() > 0
    (slope,) = torch.autograd.grad(found, kernel)
    assert slope[alive].any() and not slope[~alive].any()


def test_training_makes_thinned_kernels_more_symmetric() -> None:
    def distance() -> float:
        return nearest_symmetry_distance(layer.weights()[0].detach(), price=0.5).item()  # type: ignore[union-attr]

    layer, penalties = thinned(), KernelPenalties(symmetry=1.0)
    optimiser, before = torch.optim.Adam(layer.parameters(), lr=1e-2), distance()
    for _ in range(100):
        optimiser.zero_grad()
        torch.autograd.backward(penalties(layer))
        optimiser.step()
    assert distance() < 0.1 * before
    assert penalties(layer).item() == pytest.approx(distance(), rel=1e-4)
