"""Classification: cross-entropy of logits, and the share of labels that are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evocompress.data.examples import IGNORED, Examples
from evocompress.errors import DataError, ModelError
from evocompress.protocols import Genes, GeneSpec, Measured
from evocompress.search.quality import Quality
from evocompress.support.inputs import HALF_PRECISION
from evocompress.support.intervals import wilson_interval
from evocompress.support.modules import find_tensor, first_tensor
from evocompress.tasks.measure import measure
from evocompress.tasks.trial_run import run_two

__all__ = ["ACCURACY", "Classification", "Evaluation", "calibration_examples", "check_fit", "evaluate"]

ACCURACY = Quality("accuracy", unit="%", scale=100.0)
_LABEL_SMOOTHING = GeneSpec(
    "label_smoothing",
    "Share of the target that is spread evenly over all classes.",
    default=0.0,
    high=1.0,
    high_open=True,
)


class Classification:
    """Labels (n,) of logits (n, classes), or labels (n, L) of logits (n, L, classes); -100 asks for nothing.

    The quality is the accuracy in [0, 1], with its Wilson interval; the error is 1 - accuracy. The loss is the
    cross-entropy in nats, of labels smoothed as `label_smoothing` says.
    """

    quality: Quality = ACCURACY
    genes: Sequence[GeneSpec] = (_LABEL_SMOOTHING,)

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Cross-entropy over the labels that are not -100, in float32 at least; NaN for a mean over none.

        >>> Classification().loss(torch.zeros(2, 4), torch.tensor([3, -100]), {}).item()  # log 4
        1.386294...
        """
        logits = _logits(outputs, targets)
        return nn.functional.cross_entropy(
            (logits.float() if logits.dtype in HALF_PRECISION else logits).flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction=reduction,
            label_smoothing=float(genes.get("label_smoothing", 0.0)),
        )

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Labels drawn from the network's softmax."""
        logits = first_tensor(outputs).detach()
        # A draw needs some chance, even after overflow.
        chances = logits.float().softmax(-1).nan_to_num(0.0) + 1e-12
        labels = torch.multinomial(chances.flatten(0, -2).cpu(), 1, generator=generator)[:, 0]
        return labels.view(logits.shape[:-1]).to(logits.device)

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """T²·KL(teacher ‖ outputs) of the logits over T, in nats, where a label is not -100.

        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> Classification().imitation(logits, logits, torch.tensor([0]), 2.0).item()
        0.0
        """
        parts = [_logits(part, targets).float().flatten(0, -2) / temperature for part in (outputs, teacher)]
        ours, theirs = (part[targets.flatten() != IGNORED].log_softmax(-1) for part in parts)
        divergence = nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def meter(self) -> _Meter:
        """Counts right labels; a label is wrong where a logit is not finite."""
        return _Meter()

    def check(self, model: nn.Module, examples: Examples, classes: int) -> None:
        """Refuse examples without labels, and a network without logits for them.

        Raises:
            DataError: All labels are -100.
            ModelError: The network fails on the examples, or gives something else than at least `classes` logits.
        """
        if not examples.is_labelled:
            raise DataError("there are no labels (all are -100); training and accuracy need them")
        check_fit(model, examples, classes)


class _Meter:
    """Sums on the device of the outputs; int64 counts, the loss in float64."""

    def __init__(self) -> None:
        self._correct: Tensor | int = 0
        self._total: Tensor | int = 0
        self._loss: Tensor | float = 0.0

    def add(self, outputs: Any, targets: Tensor) -> None:
        logits = _logits(outputs, targets).detach()
        hits = (logits.argmax(-1) == targets) & logits.isfinite().all(-1)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, -2).float(), targets.flatten(), reduction="sum", ignore_index=IGNORED
        )
        self._correct = self._correct + hits.sum()
        self._total = self._total + (targets != IGNORED).sum()
        self._loss = self._loss + loss.double()

    def measured(self) -> Measured:
        correct, total = int(self._correct), int(self._total)
        accuracy = correct / max(total, 1)
        low, high = wilson_interval(correct, total)
        loss = float(self._loss) / max(total, 1)
        return Measured(accuracy, low, high, 1.0 - accuracy, loss, total, {"correct": correct, "total": total})


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`correct` of `total` labels and their mean cross-entropy `loss` in nats, NaN or infinite if a logit was."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """`correct` / `total`, in [0, 1]."""
        return self.correct / max(self.total, 1)


def evaluate(
    model: nn.Module, examples: Examples, device: torch.device | str = "cpu", batch_size: int = 500
) -> Evaluation:
    """Count what `model` gets right; it is moved to `device` and keeps its training mode.

    Labels (n,) belong to logits (n, classes), labels (n, L) to logits (n, L, classes), and each of the n·L counts.
    Where a logit is not finite the example counts as wrong. Raises ModelError where the logits have another shape.
    """
    measured = measure(Classification(), model, examples, device, batch_size)
    return Evaluation(int(measured.details["correct"]), measured.total, measured.loss)


def check_fit(model: nn.Module, examples: Examples, classes: int) -> None:
    """Raise ModelError where `model` cannot take these examples or does not give at least `classes` logits.

    Where every label is -100, which asks for nothing, any outputs will do.
    """
    result = run_two(model, examples)
    if examples.is_labelled:
        _check_logits(result, examples.batch(slice(0, 2))[1], classes)


def calibration_examples(model: nn.Module, examples: Examples, classes: int) -> Examples:
    """The examples; without labels where the network's outputs are no logits for them, as calibration needs none.

    Raises:
        ModelError: The network cannot take these examples, or returns no tensor.
    """
    result = run_two(model, examples)
    try:
        _check_logits(result, examples.batch(slice(0, 2))[1], classes)
    except ModelError:
        return examples.without_labels()
    return examples


def _check_logits(result: object, labels: Tensor, classes: int) -> None:
    logits = _logits(result, labels)
    if logits.shape[-1] < classes:
        raise ModelError(f"the network gives {logits.shape[-1]} logits; the data set has {classes} classes")


def _logits(result: object, labels: Tensor) -> Tensor:
    logits = find_tensor(result)
    if labels.is_floating_point():
        raise ModelError(f"the labels are numbers, {tuple(labels.shape)}; classification needs classes, as int64")
    if logits is None or logits.ndim != labels.ndim + 1 or logits.shape[:-1] != labels.shape:
        shown = f"a {type(result).__name__}" if logits is None else f"shape {tuple(logits.shape)}"
        sizes = ", ".join(["classes"] if labels.ndim == 1 else [str(labels.shape[1]), "classes"])
        raise ModelError(
            f"the network returned {shown} for {len(labels)} examples of labels {tuple(labels.shape)}; it must "
            f"return logits ({len(labels)}, {sizes}) for a loss; without labels (-100) the change of the outputs "
            "counts instead"
        )
    return logits
