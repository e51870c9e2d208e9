"""Second-order sensitivity, what an error of a weight matrix costs the network: two small matrices, not one huge one.

The Hessian of a layer is taken as the Kronecker product of its inputs' second moment and its output gradients' (Martens
and Grosse, 2015), of which the latter's diagonal is kept.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from evocompress.errors import CodecError

__all__ = ["Sensitivity"]

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
    """Error E (O, K) costs ½·Σ_o g_o·E_o H E_oᵀ.

    `H` (groups, K, K) is symmetric and positive semidefinite; O/groups successive rows share one (a convolution without
    groups has one). `g` (O,) is not negative.
    """

    H: Floats
    g: Floats

    def __post_init__(self) -> None:
        if self.H.ndim != 3 or self.H.shape[1] != self.H.shape[2] or self.g.ndim != 1:
            raise CodecError(f"Sensitivity of shapes {self.H.shape}, {self.g.shape}; must be (groups, K, K) and (O,).")
        if not len(self.H) or len(self.g) % len(self.H):
            raise CodecError(f"Sensitivity: {len(self.g)} rows do not divide into {len(self.H)} groups.")
        if not (np.isfinite(self.H).all() and np.isfinite(self.g).all() and (self.g >= 0).all()):
            raise CodecError("Sensitivity holds NaN, Inf or a negative g: the calibration network or data are broken.")

    def fits(self, rows: int, columns: int) -> bool:
        """Whether it is one of a matrix of this shape."""
        return self.H.shape[1] == columns and len(self.g) == rows

    def distortion(self, error: Floats) -> float:
        """What an error (O, K) costs."""
        parts = error.reshape(len(self.H), -1, error.shape[1])
        per_row = np.einsum("gok,gok->go", parts @ self.H, parts).ravel()
        return 0.5 * float(self.g @ per_row)

    @property
    def scale(self) -> float:
        """The one number that it comes down to: what a squared error costs on average."""
        diagonal = np.einsum("gkk->gk", self.H).mean(axis=1)
        return 0.5 * float((self.g.reshape(len(self.H), -1).mean(axis=1) * diagonal).mean())

    def scaled(self, factor: float) -> Sensitivity:
        """One in which every error costs `factor` times as much."""
        return Sensitivity(self.H, self.g * factor)
