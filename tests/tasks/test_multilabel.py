"""Multi-label classification: average precision by its definition, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from task_conformance import assert_conforms
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.data.user import as_splits
from evocompress.errors import DataError, ModelError
from evocompress.tasks.multilabel import Multilabel, average_precision
from evocompress.training.trainer import TrainingGenes, train


def problem(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (n, 4), and labels that follow them a little."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=generator)
    return logits, (logits + torch.randn(n, 4, generator=generator) > 0.5).float()


def test_conformance() -> None:
    assert_conforms(Multilabel(), *problem())


def test_average_precision_is_sklearns() -> None:
    metrics: Any = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    for size in (1, 2, 30, 500):
        scores, holds = random.normal(size=size).round(1), random.random(size) < 0.3
        holds[0] = True
        wanted = metrics.average_precision_score(holds, scores)
        assert average_precision(scores, holds) == pytest.approx(wanted, abs=1e-12)


def test_the_quality_is_the_mean_over_classes_that_hold_anywhere() -> None:
    logits, labels = problem()
    labels[:, 3] = 0
    meter = Multilabel().meter()
    meter.add(logits, labels)
    found = meter.measured()
    each = [average_precision(logits[:, c].double().numpy(), labels[:, c].bool().numpy()) for c in range(3)]
    assert found.value == pytest.approx(np.mean(each)) and found.error == pytest.approx(1 - found.value)
    assert 0 < found.low < found.value < found.high < 1


def test_what_does_not_fit() -> None:
    task, inputs, (_, labels) = Multilabel(), torch.zeros(60, 3), problem()
    task.check(nn.Linear(3, 4), Examples(inputs, labels), 4)
    with pytest.raises(ModelError, match=r"returned shape \(2, 2\) for labels \(2, 4\)"):
        task.check(nn.Linear(3, 2), Examples(inputs, labels), 4)
    for wrong, message in (
        (torch.zeros(60, dtype=torch.int64), "multilabel needs 0 or 1 for each class"),
        (labels * 2, "other numbers than 0 and 1"),
        (labels * 0, "no class holds"),
    ):
        with pytest.raises(DataError, match=message):
            task.check(nn.Linear(3, 4), Examples(inputs, wrong), 4)


@pytest.mark.parametrize("kind", [bool, np.int64, np.float32])
def test_labels_of_a_loader_may_be_booleans_whole_numbers_or_floats(kind: Any) -> None:
    images, labels = np.zeros((5, 1, 8, 8), np.float32), np.eye(5, 3).astype(kind)
    splits = as_splits("loader", [(images, labels)] * 3)
    assert splits.train.has_numbers and splits.classes == 3
    assert torch.equal(splits.train.labels, torch.eye(5, 3))


def test_it_learns() -> None:
    inputs = torch.randn(300, 5, generator=torch.Generator().manual_seed(3))
    examples = Examples(inputs, (inputs[:, :3] > 0).float())
    model = nn.Linear(5, 3)
    genes = TrainingGenes("multilabel", learning_rate=0.05, batch_size=32)
    curves = train(model, examples, genes, epochs=10, seed=0, task=Multilabel())
    assert curves.train_quality[-1] > 0.98
