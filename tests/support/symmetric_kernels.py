"""Kernels with and without symmetries, for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from laplace_weights import laplace

from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.symmetry import Symmetry
from evocompress.codecs.symmetry_groups import (
    group,
    groups,
)

Floats = npt.NDArray[np.float64]
SIZES = [(1, 1), (1, 2), (1, 5), (4, 1), (2, 2), (3, 3), (2, 3), (3, 5), (4, 4), (5, 5), (7, 7)]
ALL = [(name, size) for size in SIZES for name in groups(*size)]
CODEC = Codec((Symmetry(), DeadZone()))


def snapped(name: str, *shape: int, seed: int = 0) -> Floats:
    found = group(name, *shape[-2:])
    return found.project(laplace(*shape, seed=seed).reshape(-1, shape[-2] * shape[-1])).reshape(shape)
