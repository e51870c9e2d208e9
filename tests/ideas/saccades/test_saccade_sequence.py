"""The second form of saccades: the best blocks as a sequence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.cost import multiply_adds
from evocompress.ideas.saccades.networks import saccade_sequence
from evocompress.ideas.saccades.sequence import Reader, SaccadeSequence, _choice

pytestmark = pytest.mark.usefixtures("seeded")


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


def test_what_is_not_finite_is_not_overlooked() -> None:
    images = torch.zeros(2, 1, 16, 16)
    images[1, 0, 3, 3] = torch.nan
    logits = SaccadeSequence(1, 4).eval()(images)
    assert logits[0].isfinite().all() and logits[1].isnan().all()


def test_training_tries_other_blocks() -> None:
    network = SaccadeSequence(1, 4, generator=torch.Generator().manual_seed(0))
    network(torch.randn(1, 1, 16, 16).expand(200, 1, 16, 16))
    assert network.reading is not None
    assert (network.reading.choices.sum(0) > 0).sum() > 8
    assert copy.deepcopy(network).reading is None


def test_training_picks_by_the_scores_softmax() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
    picked = SaccadeSequence(1, 4)._pick(scores.expand(4000, 4))
    shares = nn.functional.one_hot(picked[:, 0], 4).float().mean(0)
    torch.testing.assert_close(shares, scores.softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("reader", ["gru", "attention"])
def test_the_choice_has_a_gradient_in_evaluation_and_the_same_values(reader: Reader) -> None:
    network = SaccadeSequence(3, 4, classes=5, reader=reader).eval()
    assert network.scorer.decide.bias is not None
    with torch.no_grad():
        network.scorer.decide.bias.fill_(60)  # all weights are 1, and only the choice can matter
    images = torch.randn(2, 1, 14, 16)
    logits = network(images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), logits, atol=1e-5, rtol=0)
    logits.square().sum().backward()
    assert network.scorer.look.weight.grad is not None and network.scorer.look.weight.grad.abs().max() > 1e-5


def test_the_gradient_of_the_choice_is_that_of_its_chances() -> None:
    """Chances of two picks, one after the other, by hand."""
    scores, values = torch.randn(1, 5, requires_grad=True), torch.randn(5)
    picked = torch.tensor([[3, 1]])
    choice = _choice(scores, picked)
    assert torch.equal(choice, nn.functional.one_hot(picked, 5).float())
    left = torch.tensor([0, 1, 2, 4])
    expected = (scores[0].softmax(0) @ values, scores[0, left].softmax(0) @ values[left])
    for found, chance in zip((choice @ values)[0], expected, strict=True):
        pair = [torch.autograd.grad(value, scores, retain_graph=True)[0] for value in (found, chance)]
        torch.testing.assert_close(*pair)


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
