"""Gates of saccade layers for calibration: what they decide counts as an output of the network."""

from __future__ import annotations

from evocompress.calibration.layer_views.base import LayerViewBase
from evocompress.ideas.saccades.gate import BlockGate

__all__ = ["GateView"]


class GateView(LayerViewBase):
    """The logits (n, decisions, rows, columns) of a gate: the network's work, which its other outputs hardly show."""

    kinds = (BlockGate,)
    is_output = True
