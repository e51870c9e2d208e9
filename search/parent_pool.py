"""Pool of parents: the bounded set of leaves that a selection policy keeps, and that parents are drawn from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from evocompress.search.objectives import Member, Scale
from evocompress.search.records import Leaf
from evocompress.search.selection_policies import Fitness
from evocompress.search.settings import SearchSettings

__all__ = ["Pool"]


class Pool:
    """At most `pool_size` members, or all there ever were where the selection policy ranks nothing."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        self._survivors = settings.policy.survivors
        self.members: list[Member] = []
        self._fitness: list[Fitness] = []
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, leaf_id: object) -> bool:
        return leaf_id in self._ids

    def insert(self, members: Iterable[Member]) -> list[Member]:
        """Take all of `members` in, then drop the worst while there are too many; returns the dropped."""
        self.members.extend(members)
        if self._survivors is None:
            self._ids.update(member.leaf.leaf_id for member in self.members[len(self._ids) :])
            return []
        kept = self._survivors(self.members, self._settings.pool_size, self._settings.reference)
        dropped = [member for i, member in enumerate(self.members) if i not in kept]
        self._fitness = [kept[i] for i in range(len(self.members)) if i in kept]
        self.members = [member for i, member in enumerate(self.members) if i in kept]
        self._ids = {member.leaf.leaf_id for member in self.members}
        return dropped

    def draw(self, rng: np.random.Generator, children: Mapping[str, int]) -> Member:
        """The best of a few random members, or any member where nothing is ranked.

        Of equal rank, one that has had fewer children is better: what a lineage came to last is gone on with before
        what came before it is tried again.
        """
        n = len(self.members)
        if self._survivors is None:
            return self.members[int(rng.integers(n))]
        drawn = rng.integers(n, size=self._settings.tournament_size)

        def order(i: int) -> tuple[float, int, float, tuple[int, int]]:
            (rank, within), member = self._fitness[i], self.members[i]
            tried = children.get(member.leaf.leaf_id, 0) if self._settings.policy.counts_tries else 0
            return rank, tried, within, member.key

        return self.members[min(map(int, drawn), key=order)]

    def neighbour(self, member: Member, rng: np.random.Generator) -> Member | None:
        """A member next to `member` in size, on either side; None where there is no other.

        Where nothing is ranked it is any other member: to sort all there ever were would cost more than it tells.
        """
        others = [other for other in self.members if other.leaf.leaf_id != member.leaf.leaf_id]
        if not others:
            return None
        if self._survivors is None:
            return others[int(rng.integers(len(others)))]
        others.sort(key=lambda other: (other.x, other.key))
        at = bisect_left(others, (member.x, member.key), key=lambda other: (other.x, other.key))
        near = others[max(at - 1, 0) : at + 1]
        return near[int(rng.integers(len(near)))]

    def state_dict(self) -> list[dict[str, Any]]:
        """As JSON-ready data, in order, since draws go by position."""
        return [{"key": list(member.key), "leaf": member.leaf.to_json()} for member in self.members]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]], settings: SearchSettings) -> Pool:
        """The inverse of `state_dict`."""
        pool, scale = cls(settings), Scale.of(settings)
        pool.insert(scale.member(Leaf.from_json(item["leaf"]), (item["key"][0], item["key"][1])) for item in state)
        return pool
