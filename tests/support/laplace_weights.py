"""Weights as trained networks have them: Laplace distributed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.codecs import conformance

__all__ = ["laplace"]


def laplace(*shape: int, seed: int = 0, scale: float = 0.05) -> npt.NDArray[np.float64]:
    """Weights of this shape, as `conformance.laplace` draws them."""
    return conformance.laplace(shape, seed, scale)
