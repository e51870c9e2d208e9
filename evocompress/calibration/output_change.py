"""Change of a network's outputs, relative to their variance: a loss without labels, and of little noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.support.inputs import call
from evocompress.support.modules import evaluation_mode, first_tensor

__all__ = ["OutputChange", "are_logits", "scales_of_numbers"]

_BATCH = 128
_TINY = 1e-30


class OutputChange:
    """Squared change of a network's outputs on some examples, as a share of the outputs' own variance over these.

    What counts as outputs is what `first_tensor` finds, (n, …, d). All of it counts, but for one thing: where the
    examples have classes as labels, so that the outputs are logits, a constant added to all numbers of the last axis
    changes no prediction. Of a network that predicts the examples' numbers each counts by its own variance. The
    original's outputs are computed once and held.

    Args:
        original: What others are compared with; moved to `device`, otherwise left as it was.
        examples: Inputs; of the labels only the kind is looked at.
        device: Where to compute.
    """

    def __init__(self, original: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> None:
        self._device, self._examples = device, examples.to(device)
        self._logits, self._scales = are_logits(examples), scales_of_numbers(examples)
        self._outputs = self._run(original)
        self._variance = _variance(self._outputs)

    def __call__(self, model: nn.Module) -> float:
        """The change: 0 for none, 1 for one as large as the outputs' variance; infinite where one is not finite.

        Raises:
            ModelError: The model's outputs are of another shape, or there is no tensor in them.
        """
        total = 0.0
        for after, before in zip(self._run(model), self._outputs, strict=True):
            if before.shape != after.shape:
                shapes = f"{tuple(after.shape)}, the original network's {tuple(before.shape)}"
                raise ModelError(f"the network's outputs are {shapes}; they must be the same to be compared")
            total += float((after - before).double().square().sum())
        change = total / self._variance
        return change if math.isfinite(change) else math.inf

    def _run(self, model: nn.Module) -> list[Tensor]:
        model.to(self._device)
        with evaluation_mode(model), torch.inference_mode():
            return [
                self._counted(first_tensor(call(model, self._examples.batch(slice(at, at + _BATCH))[0])))
                for at in range(0, len(self._examples), _BATCH)
            ]

    def _counted(self, outputs: Tensor) -> Tensor:
        outputs = outputs.float()
        if self._logits and outputs.ndim > 1 and outputs.shape[-1] > 1:
            return outputs - outputs.mean(dim=-1, keepdim=True)
        if self._scales is not None and outputs[0].numel() == self._scales.numel():
            return outputs / self._scales.to(outputs).view(outputs.shape[1:])
        return outputs


def are_logits(examples: Examples) -> bool:
    """Whether a network for these examples returns logits: their labels are classes."""
    return not examples.has_numbers and examples.is_labelled


def scales_of_numbers(examples: Examples) -> Tensor | None:
    """The standard deviation of each number to predict, flat; the mean one where it hardly varies; None for classes."""
    if not examples.has_numbers:
        return None
    spread = examples.labels.reshape(len(examples), -1).double().std(0, correction=0)
    mean = float(spread.mean()) or 1.0
    return torch.where(spread > 1e-6 * mean, spread, mean)


def _variance(outputs: list[Tensor]) -> float:
    """Sum of the squares of the outputs about their mean over the examples; of what never varies, of the squares."""
    count = sum(map(len, outputs))
    squares = sum(float(part.double().square().sum()) for part in outputs)
    about = 0.0
    if len({part.shape[1:] for part in outputs}) == 1:
        about = float(torch.stack([part.double().sum(0) for part in outputs]).sum(0).square().sum()) / max(count, 1)
    varying = squares - about
    return varying if varying > 1e-9 * squares else max(squares, _TINY)
