"""Normalisations: a scale and a bias for each channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from evocompress.calibration.layer_views.base import LayerViewBase, by_channel

__all__ = ["NormalisationView"]


class NormalisationView(LayerViewBase):
    """Scale and bias are fitted to the outputs together."""

    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
    scales = True

    def channels(self, module: Any, outputs: Tensor) -> Tensor | None:
        """By the channels, which are last in a layer norm."""
        last = isinstance(module, nn.LayerNorm)
        return None if module.bias is None else by_channel(outputs, len(module.bias), last=last)
