"""Mean squared change of a network's outputs: a loss that needs no labels and has little noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.support.modules import evaluation_mode, first_tensor

__all__ = ["OutputChange"]

_BATCH = 128


class OutputChange:
    """Mean squared change of a network's outputs on some examples.

    What counts as outputs is what `first_tensor` finds, (n, …, d). A constant added to all d numbers of the last axis
    does not count: it changes no prediction of a classifier. The original's outputs are computed once and held.

    Args:
        original: What others are compared with; moved to `device`, otherwise left as it was.
        examples: Inputs; labels are not looked at.
        device: Where to compute.
    """

    def __init__(self, original: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> None:
        self._device, self._examples = device, examples.to(device)
        self._outputs = self._run(original)

    def __call__(self, model: nn.Module) -> float:
        """The change, in squared units of the outputs; infinite where one is not finite.

        Raises:
            ModelError: The model's outputs are of another shape, or there is no tensor in them.
        """
        total, count = 0.0, 0
        for after, before in zip(self._run(model), self._outputs, strict=True):
            if before.shape != after.shape:
                shapes = f"{tuple(after.shape)}, the original network's {tuple(before.shape)}"
                raise ModelError(f"the network's outputs are {shapes}; they must be the same to be compared")
            total += float((after - before).double().square().sum())
            count += before.numel()
        change = total / max(count, 1)
        return change if math.isfinite(change) else math.inf

    def _run(self, model: nn.Module) -> list[Tensor]:
        model.to(self._device)
        with evaluation_mode(model), torch.inference_mode():
            return [
                _centred(first_tensor(model(self._examples.batch(slice(at, at + _BATCH))[0])))
                for at in range(0, len(self._examples), _BATCH)
            ]


def _centred(outputs: Tensor) -> Tensor:
    outputs = outputs.float()
    return outputs - outputs.mean(dim=-1, keepdim=True) if outputs.ndim > 1 and outputs.shape[-1] > 1 else outputs
