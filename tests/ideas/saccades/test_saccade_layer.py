"""A saccade layer: what is skipped is not computed, and gates can learn."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from saccade_gates import decided, undecided
from torch import nn
from typer.testing import CliRunner

from evocompress.checkpoint.weight_files import write_weights
from evocompress.cli import app as whole_app
from evocompress.errors import ModelError
from evocompress.ideas.saccades import saccade
from evocompress.ideas.saccades.networks import SaccadeCNN
from evocompress.ideas.saccades.saccade import KERNELS, SaccadeConv2d

NETWORK = "evocompress.ideas.saccades.networks:SaccadeCNN"
pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("size", [(16, 16), (10, 7), (1, 5), (13, 24)], ids=str)
@pytest.mark.parametrize(("block", "reduction"), [(4, 2), (3, 1), (8, 8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cached", [1, 1 << 12, 1 << 22])  # patches one by one, some, all at once
def test_gathered_is_the_masked_dense_computation(
    size: tuple[int, int], block: int, reduction: int, bias: bool, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saccade, "_CACHED_BYTES", cached)
    layer = undecided(SaccadeConv2d(3, 5, block=block, reduction=reduction, bias=bias)).eval()
    images = torch.randn(12, 3, *size)
    with torch.no_grad():
        output = layer(images)
        channels_last = layer(images.contiguous(memory_format=torch.channels_last))
    assert output.shape == (12, 5, *size)
    torch.testing.assert_close(output, layer.dense(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(channels_last, output, atol=1e-5, rtol=0)


def test_all_three_decisions_are_taken_where_gathering_is_tested() -> None:
    layer = undecided(SaccadeConv2d(3, 5, block=4)).eval()
    layer(torch.randn(50, 3, 16, 16))
    assert layer.reading is not None and set(layer.reading.choices.flatten().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("decision", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_each_decision_is_what_it_is_called(decision: int, training: bool, gradients: bool) -> None:
    layer = decided(SaccadeConv2d(2, 4, block=4), decision).train(training)
    layer.samples = False
    images = torch.randn(3, 2, 9, 10)
    side = KERNELS[decision]
    convolution = {1: layer.narrow, 2: layer.wide}.get(decision)
    expected = torch.zeros(3, 4, 9, 10)
    if convolution is not None:
        expected = nn.functional.conv2d(images, convolution.weight, convolution.bias, padding=side // 2)
    with torch.set_grad_enabled(gradients):
        output = layer(images)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    assert decision or not output.any()


def test_gradients_of_gathering_are_those_of_the_dense_computation() -> None:
    layer = undecided(SaccadeConv2d(3, 4)).eval()
    layer.gate.requires_grad_(False)
    images = torch.randn(20, 3, 12, 12)
    wanted = [layer.narrow.weight, layer.wide.weight]
    gathered = torch.autograd.grad(layer(images).square().mean(), wanted)
    dense = torch.autograd.grad(layer.dense(images).square().mean(), wanted)
    for mine, other in zip(gathered, dense, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_evaluation_has_the_gradients_of_training_without_samples() -> None:
    layer = undecided(SaccadeConv2d(3, 4, temperature=0.7))
    with torch.no_grad():
        layer.gate.decide.weight.mul_(0.1)  # or two logits of a block are cut to the same number
    layer.samples = False
    images = torch.randn(20, 3, 12, 12, requires_grad=True)
    wanted = [images, *layer.parameters()]
    trained, evaluated = (
        torch.autograd.grad(layer.train(training)(images).square().mean(), wanted) for training in (True, False)
    )
    for mine, other in zip(evaluated, trained, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(mine, other, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("decision", [0, 1, 2])
def test_a_gate_that_is_sure_is_not_worth_nothing(decision: int) -> None:
    layer = decided(SaccadeConv2d(2, 4), decision).eval()
    layer(torch.randn(4, 2, 8, 8)).sum().backward()
    assert layer.gate.decide.weight.grad is not None
    assert (layer.gate.decide.weight.grad.abs().amax((1, 2, 3)) > 1e-3).all()


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
        ({"temperature": 0.0}, "temperature is 0.0; it must be a finite number above 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": "x"}, "temperature is 'x'; it must be a finite number"),
    ]:
        with pytest.raises(ModelError, match=expected):
            SaccadeConv2d(1, 1, **options)  # type: ignore[arg-type]
    for images in (torch.zeros(1, 2, 8, 8), torch.zeros(3, 8, 8), torch.zeros(1, 3, 0, 8)):
        with pytest.raises(ModelError, match="must be .n, 3, h, w. with pixels"):
            SaccadeConv2d(3, 1)(images)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_left_out(value: float, watched: bool, gradients: bool) -> None:
    layer = decided(SaccadeConv2d(1, 2, block=4), 0).eval()
    hook = layer.narrow.register_forward_pre_hook(lambda *_: None) if watched else None
    image = torch.zeros(2, 1, 24, 8)
    image[1, 0, 0, 0] = value
    with torch.set_grad_enabled(gradients):
        outputs = layer(image), layer.dense(image)
    for output in outputs:
        assert output[1, :, :4, :4].isnan().all() and output[1].isnan().any()
        # The gate judges a block among its neighbours; blocks that are further away know nothing of the value.
        assert not output[0].any() and not output[1, :, 12:].any()
    if hook is not None:
        hook.remove()


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


@torch.no_grad()
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
