"""A network with saccades."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saccade_gates import undecided
from torch import nn

from evocompress.calibration.fisher import sensitivities
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.loading import load
from evocompress.checkpoint.packing import pack, unpack
from evocompress.codecs import Sensitivity
from evocompress.data import Examples, Splits
from evocompress.errors import ModelError
from evocompress.ideas.saccades.cost import multiply_adds, saccade_cost
from evocompress.ideas.saccades.maps import saccade_maps
from evocompress.ideas.saccades.networks import SaccadeCNN, saccade_sequence
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.networks import build
from evocompress.training.trainer import TrainingGenes, train

NETWORK = "evocompress.ideas.saccades.networks:SaccadeCNN"
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


def test_compression_keeps_what_gates_decide(digits: Splits) -> None:
    model = SaccadeCNN(width=8, block=2, reduction=1, cost_weight=0.3)
    train(model, digits.train, TrainingGenes(learning_rate=4e-3), epochs=4, seed=0)
    images, _ = digits.validation.batch(slice(None))
    before, work = saccade_maps(model, images), multiply_adds(model, images)
    assert any(
        reading.choices.amax() > reading.choices.amin() for reading in before.values()
    )  # or there is little to keep
    scales = sensitivities(model, digits.train, seed=0)
    for rate_weight in (1e-3, 1e-2):
        packed = copy.deepcopy(model)
        packed.load_state_dict(unpack(pack(model.state_dict(), rate_weight, sensitivities=scales)))
        for name, reading in saccade_maps(packed, images).items():
            assert (reading.choices == before[name].choices).float().mean() > 0.95, (name, rate_weight)
        assert multiply_adds(packed, images) == pytest.approx(work, rel=0.05)


def test_second_order_sensitivities_mind_work_that_the_outputs_do_not_show() -> None:
    model, images = SaccadeCNN(width=4), torch.randn(32, 1, 16, 16)
    for layer in model.saccades:
        assert isinstance(layer, SaccadeConv2d)
        nn.init.zeros_(layer.narrow.weight)
        nn.init.zeros_(layer.wide.weight)
    found = second_order_sensitivities(model, Examples(images, torch.full((32,), -100)), seed=0)
    scales = {name: value.scale if isinstance(value, Sensitivity) else value for name, value in found.items()}
    # Outputs do not depend on what is decided, and norms are seen by gates alone.
    for name in (
        "saccades.0.gate.decide.weight",
        "saccades.1.gate.look.weight",
        "norms.2.weight",
        "norms.0.running_var",
    ):
        assert scales[name] > 100 * scales["saccades.0.wide.weight"]
