"""Reports of Ray's workers: which attempts have begun, where, since when, and when each was last heard of.

They go to a small actor beside the driver: what freezes elsewhere leaves it alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evocompress.search.processes import born, cpu_seconds
from evocompress.search.ray_cluster import RayCluster, heard, node_here

__all__ = ["Place", "RayReports", "Report", "beating", "report"]

_ANSWER_SECONDS = 5.0
_FIRST_SECONDS = 60.0  # for the first report of a job: the actor's own process may be starting
_IDLE_SECONDS = 2.0  # in which a process that computes takes at least a quarter of a core


class Place(NamedTuple):
    """Where an attempt runs. `born` is the process's start time, since pids are used again."""

    node_id: str
    host: str
    pid: int
    born: str

    def __str__(self) -> str:
        return f"{self.host} (node {self.node_id[:8]})"


class Report(NamedTuple):
    """Of an attempt that has begun: where (None: unknown), for how many seconds, and how long nothing was heard."""

    place: Place | None
    seconds: float
    silent: float = 0.0


def _here() -> Place:
    return Place(node_here(), socket.gethostname(), os.getpid(), born(os.getpid()))


def report(actor: Any, attempt: int) -> None:
    """Called in a worker: this attempt runs here."""
    actor.note.remote(attempt, _here())


@contextlib.contextmanager
def beating(actor: Any, attempt: int, seconds: float) -> Iterator[None]:
    """Report an attempt every so many seconds while it runs, from a thread, which stands still where the process does.

    The first report has arrived before the attempt begins, so that a process which freezes in it is known.
    """
    here = _here()
    heard(actor.note.remote(attempt, here), _FIRST_SECONDS)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            with contextlib.suppress(Exception):  # the next beat may be heard
                actor.note.remote(attempt, here)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_ANSWER_SECONDS)


class _Begun:
    """The actor that knows which attempts have begun, and when by its own clock."""

    def __init__(self) -> None:
        self.attempts: dict[int, tuple[Place, float, float]] = {}

    def note(self, attempt: int, place: Place) -> None:
        now = time.monotonic()
        before = self.attempts.get(attempt)
        began = before[1] if before is not None and before[0] == place else now
        self.attempts[attempt] = (place, began, now)

    def seconds(self, wanted: Sequence[int]) -> dict[int, Report]:
        """What is known of those among `wanted` that have begun; the others are forgotten."""
        now = time.monotonic()
        self.attempts = {attempt: self.attempts[attempt] for attempt in wanted if attempt in self.attempts}
        return {
            attempt: Report(place, now - began, now - heard) for attempt, (place, began, heard) in self.attempts.items()
        }


def _kill(place: Place, only_idle: bool) -> bool:
    """End a worker that was given up: one that is stopped does not hear Ray, and would keep its resources.

    With `only_idle` it is left alone where it computes. Whether it is gone now.
    """
    if only_idle:
        before = cpu_seconds(place.pid)
        time.sleep(_IDLE_SECONDS)
        if cpu_seconds(place.pid) - before > _IDLE_SECONDS / 4:
            return False
    if born(place.pid) == place.born != "":
        os.kill(place.pid, signal.SIGKILL)
    return True


class RayReports:
    """The driver's side: numbers for attempts, what is known of them, and the end of one that was given up.

    Args:
        cluster: Whose workers.
        runtime_env: Ray's environment of a segment's workers.
    """

    def __init__(self, cluster: RayCluster, runtime_env: Mapping[str, Any]) -> None:
        self._cluster, self._ray, self._runtime_env = cluster, cluster.ray, runtime_env
        here = cluster.on_node(cluster.here)
        remote = self._ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here, runtime_env=runtime_env)
        #: What `report` and `beating` take in a worker.
        self.actor = remote(_Begun).remote()
        self._numbers = itertools.count()
        self._submitted: dict[int, float] = {}
        self._newest = -1  # of the attempts that are known to have begun
        self._overtaken: dict[int, float] = {}  # since when younger attempts are known to have begun

    def number(self) -> int:
        """A number for an attempt that is handed to Ray now."""
        number = next(self._numbers)
        self._submitted[number] = time.monotonic()
        return number

    def ended(self, number: int) -> None:
        """An attempt has ended, and so has begun."""
        self._submitted.pop(number, None)
        self._newest = max(self._newest, number)

    def forget(self, number: int) -> None:
        """An attempt was given up."""
        self._submitted.pop(number, None)

    def clear(self) -> None:
        """All were given up."""
        self._submitted.clear()

    def of(self, numbers: Sequence[int]) -> dict[int, Report]:
        """What is known of attempts: that one has begun follows from others that were submitted later, too.

        A worker that freezes at once has no time to report.
        """
        now = time.monotonic()
        try:
            reports: dict[int, Report] = self._ray.get(self.actor.seconds.remote(numbers), timeout=_ANSWER_SECONDS)
        except self._ray.exceptions.RayError:  # then all that is known is when they were handed over
            return {number: Report(None, now - self._submitted[number]) for number in numbers}
        self._newest = max(self._newest, *reports, -1)
        overtaken = [number for number in numbers if number < self._newest and number not in reports]
        self._overtaken = {number: self._overtaken.get(number, now) for number in overtaken}
        return reports | {number: Report(None, now - since) for number, since in self._overtaken.items()}

    def end(self, place: Place, *, only_idle: bool = False) -> Any:
        """End a worker's process, which need not hear of it itself, or only one that does not compute.

        Ray's reference to whether it is gone.
        """
        kill = self._ray.remote(num_cpus=0, max_retries=0, runtime_env=self._runtime_env)(_kill)
        return kill.options(scheduling_strategy=self._cluster.on_node(place.node_id, soft=False)).remote(
            place, only_idle
        )
