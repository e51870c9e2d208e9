"""A small convolutional network for square images of at least 8×8 pixels."""

from __future__ import annotations

from torch import Tensor, nn

from evocompress.networks.memory_format import channels_last

__all__ = ["SmallCNN"]


class SmallCNN(nn.Module):
    """Three 3×3 convolutions, each pooled by 2, and a linear layer; (n, in_channels, size, size) to logits.

    `width`, 2·`width` and 2·`width` filters; 16 makes 16 938 parameters on grey images of 28×28 pixels. There is no
    normalisation, so a file holds weights and biases only.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1, image_size: int = 28, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.linear = nn.Linear(2 * width * (image_size // 8) ** 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = channels_last(images)
        for layer in (self.conv1, self.conv2, self.conv3):
            x = nn.functional.max_pool2d(layer(x), 2).relu()
        logits: Tensor = self.linear(x.flatten(1))
        return logits
