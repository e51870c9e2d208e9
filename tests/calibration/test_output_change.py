"""How far a network's outputs are from another's, and which networks fit examples without labels."""

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


def test_change_of_an_encoder_is_the_mean_square_about_the_mean() -> None:
    model = Encoder()
    other = changed(model)
    examples = tokens()
    difference = (other.embedding.weight - model.embedding.weight)[examples.images].detach().double().numpy()
    expected = np.square(difference - difference.mean(-1, keepdims=True)).mean()
    assert OutputChange(model, examples)(other) == pytest.approx(expected, rel=1e-5)


def test_no_change_and_a_constant_on_all_logits() -> None:
    model = nn.Linear(3, 5)
    other = copy.deepcopy(model)
    assert OutputChange(model, images())(other) == 0
    with torch.no_grad():
        other.bias.add_(7.5)
    assert OutputChange(model, images())(other) < 1e-10
    with torch.no_grad():
        other.bias[0] += 1  # about its mean: 16/25 + 4/25, over five numbers
    assert OutputChange(model, images())(other) == pytest.approx(0.16, rel=1e-4)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_a_single_output_is_not_about_its_own_mean(shape: tuple[int, ...]) -> None:
    layer, reshape = nn.Linear(3, 1), nn.Flatten(0) if len(shape) == 1 else nn.Identity()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.bias.add_(2)
    assert OutputChange(nn.Sequential(layer, reshape), images())(nn.Sequential(other, reshape)) == pytest.approx(
        4, rel=1e-5
    )


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

    half = nn.Linear(3, 5).half()
    with pytest.raises(ModelError, match=r"torch.float16: return it with .float\(\)"):
        check_fit(half, images(), 1)
    with pytest.raises(ModelError, match="looks up tokens, which must be integers"):
        check_fit(Encoder(), images(), 1)

    class Nothing(nn.Module):
        def forward(self, _: Tensor) -> None:
            return None

    with pytest.raises(ModelError, match="without a tensor"):
        check_fit(Nothing(), tokens(IGNORED), 1)


def test_calibration_leaves_out_labels_that_do_not_fit_the_outputs() -> None:
    assert not calibration_examples(Encoder(), tokens(), 1).is_labelled
    labelled = Examples(images().images, torch.arange(9) % 5)
    assert calibration_examples(nn.Linear(3, 5), labelled, 5) is labelled
    assert not calibration_examples(nn.Linear(3, 4), labelled, 5).is_labelled
    with pytest.raises(ModelError, match="fails on inputs"):
        calibration_examples(nn.Linear(2, 5), labelled, 5)
