"""LeNet-5 as Caffe shipped it, the 20-50-500-10 network that the compression literature reports on."""

from __future__ import annotations

from torch import Tensor, nn

from evocompress.networks.memory_format import channels_last

__all__ = ["LeNet5Caffe"]


class LeNet5Caffe(nn.Module):
    """Convolutions of 20 and 50 filters 5×5, each pooled by 2, then 500 and `classes` units; 431 080 parameters.

    Takes (n, in_channels, image_size, image_size). As in Caffe's `lenet.prototxt` there is no non-linearity after the
    convolutions but the pooling, and one ReLU between the linear layers (LeCun et al., 1998; Jia et al., 2014).
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * side * side, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = nn.functional.max_pool2d(self.conv1(channels_last(images)), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return logits
