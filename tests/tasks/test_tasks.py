"""Tasks: what all keep, how one is named, and classification to the bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from task_conformance import assert_conforms
from torch import nn
from toy_task import DigitError
from training_problem import net, problem

from evocompress.data import Examples
from evocompress.errors import ConfigError, DataError, ModelError
from evocompress.extensions import TASKS
from evocompress.protocols import Measured, Task
from evocompress.support.intervals import wilson_interval
from evocompress.tasks import build
from evocompress.tasks.classification import ACCURACY, Classification, evaluate
from evocompress.tasks.measure import measure
from evocompress.training.trainer import TrainingGenes, train


def logits(*shape: int) -> torch.Tensor:
    return 2.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def labels(*shape: int) -> torch.Tensor:
    return torch.randint(5, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", [Classification(), DigitError()], ids=lambda task: type(task).__name__)
def test_conformance(task: Task) -> None:
    assert_conforms(task, logits(24, 5), labels(24))


def test_conformance_on_sequences() -> None:
    targets = labels(8, 3)
    targets[2, 1:] = -100
    outputs = logits(8, 3, 5)
    drawn = Classification().draw(outputs, targets, torch.Generator())
    assert torch.equal(drawn >= 0, torch.ones(8, 3, dtype=torch.bool))
    meter = Classification().meter()
    meter.add(outputs, targets)
    found = meter.measured()
    assert found.total == 22 and found.details["total"] == 22
    loss = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert found.loss == pytest.approx(loss.item()) and torch.equal(Classification().loss(outputs, targets, {}), loss)
    assert_conforms(Classification(), outputs, labels(8, 3))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_classification_is_torchs(smoothing: float) -> None:
    outputs, targets = logits(9, 5), labels(9)
    for kind in (torch.float32, torch.bfloat16):
        found = Classification().loss(outputs.to(kind), targets, {"label_smoothing": smoothing})
        wanted = nn.functional.cross_entropy(outputs.to(kind).float(), targets, label_smoothing=smoothing)
        assert torch.equal(found, wanted) and found.dtype == torch.float32


def test_classes_are_drawn_from_the_softmax() -> None:
    outputs = torch.tensor([[0.0, math.log(3.0)], [math.nan, math.inf]]).repeat(2000, 1)
    drawn = Classification().draw(outputs, labels(4000), torch.Generator().manual_seed(5))
    chances = outputs.softmax(1).nan_to_num(0.0) + 1e-12
    wanted = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(5))[:, 0]
    assert torch.equal(drawn, wanted)
    assert float(drawn[::2].float().mean()) == pytest.approx(0.75, abs=0.05)


def test_measure_is_what_evaluate_counts() -> None:
    model, examples = net(), problem(33)
    found, counted = measure(Classification(), model, examples, batch_size=7), evaluate(model, examples)
    assert (found.value, found.total) == (counted.accuracy, 33)
    assert found.details.items() >= {"correct": counted.correct, "total": 33}.items()
    assert found.loss == pytest.approx(counted.loss) and found.error == 1.0 - counted.accuracy
    assert (found.low, found.high) == wilson_interval(counted.correct, 33)


def test_nothing_measured_is_no_error() -> None:
    found = Classification().meter().measured()
    assert found == Measured(0.0, 0.0, 1.0, 1.0, 0.0, 0, found.details)
    assert found.details.items() >= {"correct": 0, "total": 0}.items()


def test_an_error_that_cannot_be_minimised_is_refused() -> None:
    class Negative(DigitError):
        def meter(self) -> Any:
            class Meter:
                def add(self, outputs: object, targets: object) -> None: ...

                def measured(self) -> Measured:
                    return Measured(1.0, 1.0, 1.0, -1.0, 0.0, 1)

            return Meter()

    with pytest.raises(ModelError, match=r"Negative measured 1\.0 with error -1\.0"):
        measure(Negative(), net(), problem(4))


def test_check() -> None:
    task, examples = Classification(), problem()
    task.check(net(), examples, 2)
    with pytest.raises(ModelError, match="2 logits; the data set has 3"):
        task.check(net(), examples, 3)
    with pytest.raises(DataError, match="no labels"):
        task.check(net(), examples.without_labels(), 2)


def test_a_task_by_its_name() -> None:
    assert isinstance(build("classification"), Classification) and build("classification").quality == ACCURACY
    assert isinstance(build("toy_task:DigitError"), DigitError)
    assert [gene.name for gene in build("classification").genes] == ["label_smoothing"]
    assert next(iter(TASKS)) == "classification"


class NoMeter:
    quality, genes = ACCURACY, ()
    loss = draw = check = print


class NoQuality(DigitError):
    quality = "RMSE"  # type: ignore[assignment]


class NoGenes(DigitError):
    genes = ("noise",)  # type: ignore[assignment]


class NeedsMore(DigitError):
    def __init__(self, unit: str) -> None:
        self.unit = unit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clasification", "'clasification' is unknown. Did you mean 'classification'"),
        ("toy_task:DigitErrors", "has no 'DigitErrors'"),
        ("toy_task:expected", "cannot be made: TypeError"),
        ("test_tasks:NeedsMore", "needs no arguments|must need no arguments"),
        ("test_tasks:NoMeter", "a NoMeter has no method 'meter'"),
        ("test_tasks:NoQuality", "quality is 'RMSE'; it must be"),
        ("test_tasks:NoGenes", r"genes is \('noise',\); it must be"),
        ("builtins:dict", "a dict has no method 'loss'"),
    ],
)
def test_what_is_no_task_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(name)


def test_a_task_that_returns_something_else_is_named() -> None:
    class Words(Classification):
        def loss(self, *_: Any, **__: Any) -> Any:
            return "loss"

        def meter(self) -> Any:
            class Three:
                def add(self, outputs: Any, targets: Any) -> None: ...

                def measured(self) -> int:
                    return 3

            return Three()

    examples = Examples(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    with pytest.raises(ModelError, match="loss of the task Words is a str; it must be a tensor"):
        train(nn.Linear(4, 2), examples, TrainingGenes(), epochs=1, seed=0, task=Words())
    with pytest.raises(ModelError, match="meter of the task Words measured an int"):
        measure(Words(), nn.Linear(4, 2), examples)
