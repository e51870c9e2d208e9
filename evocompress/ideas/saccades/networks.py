"""A small convolutional network that looks closely only where its gates tell it to."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.consistency import corrupt, gate_consistency
from evocompress.ideas.saccades.cost import saccade_cost
from evocompress.ideas.saccades.gate import finite, keep_plan
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.ideas.saccades.sequence import Reader, SaccadeSequence
from evocompress.networks.memory_format import channels_last
from evocompress.networks.resnet_cifar import CountlessBatchNorm2d

__all__ = ["SaccadeCNN", "saccade_sequence"]


class SaccadeCNN(nn.Module):
    """A 3×3 convolution, three saccade layers with two poolings between them, the mean over the image, a linear layer.

    Takes images (n, in_channels, h, w) of any size from 4×4 pixels and gives logits (n, classes). The layers have
    `width`, `width`, 2·`width` and 2·`width` filters. Saccade layers come behind batch normalisation and ReLU and add
    to their input, so that a block that is left out stays as it was (He et al., 2016, pre-activation). `block`,
    `reduction`, `hidden` and `temperature` are those of `SaccadeConv2d`; the first two are kept in the state dict as
    `gate_plan`, and weights of others are refused. `penalty` is what training adds to its loss.

    Args:
        cost_weight: Of `saccade_cost` in the penalty: how much the loss may rise, in nats, to save the work of a whole
            dense network.
        consistency_weight: Of `gate_consistency` under corrupted images; above 0 a step takes three times as long.
        dense: 3 or 5: plain convolutions of that size in place of the saccade layers, to compare with.

    Raises:
        ModelError: An argument out of range, images of another number of channels or too small, or weights of another
            `block` or `reduction`.

    >>> import torch
    >>> SaccadeCNN(width=8).eval()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        in_channels: int = 1,
        width: int = 32,
        block: int = 4,
        reduction: int = 2,
        hidden: int = 8,
        temperature: float = 1.0,
        cost_weight: float = 0.1,
        consistency_weight: float = 0.0,
        dense: int | None = None,
    ) -> None:
        super().__init__()
        finite("cost_weight", cost_weight)
        finite("consistency_weight", consistency_weight)
        if dense not in (None, 3, 5):
            raise ModelError(f"dense is {dense!r}; it must be 3 or 5, the side of the kernels, or be left out")
        self.cost_weight, self.consistency_weight = cost_weight, consistency_weight
        self._images: Tensor | None = None

        def layer(inputs: int, outputs: int) -> nn.Module:
            if dense is not None:
                return nn.Conv2d(inputs, outputs, dense, padding=dense // 2, bias=False)
            options: dict[str, Any] = {"block": block, "reduction": reduction, "hidden": hidden}
            return SaccadeConv2d(inputs, outputs, bias=False, temperature=temperature, **options)

        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.saccades = nn.ModuleList([layer(width, width), layer(width, 2 * width), layer(2 * width, 2 * width)])
        self.norms = nn.ModuleList(CountlessBatchNorm2d(filters) for filters in (width, width, 2 * width))
        self.last = CountlessBatchNorm2d(2 * width)
        self.linear = nn.Linear(2 * width, classes)
        if dense is None:
            keep_plan(self, block=block, reduction=reduction)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, in_channels, h, w)."""
        channels = self.stem.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ModelError(f"images are {tuple(images.shape)}; they must be (n, {channels}, h, w)")
        if min(images.shape[-2:]) < 4:
            raise ModelError(f"images are {images.shape[-2]}×{images.shape[-1]}; this network needs 4×4 pixels or more")
        self._images = images if self.training and self.consistency_weight else None
        x = self.stem(channels_last(images))
        for number, (norm, layer) in enumerate(zip(self.norms, self.saccades, strict=True)):
            seen: Tensor = layer(norm(x).relu())
            x = _widened(x, seen.shape[1]) + seen
            if number < 2:
                x = nn.functional.max_pool2d(x, 2)
        x = self.last(x).relu()
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits

    def penalty(self) -> Tensor:
        """What training adds to the loss of the last images, a scalar: work, and inconstancy of the gates."""
        total = self.cost_weight * saccade_cost(self)
        images = self._images
        if self.consistency_weight and images is not None:
            total = total + self.consistency_weight * gate_consistency(self, images, corrupt(images))
            self._images = None  # not to be kept longer than a step
        return total

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None}


def _widened(x: Tensor, channels: int) -> Tensor:
    """The same images with channels of zeros behind their own (He et al., 2016, option A)."""
    return nn.functional.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


def saccade_sequence(
    *,
    classes: int = 10,
    in_channels: int = 1,
    k: int = 8,
    block: int = 7,
    width: int = 64,
    reduction: int = 1,
    hidden: int = 8,
    reader: Reader = "gru",
) -> SaccadeSequence:
    """A classifier that reads the k best blocks of an image one after the other; see `SaccadeSequence`.

    >>> import torch
    >>> saccade_sequence(k=4).eval()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    return SaccadeSequence(
        k,
        block,
        in_channels=in_channels,
        classes=classes,
        width=width,
        reduction=reduction,
        hidden=hidden,
        reader=reader,
    )
