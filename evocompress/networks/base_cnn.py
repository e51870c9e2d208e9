"""The network that Kahatapitiya and Rodrigo (WACV 2021) call Base."""

from __future__ import annotations

from evocompress.networks.conv_stack import POOL, ConvStack

__all__ = ["base_cnn"]


def base_cnn(*, classes: int = 10, in_channels: int = 3) -> ConvStack:
    """Convolutions of 32, 64, 128 and 256 filters 3×3, each normalised and pooled by 2, then 1024 to `classes`.

    399 146 parameters for ten classes of colour images: the paper's 0.40 million.

    >>> sum(p.numel() for p in base_cnn().parameters())
    399146
    """
    plan = 32, POOL, 64, POOL, 128, POOL, 256, POOL
    return ConvStack(plan, classes=classes, in_channels=in_channels)
