"""Two examples through a network, as tasks try it before any work."""

from __future__ import annotations

import torch
from torch import nn

from evocompress.data.examples import Examples
from evocompress.support.diagnosis import failure
from evocompress.support.modules import evaluation_mode, first_tensor

__all__ = ["run_two"]


def run_two(model: nn.Module, examples: Examples) -> object:
    """What the network returns for the first two examples, where its parameters are.

    Raises:
        ModelError: It fails, or there is no tensor in what it returns.
    """
    inputs = examples.batch(slice(0, 2))[0]
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    with evaluation_mode(model), torch.inference_mode():
        try:
            result = model(inputs.to(device))
        except Exception as cause:
            noun = "images" if inputs.ndim == 4 else "inputs"
            shape = f"{tuple(inputs.shape)}, {inputs.dtype}" if examples.is_discrete else tuple(inputs.shape)
            raise failure(model, inputs, f"{noun} of shape {shape}", cause) from cause
    first_tensor(result)
    return result
