"""The group penalty: slices shrink by what they should, small ones are emptied, and a network learns to do without."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_problem import problem

from evocompress.protocols import TermContext, TrainingStep
from evocompress.training.dead_parts import cut
from evocompress.training.terms.group_l1 import GroupL1
from evocompress.training.trainer import TrainingGenes, train


def test_slices_along_both_axes_lose_what_they_should() -> None:
    layer = nn.Conv2d(3, 4, 2, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0] = 5.0  # a filter's norm 10, and an input's
        layer.weight[1, 1] = 0.01  # emptied
    term = GroupL1(0.5)
    term.start(layer, TermContext(0.0, examples=64, epochs=1, batch_size=8, seed=0, device=torch.device("cpu")))
    with torch.no_grad():
        term.after(TrainingStep(progress=0.0, learning_rate=0.1))
    filters = 10 - 0.05 * 12**0.5
    inputs = filters - 0.05 * 16**0.5
    assert float(layer.weight[0, 0].detach().norm()) == pytest.approx(inputs, rel=1e-5)
    assert not layer.weight[1:].any() and float(layer.weight[0, 0].detach().std()) == 0


def test_a_network_that_is_too_wide_gives_up_units() -> None:
    lives = {}
    for pull in (0.0, 0.3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            examples = problem()
            size = examples.batch(slice(0, 1))[0].flatten(1).shape[1]
            model = nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 4))
        genes = TrainingGenes(group_l1=pull, learning_rate=1e-2, batch_size=30)
        curves = train(model, examples, genes, epochs=40, seed=0)
        live = cut(model, examples.batch(slice(0, 2))[0])
        lives[pull] = live.parameters_after / live.parameters_before, curves.train_quality[-1]
    assert lives[0.0][0] == 1.0 and lives[0.3][0] < 0.7
    assert lives[0.3][1] > lives[0.0][1] - 0.1
