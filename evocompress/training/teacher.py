"""Teacher in training: what another, trained network says of each example, and how far from it a network is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.data.torch_datasets import DatasetInputs
from evocompress.errors import ModelError
from evocompress.protocols import Task, TaskWithImitation, TrainingStep
from evocompress.support.inputs import call
from evocompress.support.modules import evaluation_mode, find_tensor
from evocompress.training.precision import Precision, mixed_precision

__all__ = ["Teacher"]

_BATCH = 500
_MOST_NUMBERS = 1 << 26  # of its outputs that are kept: 256 MB


class Teacher:
    """A trained network whose outputs another one learns from; it is not trained, and always in evaluation mode.

    Where training examples are in memory and without augmentation, its outputs on them are computed once; otherwise it
    runs on every batch, on the inputs that the other network sees.

    Args:
        model: The network; moved to the device of the examples.
        examples: What is trained on, on its device.
        task: Says what imitating means.
        precision: "bfloat16" runs it in torch's mixed precision where it runs on every batch; what is computed once is
            in float32.
    """

    def __init__(self, model: nn.Module, examples: Examples, task: Task, precision: Precision = "float32") -> None:
        self._model, self._task = model.to(examples.device).eval(), task
        self._device = examples.device
        self._precision: Precision = precision
        self._generator = torch.Generator().manual_seed(0)
        is_fixed = examples.augmentation == "none" and not isinstance(examples.inputs, DatasetInputs)
        self._known = self._outputs_on(examples) if is_fixed else None

    def imitation(self, step: TrainingStep, temperature: float) -> Tensor:
        """The mean loss of a step's outputs against the teacher's, a differentiable scalar."""
        if self._known is not None and step.index is not None:
            said: Any = self._known.index_select(0, step.index)
        else:
            with torch.no_grad(), mixed_precision(self._device, self._precision):
                said = call(self._model, step.inputs)
        assert step.targets is not None
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in map(find_tensor, (said, step.outputs))]
        if shapes[0] != shapes[1]:
            raise ModelError(f"the teacher returned shape {shapes[0]}, the network {shapes[1]}; they must be the same")
        if isinstance(self._task, TaskWithImitation):
            return self._task.imitation(step.outputs, said, step.targets, temperature)
        drawn = self._task.draw(said, step.targets, self._generator)
        return self._task.loss(step.outputs, drawn, {})

    def _outputs_on(self, examples: Examples) -> Tensor | None:
        """The outputs on all examples; None where they are no single tensor (n, …), or too many numbers to keep."""
        parts: list[Tensor] = []
        with evaluation_mode(self._model), torch.no_grad():
            for start in range(0, len(examples), _BATCH):
                outputs = call(self._model, examples.batch(slice(start, start + _BATCH))[0])
                if not isinstance(outputs, Tensor) or len(examples) * outputs[0].numel() > _MOST_NUMBERS:
                    return None
                parts.append(outputs)
        return torch.cat(parts)
