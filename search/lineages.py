"""Lineages: chains of segments, each with the file of the one before as its parent, along which λ moves.

λ rises along a lineage, or falls, and may turn round at an end of its range (`SearchSettings.lineage_turns`). Which
lineage is gone on with, and when, is `ask_tell.Search`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evocompress.search.objectives import Member, Scale
from evocompress.search.records import Genome, Leaf, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space

__all__ = ["Lineages"]


class _Way(NamedTuple):
    """How a lineage goes on: λ rises (1) or falls (-1), and turns round so often yet at an end of its range."""

    direction: int
    turns: int


class _End(NamedTuple):
    """A file of a lineage, and how that goes on from it."""

    member: Member
    way: _Way

    def to_json(self) -> dict[str, Any]:
        return {"key": list(self.member.key), "leaf": self.member.leaf.to_json(), "way": list(self.way)}

    @classmethod
    def from_json(cls, data: dict[str, Any], scale: Scale) -> _End:
        first, second = data["key"]
        return cls(scale.member(Leaf.from_json(data["leaf"]), (first, second)), _Way(*data["way"]))


class _Begun(NamedTuple):
    """A task of a lineage: how that goes on from its file, and what it goes back to where the network collapses."""

    way: _Way
    back: _End | None


class Lineages:
    """The lineages of a search that still have a way to go.

    Args:
        space: The genes; those that advance move along a lineage.
        settings: Of the search.
        hold, release: Called with a leaf whose file a lineage needs from now on, and no longer.
    """

    def __init__(
        self,
        space: Space,
        settings: SearchSettings,
        hold: Callable[[Leaf], None],
        release: Callable[[Leaf], None],
    ) -> None:
        self._space, self._settings = space, settings
        self._hold, self._release = hold, release
        self._open: dict[str, _End] = {}  # by leaf_id, oldest first
        self._begun: dict[int, _Begun] = {}  # tasks whose leaves will be the ends of lineages, by index

    def newest(self) -> tuple[Member, Genome] | None:
        """The end of the newest lineage, and the genome with which it goes on; None where all have come to an end."""
        if not self._open:
            return None
        end = next(reversed(self._open.values()))
        return end.member, self._gone_on(end)[0]

    def register(self, task: SegmentTask) -> None:
        """Take in a task that has been asked for: one that begins a lineage, goes on with one, or neither."""
        if task.operator in ("initial", "seed"):
            self._begun[task.index] = _Begun(self._first_way(task.genome), None)
        elif task.rule == "lineage":
            end = self._open.pop(task.parents[0].leaf_id, None)
            if end is None:  # decided before an override, which left no way there
                self._begun[task.index] = _Begun(self._first_way(task.genome), None)
                return
            way, back = self._gone_on(end)[1], None
            if way.turns:
                back = _End(end.member, _Way(-way.direction, way.turns - 1))
                self._hold(back.member.leaf)
            self._begun[task.index] = _Begun(way, back)
            self._release(end.member.leaf)

    def fold(self, index: int, members: Sequence[Member]) -> None:
        """Take in what came of a task: its lineage goes on from there, or, of a collapsed network, from its parent."""
        begun = self._begun.pop(index, None)
        if begun is None:
            return
        if members and members[0].y < self._settings.reference[1]:
            self._open_end(_End(members[0], begun.way))
        elif begun.back is not None:
            self._open_end(begun.back)
        if begun.back is not None:
            self._release(begun.back.member.leaf)

    def close(self) -> None:
        """Leave all lineages where they are; new ones begin.

        Where the space has changed, ends of the way become ends no more, and their files may be gone since long.
        """
        for end in self._ends():
            self._release(end.member.leaf)
        self._open, self._begun = {}, {}

    def needed(self) -> list[Member]:
        """What lineages go on from, or may go back to."""
        return [end.member for end in self._ends()]

    def state_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "open": [end.to_json() for end in self._open.values()],
            "begun": {
                str(index): {"way": list(begun.way), "back": None if begun.back is None else begun.back.to_json()}
                for index, begun in sorted(self._begun.items())
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, where nothing was held so far; holds what is needed."""
        scale = Scale.of(self._settings)
        ends = [_End.from_json(item, scale) for item in state["open"]]
        self._open = {end.member.leaf.leaf_id: end for end in ends}
        self._begun = {
            int(index): _Begun(
                _Way(*item["way"]), None if item["back"] is None else _End.from_json(item["back"], scale)
            )
            for index, item in state["begun"].items()
        }
        for end in self._ends():
            self._hold(end.member.leaf)

    def _ends(self) -> list[_End]:
        return [*self._open.values(), *(begun.back for begun in self._begun.values() if begun.back is not None)]

    def _open_end(self, end: _End) -> None:
        leaf = end.member.leaf
        if self._gone_on(end)[0] != self._space.completed(leaf.genome):  # else there is no way further
            self._open[leaf.leaf_id] = end
            self._hold(leaf)

    def _first_way(self, genome: Genome) -> _Way:
        """That of a new lineage: towards the end of λ's range that is further away, or, if none turns round, up.

        One that begins low has been at the low end, so to say, and turns round once less.
        """
        turns = self._settings.lineage_turns
        if turns and self._space.upper_half(self._space.completed(genome)):
            return _Way(-1, turns)
        return _Way(1, max(turns - 1, 0))

    def _gone_on(self, end: _End) -> tuple[Genome, _Way]:
        """The genome of a lineage's next segment, and how it goes on then; the same genome at the end of its way."""
        genome, way, step = self._space.completed(end.member.leaf.genome), end.way, self._settings.lineage_step
        moved = self._space.advanced(genome, way.direction, step)
        if moved == genome and way.turns:
            way = _Way(-way.direction, way.turns - 1)
            moved = self._space.advanced(genome, way.direction, step)
        return moved, way
