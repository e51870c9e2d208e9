"""Synthetic inputs to calibrate on without data: noise with the spectrum of natural images, sequences, vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evocompress.data.examples import Examples
from evocompress.errors import DataError

__all__ = ["noise_images"]

_POWER = 1.5  # amplitude falls with frequency to this power; natural images': about 1 (Field, 1987)
_COMMON = 0.8  # of each channel's amplitude is what all channels of an image share


def noise_images(shape: str, count: int, seed: int) -> Examples:
    """`count` float32 inputs of `shape`, of zero mean and unit variance, without labels.

    A shape CxHxW gives images (count, C, H, W), which vary slowly over both axes and whose channels are alike; LxD
    sequences (count, L, D), which vary slowly over L and whose features are independent; N vectors (count, N) of
    independent values.

    Raises:
        DataError: The shape is not one to three positive numbers.

    >>> noise_images("3x8x8", 5, seed=0).inputs.shape, noise_images("20x4", 5, seed=0).inputs.shape
    (torch.Size([5, 3, 8, 8]), torch.Size([5, 20, 4]))
    """
    lengths = [int(length) if length.isdecimal() else 0 for length in shape.lower().split("x")]
    if len(lengths) > 3 or min(lengths) < 1:
        raise DataError(
            f"shape is {shape!r}; write the shape of one input: channels x height x width of an image, such as "
            "3x32x32, steps x features of a sequence, such as 100x40, or the length of a vector, such as 784"
        )
    generator = torch.Generator().manual_seed(seed)
    if len(lengths) == 2:
        steps, features = lengths
        noise = _smooth(torch.randn(count, features, steps, generator=generator)).mT
    else:
        noise = torch.randn(count, *lengths, generator=generator)
    if len(lengths) == 3:
        common = torch.randn(count, 1, *lengths[1:], generator=generator)
        noise = _smooth(_COMMON * common + math.sqrt(1 - _COMMON**2) * noise)
    return Examples.unlabelled((noise / noise.std().clamp_min(1e-12)).contiguous())


def _smooth(noise: Tensor) -> Tensor:
    """White noise (count, channels, *places) with amplitudes that fall with the frequency over all places."""
    places = noise.shape[2:]
    squares = torch.zeros(())
    for length in places:
        squares = squares[..., None] + torch.fft.fftfreq(length) ** 2
    frequency = squares.sqrt()
    frequency[(0,) * len(places)] = 1 / max(places)
    axes = tuple(range(2, noise.ndim))
    smooth: Tensor = torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) * frequency**-_POWER, dim=axes).real
    return smooth
