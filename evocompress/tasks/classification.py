"""How well a network does on examples."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from evocompress.data.examples import IGNORED, Examples
from evocompress.errors import ModelError
from evocompress.support.diagnosis import failure
from evocompress.support.modules import evaluation_mode, find_tensor, first_tensor

__all__ = ["Evaluation", "calibration_examples", "check_fit", "evaluate"]


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
    model.to(device)
    examples = examples.to(device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    batch_size = max(batch_size // (examples.labels[0].numel() or 1), 1)
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            inputs, labels = examples.batch(slice(start, start + batch_size))
            logits = _logits(model(inputs), labels)
            hits = (logits.argmax(-1) == labels) & logits.isfinite().all(-1)
            correct += hits.sum()
            loss += nn.functional.cross_entropy(
                logits.flatten(0, -2).float(), labels.flatten(), reduction="sum", ignore_index=IGNORED
            )
    total = int((examples.labels != IGNORED).sum())
    return Evaluation(int(correct), total, float(loss) / max(total, 1))


def check_fit(model: nn.Module, examples: Examples, classes: int) -> None:
    """Raise ModelError where `model` cannot take these examples or does not give at least `classes` logits.

    Where every label is -100, which asks for nothing, any outputs will do.
    """
    result = _run_two(model, examples)
    if examples.is_labelled:
        _check_logits(result, examples.labels[:2], classes)


def calibration_examples(model: nn.Module, examples: Examples, classes: int) -> Examples:
    """The examples; without labels where the network's outputs are no logits for them, as calibration needs none.

    Raises:
        ModelError: The network cannot take these examples, or returns no tensor.
    """
    result = _run_two(model, examples)
    try:
        _check_logits(result, examples.labels[:2], classes)
    except ModelError:
        return examples.without_labels()
    return examples


def _run_two(model: nn.Module, examples: Examples) -> object:
    """What the network returns for the first two examples; raises ModelError where it fails, or there is no tensor."""
    inputs = examples.batch(slice(0, 2))[0]
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        try:
            result = model(inputs.to(device))
        except Exception as cause:
            what = "images" if inputs.ndim == 4 else "inputs"
            shape = f"{tuple(inputs.shape)}, {inputs.dtype}" if examples.is_discrete else tuple(inputs.shape)
            raise failure(model, inputs, f"{what} of shape {shape}", cause) from cause
    first_tensor(result)
    return result


def _check_logits(result: object, labels: Tensor, classes: int) -> None:
    logits = _logits(result, labels)
    if logits.shape[-1] < classes:
        raise ModelError(f"the network gives {logits.shape[-1]} logits; the data set has {classes} classes")


def _logits(result: object, labels: Tensor) -> Tensor:
    logits = find_tensor(result)
    if logits is None or logits.ndim != labels.ndim + 1 or logits.shape[:-1] != labels.shape:
        got = f"a {type(result).__name__}" if logits is None else f"shape {tuple(logits.shape)}"
        must = ", ".join(["classes"] if labels.ndim == 1 else [str(labels.shape[1]), "classes"])
        raise ModelError(
            f"the network returned {got} for {len(labels)} examples of labels {tuple(labels.shape)}; it must return "
            f"logits ({len(labels)}, {must}) for a loss; without labels (-100) the change of the outputs counts instead"
        )
    return logits
