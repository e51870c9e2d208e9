"""Saccades: what is skipped is not computed, gates learn what pays, maps show where it matters."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from evocompress.cli import app as whole_app
from evocompress.cli import saccades as command
from evocompress.data import Examples
from evocompress.errors import ConfigError, EvocompressError, ModelError
from evocompress.evaluation import evaluate
from evocompress.layers.saccade import KERNELS, SaccadeConv2d
from evocompress.layers.saccade_consistency import corrupt, gate_consistency
from evocompress.layers.saccade_cost import multiply_adds, saccade_cost
from evocompress.layers.saccade_figure import saccade_figure
from evocompress.layers.saccade_maps import deletion_test, saccade_maps
from evocompress.layers.saccade_sequence import Reader, SaccadeSequence
from evocompress.networks import build
from evocompress.networks.saccade_cnn import SaccadeCNN, saccade_sequence
from evocompress.packing import pack, unpack
from evocompress.weights import write_weights

NETWORK = "evocompress.networks.saccade_cnn:SaccadeCNN"
SIDE, BLOCK = 16, 4


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def undecided(layer: SaccadeConv2d) -> SaccadeConv2d:
    """A gate whose decisions differ from block to block."""
    with torch.no_grad():
        layer.gate.decide.weight.mul_(30)
        if layer.gate.decide.bias is not None:
            layer.gate.decide.bias.zero_()
    return layer


def decided(layer: SaccadeConv2d, decision: int) -> SaccadeConv2d:
    """A gate that decides the same everywhere."""
    with torch.no_grad():
        layer.gate.decide.weight.zero_()
        if layer.gate.decide.bias is not None:
            layer.gate.decide.bias.copy_(60 * torch.eye(len(KERNELS))[decision])
    return layer


# The layer


@pytest.mark.parametrize("size", [(16, 16), (10, 7), (1, 5), (13, 24)], ids=str)
@pytest.mark.parametrize(("block", "reduction"), [(4, 2), (3, 1), (8, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_gathered_is_the_masked_dense_computation(
    size: tuple[int, int], block: int, reduction: int, bias: bool
) -> None:
    layer = undecided(SaccadeConv2d(3, 5, block=block, reduction=reduction, bias=bias)).eval()
    images = torch.randn(12, 3, *size)
    output = layer(images)
    assert output.shape == (12, 5, *size)
    torch.testing.assert_close(output, layer.dense(images), atol=1e-5, rtol=0)
    channels_last = layer(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, output, atol=1e-5, rtol=0)


def test_all_three_decisions_are_taken_where_gathering_is_tested() -> None:
    layer = undecided(SaccadeConv2d(3, 5, block=4)).eval()
    layer(torch.randn(50, 3, 16, 16))
    assert layer.reading is not None and set(layer.reading.choices.flatten().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("decision", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_each_decision_is_what_it_is_called(decision: int, training: bool) -> None:
    layer = decided(SaccadeConv2d(2, 4, block=4), decision).train(training)
    layer.samples = False
    images = torch.randn(3, 2, 9, 10)
    side = KERNELS[decision]
    convolution = {1: layer.narrow, 2: layer.wide}.get(decision)
    expected = torch.zeros(3, 4, 9, 10)
    if convolution is not None:
        expected = nn.functional.conv2d(images, convolution.weight, convolution.bias, padding=side // 2)
    torch.testing.assert_close(layer(images), expected, atol=1e-5, rtol=0)


def test_gradients_of_gathering_are_those_of_the_dense_computation() -> None:
    layer = undecided(SaccadeConv2d(3, 4)).eval()
    images = torch.randn(20, 3, 12, 12, requires_grad=True)
    wanted = [images, layer.narrow.weight, layer.wide.weight]
    gathered = torch.autograd.grad(layer(images).square().mean(), wanted)
    dense = torch.autograd.grad(layer.dense(images).square().mean(), wanted)
    for mine, other in zip(gathered, dense, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_training_samples_from_the_gates_distribution() -> None:
    layer = undecided(SaccadeConv2d(1, 1, block=4))
    image = torch.randn(1, 1, 8, 8)
    layer(image.expand(4000, 1, 8, 8))
    assert layer.reading is not None
    shares = torch.stack([(layer.reading.choices == decision).float().mean(0) for decision in range(3)])
    assert shares.min() < 0.9  # or there is nothing to test
    torch.testing.assert_close(shares, layer.reading.probabilities[0].detach(), atol=0.03, rtol=0)


def test_a_generator_fixes_the_samples_and_torch_is_the_default() -> None:
    images = torch.randn(64, 1, 8, 8)
    layer = undecided(SaccadeConv2d(1, 1, generator=torch.Generator().manual_seed(1)))
    state = torch.get_rng_state()
    first = layer(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(layer(images), first)
    layer.generator = torch.Generator().manual_seed(1)
    assert torch.equal(layer(images), first)
    layer.generator = None
    torch.manual_seed(5)
    own = layer(images)
    torch.manual_seed(5)
    assert torch.equal(layer(images), own) and not torch.equal(own, first)


def test_copies_and_pickles_forget_the_last_images() -> None:
    layer = SaccadeConv2d(1, 2, generator=torch.Generator())
    layer(torch.randn(2, 1, 8, 8))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.reading is None and other.generator is None
        torch.testing.assert_close(other.eval()(torch.ones(1, 1, 8, 8)), layer.eval()(torch.ones(1, 1, 8, 8)))


def test_arguments_of_the_layer() -> None:
    for options, expected in [
        ({"block": 0}, "block is 0; it must be a whole number of at least 1"),
        ({"block": 6, "reduction": 4}, "reduction is 4 and block is 6; block must be a multiple"),
        ({"hidden": 1.5}, "hidden is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be finite and above 0"),
        ({"temperature": math.nan}, "temperature is nan"),
    ]:
        with pytest.raises(ModelError, match=expected):
            SaccadeConv2d(1, 1, **options)  # type: ignore[arg-type]
    for images in (torch.zeros(1, 2, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 3, 0, 8)):
        with pytest.raises(ModelError, match="must be .n, 3, h, w. with pixels"):
            SaccadeConv2d(3, 1)(images)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gate_that_is_sure_can_change_its_mind_but_not_become_surer(sign: int) -> None:
    gate = SaccadeConv2d(1, 1).gate
    assert gate.decide.bias is not None
    with torch.no_grad():
        gate.decide.weight.zero_()
        gate.decide.bias.copy_(torch.tensor([5.0, 1.0, -5.0]))
    logits = gate(torch.randn(2, 1, 8, 8))
    torch.testing.assert_close(logits[0, :, 0, 0], torch.tensor([3.0, 1.0, -3.0]))
    (gradient,) = torch.autograd.grad(sign * logits.sum(), gate.decide.bias)
    assert gradient.tolist() == [8.0 if sign > 0 else 0.0, sign * 8.0, 0.0 if sign > 0 else -8.0]
    assert gate.eval()(torch.randn(2, 1, 8, 8)).max() == 5


def test_whoever_watches_the_convolutions_sees_as_much_whatever_the_gate_decides() -> None:
    layer, images = undecided(SaccadeConv2d(2, 4)).eval(), torch.randn(6, 2, 12, 12)
    output, seen = layer(images), []
    hook = layer.narrow.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    torch.testing.assert_close(layer(images), output, atol=1e-5, rtol=0)
    layer(0 * images)
    hook.remove()
    layer(images)
    assert seen == [(6, 2, 14, 14)] * 2


def test_a_network_with_saccades_is_packed_layer_by_layer(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    write_weights(SaccadeCNN().state_dict(), tmp_path / "w.safetensors")
    words = ("--model", NETWORK, "--data", "digits", "--samples", 16, "--rate-weight", 1e-2)
    done = CliRunner().invoke(
        whole_app, ["pack", *map(str, (tmp_path / "w.safetensors", "-o", tmp_path / "w.evc", *words))]
    )
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "w.evc").stat().st_size < (tmp_path / "w.safetensors").stat().st_size / 4


# What it costs


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
    with pytest.raises(ModelError, match="no images"):
        multiply_adds(nn.Conv2d(1, 1, 1), torch.zeros(0, 1, 2, 2))


def test_counting_keeps_the_networks_mode() -> None:
    model = SaccadeCNN(width=4)
    multiply_adds(model, torch.randn(2, 1, 28, 28))
    assert model.training and model.saccades.training


# Robust gates


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


def test_corruption_is_drawn_from_its_generator() -> None:
    images = torch.randn(4, 1, 8, 8)
    first, second = (corrupt(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, images)
    torch.testing.assert_close(corrupt(images, noise=0.0, contrast=0.0), images)


# The second form


@pytest.mark.parametrize("reader", ["gru", "attention"])
def test_gradients_reach_the_scorer(reader: Reader) -> None:
    network = SaccadeSequence(3, 4, classes=5, width=16, reader=reader)
    network(torch.randn(4, 1, 16, 16)).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


@pytest.mark.parametrize("reader", ["gru", "attention"])
def test_only_the_chosen_blocks_are_seen(reader: Reader) -> None:
    network = SaccadeSequence(3, 4, classes=5, reader=reader).eval()
    with torch.no_grad():
        network.scorer.look.weight.zero_()  # scores then depend on the place alone
    images = torch.randn(2, 1, 14, 16)
    logits = network(images)
    assert network.reading is not None
    choices = network.reading.choices
    assert choices.shape == (2, 4, 4)
    assert [sorted(image[image > 0].tolist()) for image in choices] == [[1, 2, 3], [1, 2, 3]]
    seen = network.reading.on_pixels(choices > 0, (14, 16))[:, None]
    torch.testing.assert_close(network(torch.where(seen, images, 9.0)), logits)
    assert not torch.allclose(network(torch.where(seen, 9.0, images)), logits)


def test_the_sequence_is_best_first_and_knows_where_it_looks() -> None:
    network = SaccadeSequence(4, 4, classes=5).eval()
    images = torch.randn(1, 1, 16, 16)
    logits = network(images)
    assert network.reading is not None
    scores, order = network.reading.probabilities.flatten(), network.reading.choices.flatten()
    chosen = [int((order == place).nonzero()) for place in (1, 2, 3, 4)]
    assert scores[chosen].tolist() == sorted(scores.tolist(), reverse=True)[:4]
    with torch.no_grad():
        network.place.weight.mul_(-1)
    assert not torch.allclose(network(images), logits)


def test_training_tries_other_blocks() -> None:
    network = SaccadeSequence(1, 4, generator=torch.Generator().manual_seed(0))
    network(torch.randn(1, 1, 16, 16).expand(200, 1, 16, 16))
    assert network.reading is not None
    assert (network.reading.choices.sum(0) > 0).sum() > 8
    assert copy.deepcopy(network).reading is None


def test_arguments_of_the_sequence() -> None:
    with pytest.raises(ModelError, match="k is 5, but images of 8×8 have 4 blocks of 4×4"):
        SaccadeSequence(5, 4)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ModelError, match="k is 0"):
        SaccadeSequence(0, 4)
    with pytest.raises(ModelError, match="one of gru, attention"):
        SaccadeSequence(1, 4, reader="lstm")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="must be .n, 1, h, w."):
        SaccadeSequence(1, 4)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("reader", ["gru", "attention"])
def test_work_of_a_sequence_grows_with_k_alone(reader: Reader) -> None:
    images = torch.randn(2, 1, 28, 28)
    work = [multiply_adds(saccade_sequence(k=k, block=4, reader=reader, width=8), images) for k in (2, 4, 8)]
    each = 16 * 8 + 2 * 8 + (6 if reader == "gru" else 4) * 8 * 8
    quadratic = 0 if reader == "gru" else 2 * 8
    assert work[1] - work[0] == 2 * each + quadratic * (16 - 4)
    assert work[2] - work[1] == 4 * each + quadratic * (64 - 16)


# The network


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
    with pytest.raises(ModelError, match="cost_weight is -1"):
        SaccadeCNN(cost_weight=-1)
    with pytest.raises(ModelError, match="dense is 4"):
        SaccadeCNN(dense=4)
    with pytest.raises(ModelError, match="3×8; this network needs 4×4"):
        SaccadeCNN()(torch.zeros(1, 1, 3, 8))


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


# Explanation


def find_the_mark(count: int) -> Examples:
    """A cross or a ring of 4×4 pixels in one of 16 blocks, in faint noise; the class is which of the two."""
    marks = torch.tensor(
        [
            [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]],
            [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]],
        ]
    )
    labels = torch.randint(2, (count,))
    images = 0.1 * torch.randn(count, 1, SIDE, SIDE)
    rows, columns = torch.randint(SIDE // BLOCK, (2, count))
    for image, label, row, column in zip(images, labels, rows, columns, strict=True):
        image[0, BLOCK * row : BLOCK * (row + 1), BLOCK * column : BLOCK * (column + 1)] += 2.0 * marks[label]
    return Examples(images, labels)


class Marks(nn.Module):
    """One saccade layer, and the largest response of each filter."""

    def __init__(self) -> None:
        super().__init__()
        self.look = SaccadeConv2d(1, 8, block=BLOCK, temperature=1.0)
        self.linear = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.look(images).relu().amax(dim=(2, 3)))
        return logits


def fitted(model: nn.Module, examples: Examples, *, steps: int, cost: float) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        images, labels = examples.batch(torch.randint(len(examples), (64,)))
        weight = cost * min(2 * step / steps, 1)
        loss = nn.functional.cross_entropy(model(images), labels) + weight * saccade_cost(model)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


@functools.cache
def trained_marks() -> nn.Module:
    torch.manual_seed(0)
    return fitted(Marks(), find_the_mark(1000), steps=250, cost=0.1)


def test_a_gate_learns_to_look_where_something_is_and_its_map_is_faithful() -> None:
    model, unseen = trained_marks(), find_the_mark(500)
    assert evaluate(model, unseen).accuracy > 0.95
    (reading,) = saccade_maps(model, unseen.images).values()
    marked = nn.functional.avg_pool2d(unseen.images, BLOCK)[:, 0] > 0.5
    assert (reading.choices[marked] > 0).float().mean() > 0.95
    assert (reading.choices[~marked] > 0).float().mean() < 0.2
    found = deletion_test(model, unseen, 0)
    assert found.chosen < 0.7 and found.others > 0.9
    assert deletion_test(model, unseen, 0) == found
    assert multiply_adds(model, unseen.images) < 0.6 * multiply_adds(nn.Conv2d(1, 8, 3, padding=1), unseen.images)


def test_a_sequence_learns_to_look_where_something_is() -> None:
    network = fitted(SaccadeSequence(2, BLOCK, classes=2, width=32), find_the_mark(1000), steps=300, cost=0.0)
    unseen = find_the_mark(500)
    assert evaluate(network, unseen).accuracy > 0.9  # two of sixteen blocks by chance: 0.56
    found = deletion_test(network, unseen, 0)
    assert found.chosen < found.others - 0.2


def test_deletion_removes_as_many_chosen_as_others() -> None:
    model, examples = trained_marks(), find_the_mark(40)
    (reading,) = saccade_maps(model, examples.images).values()
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    deletion_test(model, examples, 1)
    hook.remove()
    _, first, second = seen
    chosen = reading.on_pixels(reading.choices > 0, (SIDE, SIDE))
    gone = [(images != examples.images)[:, 0] for images in (first, second)]
    assert not (gone[0] & ~chosen).any() and not (gone[1] & chosen).any()
    counts = [mask.sum(dim=(1, 2)) for mask in gone]
    assert torch.equal(*counts) and counts[0].sum() > 0
    torch.testing.assert_close(first[:, 0][gone[0]], examples.images.mean().expand(int(counts[0].sum())))


def test_what_cannot_be_tested_for_faithfulness() -> None:
    examples = find_the_mark(10)
    with pytest.raises(ModelError, match="no saccade layers"):
        deletion_test(nn.Flatten(), examples, 0)
    model = Marks()
    decided(model.look, 1)
    with pytest.raises(ModelError, match="chose all blocks or none"):
        deletion_test(model, examples, 0)
    with pytest.raises(ModelError, match="layer is 'loook'; saccade layers are 'look'"):
        deletion_test(model, examples, 0, layer="loook")


def test_maps_are_spread_over_the_pixels_of_the_image() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), SaccadeConv2d(1, 1, block=4))
    (reading,) = saccade_maps(model, torch.randn(1, 1, 20, 12)).values()
    assert reading.size == (10, 6) and reading.choices.shape == (1, 3, 2)
    pixels = reading.on_pixels(torch.arange(6).view(1, 3, 2), (20, 12))[0]
    assert pixels[0].tolist() == [0] * 8 + [1] * 4 and pixels[:, 0].tolist() == [0] * 8 + [2] * 8 + [4] * 4


def test_a_figure_has_a_panel_for_each_layer_and_a_frame_for_each_chosen_block() -> None:
    model, examples = trained_marks(), find_the_mark(1)
    readings = saccade_maps(model, examples.images)
    figure = saccade_figure(examples.images[0], readings, "t")
    assert len(figure.axes) == 2
    assert len(figure.axes[1].patches) == int((readings["look"].choices > 0).sum()) > 0
    with pytest.raises(ModelError, match="of several images"):
        saccade_figure(examples.images[0], saccade_maps(model, find_the_mark(2).images), "t")


# The command


def invoke(*words: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return CliRunner().invoke(app, ["saccades", *map(str, words)])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_weights(SaccadeCNN().state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_the_command_draws_an_image_of_the_data(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    output = tmp_path / "map.png"
    done = invoke(weights, "--model", NETWORK, "--data", "digits", "--index", 3, "-o", output)
    assert done.exit_code == 0, done.output
    assert output.read_bytes().startswith(b"\x89PNG")
    assert "saccades.0: 2×2 blocks of 4×4: nothing" in done.output and "multiply-adds" in done.output


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_command_draws_a_picture(weights: Path, tmp_path: Path, mode: str) -> None:
    Image.radial_gradient("L").resize((21, 30)).convert(mode).save(tmp_path / "p.png")
    done = invoke(weights, "--model", NETWORK, "--image", tmp_path / "p.png", "-o", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    assert "saccades.0: 8×6 blocks of 4×4" in done.output and (tmp_path / "map.png").stat().st_size > 5000


def test_a_picture_is_made_like_the_data(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "p.png")
    words = ("--image", tmp_path / "p.png", "--data", "digits", "-o", tmp_path / "map.png")
    done = invoke(weights, "--model", NETWORK, *words)
    assert done.exit_code == 0, done.output
    assert "saccades.0: 2×2 blocks" in done.output


def test_mistakes(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.png"
    (tmp_path / "text.png").write_text("no picture")
    write_weights(build("digits_cnn").state_dict(), tmp_path / "plain.safetensors")
    for words, kind, expected in [
        ((weights,), ConfigError, "There is no image: give --image PICTURE"),
        ((weights, "--image", tmp_path / "none.png"), EvocompressError, "No such file"),
        ((weights, "--image", tmp_path / "text.png"), EvocompressError, "cannot identify image file"),
        ((weights, "--data", "digits", "--index", 9999), ConfigError, "--index 9999: digits has"),
        ((weights, "--data", "digits", "-o", tmp_path / "map.jpg"), ConfigError, "must end in .png"),
    ]:
        error = invoke("-o", output, "--model", NETWORK, *words).exception
        assert isinstance(error, kind) and expected in str(error), (words, error)
    error = invoke(tmp_path / "plain.safetensors", "--model", "digits_cnn", "--data", "digits").exception
    assert isinstance(error, ModelError) and "no saccade layers" in str(error)
    assert not output.exists()


def test_a_missing_matplotlib_is_said_before_the_work(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name in (
            "evocompress.figure_style",
            "evocompress.layers.saccade_figure",
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("evocompress.loading.load", lambda *_: pytest.fail("worked first"))
    error = invoke(weights, "--data", "digits").exception
    assert isinstance(error, EvocompressError) and "evocompress[report]" in str(error)
