"""VGG-11 for small images, as Kahatapitiya and Rodrigo (WACV 2021) use it."""

from __future__ import annotations

from evocompress.ideas.symmetry.layers import Kernels
from evocompress.networks.conv_stack import POOL, ConvStack

__all__ = ["vgg11"]


def vgg11(
    *,
    classes: int = 10,
    in_channels: int = 3,
    alpha: float | None = None,
    rank: float | None = None,
    sparsity: float | None = None,
    kernels: Kernels = "free",
) -> ConvStack:
    """Configuration A of Simonyan and Zisserman (2015), normalised, with one linear layer from 512 to `classes`.

    9 228 362 parameters for ten classes of colour images, 4 919 530 with alpha = 0.5, and 4 650 346 with rank = 0.05
    too: the paper's 9.23, 4.92 and 4.65 million. Without `alpha` the convolutions are torch's.

    >>> sum(p.numel() for p in vgg11(alpha=0.5, rank=0.05).parameters())
    4650346
    """
    plan = 64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL
    return ConvStack(
        plan, classes=classes, in_channels=in_channels, alpha=alpha, rank=rank, sparsity=sparsity, kernels=kernels
    )
