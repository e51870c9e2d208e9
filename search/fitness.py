"""How good a member is among the members of one pool: a tuple that is minimised. Plain loops: pools are small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from evocompress.search.objectives import Member
from evocompress.search.pareto import first_front

__all__ = ["Fitness", "FitnessRule", "by_dominance", "by_sum"]

Fitness: TypeAlias = tuple[float, float]
FitnessRule: TypeAlias = Callable[[Sequence[Member], tuple[float, float]], list[Fitness]]


def by_sum(members: Sequence[Member], reference: tuple[float, float]) -> list[Fitness]:
    """The sum of the scaled objectives: the scalar score that dominance is compared with."""
    return [(member.x + member.y, 0.0) for member in members]


def by_dominance(members: Sequence[Member], reference: tuple[float, float]) -> list[Fitness]:
    """(front number, -hypervolume contribution within that front): (Emmerich, Beume and Naujoks, 2005)."""
    fronts = _fronts(members)
    fitness: list[Fitness] = [(0.0, 0.0)] * len(members)
    for rank, front in enumerate(fronts):
        for i, part in zip(front, _staircase_parts([members[i] for i in front], reference), strict=True):
            fitness[i] = (float(rank), -part)
    return fitness


def _fronts(members: Sequence[Member]) -> list[list[int]]:
    """Indices of each front's members, by ascending x."""
    order = sorted(range(len(members)), key=lambda i: (members[i].x, members[i].y))
    last_y: list[float] = []
    fronts: list[list[int]] = []
    previous: tuple[float, float] | None = None
    front = 0
    for i in order:
        point = (members[i].x, members[i].y)
        if point != previous:
            front = first_front(last_y, point[1])
            if front == len(fronts):
                fronts.append([])
        fronts[front].append(i)
        previous = point
    return fronts


def _staircase_parts(front: Sequence[Member], reference: tuple[float, float]) -> list[float]:
    """The rectangle that each member alone dominates; 0 for a duplicate, whose twin dominates the same."""
    xs = [min(member.x, reference[0]) for member in front]
    ys = [min(member.y, reference[1]) for member in front]
    rights = [*xs[1:], reference[0]]
    ceilings = [reference[1], *ys[:-1]]
    return [(right - x) * (top - y) for x, y, right, top in zip(xs, ys, rights, ceilings, strict=True)]
