"""Jobs around a search, such as its audit, as Ray tasks; a worker that falls silent is ended, so that Ray begins anew.

A job has no limit of time, since nothing says how long it should take: its worker beats instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from evocompress.errors import InfrastructureError
from evocompress.search.events import LateJob
from evocompress.search.ray_cluster import CHECK_SECONDS, RayCluster
from evocompress.search.ray_nodes import NotAsked, RayNodes, Sent, check_node, make_ready
from evocompress.search.ray_reports import Place, RayReports, Report, beating
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.time_limit import ATTEMPTS, FLOOR_SECONDS, doubled

__all__ = ["RayJobs"]

# Seconds without a beat after which a job's worker is ended, and how many beats that are. Compiled loops and torch let
# its thread beat.
_SILENT_SECONDS, _BEATS = 120.0, 24
# After how many times those seconds it is given up where it should have ended, and nothing has begun anew.
_NOT_ENDED = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def _remote_call(
    fit: frozenset[str] | None,
    modules: ShippedModules,
    segment: object,
    data: Any,
    reports: Any,
    number: int,
    beat: float,
    function: Callable[[Any], Any],
    item: Any,
) -> Any:
    check_node(fit)
    with beating(reports, number, beat):
        make_ready(modules, segment, data)
        return function(item)


@dataclasses.dataclass
class _Job:
    """Since when a job is waited for, which workers of it were ended, and how many lines there were about it."""

    began: float = dataclasses.field(default_factory=time.monotonic)
    ended: list[Place] = dataclasses.field(default_factory=list)
    lines: int = 0


class RayJobs:
    """Calls of one function, each a Ray task with a segment's resources.

    Args:
        cluster: Where.
        nodes: Which nodes may have some.
        sent: What workers are made ready with.
        options: Ray's options of a segment.
        reports: Who hears of them.
        look_around: Called every few seconds.
        silent_seconds: After which a worker is ended of which nothing was heard.
    """

    def __init__(
        self,
        cluster: RayCluster,
        nodes: RayNodes,
        sent: Sent,
        *,
        options: Mapping[str, Any],
        reports: RayReports,
        look_around: Callable[[], None],
        silent_seconds: float = _SILENT_SECONDS,
    ) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self._nodes, self._sent, self._options, self._reports = nodes, sent, options, reports
        self._look_around = look_around
        self._silent_seconds = silent_seconds

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        what: str,
        observer: Callable[[LateJob], object],
    ) -> list[Result]:
        """`function` of every item, in order; an exception inside comes out as it was raised.

        Raises:
            InfrastructureError: A worker was lost, or fell silent, again and again.
        """
        results: dict[int, Result] = {}
        with self._cluster.using():
            remote = self._ray.remote(**self._options)(_remote_call)
            shared, beat = self._ray.put(function), self._silent_seconds / _BEATS
            while missing := [place for place in range(len(items)) if place not in results]:
                strategy, fit = self._nodes.placed()
                there = remote if strategy is None else remote.options(scheduling_strategy=strategy)
                numbers = {place: self._reports.number() for place in missing}
                references = {
                    place: there.remote(fit, *self._sent, self._reports.actor, number, beat, shared, items[place])
                    for place, number in numbers.items()
                }
                try:
                    self._wait({references[place]: number for place, number in numbers.items()}, what, observer)
                finally:
                    for number in numbers.values():
                        self._reports.forget(number)
                for place, reference in references.items():
                    with contextlib.suppress(NotAsked):
                        results[place] = self._result(reference)
                if len(results) < len(items):
                    self._nodes.look()
        return [results[place] for place in range(len(items))]

    def _wait(self, numbers: Mapping[Any, int], what: str, observer: Callable[[LateJob], object]) -> None:
        """Until all have ended; in between, end workers that are silent, and say what takes long."""
        waiting = list(numbers)
        jobs = {number: _Job() for number in numbers.values()}
        while True:
            self._look_around()
            waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=CHECK_SECONDS)[1]
            if not waiting:
                return
            left = [numbers[reference] for reference in waiting]
            reports = self._reports.of(left)
            for number in left:
                if (event := self._looked_at(jobs[number], reports.get(number), what)) is not None:
                    observer(event)

    def _looked_at(self, job: _Job, report: Report | None, what: str) -> LateJob | None:
        """End its worker where that is silent; what there is to say."""
        now = time.monotonic()
        place = None if report is None else report.place
        node = None if place is None else str(place)
        if report is not None and place is not None and report.silent > self._silent_seconds:
            if place in job.ended and report.silent < _NOT_ENDED * self._silent_seconds:
                return None  # Ray takes some time to begin the job anew
            if place in job.ended or len(job.ended) == ATTEMPTS:
                raise InfrastructureError(
                    f"{what}: nothing is heard of its worker on {place}, after {len(job.ended)} that were ended. "
                    "Mend that, and resume the run: nothing is lost."
                )
            self._reports.end(place)
            job.ended.append(place)
            return LateJob(what, report.silent, node, is_silent=True)
        seconds = now - job.began if report is None else report.seconds
        if seconds <= doubled(FLOOR_SECONDS, job.lines + 1):
            return None
        job.lines += 1
        return LateJob(what, seconds, node)

    def _result(self, reference: Any) -> Any:
        """What a job has returned; what it raised is raised as it was."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        except self._ray.exceptions.RayError as error:
            words = " ".join(str(error).split())
            raise InfrastructureError(f"a worker was lost for good: {words}; resume the run to try again") from error
