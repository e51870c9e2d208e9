"""Random changes to training images that leave their label true."""

from __future__ import annotations

import torch
from torch import Tensor

from evocompress.data.examples import Augmentation

__all__ = ["augment"]

_MARGIN = 4


def augment(images: Tensor, policy: Augmentation, generator: torch.Generator) -> Tensor:
    """Normalised images (n, c, h, w) under `policy`; `generator` is a CPU generator.

    "crop-flip" pads by 4 zeros (the mean colour), cuts a random window of the old size and mirrors half of the images
    (He et al., 2016, section 4.2).
    """
    if policy == "none":
        return images
    n, _, height, width = images.shape
    offsets = torch.randint(2 * _MARGIN + 1, (2, n), generator=generator).to(images.device)
    mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    padded = torch.nn.functional.pad(images, (_MARGIN,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view (n, c, 9, 9, h, w); only the chosen are copied
    images = windows[torch.arange(n, device=images.device), :, offsets[0], offsets[1]]
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
