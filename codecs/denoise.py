"""Wiener filtering of kernels before they are quantised: spatial frequencies that carry little are damped.

At rate weight λ a coefficient of variance σ² is best described with an error of D = min(σ², water level), and what
describes it best is it times 1 - D/σ² (reverse water-filling: Berger, "Rate Distortion Theory", 1971; the same factor
as Wiener's, with D for the noise). Where high frequencies are weak, as in smooth kernels, that is a blur.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.symmetry import kernel_shape
from evocompress.errors import CodecError

__all__ = ["Denoise"]


@dataclasses.dataclass(frozen=True)
class Denoise:
    """Damps each spatial frequency of a tensor's kernels by 1 - level/variance, at least 0.

    The water level is `strength` · step²/12, the error that the quantiser at this λ makes anyway. Only kernels of more
    than one place change; `strength` 0 changes nothing. The decoder has nothing to do.
    """

    id: ClassVar[str] = "denoise"
    number: ClassVar[int] = 26
    terminal: ClassVar[bool] = False

    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1000:
            raise CodecError(f"denoise: strength is {self.strength}; it must lie in [0, 1000].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Damp, then hand on."""
        size = kernel_shape(x.shape)
        level = self.strength * cost.step**2 / 12
        if size is None or level == 0:
            return rest.encode(x, cost.flat)
        kernels = np.asarray(scipy.fft.dctn(x.reshape(-1, *size), axes=(1, 2), norm="ortho"))
        power = (kernels**2).mean(axis=0)
        kept = np.maximum(1 - np.divide(level, power, out=np.full(size, np.inf), where=power > level), 0)
        damped = np.asarray(scipy.fft.idctn(kernels * kept, axes=(1, 2), norm="ortho"), np.float64)
        return rest.encode(damped.reshape(x.shape), cost.flat)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """That of the rest."""
        return rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """That of the rest."""
        return rest.decode_from(planes, side, shape)
