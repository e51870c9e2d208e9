"""How far a changed network's outputs are from the original's: a loss that needs no labels and has little noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.evaluation import evaluation_mode, first_tensor

__all__ = ["OutputChange"]

_BATCH = 128


class OutputChange:
    """Mean squared change of a network's outputs on some examples.

    A constant added to all numbers of the last axis does not count: it changes no prediction of a classifier. The
    original's outputs are computed once and held in memory.

    Args:
        original: What others are compared with; moved to `device`, otherwise left as it was.
        examples: Inputs; labels are not looked at.
        device: Where to compute.
    """

    def __init__(self, original: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> None:
        self._device, self._examples = device, examples.to(device)
        self._outputs = self._run(original)

    def __call__(self, model: nn.Module) -> float:
        """The change of a model that gives outputs of the same shape; infinite where one is not finite."""
        total, count = 0.0, 0
        for own, outputs in zip(self._run(model), self._outputs, strict=True):
            total += float((own - outputs).double().square().sum())
            count += own.numel()
        return total / count if total < float("inf") else float("inf")

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
