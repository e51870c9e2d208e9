"""Colour of filters over red, green and blue: is a filter one picture in one colour, and which?

A filter (3, h, w) is separable where one outer product, colour by picture, holds most of its energy. Networks' first
layers have such filters in two kinds (Krizhevsky, Sutskever and Hinton, 2012): grey ones, and colour-opponent ones,
which weigh one colour against another; low-pass pictures in a colour are the colour blobs.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evocompress.ideas.kernels.classify import Kernel, classify
from evocompress.ideas.kernels.shapes import Floats

__all__ = ["Colour", "ColourFilter", "colour_filters"]

Colour: TypeAlias = Literal["luminance", "opponent", "colour"]
"""All channels alike; one colour against another; more of one colour than of the others."""

_SEPARABLE = 0.7  # of the energy in one outer product; white noise of 3×(3×3) has 0.6 in the mean
_GREY = 0.25  # the largest share of the energy off the grey axis that still counts as grey
_BLOB = 0.5  # the least such share of a blob: pure red has 2/3, a difference of two channels 1
_AGAINST = 0.1  # the least share of the energy on the smaller of both signs


@dataclasses.dataclass(frozen=True)
class ColourFilter:
    """A separable filter's colour, the class of its picture, and whether it is a colour blob."""

    colour: Colour
    picture: Kernel
    is_blob: bool


def colour_filters(filters: NDArray[np.floating]) -> list[ColourFilter | None]:
    """Colours of filters (O, 3, h, w) over red, green and blue; None where there is no one colour and picture.

    >>> round_ = np.outer([1, 2, 1], [1, 2, 1])
    >>> found = colour_filters(np.stack([round_, -round_, 0 * round_])[None])[0]
    >>> found.colour, found.is_blob
    ('opponent', True)
    """
    exact = np.asarray(filters, dtype=np.float64)
    count, channels, height, width = exact.shape
    assert channels == 3
    largest = np.abs(exact).max(axis=(1, 2, 3), initial=0, keepdims=True)
    flat = (exact / np.where(largest > 0, largest, 1.0)).reshape(count, 3, height * width)
    left, singular, right = np.linalg.svd(flat, full_matrices=False)
    energy = np.square(singular).sum(axis=1)
    separable = (energy > 0) & (np.square(singular[:, 0]) >= _SEPARABLE * energy)
    pictures = classify(right[:, 0].reshape(count, height, width))
    return [
        _filter(left[number, :, 0], picture) if separable[number] and picture.kernel_class != "none" else None
        for number, picture in enumerate(pictures)
    ]


def _filter(axis: Floats, picture: Kernel) -> ColourFilter:
    chroma = 1 - axis.sum() ** 2 / 3
    against = min(np.square(axis[axis > 0]).sum(), np.square(axis[axis < 0]).sum())
    colour: Colour = "luminance" if chroma < _GREY else "opponent" if against >= _AGAINST else "colour"
    return ColourFilter(colour, picture, bool(picture.kernel_class == "low-pass" and chroma >= _BLOB))
