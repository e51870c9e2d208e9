"""Frequency responses of kernels, and what a round one does by its response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np

from evocompress.ideas.kernels.shapes import Floats

__all__ = ["Band", "bands", "frequency_response", "radial_response"]

Band: TypeAlias = Literal["low-pass", "high-pass", "band-pass", "laplacian", "identity"]

_SIZE = 64
_BLOCK = 2**21  # points of responses at a time
_HALF_POWER = 0.7071  # of an amplitude: -3 dB
_NO_MEAN = 0.12  # of the largest response: below, frequency zero does not pass
_PARABOLA = 0.6  # response at 1/4 over that at 1/2 cycle per pixel: 1/4 for ω², 1/2 for the Laplacian of 3×3
_RINGS = 16  # from 0 to 1/2 cycle per pixel


def frequency_response(kernels: Floats, size: int = _SIZE) -> Floats:
    """Absolute values of the discrete Fourier transform, zero-padded to at least `size` each way.

    Args:
        kernels: (K, h, w).
        size: Points along each axis, frequencies -1/2 to 1/2 cycles per pixel with zero in the middle.

    Returns:
        (K, size, size); rows are vertical frequencies.

    >>> frequency_response(np.array([[[-1.0, 1.0]]]), 4)[0, 0].round(2).tolist()
    [2.0, 1.41, 0.0, 1.41]
    """
    size = max(size, *kernels.shape[1:])
    return np.fft.fftshift(np.abs(np.fft.fft2(kernels, (size, size))), axes=(1, 2))


def radial_response(kernels: Floats) -> Floats:
    """Means of `frequency_response` over rings 0, 1/32, 2/32, …, 1/2 cycles per pixel from zero: (K, 17)."""
    gains = np.zeros((len(kernels), _RINGS + 1))
    size = max(_SIZE, *kernels.shape[1:])
    axis = np.arange(size) / size - 0.5
    ring = np.rint(np.hypot(*np.meshgrid(axis, axis)) * 2 * _RINGS).astype(int)
    for part in _parts(kernels):
        response = frequency_response(kernels[part])
        gains[part] = np.stack([response[:, ring == number].mean(axis=1) for number in range(_RINGS + 1)], axis=1)
    return gains


def bands(kernels: Floats) -> list[Band]:
    """What each of the round kernels (K, h, w) lets pass, by its response averaged over directions.

    `identity` passes all alike over nine tenths of the plane within 3 dB; of the others, `low-pass` falls by 3 dB
    towards the highest frequencies and not towards zero, `high-pass` the other way round, `band-pass` does both. A
    high-pass that rules out frequency zero and rises like its square is a `laplacian`, the second derivative. In one
    dimension the response is that along it, and a band-pass that rules out frequency zero is a `laplacian` too: a
    difference of Gaussians is there the second derivative of one.

    >>> bands(np.array([[[0, -1, 0], [-1, 4, -1], [0, -1, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 0.0]]]))
    ['laplacian', 'identity']
    """
    return [band for part in _parts(kernels) for band in _bands(kernels[part])]


def _parts(kernels: Floats) -> Iterator[slice]:
    """Ranges of kernels whose responses are not too much for the memory."""
    block = max(1, _BLOCK // max(_SIZE, *kernels.shape[1:]) ** 2)
    for start in range(0, len(kernels), block):
        yield slice(start, start + block)


def _line(plane: Floats, along_x: bool) -> Floats:
    """Responses (K, size, size) of kernels of one row or column at the 17 frequencies along it."""
    middle = plane.shape[1] // 2
    line = plane[:, middle] if along_x else plane[:, :, middle]
    return line[:, middle - np.rint(np.linspace(0, middle, _RINGS + 1)).astype(int)]


def _bands(kernels: Floats) -> list[Band]:
    plane = frequency_response(kernels)
    in_a_row = 1 in kernels.shape[1:]
    gains = _line(plane, kernels.shape[1] == 1) if in_a_row else radial_response(kernels)
    middle = np.median(plane, axis=(1, 2), keepdims=True)
    flat = ((plane > _HALF_POWER * middle) & (plane < middle / _HALF_POWER)).mean(axis=(1, 2)) > 0.9
    peak = gains.max(axis=1)
    zero, half, end = gains[:, 0], gains[:, _RINGS // 2], gains[:, -1]
    named: list[Band] = []
    for number in range(len(kernels)):
        low, high = zero[number] > _HALF_POWER * peak[number], end[number] > _HALF_POWER * peak[number]
        notch = zero[number] < 0.5 * middle[number, 0, 0]
        if (flat[number] and not notch) or (low and high):
            named.append("identity")
        elif low:
            named.append("low-pass")
        elif not high:
            passes = zero[number] >= _NO_MEAN * peak[number] or not in_a_row
            named.append("band-pass" if passes else "laplacian")
        else:
            rises = zero[number] < _NO_MEAN * peak[number] and half[number] < _PARABOLA * end[number]
            named.append("laplacian" if rises else "high-pass")
    return named
