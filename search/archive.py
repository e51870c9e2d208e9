"""Archive of all non-dominated leaves, the result of a search: a staircase with its hypervolume kept up to date."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any

from evocompress.search.objectives import Member, Scale
from evocompress.search.records import Leaf

__all__ = ["Archive"]


class Archive:
    """Members by ascending x (bytes) and descending y (error).

    Of two equal points the one with the smaller key stays, so the content depends on what was inserted, never on the
    order.
    """

    def __init__(self, reference: tuple[float, float]) -> None:
        self.reference = reference
        self.hypervolume = 0.0
        self.members: list[Member] = []
        self._xs: list[float] = []
        self._ys: list[float] = []
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Leaf]:
        return (member.leaf for member in self.members)

    def __contains__(self, leaf_id: object) -> bool:
        return leaf_id in self._ids

    def insert(self, member: Member) -> tuple[bool, list[Member]]:
        """Take `member` in unless one here is as good; returns whether it came in, and whom it displaced."""
        at = bisect_left(self._xs, member.x)
        if at > 0 and self._ys[at - 1] <= member.y:
            return False, []
        if at < len(self._xs) and self._xs[at] == member.x and self._ys[at] <= member.y:
            if self._ys[at] < member.y or self.members[at].key <= member.key:
                return False, []
        end = at
        while end < len(self._ys) and self._ys[end] >= member.y:
            end += 1
        self.hypervolume += self._gain(at, member)
        displaced = self.members[at:end]
        self.members[at:end], self._xs[at:end], self._ys[at:end] = [member], [member.x], [member.y]
        self._ids.difference_update(old.leaf.leaf_id for old in displaced)
        self._ids.add(member.leaf.leaf_id)
        return True, displaced

    def _gain(self, at: int, member: Member) -> float:
        """Area that `member` adds when it comes in at `at`: walk the steps to its right until one lies below it."""
        limit_x, limit_y = self.reference
        left, ceiling, gain = member.x, limit_y, 0.0
        if at > 0:
            ceiling = min(ceiling, self._ys[at - 1])
        while left < limit_x and ceiling > member.y:
            right = min(self._xs[at], limit_x) if at < len(self._xs) else limit_x
            gain += (right - left) * (ceiling - member.y)
            if at == len(self._xs):
                break
            left, ceiling, at = right, min(ceiling, self._ys[at]), at + 1
        return gain

    def within(self, x: float) -> Member | None:
        """The member of least error of at most `x`, None where every one is larger."""
        at = bisect_right(self._xs, x)
        return self.members[at - 1] if at else None

    def between(self, low: float, high: float) -> tuple[int, int]:
        """Index range of the members with low <= x < high."""
        return bisect_left(self._xs, low), bisect_left(self._xs, high)

    def state_dict(self) -> dict[str, Any]:
        """As JSON-ready data; the hypervolume too, since summed in another order it would differ in the last bits."""
        members = [{"key": list(member.key), "leaf": member.leaf.to_json()} for member in self.members]
        return {"hypervolume": self.hypervolume, "members": members}

    @classmethod
    def from_state(cls, state: dict[str, Any], reference: tuple[float, float], scale: Scale) -> Archive:
        """The inverse of `state_dict`."""
        archive = cls(reference)
        for item in state["members"]:
            archive.insert(scale.member(Leaf.from_json(item["leaf"]), (item["key"][0], item["key"][1])))
        archive.hypervolume = state["hypervolume"]
        return archive
