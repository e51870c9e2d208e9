"""Arguments of a two-dimensional convolution, checked once and written in one way."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError

__all__ = ["Convolution", "Geometry", "PaddingMode", "Pair", "share"]

Pair: TypeAlias = int | tuple[int, int]
"""A number for both of height and width, or one for each."""

PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
"""What stands around an image, as torch names it."""


def share(name: str, value: float, *, zero: bool = False) -> float:
    """A share of a whole as it was given: in (0, 1], or with `zero` in [0, 1). Raises ModelError for anything else.

    >>> share("alpha", 0.5)
    0.5
    """
    untyped: object = value  # whatever its annotation says
    number = isinstance(untyped, numbers.Real) and not isinstance(untyped, bool)
    if not number or not (0 <= value < 1 if zero else 0 < value <= 1):
        interval = "[0, 1)" if zero else "(0, 1]"
        raise ModelError(f"{name} is {value!r}; it is a share and must be a number in {interval}, such as 0.5")
    return float(value)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """What `torch.nn.functional.conv2d` is told beside the weights; `kernel`, `stride`, `dilation` are (height, width).

    `padding` is (height, width), or "same" or "valid" as torch has them.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    padding_mode: PaddingMode

    @classmethod
    def of(
        cls,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> Geometry:
        """Check the arguments of `torch.nn.Conv2d`. Raises ModelError for those that no convolution can have."""
        counts = ("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)
        in_channels, out_channels, groups = (_pair(name, (value, 1), 1)[0] for name, value in counts)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value % groups:
                raise ModelError(f"{name} is {value} and groups is {groups}; {name} must be a multiple of groups")
        strides = _pair("stride", stride, 1)
        if padding_mode not in get_args(PaddingMode):
            raise ModelError(f"padding_mode is {padding_mode!r}; it must be one of {', '.join(get_args(PaddingMode))}")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ModelError(f"padding is {padding!r}; in words it must be 'same' or 'valid'")
            if padding == "same" and strides != (1, 1):
                raise ModelError(f"padding is 'same' and stride is {strides}; 'same' goes with stride 1 only")
        margins = padding if isinstance(padding, str) else _pair("padding", padding, 0)
        kernel, gaps = _pair("kernel_size", kernel_size, 1), _pair("dilation", dilation, 1)
        return cls(in_channels, out_channels, kernel, strides, margins, gaps, groups, padding_mode)

    @property
    def fan_in(self) -> int:
        """How many weights a filter has: inputs of its group times the kernel's area."""
        return self.in_channels // self.groups * math.prod(self.kernel)

    @property
    def filter_shape(self) -> tuple[int, int, int]:
        """(inputs of a group, height, width)."""
        return (self.in_channels // self.groups, *self.kernel)

    def apply(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve images (n, in_channels, h, w) with weight (out_channels, *filter_shape) and add bias."""
        padding = self.padding
        if self.padding_mode != "zeros":
            images = nn.functional.pad(images, self._margins(), mode=self.padding_mode)
            padding = 0, 0
        return nn.functional.conv2d(images, weight, bias, self.stride, padding, self.dilation, self.groups)

    def module(self, *, bias: bool, device: torch.device, dtype: torch.dtype) -> nn.Conv2d:
        """torch's convolution with these arguments; its weights are whatever lay in memory."""
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias,
            self.padding_mode,
            device="meta",  # nothing is drawn for weights that are overwritten
            dtype=dtype,
        )
        return plain.to_empty(device=device)

    def _margins(self) -> tuple[int, int, int, int]:
        """Padding of left, right, top, bottom; where "same" is odd, right and bottom get more, as torch has it."""
        if isinstance(self.padding, str):
            wide = self.padding == "same"
            high, across = (d * (k - 1) if wide else 0 for d, k in zip(self.dilation, self.kernel, strict=True))
            return across // 2, across - across // 2, high // 2, high - high // 2
        return self.padding[1], self.padding[1], self.padding[0], self.padding[0]


class Convolution:
    """The arguments of a convolution under torch's names, read-only, for a module that has a `geometry`.

    Networks read them of their layers, to call `torch.nn.functional.conv2d` themselves for one.
    """

    geometry: Geometry
    in_channels = property(lambda self: self.geometry.in_channels)
    out_channels = property(lambda self: self.geometry.out_channels)
    kernel_size = property(lambda self: self.geometry.kernel)
    stride = property(lambda self: self.geometry.stride)
    padding = property(lambda self: self.geometry.padding)
    dilation = property(lambda self: self.geometry.dilation)
    groups = property(lambda self: self.geometry.groups)
    padding_mode = property(lambda self: self.geometry.padding_mode)


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    untyped: Any = value  # whatever its annotation says
    pair = (untyped, untyped) if _is_whole(untyped) else untyped
    two = isinstance(pair, tuple | list) and len(pair) == 2
    if not two or not all(_is_whole(v) and v >= least for v in pair):
        shown = value[0] if name in ("in_channels", "out_channels", "groups") and isinstance(value, tuple) else value
        raise ModelError(f"{name} is {shown!r}; it must be made of whole numbers of at least {least}")
    return int(pair[0]), int(pair[1])


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)
