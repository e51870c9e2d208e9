"""What convolutions see of their inputs and gradients: torch's, and those of this package (see layer_inputs.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["Add", "Call", "batched", "convolution", "linear_conv", "narrow", "over_provisioned", "patches"]

_MAX_COLUMNS = 8192  # a matrix with more columns gets a scale only; H would take more than half a gigabyte


class Call(NamedTuple):
    """A module's arguments and what it returned."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any

    @property
    def first(self) -> Any:
        """The first argument, by position or by name."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))


class Add(Protocol):
    """Report rows (groups, n, K) of a parameter's H, its squared output gradients (O,), and how many tokens it saw."""

    def __call__(self, parameter: Tensor, rows: Tensor, squares: Tensor | None = None, seen: int = 0) -> None:
        """Add them up."""
        ...


def narrow(weight: Tensor) -> bool:
    """Whether a matrix (O, …) has few enough columns for an H of its own."""
    return weight.numel() <= _MAX_COLUMNS * max(len(weight), 1)


def convolution(module: nn.Conv1d | nn.Conv2d, call: Call, add: Add) -> None:
    """Report a convolution of torch's."""
    _shared_kernel(module, module.weight, call.first, call, add)


def over_provisioned(module: OverProvisionedConv2d, call: Call, add: Add) -> None:
    """Report the shared kernel, a convolution of padded images; what is not shared has no matrix of its own."""
    kernel, genes = module.kernel, module.genes
    if kernel is None or module._margins is None:
        return
    outputs, inputs, *places = kernel.shape
    plain = nn.Conv2d(
        inputs * genes.groups,
        outputs,
        (places[0], places[1]),
        genes.stride or 1,
        dilation=genes.dilation,
        groups=genes.groups,
        device="meta",
    )
    _shared_kernel(plain, kernel, nn.functional.pad(call.first, module._margins), call, add)


def _shared_kernel(plain: nn.Conv1d | nn.Conv2d, weight: Tensor, images: Tensor, call: Call, add: Add) -> None:
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


def linear_conv(module: LinearConv2d, call: Call, add: Add) -> None:
    """Report primary filters as those of a convolution, and coefficients as linear layers on what these give.

    A primary filter gets the gradients of its own output and, through the coefficients, of all that it is part of.
    """
    if not narrow(module.primary):
        return
    groups, outputs = module.geometry.groups, module.geometry.out_channels
    plain = module.geometry.module(bias=False, device=torch.device("meta"), dtype=torch.float32)
    inputs = batched(plain, call.first)
    filters = module.primary.detach().float().reshape(groups, module.primaries, -1)
    first = torch.arange(outputs, device=inputs.device) % (outputs // groups) < module.primaries
    own = first if module.is_primary is None else module.is_primary
    chain = _coefficients(module)

    def backward(gradients: Tensor) -> None:
        flat = gradients.float().reshape(len(inputs), outputs, -1).transpose(0, 1).reshape(outputs, -1)
        above = flat[~own].reshape(groups, outputs // groups - module.primaries, -1)
        squares: list[Tensor] = []
        for _, matrix in reversed(chain):
            squares.insert(0, above.square().sum(dim=2).flatten())
            above = matrix.mT @ above
        below = flat[own].reshape(groups, module.primaries, -1)
        below = below + above if chain else below
        rows = patches(plain, inputs)
        add(module.primary, rows, below.square().sum(dim=2).flatten())
        rows = rows @ filters.mT
        for (parameter, matrix), g in zip(chain, squares, strict=True):
            add(parameter, rows, g)
            rows = rows @ matrix.mT

    call.output.register_hook(backward)


def _coefficients(module: LinearConv2d) -> list[tuple[Tensor, Tensor]]:
    """The matrices (groups, O, K) that primary filters' outputs go through in turn, each after its parameter."""
    shapes = (
        (module.coefficients, module.primaries),
        (module.coefficients_right, module.primaries),
        (module.coefficients_left, module.components),
    )
    return [
        (parameter, module._sparse(parameter).detach().float().reshape(module.geometry.groups, -1, columns))
        for parameter, columns in shapes
        if parameter is not None
    ]


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
    seen = windows.permute(2, 3, 0, 1, 4, 5)[position // width, position % width]  # (positions, n, C, *kernel)
    rows = seen.reshape(len(position) * len(inputs), module.groups, -1).transpose(0, 1)
    return rows / math.sqrt(len(position))
