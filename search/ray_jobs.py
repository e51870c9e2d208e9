"""Jobs around a search, such as its audit, as Ray tasks; a worker that falls silent is ended, so that Ray begins anew.

A job has no limit of time, since nothing says how long it should take: its worker beats instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from evocompress.errors import InfrastructureError, RunError
from evocompress.search.events import LateJob
from evocompress.search.ray_cluster import CHECK_SECONDS, RayCluster
from evocompress.search.ray_nodes import NotAsked, RayNodes, Sent, check_node, make_ready
from evocompress.search.ray_reports import Place, RayReports, Report, beating
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.time_limit import FLOOR_SECONDS, doubled

__all__ = ["RayJobs"]

# Seconds without a beat after which a job's worker is ended, and how many beats that are. Compiled loops and torch let
# its thread beat.
_SILENT_SECONDS, _BEATS = 120.0, 24
# After how many times those seconds it is given up where it should have ended, and nothing has begun anew.
_NOT_ENDED = 10.0
# So many workers of a job may be lost: Ray counts those that crash, but begins one that was out of memory for ever.
_PLACES = 8

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
        try:
            return function(item)
        except SystemExit as error:  # Ray would take it for the loss of a worker
            raise RunError(f"the code of a job ended its process: SystemExit: {error.code}") from error


@dataclasses.dataclass
class _Job:
    """A job that is waited for since `began`: its workers so far, which of them were to be ended, lines about it."""

    began: float = dataclasses.field(default_factory=time.monotonic)
    places: list[Place] = dataclasses.field(default_factory=list)
    ended: dict[Place, Any] = dataclasses.field(default_factory=dict)
    suspect_since: float | None = None
    next_end: float = 0.0
    lines: int = 0

    @property
    def place(self) -> Place | None:
        return self.places[-1] if self.places else None

    def begin(self, place: Place) -> None:
        self.places.append(place)
        self.suspect_since, self.next_end = None, 0.0


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
                except BaseException:
                    self._give_up(references.values())
                    raise
                finally:
                    for number in numbers.values():
                        self._reports.forget(number)
                for place, reference in references.items():
                    with contextlib.suppress(NotAsked):
                        results[place] = self._result(reference)
                if len(results) < len(items):
                    self._nodes.look()
        return [results[place] for place in range(len(items))]

    def _give_up(self, references: Iterable[Any]) -> None:
        """Nobody waits for them any more, so they shall not keep their places."""
        for reference in references:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)

    def _wait(self, numbers: Mapping[Any, int], what: str, observer: Callable[[LateJob], object]) -> None:
        """Until all have ended; in between, end workers that are silent, and say what takes long."""
        waiting = list(numbers)
        jobs = {number: _Job() for number in numbers.values()}
        while True:
            self._look_around()
            waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=CHECK_SECONDS)[1]
            if not waiting:
                return
            if self._cluster.is_silent:  # Ray would wait for its head, and nobody look at the time
                continue
            left = [numbers[reference] for reference in waiting]
            reports, alive = self._reports.of(left), self._cluster.alive()
            for number in left:
                if (event := self._looked_at(jobs[number], reports.get(number), alive, what)) is not None:
                    observer(event)

    def _looked_at(self, job: _Job, report: Report | None, alive: set[str], what: str) -> LateJob | None:
        """End its worker where that stands still; what there is to say.

        Raises:
            InfrastructureError: Too many workers were lost, or one that stands still cannot be ended.
        """
        place = None if report is None else report.place
        if place is not None and place != job.place:
            job.begin(place)
            if len(job.places) > _PLACES:
                raise InfrastructureError(
                    f"{what}: {_PLACES} workers were lost one after another, the last before one on {place}. Mend that "
                    "(is there too little memory?), and resume the run: nothing is lost."
                )
            if len(job.places) > 1 and job.places[-2] not in job.ended:
                return LateJob(what, time.monotonic() - job.began, str(place), kind="begun anew")
        if report is not None and place is not None and place.node_id in alive and not self._is_gone(job, place):
            if report.silent > self._silent_seconds:
                return self._silent(job, place, report.silent, what)
            job.suspect_since = None
        else:
            place = None  # its worker is lost, and Ray looks for another
        seconds = time.monotonic() - job.began
        if seconds <= doubled(FLOOR_SECONDS, job.lines + 1):
            return None
        job.lines += 1
        return LateJob(what, seconds, None if place is None else str(place))

    def _silent(self, job: _Job, place: Place, silent: float, what: str) -> LateJob | None:
        """A worker of which nothing was heard for too long: it is ended once it was silent at two looks.

        A driver that was stopped itself hears at its second look what came in meanwhile.
        """
        now = time.monotonic()
        if place in job.ended:
            if silent >= _NOT_ENDED * self._silent_seconds:
                raise InfrastructureError(
                    f"{what}: nothing is heard of its worker on {place}, which cannot be ended. "
                    "Mend that, and resume the run: nothing is lost."
                )
            return None
        if job.suspect_since is None:
            job.suspect_since = now
        if now - job.suspect_since < 3 * self._silent_seconds / _BEATS or now < job.next_end:
            return None
        job.ended[place] = self._reports.end(place, only_idle=True)
        return LateJob(what, silent, str(place), kind="silent")

    def _is_gone(self, job: _Job, place: Place) -> bool:
        """Whether a worker that was to be ended is gone; one that computes is left alone for a while."""
        if (reference := job.ended.get(place)) is None or not self._ray.wait([reference], timeout=0)[0]:
            return False
        try:
            is_gone = bool(self._ray.get(reference))
        except self._ray.exceptions.RayError:
            return False
        if not is_gone:
            del job.ended[place]
            job.next_end = time.monotonic() + self._silent_seconds
        return is_gone

    def _result(self, reference: Any) -> Any:
        """What a job has returned; what it raised is raised as it was."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        except self._ray.exceptions.RayError as error:
            words = " ".join(str(error).split())
            raise InfrastructureError(f"a worker was lost for good: {words}; resume the run to try again") from error
