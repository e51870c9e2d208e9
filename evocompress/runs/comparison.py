"""Comparison of runs: whether they can be, BD-rate of one front against another, and what several attain together.

Runs of one experiment that differ in their seeds alone are a group: what they attain together stands for it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.errors import ConfigError, EvocompressError
from evocompress.runs.front import FrontPoint, front, hypervolume_curve, in_view
from evocompress.search.quality import Quality

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = [
    "LEAST_SEEDS",
    "ComparedRun",
    "Comparison",
    "Step",
    "attained",
    "attainment",
    "bd_rate",
    "bd_rates",
    "check_same_data",
    "common_quality",
    "seed_groups",
    "steps",
]

#: So many runs of one experiment have a median worth drawing.
LEAST_SEEDS = 3
#: What may differ among the configurations of one experiment's runs.
_OF_THE_RUN = ("seed", "name", "resources")

Step: TypeAlias = tuple[int, float]
"""A size in bytes and the merit that it reaches: the quality, negated where it is minimised, so that more is better."""


class ComparedRun(NamedTuple):
    """A run beside others: files of its front, bytes of the smallest, best quality, validation hypervolume, BD-rate.

    The BD-rate is against the first run, in percent; None where the two have no range of quality in common, as is
    whatever else there is none of.
    """

    label: str
    points: int
    smallest: int | None
    best: float | None
    hypervolume: float | None
    bd_rate: float | None


class Comparison(NamedTuple):
    """Runs compared: a row for each, the groups that differ in their seeds alone, and what each group attains.

    `fronts` are the files that count, `left_out` is how many others there are.
    """

    rows: tuple[ComparedRun, ...]
    groups: dict[str, list[str]]
    attained: dict[str, list[Step]]
    fronts: dict[str, list[FrontPoint]]
    left_out: int

    @classmethod
    def of(
        cls,
        histories: Mapping[str, History],
        fronts: Mapping[str, Sequence[FrontPoint]],
        quality: Quality,
        *,
        chance_level: bool = False,
    ) -> Comparison:
        """Compare runs by label; `common_quality` says if they can be.

        Args:
            histories: The runs.
            fronts: Their fronts, or parts of those.
            quality: What all of them measure.
            chance_level: Whether files of chance level count (those that are not `in_view` on the whole front). They
                say nothing of how well a run compresses, but they would be the smallest ones, and a BD-rate would
                count qualities that nobody wants.
        """
        given = sum(map(len, fronts.values()))
        counting = {
            label: [*points] if chance_level else _useful(points, histories[label], quality)
            for label, points in fronts.items()
        }
        fronts_steps = {label: steps(points, quality) for label, points in counting.items()}
        baseline = next(iter(fronts_steps.values()))
        rows = []
        for label, points in counting.items():
            curve = hypervolume_curve(histories[label])
            rows.append(
                ComparedRun(
                    label,
                    len(points),
                    min((point.nbytes for point in points), default=None),
                    min(points, key=lambda point: point.error).quality if points else None,
                    curve[-1].hypervolume if curve else None,
                    _bd_rate_or_none(baseline, fronts_steps[label]),
                )
            )
        groups = seed_groups({label: history for label, history in histories.items() if counting[label]})
        reached = {name: [fronts_steps[label] for label in labels] for name, labels in groups.items()}
        surfaces = {name: attainment(members) for name, members in reached.items()}
        return cls(tuple(rows), groups, surfaces, counting, given - sum(map(len, counting.values())))


def _useful(points: Iterable[FrontPoint], history: History, quality: Quality) -> list[FrontPoint]:
    """The points that are in view on the whole front, of which they may be a part."""
    leaf_ids = {point.leaf_id for point in in_view(front(history), quality)}
    return [point for point in points if point.leaf_id in leaf_ids]


def check_same_data(histories: Mapping[str, History]) -> None:
    """Refuse runs on other data, whose qualities say nothing about each other; other splits of the same are no matter.

    Raises:
        ConfigError: Says which two.
    """
    (label, first), *others = histories.items()
    for other, history in others:
        if _named_data(first) != _named_data(history) and _digest(first) != _digest(history):
            raise ConfigError(f"{label} and {other} were judged on different data.")


def _named_data(history: History) -> tuple[object, object]:
    config = history.run.get("config", {})
    return config.get("data"), config.get("data_options") or {}


def _digest(history: History) -> object:
    return history.run.get("data", {}).get("sha256")


def common_quality(histories: Mapping[str, History]) -> Quality:
    """What all runs measure.

    Raises:
        ConfigError: They measure different things, which no table or picture can show together.
    """
    (label, first), *others = histories.items()
    for other, history in others:
        measures, measures_too = (
            dataclasses.replace(quality, digits=0) for quality in (first.quality, history.quality)
        )
        if measures != measures_too:
            text = f"{label} measures {measures.name} and {other} {measures_too.name}"
            if measures.name == measures_too.name:
                text += f", but not in the same units or direction ({_unit(measures)}; {_unit(measures_too)})"
            raise ConfigError(f"{text}: they cannot be compared; look at them one by one.")
    return first.quality


def _unit(quality: Quality) -> str:
    return f"{quality.direction}d, shown × {quality.scale:g} {quality.unit}".rstrip()


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


def attained(surface: Sequence[Step], nbytes: float) -> float | None:
    """The merit that an attainment surface has at a size; None below its first step."""
    return max((merit for size, merit in surface if size <= nbytes), default=None)


def bd_rates(fronts: Mapping[str, Sequence[Step]]) -> dict[str, dict[str, float | None]]:
    """BD-rate of each front against each other one: `[baseline][test]`; None where they have no range in common."""
    return {
        baseline: {test: _bd_rate_or_none(fronts[baseline], fronts[test]) for test in fronts if test != baseline}
        for baseline in fronts
    }


def _bd_rate_or_none(baseline: Sequence[Step], test: Sequence[Step]) -> float | None:
    try:
        return bd_rate(baseline, test)
    except EvocompressError:
        return None


def seed_groups(runs: Mapping[str, History]) -> dict[str, list[str]]:
    """Runs by experiment: the labels of those that differ in seed, name and resources alone, if they are enough.

    Each group has a name of its own; every other run is alone, under its label.
    """
    alike: dict[str, list[str]] = {}
    for label, history in runs.items():
        config = {key: value for key, value in history.run.get("config", {}).items() if key not in _OF_THE_RUN}
        alike.setdefault(json.dumps(config, sort_keys=True) if config else label, []).append(label)
    groups: dict[str, list[str]] = {}
    for labels in alike.values():
        if len(labels) < LEAST_SEEDS:
            groups |= {label: [label] for label in labels}
        else:
            groups[f"{labels[0]} and {len(labels) - 1} more"] = labels
    return groups


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
