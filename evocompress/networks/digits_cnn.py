"""A small convolutional network for 8×8 grey images."""

from __future__ import annotations

from torch import Tensor, nn

from evocompress.networks.memory_format import channels_last

__all__ = ["DigitsCNN"]


class DigitsCNN(nn.Module):
    """Two 3×3 convolutions, one pooling, two linear layers; (n, in_channels, 8, 8) to (n, classes) logits.

    `width` is the first layer's number of filters; 16 makes 38 282 parameters, more than the task needs, which is what
    a compressor wants to show. There is no batch normalisation, so a file holds weights and biases only.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.fc1 = nn.Linear(2 * width * 4 * 4, 4 * width)
        self.fc2 = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, in_channels, 8, 8)."""
        x = self.conv1(channels_last(images)).relu()
        x = nn.functional.max_pool2d(self.conv2(x), 2).relu()
        logits: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return logits
