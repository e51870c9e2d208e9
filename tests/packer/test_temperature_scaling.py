"""Temperature scaling: a scale of its logits that held-out labels ask for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.errors import ConfigError, DataError, ModelError
from evocompress.packer.temperature_scaling import fit_confidence, output_layer


def classifier(scale: float) -> nn.Module:
    """A network whose logits are `scale` times those of the true log-odds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)).eval()
    with torch.no_grad():
        for parameter in model[2].parameters():
            parameter.mul_(scale)
    return model


@pytest.fixture(scope="module")
def held_out() -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3000, 6, generator=generator)
    with torch.no_grad():
        chances = classifier(3.0)(inputs).softmax(1)
    return Examples(inputs, torch.multinomial(chances, 1, generator=generator)[:, 0])


def test_the_scale_is_found_and_the_loss_falls(held_out: Examples) -> None:
    model = classifier(6.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = fit_confidence(model, held_out)
    assert fitted.layer == "2"
    assert fitted.scale == pytest.approx(0.5, rel=0.1)
    assert fitted.after < fitted.before
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    scaled = fitted.scaled(model.state_dict())
    other = classifier(1.0)
    other.load_state_dict(scaled)
    with torch.no_grad():
        logits = other(held_out.inputs)
        assert torch.allclose(logits, model(held_out.inputs) * fitted.scale, rtol=1e-4, atol=1e-6)
    assert float(nn.functional.cross_entropy(logits, held_out.labels)) == pytest.approx(fitted.after, rel=1e-5)
    assert torch.equal(scaled["0.weight"], before["0.weight"])


def test_confidence_is_never_raised(held_out: Examples) -> None:
    fitted = fit_confidence(classifier(1.0), held_out)
    assert fitted.scale == 1
    assert fitted.after == fitted.before


def test_a_network_that_is_always_wrong_is_scaled_down_to_the_end(held_out: Examples) -> None:
    wrong = Examples(held_out.inputs, (held_out.labels + 1) % 4)
    assert 0.04 < fit_confidence(classifier(6.0), wrong).scale < 0.1


def test_logits_that_are_not_finite_change_nothing(held_out: Examples) -> None:
    model = classifier(1.0)
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(math.inf)
    with pytest.raises(ModelError, match="not proportional"):
        fit_confidence(model, held_out)


def test_examples_without_labels_are_refused(held_out: Examples) -> None:
    with pytest.raises(DataError, match="no labels"):
        fit_confidence(classifier(1.0), Examples.unlabelled(held_out.inputs))


def test_outputs_that_are_no_logits_of_the_labels_are_refused(held_out: Examples) -> None:
    with pytest.raises(ModelError, match="4 logits; the data set has 9 classes"):
        fit_confidence(classifier(1.0), Examples(held_out.inputs, held_out.labels + 5))
    words = Examples(torch.zeros(6, 3, dtype=torch.int64), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"returned shape \(2, 3, 3\) for 2 examples of labels \(2,\)"):
        fit_confidence(_Sequences(), words)


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.sign(self.first(x)))  # proportional to the weight all the same
        return outputs


class _Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 5), nn.Linear(5, 3)

    def forward(self, words: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.words(words))
        return outputs


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), "not proportional"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), "not proportional"),
        (_Tied(), "not proportional.*or these serve elsewhere"),
        (nn.Flatten(), "no linear or convolutional layer"),
    ],
)
def test_networks_without_a_layer_of_logits_are_told_so(model: nn.Module, why: str) -> None:
    examples = Examples(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(10).long())
    with pytest.raises(ModelError, match=why):
        output_layer(model, examples)


def test_sequences_with_a_label_for_each_place() -> None:
    generator = torch.Generator().manual_seed(2)
    words = torch.randint(0, 7, (200, 4), generator=generator)
    labels = torch.randint(0, 3, (200, 4), generator=generator)
    labels[:, 0] = -100  # asks for nothing
    fitted = fit_confidence(_Sequences(), Examples(words, labels))
    assert fitted.layer == "head"
    assert fitted.scale < 0.5  # labels are random: no confidence is due


def test_a_device_that_is_none_is_refused(held_out: Examples) -> None:
    with pytest.raises(ConfigError, match="'blah' is no device") as caught:
        fit_confidence(classifier(1.0), held_out, "blah")
    assert caught.value.argument == "device"
