"""Symmetric kernels: as a constraint, a penalty, and snapped step by step (docs/symmetry.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evocompress.support.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from evocompress.ideas.symmetry.layers import (
        constrain,
        constrained,
        make_radial,
        make_separable,
        make_separable_1d,
        release,
    )
    from evocompress.ideas.symmetry.penalties import (
        KernelPenalties,
        nearest_symmetry_distance,
        soft_distinct_values,
        soft_entropy,
    )
    from evocompress.ideas.symmetry.snap import FrozenKernels, freeze_and_fine_tune, snap

__all__ = [
    "FrozenKernels",
    "KernelPenalties",
    "constrain",
    "constrained",
    "freeze_and_fine_tune",
    "make_radial",
    "make_separable",
    "make_separable_1d",
    "nearest_symmetry_distance",
    "release",
    "snap",
    "soft_distinct_values",
    "soft_entropy",
]

_HOMES = {
    "FrozenKernels": "snap",
    "KernelPenalties": "penalties",
    "constrain": "layers",
    "constrained": "layers",
    "freeze_and_fine_tune": "snap",
    "make_radial": "layers",
    "make_separable": "layers",
    "make_separable_1d": "layers",
    "nearest_symmetry_distance": "penalties",
    "release": "layers",
    "snap": "snap",
    "soft_distinct_values": "penalties",
    "soft_entropy": "penalties",
}
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
