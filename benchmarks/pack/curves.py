"""Curves of quality over bytes: fronts, monotone regression, bytes at equal quality, BD-rate.

Quality is larger where a network is better: an accuracy in [0, 1], or minus a cross-entropy in nats.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from evocompress.errors import EvocompressError
from evocompress.runs.comparison import bd_rate
from evocompress.search.pareto import is_nondominated

__all__ = ["Curve", "Point", "bytes_at", "clipped", "compare", "envelope", "pooled"]

Point: TypeAlias = tuple[float, float]
"""Bytes of a file, and its network's quality."""
Curve: TypeAlias = list[Point]
"""Points whose bytes and quality both rise."""


def envelope(points: Iterable[Point]) -> Curve:
    """The points that no smaller file reaches the quality of: the best that tuning with hindsight finds.

    >>> envelope([(100, 0.5), (120, 0.4), (200, 0.9)])
    [(100, 0.5), (200, 0.9)]
    """
    ordered = sorted({point for point in points if math.isfinite(point[1])})
    kept = is_nondominated([(nbytes, -quality) for nbytes, quality in ordered]) if ordered else ()
    return [point for point, keep in zip(ordered, kept, strict=True) if keep]


def pooled(points: Iterable[Point]) -> Curve:
    """Monotone regression: neighbours whose quality falls are one point, at mean log bytes and mean quality.

    Pool adjacent violators (Ayer and others, 1955), with log bytes averaged too, so that the curve rises everywhere.
    Unlike an envelope it keeps no lucky point: a high one is averaged with the lower ones that follow it.

    >>> [(round(nbytes), quality) for nbytes, quality in pooled([(100, 0.5), (200, 0.75), (800, 0.5), (900, 0.875)])]
    [(100, 0.5), (400, 0.625), (900, 0.875)]
    """
    pools: list[tuple[int, float, float]] = []  # number of points, sums of log bytes and of quality
    for nbytes, quality in sorted(points):
        pool = (1, math.log(nbytes), quality)
        while pools and pools[-1][2] / pools[-1][0] >= pool[2] / pool[0]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    return [(math.exp(total / count), quality / count) for count, total, quality in pools]


def bytes_at(curve: Sequence[Point], level: float) -> float | None:
    """Bytes at a quality, log bytes interpolated linearly; None where the curve does not reach, or starts above it.

    >>> bytes_at([(100, 0.5), (400, 0.75)], 0.625)
    200.0
    """
    for (small, low), (large, high) in zip(curve, curve[1:], strict=False):
        if low <= level <= high:
            share = (level - low) / (high - low)
            return round(math.exp((1 - share) * math.log(small) + share * math.log(large)), 1)
    return None


def clipped(curve: Sequence[Point], low: float, high: float) -> Curve:
    """The part of a curve between two qualities, with points at both where it reaches them."""
    ends = [(nbytes, level) for level in (low, high) if (nbytes := bytes_at(curve, level)) is not None]
    return envelope([*(point for point in curve if low < point[1] < high), *ends])


def compare(peer: Sequence[Point], curves: Sequence[Curve], levels: Sequence[float]) -> dict[str, Any]:
    """Curves, one a seed, against a peer's front: bytes and ratio at each level, and BD-rate between the outer levels.

    Returns:
        "at": for each level the peer's bytes, and of those seeds whose curve reaches it (`seeds`) the mean bytes, mean
        ratio and the ratio's standard deviation over seeds; None where there is nothing. `below` is what the ratio is
        below where every curve begins above the level: that of the largest of the smallest files. "bd_rate": percent,
        mean, and "bd_rate_sd". A standard deviation of one seed is None.
    """
    rows = []
    for level in levels:
        theirs = bytes_at(peer, level) if peer else None
        mine = [nbytes for curve in curves if (nbytes := bytes_at(curve, level)) is not None]
        ratios = [nbytes / theirs for nbytes in mine] if theirs else []
        begins_above = theirs and curves and not mine and all(curve and curve[0][1] > level for curve in curves)
        below = round(max(curve[0][0] for curve in curves) / theirs, 4) if theirs and begins_above else None
        row = {"level": level, "peer_bytes": theirs, "seeds": len(mine), "bytes": _mean(mine, 0)}
        rows.append(
            {**row, "bytes_sd": _sd(mine, 0), "ratio": _mean(ratios, 4), "ratio_sd": _sd(ratios, 4), "below": below}
        )
    rates = [rate for curve in curves if (rate := _bd_rate(peer, curve, levels)) is not None]
    return {"at": rows, "bd_rate": _mean(rates, 2), "bd_rate_sd": _sd(rates, 2)}


def _bd_rate(peer: Sequence[Point], curve: Curve, levels: Sequence[float]) -> float | None:
    ends = min(levels), max(levels)
    try:
        return bd_rate(*([(round(size), level) for size, level in clipped(side, *ends)] for side in (peer, curve)))
    except EvocompressError:  # no two points each within the levels
        return None


def _mean(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.mean(values), digits) if values else None


def _sd(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.stdev(values), digits) if len(values) > 1 else None
