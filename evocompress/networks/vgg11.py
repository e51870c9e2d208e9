"""VGG-11 for small images, as Kahatapitiya and Rodrigo (WACV 2021) use it."""

from __future__ import annotations

from evocompress.networks.conv_stack import POOL, ConvStack

__all__ = ["vgg11"]


def vgg11(*, classes: int = 10, in_channels: int = 3) -> ConvStack:
    """Configuration A of Simonyan and Zisserman (2015), normalised, with one linear layer from 512 to `classes`.

    9 228 362 parameters for ten classes of colour images: the paper's 9.23 million.

    >>> sum(p.numel() for p in vgg11().parameters())
    9228362
    """
    plan = 64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL
    return ConvStack(plan, classes=classes, in_channels=in_channels)
