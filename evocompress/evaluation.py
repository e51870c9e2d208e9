"""How well a network does on examples."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError

__all__ = ["Evaluation", "check_fit", "evaluate", "evaluation_mode"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`correct` of `total` examples and their mean cross-entropy `loss` in nats, NaN or infinite if a logit was."""

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """`correct` / `total`, in [0, 1]."""
        return self.correct / self.total


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into evaluation mode, and afterwards each back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def evaluate(
    model: nn.Module, examples: Examples, device: torch.device | str = "cpu", batch_size: int = 500
) -> Evaluation:
    """Count what `model` gets right; it is moved to `device` and keeps its training mode.

    An example whose logits are not all finite counts as wrong. Raises ModelError where the logits are not (n, classes).
    """
    model.to(device)
    examples = examples.to(device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            images, labels = examples.batch(slice(start, start + batch_size))
            logits: Tensor = model(images)
            _check_logits(logits, len(labels))
            hits = (logits.argmax(1) == labels) & logits.isfinite().all(1)
            correct += hits.sum()
            loss += nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
    return Evaluation(int(correct), len(examples), float(loss) / len(examples))


def check_fit(model: nn.Module, examples: Examples, classes: int) -> None:
    """Raise ModelError where `model` cannot take these examples or does not give at least `classes` logits."""
    images, labels = examples.batch(slice(0, 2))
    device = next((parameter.device for parameter in model.parameters()), images.device)
    with evaluation_mode(model), torch.inference_mode():
        try:
            logits = model(images.to(device))
        except Exception as failure:
            shape = tuple(images.shape)
            raise ModelError(f"the network fails on images of shape {shape}: {failure}") from failure
        _check_logits(logits, len(labels))
    if logits.shape[1] < classes:
        raise ModelError(f"the network gives {logits.shape[1]} logits; the data set has {classes} classes")


def _check_logits(logits: object, count: int) -> None:
    got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        raise ModelError(f"the network returned {got} for {count} images; it must return logits ({count}, classes)")
