"""Population: the archive (what was found) and the pool (where parents come from), folded from outcomes in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evocompress.search.archive import Archive
from evocompress.search.objectives import Member, Scale
from evocompress.search.parent_pool import Pool
from evocompress.search.settings import SearchSettings

__all__ = ["Population"]


class Population:
    """Archive and pool side by side."""

    def __init__(self, settings: SearchSettings) -> None:
        self.archive = Archive(settings.reference)
        self.pool = Pool(settings)

    def __contains__(self, leaf_id: object) -> bool:
        return leaf_id in self.pool or leaf_id in self.archive

    def insert(self, members: Sequence[Member]) -> list[Member]:
        """Offer members to both; returns those that one of the two let go of."""
        released = [removed for member in members for removed in self.archive.insert(member)[1]]
        return released + self.pool.insert(members)

    def find(self, leaf_id: str) -> Member | None:
        """The member of that leaf, if one of the two holds it."""
        if leaf_id not in self:
            return None
        members = self.pool.members if leaf_id in self.pool else self.archive.members
        return next(member for member in members if member.leaf.leaf_id == leaf_id)

    def state_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {"archive": self.archive.state_dict(), "pool": self.pool.state_dict()}

    @classmethod
    def from_state(cls, state: dict[str, Any], settings: SearchSettings) -> Population:
        """The inverse of `state_dict`."""
        population = cls(settings)
        population.archive = Archive.from_state(state["archive"], settings.reference, Scale.of(settings))
        population.pool = Pool.from_state(state["pool"], settings)
        return population
