"""A view that knows nothing: what others start from. And what several views compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evocompress.protocols import Add, Call

__all__ = ["LayerViewBase", "by_channel", "flat_rows", "narrow"]

_MAX_COLUMNS = 8192  # a matrix with more columns gets a scale only; H would take more than half a gigabyte


class LayerViewBase:
    """All of `evocompress.protocols.LayerView`, knowing nothing."""

    kinds: tuple[type[nn.Module], ...] = ()
    scales = False
    is_output = False

    def observe(self, module: Any, call: Call, add: Add) -> None:
        """It has no matrix."""

    def rows(self, module: Any, inputs: Tensor, every: int = 1) -> Tensor | None:
        """It has no weight that is fitted."""
        return None

    def channels(self, module: Any, outputs: Tensor) -> Tensor | None:
        """It has no bias that is fitted."""
        return None


def narrow(weight: Tensor) -> bool:
    """Whether a matrix (O, …) has few enough columns for an H of its own."""
    return weight.numel() <= _MAX_COLUMNS * max(len(weight), 1)


def flat_rows(*inputs: Tensor) -> Tensor:
    """Inputs (…, K), one group each, as (groups, n, K)."""
    return torch.stack([x.detach().float().reshape(-1, x.shape[-1]) for x in inputs])


def by_channel(outputs: Tensor, channels: int, *, last: bool) -> Tensor:
    """Outputs (n, channels, …), or (…, channels) where they are `last`, as (channels, n)."""
    if last:
        return outputs.float().reshape(-1, channels).T
    return outputs.float().reshape(len(outputs), channels, -1).transpose(0, 1).reshape(channels, -1)
