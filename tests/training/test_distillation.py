"""Networks that learn from a teacher: what imitating means for each task, and what the term does with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from evocompress.data import Examples
from evocompress.errors import ModelError
from evocompress.protocols import Genes, TrainingStep
from evocompress.tasks import build
from evocompress.tasks.classification import Classification
from evocompress.tasks.measure import measure
from evocompress.training.teacher import Teacher
from evocompress.training.trainer import TrainingGenes, train


def points(n: int = 160, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def trained() -> nn.Linear:
    """Knows that the larger of the first two counts."""
    network = nn.Linear(3, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, 4.0, 0.0], [4.0, 0.0, 0.0]]))
        network.bias.zero_()
    return network


def student(seed: int = 1) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


GENES = TrainingGenes(learning_rate=0.05, batch_size=16, distillation=1.0)


def agreement(one: nn.Module, other: nn.Module) -> float:
    x = points(500, seed=9)
    return float((one(x).argmax(1) == other(x).argmax(1)).float().mean())


def test_a_student_needs_no_labels_where_its_whole_loss_is_the_teachers() -> None:
    x, teacher = points(), trained()
    labels = torch.randint(2, (160,), generator=torch.Generator().manual_seed(5))  # they say nothing
    network = student()
    curves = train(network, Examples(x, labels), GENES, epochs=20, seed=0, teacher=teacher)
    assert not curves.diverged and agreement(network, teacher) > 0.97
    assert torch.equal(teacher.weight, trained().weight)
    alone = student()
    train(alone, Examples(x, labels), TrainingGenes(learning_rate=0.05, batch_size=16), epochs=20, seed=0)
    assert agreement(alone, teacher) < 0.9


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_loss_is_shared_out(share: float) -> None:
    x, teacher, network = points(32), trained(), student()
    y = (x[:, 0] > x[:, 2]).long()
    seen: list[Tensor] = []

    class Watch(Classification):
        def optimiser(self, groups: list[dict[str, Any]], genes: Genes) -> torch.optim.Optimizer:
            class Recorder(torch.optim.SGD):
                def step(self, closure: Any = None) -> Any:
                    seen.append(network.weight.grad.clone())  # type: ignore[union-attr]

            return Recorder(groups, lr=1.0)

    genes = TrainingGenes(batch_size=32, distillation=share, teacher_temperature=3.0)
    train(network, Examples(x, y), genes, epochs=1, seed=0, task=Watch(), teacher=teacher)
    outputs, said = network(x), teacher(x).detach()
    soft = 9 * (
        (said / 3).softmax(1) * ((said / 3).log_softmax(1) - (outputs / 3).log_softmax(1))
    ).sum(1).mean()  # fmt: skip
    loss = (1 - share) * nn.functional.cross_entropy(outputs, y) + share * soft
    (expected,) = torch.autograd.grad(loss, [network.weight])
    torch.testing.assert_close(seen[0], expected)


class Counting(nn.Module):
    """Remembers on how many examples it ran each time."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.runs = trained(), list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.runs.append(len(inputs))
        logits: Tensor = self.network(inputs)
        return logits


def test_a_teacher_runs_once_where_nothing_changes_the_examples() -> None:
    x, y = points(), torch.zeros(160, dtype=torch.int64)
    fixed, lazy, changed = (Counting() for _ in range(3))
    train(student(), Examples(x, y), GENES, epochs=3, seed=0, teacher=fixed)
    assert fixed.runs == [160]
    train(student(), Examples.of_dataset(TensorDataset(x, y)), GENES, epochs=3, seed=0, teacher=lazy)
    assert lazy.runs == [16] * 30
    seen: list[Tensor] = []

    def transform(inputs: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(inputs + torch.randn(inputs.shape, generator=generator))
        return seen[-1]

    train(student(), Examples(x, y, augmentation=transform), GENES, epochs=3, seed=0, teacher=changed)
    assert changed.runs == [16] * 30


def test_both_ways_give_the_same_network() -> None:
    x, y = points(), torch.zeros(160, dtype=torch.int64)
    networks = [student(), student()]
    for network, examples in zip(networks, (Examples(x, y), Examples.of_dataset(TensorDataset(x, y))), strict=True):
        train(network, examples, GENES, epochs=3, seed=0, teacher=trained())
    torch.testing.assert_close(networks[0].weight, networks[1].weight)


@pytest.mark.parametrize("task_name", ["classification", "regression", "multilabel", "language_model"])
def test_every_task_knows_what_imitating_is(task_name: str) -> None:
    task: Any = build(task_name)
    generator = torch.Generator().manual_seed(0)
    shape = (8, 5, 4) if task_name == "language_model" else (8, 4)
    theirs = torch.randn(shape, generator=generator)
    classes = torch.randint(4, shape[:-1], generator=generator)
    targets = {"regression": theirs + 1, "multilabel": (theirs > 0).float()}.get(task_name, classes)
    at_teacher = theirs.clone().requires_grad_()
    same = task.imitation(at_teacher, theirs, targets, 2.0)
    assert same.item() == pytest.approx(0, abs=1e-5)
    (gradient,) = torch.autograd.grad(same, [at_teacher])
    assert gradient.abs().max() < 1e-4
    assert task.imitation(theirs + torch.randn(shape, generator=generator), theirs, targets, 2.0) > 0.01


def test_places_that_ask_for_nothing_are_not_imitated() -> None:
    theirs, ours = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    targets = torch.tensor([[1, -100, -100], [2, 0, -100]])
    kept = torch.tensor([[True, False, False], [True, True, False]])
    task: Any = build("language_model")
    expected = Classification().imitation(ours[kept], theirs[kept], targets[kept], 1.0)
    torch.testing.assert_close(task.imitation(ours, theirs, targets, 1.0), expected)
    causal: Any = build("causal_language_model")
    expected = task.imitation(ours[:, :-1], theirs[:, :-1], targets[:, 1:], 1.0)
    torch.testing.assert_close(causal.imitation(ours, theirs, targets, 1.0), expected)


class Plain:
    """A task with what a task must have, and no more."""

    quality, genes = Classification.quality, Classification.genes

    def __init__(self) -> None:
        inner = Classification()
        self.loss, self.draw, self.meter, self.check = inner.loss, inner.draw, inner.meter, inner.check


def test_a_task_without_a_word_on_it_learns_from_the_teachers_draws() -> None:
    x, teacher, network = points(400), trained(), student()
    labels = torch.randint(2, (400,), generator=torch.Generator().manual_seed(5))
    train(network, Examples(x, labels), GENES, epochs=20, seed=0, task=Plain(), teacher=teacher)
    assert agreement(network, teacher) > 0.93


def test_with_the_rate() -> None:
    x, teacher, network = points(), trained(), student()
    y = teacher(x).argmax(1)
    genes = TrainingGenes(learning_rate=0.05, batch_size=16, distillation=0.5, rate_term="on")
    curves = train(network, Examples(x, y), genes, epochs=20, seed=0, rate_weight=0.1, teacher=teacher)
    assert curves.grid and measure(build("classification"), network, Examples(x, y)).value > 0.95


def test_without_a_teacher_it_is_refused() -> None:
    x = points()
    with pytest.raises(ModelError, match="distillation needs a teacher"):
        train(student(), Examples(x, torch.zeros(160, dtype=torch.int64)), GENES, epochs=1, seed=0)


def test_a_teacher_of_other_outputs_is_refused() -> None:
    x, y = points(), torch.zeros(160, dtype=torch.int64)
    teacher = Teacher(nn.Linear(3, 5), Examples(x, y), Classification())
    step = TrainingStep(0.0, 0.1, outputs=torch.zeros(4, 2), targets=y[:4], index=torch.arange(4))
    with pytest.raises(ModelError, match=r"teacher returned shape \(4, 5\).*\(4, 2\)"):
        teacher.imitation(step, 1.0)


def test_a_teacher_runs_in_the_precision_of_training() -> None:
    x, seen = points(), []

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.layer(x)
            seen.append(outputs.dtype)
            return outputs

    same = lambda inputs, generator: inputs  # noqa: E731
    examples = Examples(x, torch.zeros(160, dtype=torch.int64), augmentation=same)
    train(student(), examples, GENES, epochs=1, seed=0, teacher=Noting(), precision="bfloat16")
    assert set(seen) == {torch.bfloat16}
