"""Regression: numbers for each example; the quality is R², the share of the targets' variance that is explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import DataError, ModelError
from evocompress.protocols import Genes, GeneSpec, Measured
from evocompress.search.quality import Quality
from evocompress.support.modules import find_tensor
from evocompress.support.wording import kind_of
from evocompress.tasks.trial_run import run_two

__all__ = ["Regression"]

_PRECISION = 0.01  # of a target's standard deviation: what closer predictions are not worth anything for
_LEAST_SHARE = 1e-7  # of the mean variance of all columns: one that varies less counts as if it varied as they do
_TINY = 1e-30


class Regression:
    """Numbers (n, …) of outputs (n, …), such as (n,), (n, d) or images; each column counts by its own variance.

    The loss is that of a normal density whose variances are those of the batch's errors (the profile likelihood), in
    nats per example: ½ Σ log(1 + mse / (0.01 sd)²) over the columns. So it has no unit, heads of any size count alike,
    and λ means what it means elsewhere. Closer than a hundredth of a standard deviation nothing is gained.
    The quality is R², the mean over the columns that vary; the error is 1 - R². Its interval is 1.96 standard errors of
    the mean squared error on both sides.
    """

    quality: Quality = Quality("R²", digits=4)
    genes: Sequence[GeneSpec] = ()

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """The mean or the sum over the examples, in float32 at least.

        >>> targets = torch.tensor([[1.0], [3.0]])
        >>> round(Regression().loss(targets + 0.01, targets, {}).item(), 4)  # ½ log(1 + 1): the precision itself
        0.3466
        """
        predicted, wanted = _columns(outputs, targets)
        mean = 0.5 * torch.log1p((predicted - wanted).square().mean(0) / _scale(wanted)).sum()
        return mean if reduction == "mean" else mean * len(wanted)

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Targets with normal errors, as large as those that there are."""
        predicted, wanted = (part.detach() for part in _columns(outputs, targets))
        spread = ((predicted - wanted).square().mean(0) + _scale(wanted)).sqrt()
        noise = torch.randn(predicted.shape, generator=generator).to(predicted)
        return (predicted + spread * noise).view(targets.shape).to(targets.dtype)

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """The loss against the teacher's numbers; the temperature has no part in it."""
        return self.loss(outputs, _columns(teacher, targets)[0].view(targets.shape), {})

    def meter(self) -> _Meter:
        """Sums of each column, in float64."""
        return _Meter()

    def check(self, model: nn.Module, examples: Examples, classes: int) -> None:
        """Refuse examples of classes, and outputs of another shape than the numbers.

        Raises:
            DataError: The labels are classes, or none of the numbers varies.
            ModelError: The network fails on the examples, or gives something else.
        """
        if not examples.has_numbers:
            raise DataError("the labels are classes; regression needs numbers, float32 (n, …)")
        if len(examples) > 1 and not bool((examples.labels != examples.labels[:1]).any()):
            raise DataError("all examples have the same numbers to predict: there is nothing to learn")
        _columns(run_two(model, examples), examples.batch(slice(0, 2))[1])


class _Meter:
    def __init__(self) -> None:
        self._count = 0
        self._sums: Tensor | None = None  # of targets, their squares, errors' squares, their squares, errors' sizes
        self._origin = torch.zeros(())

    def add(self, outputs: Any, targets: Tensor) -> None:
        predicted, wanted = (part.detach().double() for part in _columns(outputs, targets))
        if self._sums is None:
            self._origin = wanted.mean(0)  # so that the variance of numbers far from zero keeps its digits
        squares, centred = (predicted - wanted).square(), wanted - self._origin
        parts = centred, centred.square(), squares, squares.square(), squares.sqrt()
        sums = torch.stack([part.sum(0) for part in parts])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += len(wanted)

    def measured(self) -> Measured:
        count = max(self._count, 1)
        sums = torch.zeros(5, 1) if self._sums is None else self._sums / count
        mean, second, mse, fourth, size = sums
        variance = (second - mean.square()).clamp(min=0.0)
        varies = variance > _TINY
        share = torch.where(varies, mse / variance, 0.0).sum() / varies.sum().clamp(min=1)
        spread = torch.where(varies, (fourth - mse.square()).clamp(min=0.0).sqrt() / variance, 0.0).sum()
        half = 1.96 * float(spread / varies.sum().clamp(min=1)) / math.sqrt(count)
        error = float(share)
        loss = float(0.5 * torch.log1p(mse / _floor(variance)).sum())
        details = {"rmse": float(mse.mean().sqrt()), "mae": float(size.mean())}
        return Measured(1 - error, 1 - error - half, min(1 - error + half, 1.0), error, loss, count, details)


def _columns(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (n, columns), the outputs in float32 at least."""
    predicted = find_tensor(outputs)
    if predicted is not None and predicted.shape == (*targets.shape, 1) and targets.ndim == 1:
        predicted = predicted[..., 0]
    if predicted is None or predicted.shape != targets.shape:
        shown = f"a {kind_of(outputs)}" if predicted is None else f"shape {tuple(predicted.shape)}"
        raise ModelError(f"the network returned {shown} for numbers {tuple(targets.shape)}; they must be the same")
    if not targets.is_floating_point():
        raise ModelError(f"the labels are classes, {tuple(targets.shape)}; regression needs numbers, float32 (n, …)")
    wanted = targets.reshape(len(targets), -1)
    wide = torch.promote_types(predicted.dtype, torch.float32)
    return predicted.reshape(len(targets), -1).to(wide), wanted.to(wide)


def _scale(wanted: Tensor) -> Tensor:
    """The squared error of each column that is not worth improving."""
    return _floor(wanted.var(0, correction=0))


def _floor(variance: Tensor) -> Tensor:
    mean = variance.mean()
    return _PRECISION**2 * torch.where(variance > _LEAST_SHARE * mean, variance, mean) + _TINY
