"""A small convolutional network for images of any size, whose convolutions step by two instead of being pooled."""

from __future__ import annotations

from torch import Tensor, nn

from evocompress.networks.memory_format import channels_last

__all__ = ["StridedCNN"]


class StridedCNN(nn.Module):
    """Three convolutions of stride 2 (5×5, 3×3, 3×3) and a linear layer; (n, in_channels, size, size) to logits.

    `width`, 2·`width` and 2·`width` filters; 16 makes 19 434 parameters on grey images of 28×28 pixels. There is no
    normalisation, so a file holds weights and biases only, and no pooling, so that an image costs few operations.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1, image_size: int = 28, width: int = 16) -> None:
        super().__init__()
        side = image_size
        for _ in range(3):
            side = (side + 1) // 2
        self.conv1 = nn.Conv2d(in_channels, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.linear = nn.Linear(2 * width * side * side, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = self.conv1(channels_last(images)).relu()
        x = self.conv2(x).relu()
        x = self.conv3(x).relu()
        logits: Tensor = self.linear(x.flatten(1))
        return logits
