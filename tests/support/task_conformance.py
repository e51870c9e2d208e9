"""Conformance of a task: what every one must keep, checked on outputs and targets of its kind."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from evocompress.protocols import Task

__all__ = ["assert_conforms"]


def assert_conforms(task: Task, outputs: Tensor, targets: Tensor) -> None:
    """`outputs` (n, …) and `targets` (n, …) of the task, with n at least 4."""
    _loss_has_both_reductions(task, outputs, targets)
    _meter_does_not_mind_batches(task, outputs, targets)
    drawn = [task.draw(outputs, targets, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == targets.shape and drawn[0].dtype == targets.dtype
    assert math.isfinite(float(task.loss(outputs, drawn[0], {})))


def _loss_has_both_reductions(task: Task, outputs: Tensor, targets: Tensor) -> None:
    genes: dict[str, Any] = {gene.name: gene.default for gene in task.genes if isinstance(gene.default, float)}
    leaf = outputs.clone().requires_grad_()
    mean, total = (task.loss(leaf, targets, genes, reduction=how) for how in ("mean", "sum"))
    assert mean.ndim == total.ndim == 0 and total.item() > mean.item() > 0
    assert torch.equal(mean, task.loss(leaf, targets, {}))
    gradients = [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (mean, total)]
    assert torch.allclose(gradients[0] * (total / mean).item(), gradients[1], rtol=1e-4)


def _meter_does_not_mind_batches(task: Task, outputs: Tensor, targets: Tensor) -> None:
    whole, parts = task.meter(), task.meter()
    whole.add(outputs.clone().requires_grad_(), targets)  # as in training, where the outputs have a history
    for part in torch.arange(len(targets)).tensor_split(3):
        parts.add(outputs[part], targets[part])
    found, other = whole.measured(), parts.measured()
    assert found.total == other.total > 0 and math.isclose(found.value, other.value)
    assert found.low <= found.value <= found.high and found.error >= 0
    assert math.isclose(found.loss, float(task.loss(outputs, targets, {})), rel_tol=1e-5)
    # More error is never better.
    worse = task.meter()
    worse.add(outputs, targets.roll(1, 0))
    merits = [task.quality.merit(each.value) for each in (found, worse.measured())]
    assert (merits[0] >= merits[1]) == (found.error <= worse.measured().error)
