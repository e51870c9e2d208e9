"""Objectives of a leaf: log size and error, both minimised, scaled and finite."""

from __future__ import annotations

import dataclasses
import math

from evocompress.search.records import Leaf
from evocompress.search.settings import SearchSettings

__all__ = ["Member", "Scale"]

# A clipped point is worse than any reference point and still finite, so it ranks last and adds no hypervolume.
_LIMIT = 1e6


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A leaf with its scaled objectives (x: log2 bytes, y: error) and `key` = (segment index, place in the outcome)."""

    leaf: Leaf
    key: tuple[int, int]
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class Scale:
    """(log2 file bytes, error), each mapped from its range to [0, 1]; values outside are kept, finite.

    >>> Scale((256, 65536), (0, 0.5)).point(4096, 0.25)
    (0.5, 0.5)
    """

    bytes_range: tuple[float, float]
    error_range: tuple[float, float]

    @classmethod
    def of(cls, settings: SearchSettings) -> Scale:
        """The scale that a run's settings fix."""
        return cls(settings.bytes_range, settings.error_range)

    def point(self, nbytes: int, error: float) -> tuple[float, float]:
        """The scaled objectives of a file of `nbytes` whose network has this error."""
        low, high = math.log2(self.bytes_range[0]), math.log2(self.bytes_range[1])
        x = (math.log2(max(nbytes, 1)) - low) / (high - low)
        y = (error - self.error_range[0]) / (self.error_range[1] - self.error_range[0])
        return _clip(x), _clip(y)

    def member(self, leaf: Leaf, key: tuple[int, int]) -> Member:
        """A leaf with its place in objective space."""
        return Member(leaf, key, *self.point(leaf.nbytes, leaf.error))


def _clip(value: float) -> float:
    return min(max(value, -_LIMIT), _LIMIT) if math.isfinite(value) else _LIMIT
