"""The CIFAR ResNets of He et al. (2016), section 4.2, with parameter-free (option A) shortcuts."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.networks.memory_format import channels_last

__all__ = ["ResNetCIFAR", "resnet20", "resnet32", "resnet44", "resnet56"]


class CountlessBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation without the counter `num_batches_tracked`.

    torch reads the counter only where momentum is None. Without it the state dict holds what the network computes with
    and nothing else. A counter in a loaded state dict is dropped.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        # Past the parent's own method, which would put the counter back and then find it unexpected.
        nn.Module._load_from_state_dict(
            self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: the identity, or every second pixel with zeros for the new channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = CountlessBatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = CountlessBatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def shortcut(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h/stride, w/stride), half of the new channels on either side."""
        if self.stride == 1 and self.padding == 0:
            return x
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, self.padding, self.padding))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h/stride, w/stride)."""
        y: Tensor = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        return y.relu()


class ResNetCIFAR(nn.Module):
    """ResNet of `depth` = 6k + 2 layers for 32×32 images, three groups of k blocks, `width`, 2·width, 4·width filters.

    Tensor names are those of Idelbayev's `pytorch_resnet_cifar10`, so its weights load strictly. Raises ModelError for
    another depth or an odd width.
    """

    def __init__(self, *, depth: int, classes: int = 10, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ModelError(f"depth {depth}: must be 6k + 2 for a k of at least 1, such as 20, 32, 44, 56")
        if width < 2 or width % 2:
            raise ModelError(f"width {width}: must be even, the shortcut pads channels on both sides")
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = CountlessBatchNorm2d(width)
        self.layer1 = _group(width, width, 1, depth // 6)
        self.layer2 = _group(width, 2 * width, 2, depth // 6)
        self.layer3 = _group(2 * width, 4 * width, 2, depth // 6)
        self.linear = nn.Linear(4 * width, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, in_channels, h, w)."""
        x = self.bn1(self.conv1(channels_last(images))).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _group(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    later = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *later)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)


resnet20 = functools.partial(ResNetCIFAR, depth=20)
resnet32 = functools.partial(ResNetCIFAR, depth=32)
resnet44 = functools.partial(ResNetCIFAR, depth=44)
resnet56 = functools.partial(ResNetCIFAR, depth=56)
