"""Stacks of 3×3 convolutions and poolings with one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.networks.memory_format import channels_last
from evocompress.networks.resnet_cifar import CountlessBatchNorm2d

__all__ = ["POOL", "ConvStack"]

POOL = 0
"""Stands in a plan for a 2×2 max-pooling."""
_SIDE = 32


class ConvStack(nn.Module):
    """Convolution, batch normalisation and ReLU for each number of filters in a plan, pooling for each `POOL`.

    Takes images (n, in_channels, h, w) of at most 32×32 pixels, smaller ones with zeros around them, and gives logits
    (n, classes). Convolutions have no bias: the normalisation behind them has one.

    Raises:
        ModelError: Larger images.
    """

    def __init__(self, plan: Sequence[int], *, classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = in_channels
        for filters in plan:
            if filters == POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(inputs, filters, 3, padding=1, bias=False))
            layers += [CountlessBatchNorm2d(filters), nn.ReLU(inplace=True)]
            inputs = filters
        self.features = nn.Sequential(*layers)
        side = _SIDE >> list(plan).count(POOL)
        self.linear = nn.Linear(inputs * side * side, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        height, width = images.shape[-2:]
        if max(height, width) > _SIDE:
            raise ModelError(
                f"images are {height}×{width}; this network takes up to {_SIDE}×{_SIDE} pixels: scale them"
            )
        top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
        around = left, _SIDE - width - left, top, _SIDE - height - top
        x: Tensor = self.features(nn.functional.pad(channels_last(images), around))
        logits: Tensor = self.linear(x.flatten(1))
        return logits
