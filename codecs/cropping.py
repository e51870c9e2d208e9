"""Cropping: of tensors whose last rows or columns are zero a bare file holds the corner that is not (FORMAT.md, 13).

Where a network's dead channels lie behind its live ones (`training.dead_parts`), what is left of it is a smaller
network, and a file needs no symbols for the rest. The extents are coded together, as one layer's outputs are the next
one's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.codecs.bits import BitReader, BitWriter
from evocompress.codecs.codec import Shape
from evocompress.errors import FormatError

__all__ = [
    "CROPPED_DIMENSIONS",
    "chosen_corners",
    "corner",
    "live_corner",
    "padded",
    "read_corners",
    "worth_cropping",
    "write_corners",
]

#: Dimensions that may be cropped: outputs and inputs.
CROPPED_DIMENSIONS = 2
_BITS_OF_A_ZERO = 0.05  # in a row or column of nothing else
_LEAST_GAIN = 100  # weights of each tensor, in the mean: about what its extents cost


def live_corner(array: npt.NDArray[Any]) -> Shape:
    """The shape of the corner outside of which an array is zero; along no dimension less than one.

    >>> live_corner(np.pad(np.ones((2, 3, 5)), ((0, 4), (0, 6), (0, 0))))
    (2, 3, 5)
    """
    lengths = list(array.shape)
    nonzero = array != 0
    for dim in range(min(CROPPED_DIMENSIONS, array.ndim)):
        others = tuple(other for other in range(array.ndim) if other != dim)
        places = np.flatnonzero(nonzero.any(axis=others))
        lengths[dim] = min(int(places[-1]) + 1 if len(places) else 1, lengths[dim])
    return tuple(lengths)


def worth_cropping(whole: Sequence[Shape], corners: Sequence[Shape]) -> bool:
    """Whether what is cut off tensors of these shapes is more than the extents cost."""
    gain = sum(math.prod(shape) - math.prod(part) for shape, part in zip(whole, corners, strict=True))
    return gain > _LEAST_GAIN * len(whole)


def corner(array: npt.NDArray[Any], shape: Shape) -> npt.NDArray[Any]:
    """An array's corner of this shape."""
    return array[tuple(slice(length) for length in shape)]


def padded(array: npt.NDArray[Any], shape: Shape) -> npt.NDArray[Any]:
    """The array of this shape of which `array` is the corner; all else is zero."""
    whole = np.zeros(shape, array.dtype)
    whole[tuple(slice(length) for length in array.shape)] = array
    return whole


class _Predictions:
    """What an extent may be: as it was along a dimension of the same length, or of a multiple or divisor of it."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._alike: dict[int, list[int]] = {}  # known lengths by a length that they fit, until there is a new one

    def of(self, length: int) -> list[int]:
        """Different predictions, the best one first; the whole length is among them."""
        if length not in self._alike:
            self._alike[length] = sorted(
                (other for other in self._last if length % other == 0 or other % length == 0),
                key=lambda other: (max(other, length) // min(other, length), other),
            )
        scaled = (-(-self._last[other] * length // other) for other in self._alike[length])
        return list(dict.fromkeys([*scaled, length]))

    def learn(self, length: int, extent: int) -> None:
        if length not in self._last:
            self._alike.clear()
        self._last[length] = extent


def chosen_corners(whole: Sequence[Shape], live: Sequence[Shape]) -> list[Shape]:
    """Corners that hold the live ones, and whose extents take few bits."""
    predictions, corners = _Predictions(), list[Shape]()
    for shape, part in _in_order(whole, live):
        lengths = list(part)
        for dim, length in _cropped(shape):
            guesses = predictions.of(length)
            row = math.prod(lengths) / lengths[dim]  # weights that one more row or column has
            costs: dict[float, int] = {len(guesses) + (length - 1).bit_length(): lengths[dim]}
            for place, guess in enumerate(guesses):
                if guess >= lengths[dim]:
                    costs.setdefault(place + 1 + _BITS_OF_A_ZERO * row * (guess - lengths[dim]), guess)
            lengths[dim] = costs[min(costs)]
            predictions.learn(length, lengths[dim])
        corners.append(tuple(lengths))
    return corners[::-1]


def write_corners(bits: BitWriter, whole: Sequence[Shape], corners: Sequence[Shape]) -> None:
    """The corners' extents, which are all at least one."""
    predictions = _Predictions()
    for shape, part in _in_order(whole, corners):
        for dim, length in _cropped(shape):
            guesses, extent = predictions.of(length), part[dim]
            for guess in guesses:
                bits.number(guess == extent, 1)
                if guess == extent:
                    break
            else:
                bits.number(extent - 1, (length - 1).bit_length())
            predictions.learn(length, extent)


def read_corners(bits: BitReader, whole: Sequence[Shape]) -> list[Shape]:
    """The inverse of `write_corners`.

    Raises:
        FormatError: An extent is longer than its dimension.
    """
    predictions, corners = _Predictions(), list[Shape]()
    for shape, _ in _in_order(whole, whole):
        part = list(shape)
        for dim, length in _cropped(shape):
            guess = next((guess for guess in predictions.of(length) if bits.number(1)), None)
            part[dim] = bits.number((length - 1).bit_length()) + 1 if guess is None else guess
            if part[dim] > length:
                raise FormatError(f"A tensor of {length} rows or columns has {part[dim]} that live: damaged file.")
            predictions.learn(length, part[dim])
        corners.append(tuple(part))
    return corners[::-1]


def _in_order(whole: Sequence[Shape], parts: Sequence[Shape]) -> Iterator[tuple[Shape, Shape]]:
    """From the last tensor to the first: a weight comes before its bias, which has as many rows and says less."""
    return zip(reversed(whole), reversed(parts), strict=True)


def _cropped(shape: Shape) -> Iterator[tuple[int, int]]:
    """The dimensions that may be cropped, with their lengths."""
    return ((dim, length) for dim, length in enumerate(shape[:CROPPED_DIMENSIONS]) if length > 1)
