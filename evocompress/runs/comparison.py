"""Comparison of fronts: BD-rate of one against another, and what several runs attain together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.errors import ConfigError, EvocompressError
from evocompress.runs.front import FrontPoint
from evocompress.search.quality import Quality

__all__ = ["Step", "attainment", "bd_rate", "steps"]

Step: TypeAlias = tuple[int, float]
"""A size in bytes and the merit that it reaches: the quality, negated where it is minimised, so that more is better."""


def steps(points: Iterable[FrontPoint], quality: Quality) -> list[Step]:
    """A front as (bytes, merit) pairs."""
    return [(point.nbytes, quality.merit(point.quality)) for point in points]


def bd_rate(baseline: Sequence[Step], test: Sequence[Step]) -> float:
    """Mean size change of `test` against `baseline` at equal quality, in percent; negative means smaller files.

    Log bytes are interpolated over merit by a monotone cubic (PCHIP) and averaged over the merits that both fronts
    reach (Bjøntegaard, 2001, ITU-T VCEG-M33). Raises `EvocompressError` where the fronts have no two points each
    or no range of quality in common.

    >>> round(bd_rate([(1000, 0.8), (4000, 0.9)], [(500, 0.8), (2000, 0.9)]), 6)
    -50.0
    """
    curves = [_rate_curve(name, points) for name, points in (("baseline", baseline), ("test", test))]
    low = max(float(curve.x[0]) for curve in curves)
    high = min(float(curve.x[-1]) for curve in curves)
    if low >= high:
        raise EvocompressError(
            f"baseline and test have no range of quality in common (the overlap would be {low:.4f} to {high:.4f}): "
            "BD-rate needs fronts that overlap; compare them at a size with best_under instead."
        )
    areas = [float(curve.integrate(low, high)) for curve in curves]
    return 100.0 * math.expm1((areas[1] - areas[0]) / (high - low))


def attainment(fronts: Sequence[Sequence[Step]], level: float = 0.5) -> list[Step]:
    """The surface that at least the share `level` of the fronts attain: steps where it rises, smallest size first.

    `level=0.5` is the median attainment surface, `1.0` the worst case, a tiny level the best (Fonseca and Fleming,
    1996). With two objectives it is exact: at each size, the k-th best of the merits that the fronts reach there.

    >>> attainment([[(100, 0.5), (200, 0.9)], [(150, 0.7)]], 1.0)
    [(150, 0.5), (200, 0.7)]
    """
    if not 0.0 < level <= 1.0:
        raise ConfigError(f"level={level} is not a share above 0 and up to 1: use 0.5 for the median surface.")
    if not fronts:
        return []
    needed = max(1, math.ceil(level * len(fronts) - 1e-9))
    sizes = sorted({size for front in fronts for size, _ in front})
    reached = np.sort([_reached(front, sizes) for front in fronts], axis=0)[::-1]
    surface: list[Step] = []
    for size, merit in zip(sizes, reached[needed - 1].tolist(), strict=True):
        if merit > (surface[-1][1] if surface else -math.inf):
            surface.append((size, merit))
    return surface


def _reached(front: Sequence[Step], sizes: Sequence[int]) -> list[float]:
    """Best merit of the front within each size; -inf where nothing fits."""
    return [max((merit for nbytes, merit in front if nbytes <= size), default=-math.inf) for size in sizes]


def _rate_curve(name: str, points: Sequence[Step]) -> scipy.interpolate.PchipInterpolator:
    """Log bytes over merit, of the non-dominated points only, so that the curve is a function and rises."""
    kept: list[Step] = []
    for size, merit in sorted(points, key=lambda step: (step[0], -step[1])):
        if not kept or merit > kept[-1][1]:
            kept.append((size, merit))
    if len(kept) < 2:
        raise EvocompressError(
            f"{name} has {len(kept)} non-dominated points; BD-rate needs at least two on each front."
        )
    merits = np.array([merit for _, merit in kept])
    return scipy.interpolate.PchipInterpolator(merits, np.log([size for size, _ in kept]))
