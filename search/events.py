"""Events of a search, which its observer hears: small frozen objects with all that a live display needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

from evocompress.search.ask_tell import Told
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, Outcome, SegmentTask

__all__ = [
    "AwaitingNodes",
    "Delayed",
    "Ended",
    "Finished",
    "LargerShare",
    "Late",
    "LateJob",
    "Opened",
    "Reason",
    "SnapshotIgnored",
    "Submitted",
    "Watching",
]

Reason: TypeAlias = Literal["finished", "stopped", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Watching:
    """For so many seconds a lease is watched: whether its holder, process `pid` on another machine, is alive."""

    pid: int
    host: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class AwaitingNodes:
    """A segment with these `needs` fits on no node of a cluster; its autoscaler was asked for some `seconds` ago."""

    needs: Mapping[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True)
class SnapshotIgnored:
    """A snapshot of the folded search does not fit what is there, for this reason; the journal is read instead."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run is about to be searched; `front` is what a resume begins with.

    `total` segments are its budget, and what is left of its time in `seconds`; None where there is no bound.
    """

    name: str
    total: int | None = None
    workers: int | None = None
    front: tuple[Leaf, ...] = ()
    quality: Quality = Quality("quality")
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A segment went to the executor; `resumed`: it had been in flight when an earlier driver ended."""

    index: int
    task: SegmentTask
    in_flight: int
    resumed: bool = False


@dataclasses.dataclass(frozen=True)
class Finished:
    """An outcome was told and journalled; `completion` counts from 0, `elapsed` is seconds of the whole run."""

    index: int
    completion: int
    outcome: Outcome
    told: Told
    hypervolume: float
    front_size: int
    in_flight: int
    elapsed: float


@dataclasses.dataclass(frozen=True)
class Delayed:
    """A task was lost for a reason that says nothing of it; after `pause` seconds it is tried again."""

    task: SegmentTask
    reason: str
    tries: int
    pause: float


@dataclasses.dataclass(frozen=True)
class LargerShare:
    """A task ran out of memory, with these words; it is tried again with a larger `share` of a GPU."""

    task: SegmentTask
    share: float
    error: str


@dataclasses.dataclass(frozen=True)
class Late:
    """A segment takes longer than `limit` seconds, or waits so long for a worker.

    `seconds` is how long it has been running on `node`, or waiting where that is None; `attempt` the number of the
    attempt that begins beside it, 0 where none does.
    """

    task: SegmentTask
    seconds: float
    limit: float
    node: str | None = None
    attempt: int = 0


@dataclasses.dataclass(frozen=True)
class LateJob:
    """A job beside the segments, such as the audit, takes long: so many seconds on `node`, or waiting where it is None.

    "silent": nothing was heard of its worker for so long; if that stands still it is ended, and the job begun anew.
    "begun anew": its worker was lost, and it runs on this node now.
    """

    what: str
    seconds: float
    node: str | None
    kind: Literal["slow", "silent", "begun anew"] = "slow"


@dataclasses.dataclass(frozen=True)
class Ended:
    """The loop is over: the budget is used up, `should_stop` said so, or Ctrl-C."""

    reason: Reason
    completions: int
    hypervolume: float
    front_size: int
