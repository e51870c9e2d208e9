"""A network with saccades."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saccade_gates import undecided
from torch import nn

from evocompress.errors import ModelError
from evocompress.layers.saccade import SaccadeConv2d
from evocompress.layers.saccade_cost import multiply_adds, saccade_cost
from evocompress.layers.saccade_maps import saccade_maps
from evocompress.loading import load
from evocompress.networks import build
from evocompress.networks.saccade_cnn import SaccadeCNN, saccade_sequence
from evocompress.packing import pack, unpack

NETWORK = "evocompress.networks.saccade_cnn:SaccadeCNN"
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("size", [(28, 28), (4, 4), (17, 30)], ids=str)
def test_the_network_takes_images_of_any_size(size: tuple[int, int]) -> None:
    model = SaccadeCNN(width=4, in_channels=3, classes=7)
    assert model(torch.randn(2, 3, *size)).shape == (2, 7)
    assert model.eval()(torch.randn(2, 3, *size)).isfinite().all()


def test_the_dense_forms_have_the_same_shape_and_plain_convolutions() -> None:
    images = torch.randn(2, 1, 28, 28)
    for side in (3, 5):
        model = build(NETWORK, {"width": 4, "dense": side})
        work = 784 * 9 * 4 + side**2 * (784 * 4 * 4 + 196 * 4 * 8 + 49 * 8 * 8) + 8 * 10
        assert multiply_adds(model, images) == work
        assert model.penalty().item() == 0  # type: ignore[operator]


def test_the_penalty_is_what_its_weights_say() -> None:
    images = torch.randn(4, 1, 16, 16)
    model = SaccadeCNN(width=4, cost_weight=0.5)
    model(images)
    assert model.penalty().item() == pytest.approx(0.5 * saccade_cost(model).item())
    robust = SaccadeCNN(width=4, cost_weight=0.0, consistency_weight=2.0)
    robust(images)
    assert robust.penalty().item() > 0
    assert robust.penalty().item() == 0  # images are not kept for longer than one step
    for wrong in (-1, "x", float("nan")):
        with pytest.raises(ModelError, match="cost_weight is .*; it must be a finite number of at least 0"):
            SaccadeCNN(cost_weight=wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="dense is 4"):
        SaccadeCNN(dense=4)
    with pytest.raises(ModelError, match="3×8; this network needs 4×4"):
        SaccadeCNN()(torch.zeros(1, 1, 3, 8))
    with pytest.raises(ModelError, match=r"images are \(1, 3, 8, 8\); they must be \(n, 1, h, w\)"):
        SaccadeCNN()(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("make", "other", "match"),
    [
        (
            SaccadeCNN,
            {"block": 8, "reduction": 4},
            "of a network with block 8, reduction 4, and this one has block 4, ",
        ),
        (SaccadeCNN, {"block": 300, "reduction": 300}, "of a network with block 300, reduction 300, "),
        (saccade_sequence, {"k": 4}, "of a network with k 4, block 7, reduction 1, and this one has k 8, "),
    ],
)
def test_weights_of_other_gates_are_refused_though_they_fit(
    make: Callable[..., nn.Module], other: dict[str, int], match: str, tmp_path: Path
) -> None:
    model, source, path = make(width=8), make(width=8, **other), tmp_path / "w.evc"
    before = copy.deepcopy(model.state_dict())
    path.write_bytes(pack(source.state_dict(), 1e-4))
    with pytest.raises(ModelError, match=match):
        load(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    load(path, copy.deepcopy(source))
    with pytest.raises(ModelError, match=match):
        copy.deepcopy(model).load_state_dict(source.state_dict())


def test_a_packed_network_looks_at_the_same_places() -> None:
    model = SaccadeCNN(width=4).eval()
    for layer in model.saccades:
        assert isinstance(layer, SaccadeConv2d)
        undecided(layer)
    images = torch.randn(20, 1, 28, 28)
    before = saccade_maps(model, images)
    other = SaccadeCNN(width=4)
    other.load_state_dict(unpack(pack(model.state_dict(), 1e-9)))
    for name, reading in saccade_maps(other, images).items():
        assert (reading.choices == before[name].choices).float().mean() > 0.95
