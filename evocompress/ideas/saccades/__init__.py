"""Saccades: convolution only where a gate looks (docs/saccades.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evocompress.support.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from evocompress.ideas.saccades.consistency import corrupt, gate_agreement, gate_consistency
    from evocompress.ideas.saccades.cost import multiply_adds, saccade_cost
    from evocompress.ideas.saccades.maps import deletion_test, saccade_maps
    from evocompress.ideas.saccades.saccade import SaccadeConv2d
    from evocompress.ideas.saccades.sequence import SaccadeSequence

__all__ = [
    "SaccadeConv2d",
    "SaccadeSequence",
    "corrupt",
    "deletion_test",
    "gate_agreement",
    "gate_consistency",
    "multiply_adds",
    "saccade_cost",
    "saccade_maps",
]

_HOMES = {
    "SaccadeConv2d": "saccade",
    "SaccadeSequence": "sequence",
    "corrupt": "consistency",
    "deletion_test": "maps",
    "gate_agreement": "consistency",
    "gate_consistency": "consistency",
    "multiply_adds": "cost",
    "saccade_cost": "cost",
    "saccade_maps": "maps",
}
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
