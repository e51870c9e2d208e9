"""Tasks that bring an optimiser or a training step of their own, and networks of several outputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.errors import ModelError
from evocompress.extensions import NETWORK_OPTIONS
from evocompress.protocols import Genes, GeneSpec
from evocompress.support.modules import copied, counted_output, keep_output
from evocompress.tasks import build
from evocompress.tasks.classification import Classification
from evocompress.tasks.language_model import CausalLanguageModel
from evocompress.tasks.measure import measure
from evocompress.training.dead_parts import cut
from evocompress.training.trainer import TrainingGenes, train


def points(n: int = 128) -> Examples:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return Examples(x, (x[:, 0] > x[:, 1]).long())


class Slow(Classification):
    """Plain gradient descent, and the rates that it was asked for."""

    seen: list[list[float]]

    def optimiser(self, groups: list[dict[str, Any]], genes: Genes) -> torch.optim.Optimizer:
        self.seen = [[float(group.get("lr", 0.0)) for group in groups]]
        return torch.optim.SGD(groups, lr=float(genes["learning_rate"]))


class Mixed(Classification):
    """Two passes for a batch, and the loss of both."""

    def training_loss(self, model: nn.Module, inputs: Any, targets: Tensor, genes: Genes) -> tuple[Tensor, Any]:
        outputs = model(inputs)
        return self.loss(outputs, targets, genes) + model(-inputs).square().mean(), outputs


def test_an_optimiser_of_the_tasks_own() -> None:
    examples, task = points(), Slow()
    network = nn.Linear(3, 2)
    start = network.weight.detach().clone()
    network.weight.grad = None
    loss = task.loss(network(examples.inputs), examples.labels, {})
    (gradient,) = torch.autograd.grad(loss, [network.weight])
    genes = TrainingGenes(learning_rate=0.5, batch_size=128, schedule="constant")
    train(network, examples, genes, epochs=1, seed=0, task=task)
    torch.testing.assert_close(network.weight.detach(), start - 0.5 * gradient)


def test_terms_keep_their_groups_under_it() -> None:
    task, network = Slow(), nn.Linear(3, 2)
    genes = TrainingGenes(learning_rate=0.05, rate_term="on")
    curves = train(network, points(), genes, epochs=3, seed=0, task=task, rate_weight=0.1)
    assert len(task.seen[0]) > 3 and curves.grid  # weights, steps, rate model


def test_what_is_no_optimiser_is_refused() -> None:
    class Wrong(Classification):
        def optimiser(self, groups: list[dict[str, Any]], genes: Genes) -> Any:
            return "adam"

    with pytest.raises(ModelError, match="optimiser of the task Wrong returned a str; must be a torch optimiser"):
        train(nn.Linear(3, 2), points(), TrainingGenes(), epochs=1, seed=0, task=Wrong())


def test_a_training_step_of_the_tasks_own() -> None:
    examples = points()
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    genes = TrainingGenes(learning_rate=0.05, batch_size=16)
    for network, task in zip(networks, (Mixed(), Classification()), strict=True):
        curves = train(network, examples, genes, epochs=20, seed=0, task=task)
        assert len(curves.train_quality) == 20
    # The second pass pulls outputs towards zero.
    assert networks[0].weight.norm() < 0.7 * networks[1].weight.norm()
    assert measure(Mixed(), networks[0], examples).value > 0.9


def test_warm_up_and_schedule() -> None:
    seen: list[float] = []

    class Watch(Classification):
        def optimiser(self, groups: list[dict[str, Any]], genes: Genes) -> torch.optim.Optimizer:
            class Recorder(torch.optim.SGD):
                def step(self, closure: Any = None) -> Any:
                    seen.append(self.param_groups[0]["lr"])
                    return super().step(closure)

            return Recorder(groups, lr=1.0)

    genes = TrainingGenes(learning_rate=0.1, batch_size=16, warm_up=0.5)
    train(nn.Linear(3, 2), points(), genes, epochs=1, seed=0, task=Watch())
    assert seen[:4] == pytest.approx([0, 0.025, 0.05, 0.075])
    assert seen[4:] == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_adamw_is_adam_as_decay_is_decoupled() -> None:
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network, name in zip(networks, ("adam", "adamw"), strict=True):
        train(network, points(), TrainingGenes(optimiser=name, weight_decay=0.1), epochs=2, seed=0)
    assert torch.equal(networks[0].weight, networks[1].weight)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.body(inputs).relu()
        return {"boxes": self.first(features), "classes": self.second(features)}


class Pair(Heads):
    def forward(self, inputs: Tensor) -> Any:
        return tuple(super().forward(inputs).values())


def test_one_of_several_outputs_is_chosen_by_a_network_option() -> None:
    examples = points()
    assert NETWORK_OPTIONS["output"] is keep_output
    network = keep_output(Heads(), output="classes")
    assert network(examples.inputs).shape == (128, 2)
    assert set(network.state_dict()) == set(Heads().state_dict())
    train(network, examples, TrainingGenes(learning_rate=0.05, batch_size=16), epochs=20, seed=0)
    assert measure(build("classification"), copied(network), examples).value > 0.9
    with torch.no_grad():
        network.body.weight[3:], network.body.bias[3:] = 0, 0
    live = cut(network, examples.inputs[:2])
    assert live.reason is None and live.network(examples.inputs).shape == (128, 2)


def test_outputs_by_place() -> None:
    x = points().inputs
    assert keep_output(Pair(), output=1)(x).shape == (128, 2)
    assert keep_output(Pair(), output=-2)(x).shape == (128, 4)
    with pytest.raises(ModelError, match="no output 2; it has 0, 1"):
        keep_output(Pair(), output=2)(x)
    with pytest.raises(ModelError, match="no output 'mask'; it has boxes, classes"):
        keep_output(Heads(), output="mask")(x)
    with pytest.raises(ModelError, match="no output 'mask'; it returns a Tensor"):
        keep_output(nn.Linear(3, 2), output="mask")(x)


def test_it_is_said_which_output_counts() -> None:
    x = points().inputs
    assert "outputs boxes, classes the one that counts is boxes" in str(counted_output(Heads()(x)))
    assert "2 outputs the one that counts is 0" in str(counted_output(Pair()(x)))
    assert counted_output(x) is None and counted_output((x,)) is None and counted_output({"a": None}) is None


class Next(nn.Module):
    """Knows that each token is one more than the one before it."""

    def forward(self, tokens: Tensor) -> Tensor:
        return 50.0 * nn.functional.one_hot((tokens + 1) % 10, 10).float()


def test_causal_language_models_are_shifted_by_the_task() -> None:
    tokens = (torch.arange(6)[:, None] + torch.arange(5)) % 10
    examples, task = Examples(tokens, tokens.clone()), CausalLanguageModel()
    assert task.quality.name == "bits per token"
    task.check(Next(), examples, 10)
    assert measure(task, Next(), examples).value == pytest.approx(0, abs=1e-6)
    wrong = tokens.clone()
    wrong[:, -1] = 0
    wrong[:, 2] = -100
    measured = measure(task, Next(), Examples(tokens, wrong))
    assert measured.total == 6 * 3 and measured.value == pytest.approx(50 * 6 / 18 / math.log(2))
    drawn = task.draw(Next()(tokens), tokens, torch.Generator())
    assert drawn[:, 1:].equal(tokens[:, 1:]) and drawn[:, 0].tolist() == [-100] * 6
    assert task.loss(Next()(tokens), drawn, {}).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ModelError, match=r"returned shape \(6, 10\) for tokens \(6, 5\)"):
        task.loss(torch.zeros(6, 10), tokens, {})
    assert [spec.name for spec in task.genes if isinstance(spec, GeneSpec)] == ["label_smoothing"]
