"""Protocols of executors, which run a search's tasks; `extensions.EXECUTORS` names the file of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from evocompress.search.attempt import Lost, OutOfMemory, Running, Segment
from evocompress.search.events import AwaitingNodes, LateJob
from evocompress.search.node_probe import NodeProbe
from evocompress.search.node_roll import NodeNews
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.shipment import Shipment
from evocompress.search.storage import Storage

__all__ = [
    "Executor",
    "ExecutorResources",
    "HasNodeNews",
    "LooksAtNodes",
    "MakeExecutor",
    "SeveralAttempts",
    "SharesGpus",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs tasks, each at least once, and never raises for what happens inside one."""

    @property
    def workers(self) -> int:
        """How many tasks run at the same time."""
        ...

    @property
    def slots(self) -> int:
        """How many tasks to keep in flight: some more than `workers`, so that none waits for the driver."""
        ...

    def now(self) -> float:
        """Seconds on this executor's clock, from any start."""
        ...

    def submit(self, task: SegmentTask) -> None:
        """Start a task, or queue it."""
        ...

    def wait(self, timeout: float | None) -> Sequence[Outcome | Lost | OutOfMemory]:
        """Block until at least one outcome is there, or `timeout` seconds went by; outcomes may come twice.

        A task whose attempt was lost, or failed for a reason that says nothing of it, comes back as `Lost`; one that
        ran out of memory and may have more of it as `OutOfMemory`, but only from an executor that `SharesGpus`.
        """
        ...

    def sleep(self, seconds: float) -> None:
        """Let so much time go by on this executor's clock."""
        ...

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        what: str = "a job",
        observer: Callable[[LateJob], object] | None = None,
    ) -> list[Result]:
        """`function` of every item, on the workers, in order; for jobs around a search. Raises what it raises.

        An executor that can tell says to `observer` if one takes long; `what` is what people call it.
        """
        ...

    def cancel(self) -> None:
        """Give up everything in flight."""
        ...

    def close(self) -> None:
        """Cancel, and hand back what this executor holds."""
        ...


@runtime_checkable
class SeveralAttempts(Protocol):
    """What an executor may have besides, without which segments have no limit of time.

    Once one attempt at a task has an outcome, the executor gives up the others; `Lost` is said of the last one only.
    """

    def running(self) -> Mapping[str, Running]:
        """By segment_id, the oldest attempt of each task that has one which has begun; the others wait for a worker."""
        ...

    def attempt(self, task: SegmentTask) -> None:
        """Start another attempt beside what there is, on a node that has none if there is such a node."""
        ...


@runtime_checkable
class SharesGpus(Protocol):
    """What an executor may have besides, several of whose tasks share a GPU."""

    def submit_larger(self, task: SegmentTask, share: float) -> None:
        """Start a task with so much of a GPU, in this and all further attempts."""
        ...


@runtime_checkable
class LooksAtNodes(Protocol):
    """What an executor on several machines may have besides: it is called before a run's first segment."""

    def look_at_nodes(self, probe: NodeProbe) -> None:
        """Call the probe on each machine, and raise `RunError` where none has all that a run needs."""
        ...


@runtime_checkable
class HasNodeNews(Protocol):
    """What such an executor may have besides: it tells which machines it leaves out, and which join a run later."""

    def node_news(self) -> list[NodeNews]:
        """What is new since the last call."""
        ...


@dataclasses.dataclass(frozen=True)
class ExecutorResources:
    """What an executor may use; it passes over what it has no use for.

    Args:
        workers: How many segments run at once; None for as many as fit.
        cpus: CPUs that a segment takes.
        gpus: GPUs that a segment takes, also parts of one; None for a share of one where there is any.
        address: A cluster to join; None for one of its own.
        env_vars: Environment variables of the workers, set before anything is imported there.
        shipment: What workers on other machines get besides.
        observer: Hears what is waited for before an executor is there.
    """

    workers: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    address: str | None = None
    env_vars: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shipment: Shipment = Shipment()
    observer: Callable[[AwaitingNodes], object] | None = None


MakeExecutor: TypeAlias = Callable[[Segment, Storage, ExecutorResources], Executor]
"""What `extensions.EXECUTORS` holds: from a segment, where its files go, and what there is, to an executor."""
