"""Random changes to training images that leave their label true."""

from __future__ import annotations

import torch
from torch import Tensor

from evocompress.data.examples import Augmentation
from evocompress.support.inputs import Inputs

__all__ = ["augment"]

_MARGIN = 4


def augment(images: Inputs, policy: Augmentation, generator: torch.Generator) -> Inputs:
    """A batch's inputs under `policy`; `generator` is a CPU generator.

    A function is called with both, and what it returns is what the network sees. The others are for normalised images
    (n, c, h, w): "flip" mirrors half of them, left to right; "crop-flip" pads by 4 zeros (the mean colour) and cuts a
    random window of the old size before (He et al., 2016, section 4.2).
    """
    if policy == "none":
        return images
    if callable(policy):
        return policy(images, generator)
    if policy == "crop-flip":
        images = _cropped(images, generator)
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def _cropped(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    offsets = torch.randint(2 * _MARGIN + 1, (2, n), generator=generator).to(images.device)
    padded = torch.nn.functional.pad(images, (_MARGIN,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view (n, c, 9, 9, h, w); only the chosen are copied
    return windows[torch.arange(n, device=images.device), :, offsets[0], offsets[1]]
