"""Intervals of what was measured on a sample."""

from __future__ import annotations

import functools
import math
import statistics

__all__ = ["wilson_interval"]


@functools.lru_cache(maxsize=65536)
def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion seen as `correct` of `total` (Wilson, 1927); of none at all, (0, 1).

    >>> low, high = wilson_interval(95, 100)
    >>> round(low, 4), round(high, 4)
    (0.8882, 0.9785)
    """
    if total == 0:
        return 0.0, 1.0
    z, share = statistics.NormalDist().inv_cdf(0.5 + 0.5 * confidence), correct / total
    centre = (2 * correct + z * z) / (2 * (total + z * z))
    half = z * math.sqrt(4 * total * share * (1 - share) + z * z) / (2 * (total + z * z))
    return 0.0 if correct == 0 else centre - half, 1.0 if correct == total else centre + half
