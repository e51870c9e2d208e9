"""Multi-label classification: any number of classes may hold at once; the quality is the mean average precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import DataError, ModelError
from evocompress.protocols import Genes, GeneSpec, Measured
from evocompress.search.quality import Quality
from evocompress.support.modules import find_tensor
from evocompress.support.wording import kind_of
from evocompress.tasks.trial_run import run_two

__all__ = ["Multilabel", "average_precision"]

_RESAMPLES, _AT_MOST = 50, 5000  # resamples for the interval, each of so many examples


class Multilabel:
    """Labels (n, classes), 1 where a class holds and 0 where not, as float32, of logits (n, classes).

    The loss is the binary cross-entropy, in nats per example: the sum over the classes. The quality is the mean over
    the classes that hold anywhere of the average precision, with a bootstrap interval (Efron, 1979); the error is one
    less it.
    """

    quality: Quality = Quality("mAP", unit="%", scale=100.0)
    genes: Sequence[GeneSpec] = ()

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """The mean or the sum over the examples, in float32 at least.

        >>> Multilabel().loss(torch.zeros(2, 3), torch.ones(2, 3), {}).item()  # 3 log 2
        2.0794...
        """
        logits = _logits(outputs, targets)
        total = nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
        return total / len(targets) if reduction == "mean" else total

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Each label with its own probability."""
        chances = _logits(outputs, targets).detach().sigmoid().nan_to_num(0.5)
        uniform = torch.rand(chances.shape, generator=generator).to(chances)
        return (uniform < chances).to(targets.dtype)

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """T²·KL(teacher ‖ outputs) of each label's chance, summed over the labels, in nats per example."""
        ours, theirs = (_logits(part, targets) / temperature for part in (outputs, teacher))
        chances = theirs.sigmoid()
        cross = nn.functional.binary_cross_entropy_with_logits(ours, chances, reduction="sum")
        entropy = nn.functional.binary_cross_entropy_with_logits(theirs, chances, reduction="sum")
        return temperature**2 * (cross - entropy) / len(targets)

    def meter(self) -> _Meter:
        """Keeps all logits: precision is about their order."""
        return _Meter()

    def check(self, model: nn.Module, examples: Examples, classes: int) -> None:
        """Refuse labels other than 0 and 1, and outputs of another shape.

        Raises:
            DataError: The labels are classes, hold other numbers, or none of them holds anywhere.
            ModelError: The network fails on the examples, or gives something else.
        """
        labels = examples.labels
        if not examples.has_numbers or labels.ndim != 2:
            raise DataError(
                f"the labels are {labels.dtype} {tuple(labels.shape)}; multilabel needs 0 or 1 for each class, float32 "
                "(n, classes)"
            )
        if not bool(((labels == 0) | (labels == 1)).all()):
            raise DataError("labels hold other numbers than 0 and 1; multilabel needs 1 where a class holds, else 0")
        if not bool(labels.any()):
            raise DataError("no class holds in any example: there is nothing to learn")
        _logits(run_two(model, examples), examples.batch(slice(0, 2))[1])


class _Meter:
    def __init__(self) -> None:
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Any, targets: Tensor) -> None:
        self._logits.append(_logits(outputs, targets).detach())
        self._targets.append(targets)

    def measured(self) -> Measured:
        if not self._logits:
            return Measured(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        loss = float(Multilabel().loss(logits, targets, {}))
        scores = logits.double().nan_to_num(nan=-math.inf).cpu().numpy()
        holds = (targets != 0).cpu().numpy()
        value = _mean_precision(scores, holds)
        random = np.random.default_rng(0)
        size = min(len(holds), _AT_MOST)
        drawn = (random.integers(len(holds), size=size) for _ in range(_RESAMPLES))
        spread = float(np.std([_mean_precision(scores[index], holds[index]) for index in drawn]))
        half = 1.96 * spread * math.sqrt(size / len(holds))
        return Measured(value, max(value - half, 0.0), min(value + half, 1.0), 1 - value, loss, len(holds))


def average_precision(scores: npt.NDArray[np.float64], holds: npt.NDArray[np.bool_]) -> float:
    """The mean of the precisions at each example that a class holds in, by falling scores (n,); NaN where none is.

    Of equal scores all count together, so that the order of the examples does not matter.

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
    0.8333333333333333
    """
    if not holds.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(holds[order]), scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each group of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _mean_precision(scores: npt.NDArray[np.float64], holds: npt.NDArray[np.bool_]) -> float:
    each = [average_precision(scores[:, c], holds[:, c]) for c in range(holds.shape[1]) if holds[:, c].any()]
    return float(np.mean(each)) if each else 0.0


def _logits(outputs: Any, targets: Tensor) -> Tensor:
    logits = find_tensor(outputs)
    if logits is None or logits.shape != targets.shape:
        shown = f"a {kind_of(outputs)}" if logits is None else f"shape {tuple(logits.shape)}"
        raise ModelError(f"the network returned {shown} for labels {tuple(targets.shape)}; it must return their logits")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
