"""Images of noise with the spectrum of natural ones, to calibrate on where there is no data."""

from __future__ import annotations

import math

import torch

from evocompress.data.examples import Examples
from evocompress.errors import DataError

__all__ = ["noise_images"]

_POWER = 1.5  # amplitude falls with spatial frequency to this power; natural images': about 1 (Field, 1987)
_COMMON = 0.8  # of each channel's amplitude is what all channels share


def noise_images(shape: str, count: int, seed: int) -> Examples:
    """`count` float32 images of `shape`, written CxHxW, of zero mean and unit variance; labels are 0.

    Raises:
        DataError: The shape is not three positive numbers.

    >>> noise_images("3x8x8", 5, seed=0).images.shape
    torch.Size([5, 3, 8, 8])
    """
    lengths = shape.lower().split("x")
    if len(lengths) != 3 or not all(length.isdecimal() and int(length) > 0 for length in lengths):
        raise DataError(f"--noise {shape}: write the shape of one image as channels x height x width, such as 3x32x32")
    channels, height, width = map(int, lengths)
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(count, channels, height, width, generator=generator)
    common = torch.randn(count, 1, height, width, generator=generator)
    mixed = _COMMON * common + math.sqrt(1 - _COMMON**2) * own
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2).sqrt()
    frequency[0, 0] = 1 / max(height, width)
    images = torch.fft.ifft2(torch.fft.fft2(mixed) * frequency**-_POWER).real
    return Examples((images / images.std().clamp_min(1e-12)).contiguous(), torch.zeros(count, dtype=torch.int64))
