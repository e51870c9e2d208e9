"""Index of a journal: where each task and each outcome stands, so that a long run is looked at without holding it.

What is held of a segment is its id, the ids of its leaves, and two numbers in the journal. The views below look like
the dicts and lists that they stand for; each look reads a line again and checks it.
"""

from __future__ import annotations

import abc
import os
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from evocompress.errors import RunError
from evocompress.search.journal import Line, Record
from evocompress.search.journal_records import BULK, checked_record, outcome_of, task_of
from evocompress.search.records import Leaf, Outcome, SegmentTask

__all__ = ["LEAVES", "JournalIndex", "Leaves", "Outcomes", "Records", "SegmentOf", "Tasks", "Told"]

Item = TypeVar("Item")
#: More leaves than any segment has: what a leaf's number counts in.
LEAVES = 4096


class JournalIndex:
    """Where lines stand; made by `add`, line by line. The journal may grow meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others: dict[int, Record] = {}  # records of other types than `BULK`, by position
        self.kinds: list[str] = []
        self.tasks: dict[str, int] = {}  # segment_id to the position of its submitted line
        self.parents: dict[str, str] = {}  # segment_id to the leaf_id that it went on from, if it did
        self.finished = array("q")  # positions of finished lines that count
        self.failed = array("q")  # of these, by their number, those whose outcome is not "ok"
        self.segment_ids: list[str] = []  # of the same
        self.completions = array("q")  # of the same
        self.leaves: dict[str, int] = {}  # leaf_id to LEAVES * number of the outcome + number of the leaf
        self._files, self._numbers = array("i"), array("i")
        self._offsets, self._lengths = array("q"), array("q")
        self._open: tuple[int, int] | None = None  # file number and descriptor
        self._last: tuple[int, Line, Record] | None = None

    def add(self, line: Line, record: Record) -> int:
        """Remember where a line stands; its position among all lines."""
        position = len(self.kinds)
        self.kinds.append(sys.intern(line.kind))
        self._files.append(int(line.path.stem))
        self._numbers.append(line.number)
        self._offsets.append(line.offset)
        self._lengths.append(len(line.text))
        if line.kind not in BULK:
            self.others[position] = record
        return position

    def forget_segments(self) -> None:
        """Forget tasks and outcomes; the lines remain."""
        for container in (self.tasks, self.parents, self.segment_ids, self.leaves):
            container.clear()
        for numbers in (self.finished, self.failed, self.completions):
            del numbers[:]

    def read(self, position: int) -> tuple[Line, Record]:
        """The line at a position, read and parsed again."""
        if self._last is not None and self._last[0] == position:
            return self._last[1:]
        path = self.folder / f"{self._files[position]:06d}.jsonl"
        text = os.pread(self._descriptor(path), self._lengths[position], self._offsets[position])
        line = Line(path, self._numbers[position], self._offsets[position], 0, position, self.kinds[position], text)
        record = checked_record(line)
        self._last = (position, line, record)
        return line, record

    def record(self, position: int) -> Record:
        """The record at a position."""
        return self.others[position] if position in self.others else self.read(position)[1]

    def _descriptor(self, path: Path) -> int:
        number = int(path.stem)
        if self._open is None or self._open[0] != number:
            self.close()
            try:
                self._open = (number, os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                raise RunError(f"{path} is gone; read the run again") from None
        return self._open[1]

    def close(self) -> None:
        """Close the file that was last read."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def __del__(self) -> None:
        self.close()

    def task(self, segment_id: str) -> SegmentTask:
        """A task by its id."""
        return task_of(*self.read(self.tasks[segment_id]))

    def outcome(self, number: int) -> Outcome:
        """The outcome that was told as the `number`-th."""
        return outcome_of(*self.read(self.finished[number]))


class _Items(Sequence[Item]):
    """A sequence whose items are made when they are looked at."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index

    @property
    def index_of_journal(self) -> JournalIndex:
        """What this is a view of."""
        return self._index

    @abc.abstractmethod
    def _item(self, number: int) -> Item: ...

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self._item(n) for n in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return self._item(number % len(self))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]


class Outcomes(_Items[Outcome]):
    """Outcomes in the order of telling."""

    def __len__(self) -> int:
        return len(self._index.finished)

    def _item(self, number: int) -> Outcome:
        return self._index.outcome(number)


class Told(_Items[dict[str, Any]]):
    """What each outcome changed, in the order of telling; the hypervolumes are held."""

    def __init__(self, index: JournalIndex) -> None:
        super().__init__(index)
        self.hypervolumes = array("d")

    def __len__(self) -> int:
        return len(self._index.finished)

    def _item(self, number: int) -> dict[str, Any]:
        told: dict[str, Any] = self._index.read(self._index.finished[number])[1]["told"]
        return told


class Records(_Items[Record]):
    """All records in order."""

    def __len__(self) -> int:
        return len(self._index.kinds)

    def _item(self, number: int) -> Record:
        return self._index.record(number)

    def of_kind(self, kind: str) -> Iterator[Record]:
        """The records of a type, in order."""
        if kind not in BULK:
            yield from (record for record in self._index.others.values() if record["type"] == kind)
            return
        for position, other in enumerate(self._index.kinds):
            if other == kind:
                yield self._index.record(position)


class Tasks(Mapping[str, SegmentTask]):
    """Tasks by segment_id, in the order of submission."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index

    def __getitem__(self, segment_id: str) -> SegmentTask:
        return self._index.task(segment_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.tasks)

    def __len__(self) -> int:
        return len(self._index.tasks)

    def __contains__(self, segment_id: object) -> bool:
        return segment_id in self._index.tasks

    def parent_of(self, segment_id: str) -> str | None:
        """The leaf that a segment went on from, without reading its line; None for one from the initial weights."""
        return self._index.parents.get(segment_id)


class Leaves(Mapping[str, Leaf]):
    """Leaves by leaf_id, in the order of telling."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index

    def __getitem__(self, leaf_id: str) -> Leaf:
        number, place = divmod(self._index.leaves[leaf_id], LEAVES)
        line, record = self._index.read(self._index.finished[number])
        return outcome_of(
            line, {"outcome": {**record["outcome"], "leaves": [record["outcome"]["leaves"][place]]}}
        ).leaves[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.leaves)

    def __len__(self) -> int:
        return len(self._index.leaves)

    def __contains__(self, leaf_id: object) -> bool:
        return leaf_id in self._index.leaves


class SegmentOf(Mapping[str, str]):
    """The segment of each leaf."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index

    def __getitem__(self, leaf_id: str) -> str:
        return self._index.segment_ids[self._index.leaves[leaf_id] // LEAVES]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.leaves)

    def __len__(self) -> int:
        return len(self._index.leaves)
