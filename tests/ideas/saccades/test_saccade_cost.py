"""Cost of saccades, and how constant gates are under corruption."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from saccade_gates import decided, undecided
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.consistency import corrupt, gate_agreement, gate_consistency
from evocompress.ideas.saccades.cost import multiply_adds, saccade_cost
from evocompress.ideas.saccades.maps import saccade_maps
from evocompress.ideas.saccades.networks import SaccadeCNN
from evocompress.ideas.saccades.saccade import KERNELS, SaccadeConv2d
from evocompress.ideas.saccades.sequence import SaccadeSequence

_NOISE = 1.0
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("size", [(16, 12), (10, 7)], ids=str)
@pytest.mark.parametrize("decision", [0, 1, 2])
def test_expected_work_is_measured_work_where_nothing_is_left_to_chance(decision: int, size: tuple[int, int]) -> None:
    layer = decided(SaccadeConv2d(3, 8, hidden=4), decision).eval()
    images = torch.randn(2, 3, *size)
    measured = multiply_adds(layer, images)
    dense = multiply_adds(nn.Conv2d(3, 8, 3, padding=1), images)
    assert dense == 9 * size[0] * size[1] * 3 * 8
    assert saccade_cost(layer).item() == pytest.approx(measured / dense, rel=1e-5)
    blocks = -(-size[0] // 4) * -(-size[1] // 4)
    assert measured == blocks * (16 * 3 * 8 * KERNELS[decision] ** 2 + 4 * 9 * 3 * 4 + 9 * 4 * 3)


def test_only_what_is_gathered_is_counted() -> None:
    layer = undecided(SaccadeConv2d(2, 4)).eval()
    images = torch.randn(30, 2, 12, 12)
    layer(images)
    assert layer.reading is not None
    counts = [int((layer.reading.choices == decision).sum()) for decision in range(3)]
    assert counts[0] > 0
    convolved = 16 * 2 * 4 * (9 * counts[1] + 25 * counts[2])
    assert multiply_adds(layer, images) == pytest.approx(convolved / 30 + layer.gate.multiply_adds(9))


def test_the_cost_is_differentiable_and_descending_it_closes_gates() -> None:
    layer = SaccadeConv2d(2, 4)
    images = torch.randn(8, 2, 8, 8)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    costs = []
    for _ in range(40):
        layer(images)
        cost = saccade_cost(layer)
        optimiser.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        costs.append(cost.item())
    assert costs[-1] < 0.6 * costs[0]
    assert layer.gate.look.weight.grad is not None and layer.gate.look.weight.grad.abs().max() > 0
    assert layer.narrow.weight.grad is None


def test_a_network_without_saccades_costs_nothing_and_one_that_has_not_run_says_so() -> None:
    assert saccade_cost(nn.Linear(2, 2)).item() == 0
    with pytest.raises(ModelError, match="has not seen images; run the network"):
        saccade_cost(nn.Sequential(SaccadeConv2d(1, 1)))
    empty = SaccadeConv2d(1, 1)
    assert empty(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)
    with pytest.raises(ModelError, match="has not seen images"):
        saccade_cost(empty)
    with pytest.raises(ModelError, match="no images"):
        multiply_adds(nn.Conv2d(1, 1, 1), torch.zeros(0, 1, 2, 2))


def test_work_and_consistency_stay_in_float32_where_layers_do_not() -> None:
    model, images = SaccadeCNN(width=4, cost_weight=0.5, consistency_weight=1.0), torch.randn(4, 1, 16, 16)
    sequence = SaccadeSequence(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == sequence(images).dtype == torch.bfloat16
        assert saccade_cost(model).dtype == model.penalty().dtype == torch.float32
    readings = saccade_maps(model, images) | saccade_maps(sequence, images)
    assert {reading.probabilities.dtype for reading in readings.values()} == {torch.float32}


def test_counting_keeps_the_networks_mode() -> None:
    model = SaccadeCNN(width=4)
    multiply_adds(model, torch.randn(2, 1, 28, 28))
    assert model.training and model.saccades.training


def test_consistency_is_the_divergence_of_the_gates() -> None:
    layer = undecided(SaccadeConv2d(1, 2))
    images = torch.randn(6, 1, 8, 8)
    other = corrupt(images)
    layer(images)
    assert layer.reading is not None
    before = layer.reading
    found = gate_consistency(layer, images, other)
    assert layer.reading is before and layer.samples
    p, q = (layer.gate(batch).softmax(1) for batch in (images, other))
    expected = 0.0
    for mine in (p, q):
        expected = expected + (mine * (mine / ((p + q) / 2)).log()).sum(1).mean().item() / 2
    assert found.item() == pytest.approx(expected, rel=1e-4) and 0 < found.item() < math.log(2)
    assert gate_consistency(layer, images, images).item() == pytest.approx(0, abs=1e-6)


def test_consistency_has_the_gradient_of_its_differences() -> None:
    layer = undecided(SaccadeConv2d(1, 2)).double().eval()  # in training mode logits have bounds, with another slope
    images = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    other = corrupt(images)
    weight = layer.gate.decide.weight
    (gradient,) = torch.autograd.grad(gate_consistency(layer, images, other), weight)
    direction = torch.randn_like(weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-5 * direction)
            values.append(gate_consistency(layer, images, other).item())
            weight.sub_(sign * 1e-5 * direction)
    slope = (gradient * direction).sum().item()
    assert abs(slope) > 1e-3
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_consistency_leaves_running_statistics_alone_and_reaches_every_gate() -> None:
    model = SaccadeCNN(width=4)
    images = torch.randn(8, 1, 16, 16)
    before = copy.deepcopy(model.state_dict())
    loss = gate_consistency(model, images, corrupt(images))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for layer in model.saccades:
        assert isinstance(layer, SaccadeConv2d)
        gradient = layer.gate.decide.weight.grad
        assert gradient is not None and gradient.abs().max() > 0
    model(images)
    assert not torch.equal(model.state_dict()["last.running_mean"], before["last.running_mean"])


def test_consistency_of_what_cannot_be_compared() -> None:
    assert gate_consistency(nn.Identity(), torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item() == 0
    with pytest.raises(ModelError, match="give the same images twice"):
        gate_consistency(SaccadeConv2d(1, 1), torch.ones(2, 1, 4, 4), torch.ones(1, 1, 4, 4))


def test_agreement_is_the_share_of_equal_decisions() -> None:
    images = torch.zeros(1, 1, 8, 8)
    other = images.clone()
    other[..., :4, :4] = 1.0
    model = nn.Sequential(SaccadeConv2d(1, 1), decided(SaccadeConv2d(1, 1), 1))
    layer = model[0]
    assert isinstance(layer, SaccadeConv2d)
    pixel = (slice(None), slice(None), slice(None, None, 4), slice(None, None, 4))
    layer.gate.register_forward_hook(
        lambda _, inputs, __: torch.cat([inputs[0][pixel], torch.full_like(inputs[0][pixel], 0.5)], 1)
    )
    assert gate_agreement(model, images, other) == 7 / 8  # one block of four differs, in one of two layers
    sequence = SaccadeSequence(2, 4)
    sequence.scorer.register_forward_hook(lambda _, inputs, __: inputs[0][pixel])
    assert gate_agreement(sequence, other, 2 * other) == 1  # the order is no decision
    assert gate_agreement(sequence, other, other.flip(2, 3)) < 1
    for wrong, match in ((images[:0], "no images"), (images[..., :4], "give the same images twice")):
        with pytest.raises(ModelError, match=match):
            gate_agreement(model, wrong, images[:0])


def test_training_for_consistency_makes_gates_robust() -> None:
    """A gate learns to look at a bright spot, with and without the term; noise then misleads it less often."""

    def trained(weight: float) -> tuple[float, float]:
        torch.manual_seed(0)
        layer, images = SaccadeConv2d(1, 1), 0.1 * torch.randn(400, 1, 16, 16)
        spots = nn.functional.one_hot(torch.randint(16, (400,)), 16).view(400, 4, 4)
        images += spots.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
        optimiser = torch.optim.Adam(layer.parameters(), lr=2e-2)
        for start in range(0, 60 * 32, 32):
            batch = images[torch.arange(start, start + 32) % 300]
            layer(batch)
            assert layer.reading is not None
            loss = nn.functional.nll_loss(
                layer.reading.probabilities.log(), spots[torch.arange(start, start + 32) % 300]
            )
            loss = loss + weight * gate_consistency(layer, batch, corrupt(batch, noise=_NOISE))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        (reading,) = saccade_maps(layer, images[300:]).values()
        noisy = corrupt(images[300:], torch.Generator().manual_seed(1), noise=_NOISE)
        return gate_agreement(layer, images[300:], noisy), float((reading.choices == spots[300:]).float().mean())

    plain, robust = trained(0.0), trained(5.0)
    assert min(plain[1], robust[1]) > 0.97  # both look where they should in clean images
    assert 1 - robust[0] < 0.7 * (1 - plain[0])


def test_corruption_is_drawn_from_its_generator() -> None:
    images = torch.randn(4, 1, 8, 8)
    first, second = (corrupt(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, images)
    torch.testing.assert_close(corrupt(images, noise=0.0, contrast=0.0), images)
