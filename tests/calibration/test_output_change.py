"""Change of outputs: how far a network's outputs are from another's, and which networks fit examples without labels."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress.calibration.output_change import OutputChange
from evocompress.data import Examples
from evocompress.data.examples import IGNORED
from evocompress.errors import ModelError
from evocompress.tasks.classification import calibration_examples, check_fit

Network = TypeVar("Network", bound=nn.Module)


class Encoder(nn.Module):
    """Tokens (n, L) to vectors (n, L, 6), in a dict, as encoders of sentences return them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": self.dropout(self.embedding(tokens))}


def tokens(label: int = 0) -> Examples:
    drawn = torch.randint(0, 11, (10, 4), generator=torch.Generator().manual_seed(0))
    return Examples(drawn, torch.full((10,), label))


def images() -> Examples:
    return Examples.unlabelled(torch.randn(9, 3, generator=torch.Generator().manual_seed(1)))


def changed(model: Network) -> Network:
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return other


@pytest.mark.parametrize("label", [0, IGNORED])
def test_change_of_an_encoder_is_relative_to_the_variance_of_its_outputs(label: int) -> None:
    """Of logits, which labels tell, a constant added to all does not count; of anything else everything does."""
    model = Encoder()
    other = changed(model)
    examples = tokens(label)
    before = model.embedding.weight[examples.inputs].detach().double().numpy()
    difference = other.embedding.weight[examples.inputs].detach().double().numpy() - before
    if label == 0:
        before, difference = (part - part.mean(-1, keepdims=True) for part in (before, difference))
    expected = np.square(difference).sum() / np.square(before - before.mean(0)).sum()
    assert OutputChange(model, examples)(other) == pytest.approx(expected, rel=1e-4)


def test_no_change_and_a_constant_on_all_logits() -> None:
    model = nn.Linear(3, 5)
    other = copy.deepcopy(model)
    labelled = Examples(images().inputs, torch.zeros(9, dtype=torch.int64))
    outputs = model(images().inputs).detach()
    centred = outputs - outputs.mean(1, keepdim=True)
    variance, own = (float((part - part.mean(0)).square().sum()) / 9 for part in (outputs, centred))
    assert OutputChange(model, images())(other) == OutputChange(model, labelled)(other) == 0
    with torch.no_grad():
        other.bias.add_(7.5)
    assert OutputChange(model, labelled)(other) < 1e-10
    assert OutputChange(model, images())(other) == pytest.approx(5 * 7.5**2 / variance, rel=1e-4)
    with torch.no_grad():
        other.bias[0] += 1  # about its mean: 16/25 + 4/25
    assert OutputChange(model, labelled)(other) == pytest.approx(0.8 / own, rel=1e-4)


def test_of_numbers_each_counts_by_its_own_variance() -> None:
    """Columns of other units: an error of a tenth of its spread counts alike in either."""
    units = torch.tensor([1.0, 1000.0])
    inputs = images().inputs
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.mul_(units[:, None])
    examples = Examples(inputs, model(inputs).detach())
    changes = []
    for column in (0, 1):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.weight[column] *= 1.1
        changes.append(OutputChange(model, examples)(other))
    spread = model(inputs).detach()
    shares = spread.square().mean(0) / spread.var(0, correction=0)
    assert changes == pytest.approx([0.01 * float(share) / 2 for share in shares], rel=1e-3)


def test_outputs_that_never_vary_are_compared_with_their_size() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([3.0, 4.0]))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bias[0] += 0.5
    assert OutputChange(model, images())(other) == pytest.approx(0.25 / 25)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_a_single_output_is_not_about_its_own_mean(shape: tuple[int, ...]) -> None:
    layer, reshape = nn.Linear(3, 1), nn.Flatten(0) if len(shape) == 1 else nn.Identity()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.bias.add_(2)
    variance = float(layer(images().inputs).detach().var(correction=0))
    change = OutputChange(nn.Sequential(layer, reshape), images())(nn.Sequential(other, reshape))
    assert change == pytest.approx(4 / variance, rel=1e-4)


def test_modes_are_kept_and_weights_are_not_touched() -> None:
    model = Encoder().train()
    other = changed(model).eval()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    first = OutputChange(model, tokens())(other)
    assert first == OutputChange(model, tokens())(other)  # no dropout
    assert model.training and model.dropout.training and not other.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_are_infinitely_far(value: float) -> None:
    model = nn.Linear(3, 5)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bias[1] = value
    assert OutputChange(model, images())(other) == math.inf


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ModelError, match=r"\(9, 4\), the original network's \(9, 5\)"):
        OutputChange(nn.Linear(3, 5), images())(nn.Linear(3, 4))


def test_any_outputs_fit_examples_that_ask_for_nothing() -> None:
    check_fit(Encoder(), tokens(IGNORED), 1)
    with pytest.raises(ModelError, match="logits"):
        check_fit(Encoder(), tokens(0), 1)
    with pytest.raises(ModelError, match="fails on inputs of shape"):
        check_fit(nn.Linear(3, 2), tokens(IGNORED), 1)

    check_fit(nn.Linear(3, 5).half(), images(), 1)
    with pytest.raises(ModelError, match=r"torch.float64: return it with .float\(\)"):
        check_fit(nn.Linear(3, 5).double(), images(), 1)
    with pytest.raises(ModelError, match="looks up tokens, which must be integers"):
        check_fit(Encoder(), images(), 1)

    class Nothing(nn.Module):
        def forward(self, _: Tensor) -> None:
            return None

    with pytest.raises(ModelError, match="without a tensor"):
        check_fit(Nothing(), tokens(IGNORED), 1)


def test_calibration_leaves_out_labels_that_do_not_fit_the_outputs() -> None:
    assert not calibration_examples(Encoder(), tokens(), 1).is_labelled
    labelled = Examples(images().inputs, torch.arange(9) % 5)
    assert calibration_examples(nn.Linear(3, 5), labelled, 5) is labelled
    assert not calibration_examples(nn.Linear(3, 4), labelled, 5).is_labelled
    with pytest.raises(ModelError, match="fails on inputs"):
        calibration_examples(nn.Linear(2, 5), labelled, 5)
