"""Two examples through a network, as tasks try it before any work."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.support.diagnosis import failure
from evocompress.support.inputs import call, described, mapped
from evocompress.support.modules import counted_output, evaluation_mode, first_tensor

__all__ = ["note_on_outputs", "run_two"]


def run_two(model: nn.Module, examples: Examples) -> object:
    """What the network returns for the first two examples, where its parameters are.

    Raises:
        ModelError: It fails, or there is no tensor in what it returns.
    """
    inputs = examples.batch(slice(0, 2))[0]
    device = next((parameter.device for parameter in model.parameters()), examples.device)
    with evaluation_mode(model), torch.inference_mode():
        inputs = mapped(inputs, lambda tensor: tensor.to(device))
        try:
            result = call(model, inputs)
        except Exception as cause:
            noun = "images" if isinstance(inputs, Tensor) and inputs.ndim == 4 else "inputs"
            raise failure(model, inputs, f"{noun} of {described(inputs)}", cause) from cause
    first_tensor(result)
    return result


def note_on_outputs(model: nn.Module, examples: Examples) -> str | None:
    """Which of several outputs counts, as a line for people; None where there is one, or the network fails."""
    try:
        return counted_output(run_two(model, examples))
    except ModelError:
        return None
