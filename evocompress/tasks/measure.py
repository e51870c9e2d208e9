"""Quality of a network on examples, as its task measures it; metrics are in the tasks' files (`details`)."""

from __future__ import annotations

import math

import torch
from torch import nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.protocols import Measured, Task
from evocompress.support.devices import device_of
from evocompress.support.inputs import call
from evocompress.support.modules import evaluation_mode
from evocompress.support.wording import kind_of

__all__ = ["measure"]


def measure(
    task: Task, model: nn.Module, examples: Examples, device: torch.device | str = "cpu", batch_size: int = 500
) -> Measured:
    """Run `model` over the examples in evaluation mode; it is moved to `device` and keeps its training mode.

    Args:
        task: Says what is measured.
        model: The network.
        examples: What it is measured on.
        device: Where.
        batch_size: How many labels a batch has; of sequences (n, L) a batch has fewer examples, at least one.

    Raises:
        ConfigError: There is no such device.
        ModelError: The network's outputs do not fit the task, or the task gives an error that cannot be minimised.
    """
    device = device_of(device)
    model.to(device)
    examples = examples.to(device)
    batch_size = max(batch_size // (examples.labels[0].numel() or 1), 1)
    meter = task.meter()
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            inputs, targets = examples.batch(slice(start, start + batch_size))
            meter.add(call(model, inputs), targets)
        measured: object = meter.measured()  # of somebody else's task, perhaps
    if not isinstance(measured, Measured):
        name = type(task).__name__
        raise ModelError(f"the meter of the task {name} measured {kind_of(measured)}; it must give a Measured")
    if math.isfinite(measured.value) and not (math.isfinite(measured.error) and measured.error >= 0):
        name = type(task).__name__
        raise ModelError(
            f"{name} measured {measured.value} with error {measured.error}, which must be finite and at least 0"
        )
    return measured
