"""Convolutions of one and two dimensions, and what other layers with kernels compute alike."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.calibration.layer_views.base import LayerViewBase, by_channel, narrow
from evocompress.protocols import Add, Call

__all__ = ["ConvolutionView", "batched", "observe_kernel", "patches"]


class ConvolutionView(LayerViewBase):
    """Rows of H are the patches that each output sees."""

    kinds = (nn.Conv1d, nn.Conv2d)

    def observe(self, module: nn.Conv1d | nn.Conv2d, call: Call, add: Add) -> None:
        """Report the kernel."""
        observe_kernel(module, module.weight, call.first, call, add)

    def rows(self, module: nn.Conv1d | nn.Conv2d, inputs: Tensor, every: int = 1) -> Tensor | None:
        """Patches; of the positions only so many-th are taken: neighbours see nearly the same."""
        return patches(module, batched(module, inputs), every)

    def channels(self, module: Any, outputs: Tensor) -> Tensor | None:
        """Images by channel."""
        return by_channel(outputs, module.out_channels, last=False)


def observe_kernel(plain: nn.Conv1d | nn.Conv2d, weight: Tensor, images: Tensor, call: Call, add: Add) -> None:
    """Report a weight that is convolved with images as `plain` convolves its own."""
    if not narrow(weight):
        return
    inputs = batched(plain, images)

    def backward(gradients: Tensor) -> None:
        gradients = gradients.float().reshape(len(inputs), len(weight), -1)
        add(weight, patches(plain, inputs), gradients.square().sum(dim=(0, 2)))

    call.output.register_hook(backward)


def batched(module: nn.Conv1d | nn.Conv2d, images: Tensor) -> Tensor:
    """Images as float32, one as a batch of one."""
    images = images.detach().float()
    return images[None] if images.ndim == 1 + len(module.kernel_size) else images


def patches(module: nn.Conv1d | nn.Conv2d, inputs: Tensor, every: int = 1) -> Tensor:
    """What each output sees, (groups, n·positions, K), averaged over positions: their gradients are summed."""
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    if isinstance(module, nn.Conv1d):
        padded, kernel, stride, dilation = padded[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    windows = padded
    for axis in (0, 1):
        windows = windows.unfold(2 + axis, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])
    windows = windows[..., :: dilation[0], :: dilation[1]]  # (n, C, height, width, *kernel), a view
    height, width = windows.shape[2:4]
    position = torch.arange(0, height * width, every, device=inputs.device)
    selected = windows.permute(2, 3, 0, 1, 4, 5)[position // width, position % width]  # (positions, n, C, *kernel)
    rows = selected.reshape(len(position) * len(inputs), module.groups, -1).transpose(0, 1)
    return rows / math.sqrt(len(position))
