"""Layers that have fewer parameters or do less work than torch's, and what turns trained networks into such ones.

Importing this brings torch.
"""

from __future__ import annotations

from evocompress.layers.conversion import LayerConversion, compare, convert, fold
from evocompress.layers.correlation import correlation_loss
from evocompress.layers.linear_conv import LinearConv2d
from evocompress.layers.overprovisioned import OverProvisionedConv2d, OverProvisionedLinear, thin
from evocompress.layers.saccade import SaccadeConv2d
from evocompress.layers.saccade_consistency import corrupt, gate_agreement, gate_consistency
from evocompress.layers.saccade_cost import multiply_adds, saccade_cost
from evocompress.layers.saccade_maps import deletion_test, saccade_maps
from evocompress.layers.saccade_sequence import SaccadeSequence

__all__ = [
    "LayerConversion",
    "LinearConv2d",
    "OverProvisionedConv2d",
    "OverProvisionedLinear",
    "SaccadeConv2d",
    "SaccadeSequence",
    "compare",
    "convert",
    "correlation_loss",
    "corrupt",
    "deletion_test",
    "fold",
    "gate_agreement",
    "gate_consistency",
    "multiply_adds",
    "saccade_cost",
    "saccade_maps",
    "thin",
]
