"""Gates whose decisions are known, for tests of saccades."""

from __future__ import annotations

import torch

from evocompress.ideas.saccades.saccade import KERNELS, SaccadeConv2d


def undecided(layer: SaccadeConv2d) -> SaccadeConv2d:
    """A gate whose decisions differ from block to block."""
    with torch.no_grad():
        layer.gate.decide.weight.mul_(30)
        if layer.gate.decide.bias is not None:
            layer.gate.decide.bias.zero_()
    return layer


def decided(layer: SaccadeConv2d, decision: int) -> SaccadeConv2d:
    """A gate that decides the same everywhere."""
    with torch.no_grad():
        layer.gate.decide.weight.zero_()
        if layer.gate.decide.bias is not None:
            layer.gate.decide.bias.copy_(60 * torch.eye(len(KERNELS))[decision])
    return layer
