"""Selection policies: which members a pool keeps and how fit each is, and whether parents are drawn by that.

A new policy is a `Policy` object in a file of its own, and a row in `evocompress/extensions.py`; a package adds its own
by the entry points `evocompress.selection`. `parent_draw.py` draws the parents. Plain loops: pools are small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from evocompress.search.objectives import Member
from evocompress.search.pareto import first_front

__all__ = ["DOMINANCE", "RANDOM", "SCALAR", "Fitness", "Policy", "Survivors", "by_dominance", "by_sum", "fronts"]

# Of a member among the members of one pool; minimised.
Fitness: TypeAlias = tuple[float, float]
# (members, size, reference) to the fitness of each member that stays, by its index; the others are dropped.
Survivors: TypeAlias = Callable[[Sequence[Member], int, tuple[float, float]], dict[int, Fitness]]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A way of selecting.

    Args:
        survivors: Says which members stay and how fit each is (`Survivors`); parents are then drawn by
            tournament, from the size bins of the front and under the byte budget, as the settings' shares say. None:
            all there ever were stay, and every parent is drawn uniformly from them.
        counts_tries: Whether a size bin's parents are counted, so that the least tried bin comes first; else a bin is
            drawn at random.

    >>> by_bytes = Policy(lambda members, size, reference: {
    ...     i: (members[i].x, 0.0) for i in sorted(range(len(members)), key=lambda i: members[i].key)[:size]
    ... })
    >>> by_bytes.ranks, RANDOM.ranks
    (True, False)
    """

    survivors: Survivors | None
    counts_tries: bool = True

    @property
    def ranks(self) -> bool:
        """Whether members are told apart at all."""
        return self.survivors is not None


def by_dominance(members: Sequence[Member], size: int, reference: tuple[float, float]) -> dict[int, Fitness]:
    """The `size` members that remain when the worst goes, one by one (Emmerich, Beume and Naujoks, 2005).

    Fitness is (front number, -hypervolume contribution within that front). A member of the last front that goes changes
    the contributions of its neighbours there and no front number, so only the last front is looked at again. Members
    beyond the reference point, such as networks that have collapsed to nothing, are dominated by all others: small
    files of no use are never dominated otherwise, and would be parents again and again.
    """
    layers = _layers(members, reference)
    excess = len(members) - size
    while excess > 0:
        last = layers[-1]
        if len(last) <= excess:
            excess -= len(last)
            layers.pop()
            continue
        parts = _parts([members[i] for i in last], reference)
        last.pop(max(range(len(last)), key=lambda n: (-parts[n], members[last[n]].key)))
        excess -= 1
    fitness: dict[int, Fitness] = {}
    for rank, layer in enumerate(layers):
        parts = _parts([members[i] for i in layer], reference)
        fitness.update((i, (float(rank), -part)) for i, part in zip(layer, parts, strict=True))
    return fitness


def _layers(members: Sequence[Member], reference: tuple[float, float]) -> list[list[int]]:
    """The fronts of the members within the reference point, then those of the others."""
    inside = [i for i, member in enumerate(members) if member.x < reference[0] and member.y < reference[1]]
    outside = sorted(set(range(len(members))) - set(inside))
    return [[part[i] for i in layer] for part in (inside, outside) for layer in fronts([members[i] for i in part])]


def by_sum(members: Sequence[Member], size: int, reference: tuple[float, float]) -> dict[int, Fitness]:
    """The `size` members with the smallest sum of scaled objectives: the score that dominance is compared with."""
    order = sorted(range(len(members)), key=lambda i: (members[i].x + members[i].y, members[i].key))
    return {i: (members[i].x + members[i].y, 0.0) for i in order[:size]}


def fronts(members: Sequence[Member]) -> list[list[int]]:
    """Indices of each front's members, by ascending x; the non-dominated first."""
    last_y: list[float] = []
    layers: list[list[int]] = []
    previous: tuple[float, float] | None = None
    front = 0
    for x, y, i in sorted((member.x, member.y, i) for i, member in enumerate(members)):
        if (x, y) != previous:
            front = first_front(last_y, y)
            if front == len(layers):
                layers.append([])
            previous = (x, y)
        layers[front].append(i)
    return layers


def _parts(front: Sequence[Member], reference: tuple[float, float]) -> list[float]:
    """The rectangle that each member alone dominates; 0 for a duplicate, whose twin dominates the same."""
    limit_x, limit_y = reference
    xs = [member.x if member.x < limit_x else limit_x for member in front]
    ys = [member.y if member.y < limit_y else limit_y for member in front]
    rights, tops = [*xs[1:], limit_x], [limit_y, *ys[:-1]]
    return [(right - x) * (top - y) for x, y, right, top in zip(xs, ys, rights, tops, strict=True)]


#: Front number, then hypervolume contribution within the front.
DOMINANCE = Policy(by_dominance)
#: The sum of the scaled objectives; there for comparison.
SCALAR = Policy(by_sum, counts_tries=False)
#: Uniform parents from everything ever produced; there for comparison.
RANDOM = Policy(None, counts_tries=False)
