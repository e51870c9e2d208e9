"""One interface, three executors: in this process, simulated, on Ray. Only `ray_executor` imports Ray, on use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from evocompress.search.inline import InlineExecutor
from evocompress.search.ray_executor import RayExecutor
from evocompress.search.records import Outcome, Task
from evocompress.search.simulated import SimulatedExecutor

__all__ = ["Executor", "InlineExecutor", "RayExecutor", "SimulatedExecutor"]

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

    def submit(self, task: Task) -> None:
        """Start a task, or queue it."""
        ...

    def wait(self, timeout: float | None) -> list[Outcome]:
        """Block until at least one outcome is there, or `timeout` seconds went by; outcomes may come twice."""
        ...

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function` of every item, on the workers, in order; for jobs around a search. Raises what it raises."""
        ...

    def cancel(self) -> None:
        """Give up everything in flight."""
        ...

    def close(self) -> None:
        """Cancel, and hand back what this executor holds."""
        ...
