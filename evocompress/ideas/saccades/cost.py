"""Multiply-adds of saccade layers: expected while they are trained, and counted when they are used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evocompress.errors import ModelError
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.support.modules import evaluation_mode

__all__ = ["multiply_adds", "saccade_cost"]


def saccade_cost(model: nn.Module) -> Tensor:
    """Expected multiply-adds of all saccade layers for the last images, as a share of dense 3×3 layers'; a scalar.

    Add it to the loss, times a weight, and gates are rewarded for zeroes. 0 would be no work at all; 1 is that of plain
    3×3 convolutions in their places; 5×5 everywhere is 25/9, and the gates' own work comes on top. Layers count by
    their work, so that a block is dearer where there are more channels. A network without such layers gives 0.

    Raises:
        ModelError: A saccade layer has not seen images.

    >>> layer = SaccadeConv2d(8, 8, block=4)
    >>> _ = layer(torch.ones(2, 8, 8, 8))
    >>> bool(0 < saccade_cost(layer) < 3)
    True
    """
    layers = [module for module in model.modules() if isinstance(module, SaccadeConv2d)]
    if not layers:
        device = next((parameter.device for parameter in model.parameters()), None)
        return torch.zeros((), device=device)
    expected = torch.stack([layer.expected_multiply_adds() for layer in layers]).sum()
    return expected / sum(layer.dense_multiply_adds() for layer in layers)


def multiply_adds(model: nn.Module, images: Tensor) -> float:
    """Multiply-adds that `model` really does in evaluation mode, for one of the images (n, …) on average.

    Counted from the shapes of the convolutions and matrix products that are run: what a saccade layer does not gather
    is not there to be counted. Everything else (normalisation, pooling, gathering, activations) counts nothing.

    Raises:
        ModelError: There are no images.

    >>> multiply_adds(nn.Conv2d(1, 2, 3), torch.zeros(5, 1, 4, 4))
    72.0
    """
    if not len(images):
        raise ModelError("there are no images to count multiply-adds for; give at least one")
    # Not in inference mode, in which composite operators reach the counter whole and may count nothing.
    with evaluation_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return float(counter.get_total_flops()) / 2 / len(images)
