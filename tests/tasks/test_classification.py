"""Accuracy and loss on examples, and networks that do not fit them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from training_problem import net, problem

from evocompress.errors import ConfigError, ModelError
from evocompress.networks import build
from evocompress.support.modules import evaluation_mode
from evocompress.tasks.classification import check_fit, evaluate


def test_evaluation_counts_and_restores_the_mode() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.frozen = nn.Dropout(0.9), nn.Dropout(0.9).eval()

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training and not self.drop.training
            return torch.tensor([0.0, math.log(3.0)]).repeat(len(x), 1)

    model = Constant()
    evaluation = evaluate(model, problem(11), batch_size=4)
    assert (evaluation.correct, evaluation.total) == (5, 11)
    assert evaluation.accuracy == 5 / 11
    assert evaluation.loss == pytest.approx((6 * math.log(4) + 5 * math.log(4 / 3)) / 11)
    assert model.training and model.drop.training and not model.frozen.training
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        raise ZeroDivisionError
    assert model.training and not model.frozen.training


def test_logits_that_are_not_finite_are_wrong_answers() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), math.nan)

    evaluation = evaluate(Broken(), problem(10))
    assert evaluation.correct == 0 and math.isnan(evaluation.loss)


def test_the_device_is_honoured() -> None:
    """The meta device has no values: a network and data that were moved there fail to give a number, and say so."""
    with pytest.raises((RuntimeError, NotImplementedError), match="[Mm]eta"):
        evaluate(net(), problem(), torch.device("meta"))
    with pytest.raises(ConfigError, match="'meta' cannot be used"):
        evaluate(net(), problem(), "meta")
    moved = problem().to("meta")
    assert moved.inputs.device.type == moved.batch(slice(2))[0].device.type == "meta"


def test_a_network_that_does_not_fit_its_data() -> None:
    examples = problem()
    check_fit(net(), examples, 2)
    with pytest.raises(ModelError, match="2 logits; the data set has 3"):
        check_fit(net(), examples, 3)
    with pytest.raises(ModelError, match=r"fails on images of shape \(2, 1, 8, 8\)"):
        check_fit(build("resnet20"), examples, 2)
    with pytest.raises(ModelError, match=r"returned shape \(2, 1, 8, 8\)"):
        check_fit(nn.Identity(), examples, 2)
