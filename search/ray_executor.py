"""Executor on Ray's core tasks: segments, and jobs around a search, as stateless tasks that Ray may run again.

`ray_cluster` joins the cluster and imports Ray, only when an executor is made; `ray_nodes` says which nodes get tasks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from evocompress.errors import ConfigError, EvocompressError
from evocompress.search.attempt import (
    Lost,
    OutOfMemory,
    Running,
    Segment,
    SharesData,
    TooLittleMemory,
    larger_share,
    run_attempt,
)
from evocompress.search.events import AwaitingNodes, LateJob
from evocompress.search.executors import Executor, ExecutorResources
from evocompress.search.node_probe import NodeProbe
from evocompress.search.node_roll import NodeNews
from evocompress.search.ray_autoscaler import NodeRequest
from evocompress.search.ray_cluster import RayCluster, quiet
from evocompress.search.ray_jobs import RayJobs
from evocompress.search.ray_nodes import NotAsked, RayNodes, Sent, check_node, make_ready
from evocompress.search.ray_reports import RayReports, Report, report
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.shipment import Shipment
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.storage import Storage

__all__ = ["GPU_SHARE", "RayExecutor", "default_gpus", "ray_executor", "task_options"]

#: What a segment takes of a GPU where the cluster has any and nobody said how much: four small networks share one.
GPU_SHARE = 0.25
# A GPU process is renewed after so many segments: a leak stays bounded, and starting anew costs little per segment.
_GPU_MAX_CALLS = 100


def task_options(cpus: float, gpus: float, max_calls: int | None = None, max_retries: int = 3) -> dict[str, Any]:
    """Ray's options for the segment task; `max_calls` always explicit.

    Ray sets max_calls=1 by itself where num_gpus > 0: a new process, and the import of torch, for every segment. Here
    it is 0 (never renew) on CPUs and 100 on GPUs unless given. `max_retries` is how often Ray runs a task again whose
    worker or node was lost; exceptions are outcomes and never retried.

    >>> task_options(cpus=1, gpus=0.5)["max_calls"]
    100
    """
    if max_calls is None:
        max_calls = _GPU_MAX_CALLS if gpus > 0 else 0
    if cpus < 0 or gpus < 0 or (cpus == 0 and gpus == 0) or max_calls < 0:
        raise ConfigError(
            f"cpus = {cpus}, gpus = {gpus}, max_calls = {max_calls}; none below 0, and a segment needs cpus or gpus"
        )
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "max_calls": max_calls,
        "max_retries": max_retries,
        "retry_exceptions": False,
    }


Item = TypeVar("Item")
Result = TypeVar("Result")


def default_gpus(cluster: Mapping[str, float]) -> float:
    """GPUs a segment takes where nobody said: a share of one where the cluster has any, so that a GPU is used.

    >>> default_gpus({"CPU": 16.0, "GPU": 1.0}), default_gpus({"CPU": 2.0})
    (0.25, 0.0)
    """
    return GPU_SHARE if cluster.get("GPU", 0.0) > 0 else 0.0


def _remote_attempt(
    fit: frozenset[str] | None,
    modules: ShippedModules,
    segment: Segment,
    data: Any,
    storage: Storage,
    reports: Any,
    attempt: int,
    task: SegmentTask,
    more_memory: bool,
) -> Outcome:
    check_node(fit)
    report(reports, attempt)
    make_ready(modules, segment, data)
    return run_attempt(segment, task, storage, more_memory=more_memory)


class RayExecutor:
    """Segments as stateless Ray tasks; checkpoints go by storage path, so a lost node costs only what ran on it.

    Data that a segment shares (`search.attempt.SharesData`) lie in Ray's object store, once for each node.

    Joins the cluster at `address` or `RAY_ADDRESS`, or one that this process is already in; else starts a local one and
    ends it on `close`. `workers` defaults to what the cluster holds: GPUs / gpus, or CPUs / cpus; after `look_at_nodes`
    that follows the nodes that are fit, as they come and go. `gpus` None means `default_gpus`. `env_vars` are set in
    the workers before anything is imported there; `shipment` is what they get beside the segment. A Ray that this
    process is in already was told its folders when it was joined.

    An autoscaler of the cluster is asked for nodes for `workers` segments until `close`. Where a segment fits on no
    node, and the autoscaler can add one, that is waited for, and `observer` hears of it.
    """

    def __init__(
        self,
        segment: Segment,
        storage: Storage,
        *,
        workers: int | None = None,
        cpus: float = 1.0,
        gpus: float | None = None,
        address: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        shipment: Shipment | None = None,
        max_calls: int | None = None,
        max_retries: int = 3,
        observer: Callable[[AwaitingNodes], object] | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise ConfigError(f"workers is {workers}; it must be at least 1, or None for as many as fit")
        task_options(cpus, gpus or 0.0, max_calls)  # refuse what cannot be before Ray is started
        shipment = shipment or Shipment()
        shipment.check()
        self._cluster = RayCluster(address, shipment.of_the_job())
        self._ray = self._cluster.ray
        with self._cluster.using(), contextlib.ExitStack() as stack:
            stack.callback(self._cluster.leave)  # whoever asks for too much has nothing to close
            gpus = default_gpus(self._ray.cluster_resources()) if gpus is None else gpus
            options = task_options(cpus, gpus, max_calls, max_retries)
            options["runtime_env"] = {"env_vars": _worker_variables(env_vars or {}), **shipment.of_a_task()}
            self._options, self._gpus = options, gpus
            self._remote = self._ray.remote(**options)(_remote_attempt)
            data = segment.shared() if isinstance(segment, SharesData) else None
            self._sent = Sent(self._ray.put(shipment.modules), self._ray.put(segment), self._ray.put(data))
            self._reports = RayReports(self._cluster, options["runtime_env"])
            self._shared = (*self._sent, self._ray.put(storage), self._reports.actor)
            self._request = NodeRequest(self._cluster, {"CPU": cpus, "GPU": gpus}, workers, observer or _ignore)
            stack.callback(self._request.withdraw)
            self._request.open()
            self._capacity = self._cluster.capacity(cpus, gpus)  # in any case: what fits nowhere would wait for ever
            self._workers = workers
            stack.pop_all()
        self._nodes = RayNodes(
            self._cluster,
            self._sent,
            needs={"CPU": cpus, "GPU": gpus},
            runtime_env=options["runtime_env"],
            installs=bool(shipment.of_a_task()),
        )
        self._tasks: dict[Any, tuple[SegmentTask, int]] = {}  # with the number of the attempt
        self._jobs = RayJobs(
            self._cluster,
            self._nodes,
            self._sent,
            options=options,
            reports=self._reports,
            look_around=self._look_around,
        )
        self._lost: set[str] = set()
        self._shares: dict[str, float] = {}  # of a GPU, of segments that have more than the others

    @property
    def workers(self) -> int:
        """How many segments run at once: what was given, or as many as nodes hold that are fit; at least 1."""
        if self._workers is not None:
            return self._workers
        places = self._nodes.places
        return self._capacity if places is None else max(1, places)

    @property
    def slots(self) -> int:
        """An eighth more than `workers`, at least one: a worker that gets free finds its next task waiting.

        A task with a larger share of a GPU takes the places of several; lest it waits for ever, none is kept ready.
        """
        taken = sum(math.ceil(share / self._gpus) - 1 for share in self._shares.values())
        return max(1, self.workers - taken) if taken else self.workers + max(1, self.workers // 8)

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def submit(self, task: SegmentTask) -> None:
        """Hand a task to Ray; one that was lost before had better run on another node."""
        self._start(task, "SPREAD" if task.segment_id in self._lost else None)

    def submit_larger(self, task: SegmentTask, share: float) -> None:
        """Hand a task to Ray that has run out of memory, with so much of a GPU."""
        if share > self._gpus > 0:
            self._shares[task.segment_id] = share
        self.submit(task)

    def attempt(self, task: SegmentTask) -> None:
        """Hand it to Ray once more, for another node than those where attempts at it have begun, if there is one."""
        with self._cluster.using():
            reports = self._reported()
            numbers = [number for other, number in self._tasks.values() if other.segment_id == task.segment_id]
            places = [reports[number].place for number in numbers if number in reports]
            late = {place.node_id for place in places if place is not None}
            others = [node for node in self._nodes.fit() if node not in late]
        self._start(task, self._cluster.on_node(others[len(numbers) % len(others)]) if late and others else "SPREAD")

    def running(self) -> Mapping[str, Running]:
        """The oldest attempt of each task that has begun, as Ray's workers report it."""
        with self._cluster.using():
            reports = self._reported()
        oldest: dict[str, Running] = {}
        for task, number in sorted(self._tasks.values(), key=lambda item: item[1]):
            if number in reports:
                place = reports[number].place
                node = "an unknown node" if place is None else str(place)
                oldest.setdefault(task.segment_id, Running(node, reports[number].seconds))
        return oldest

    def _reported(self) -> dict[int, Report]:
        return self._reports.of([number for _, number in self._tasks.values()])

    def look_at_nodes(self, probe: NodeProbe) -> None:
        """Call the probe on each node that a segment fits on, all at once; not in a Ray of this executor's own.

        From then on only nodes that answered, and are fit, get segments. Those that join later are asked, too; those
        that are slow may answer later.

        Raises:
            RunError: No node is fit; one line says which lack what, and what to do.
        """
        if self._cluster.is_elsewhere:
            self._nodes.ask(probe)

    def node_news(self) -> list[NodeNews]:
        """What has become of nodes since the last call: which joined, are unfit, or are gone."""
        return [dataclasses.replace(news, workers=self.workers) for news in self._nodes.news()]

    def _start(self, task: SegmentTask, strategy: Any) -> None:
        number = self._reports.number()
        with self._cluster.using():
            strategy, fit = self._nodes.placed(strategy)
            share = self._shares.get(task.segment_id, self._gpus)
            options = {} if strategy is None else {"scheduling_strategy": strategy}
            options |= {} if share == self._gpus else {"num_gpus": share}
            remote = self._remote.options(**options) if options else self._remote
            more_memory = larger_share(share) is not None
            self._tasks[remote.remote(fit, *self._shared, number, task, more_memory)] = (task, number)

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self._look_around()
        time.sleep(seconds)

    def wait(self, timeout: float | None = None) -> list[Outcome | Lost | OutOfMemory]:
        """Outcomes of every task that has ended, at least one unless `timeout` seconds go by."""
        self._look_around()
        if not self._tasks:
            return []
        with self._cluster.using():
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
            if ready and len(self._tasks) > 1:
                ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            return [found for reference in ready if (found := self._outcome(reference)) is not None]

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        what: str = "a job",
        observer: Callable[[LateJob], object] | None = None,
    ) -> list[Result]:
        """As Ray tasks with a segment's resources; an exception inside comes out as it was raised."""
        return self._jobs.map(function, items, what, observer or _ignore)

    def cancel(self) -> None:
        """Kill everything in flight."""
        with quiet():
            for reference in self._tasks:
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._reports.clear()
        self._shares.clear()

    def close(self) -> None:
        """Cancel, and end Ray if this executor started it."""
        if self._cluster.is_joined:
            self.cancel()
            self._nodes.stop_asking()
            with contextlib.suppress(Exception):  # where the head is gone, so is what it was asked for
                self._request.withdraw()
        self._cluster.leave()

    def _look_around(self) -> None:
        """Look, every few seconds, whether the cluster is there, and what has become of its nodes.

        Nodes are left alone while a part of Ray is silent: Ray would wait for it, without a word.
        """
        if self._cluster.check():
            self._nodes.look()
            self._request.renew()

    def _outcome(self, reference: Any) -> Outcome | Lost | OutOfMemory | None:
        """What a finished reference holds; nothing where it was given up, or another attempt may still end."""
        if reference not in self._tasks:
            return None
        task, number = self._tasks.pop(reference)
        self._reports.ended(number)
        others = [other for other, (same, _) in self._tasks.items() if same.segment_id == task.segment_id]
        try:
            outcome: Outcome = self._ray.get(reference)
        except Exception as error:
            # Not from inside the segment, which records its own: the worker, its node or its storage is at fault.
            if others:
                return None
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, NotAsked):
                self._nodes.look()
                self._start(task, None)
                return None
            share = larger_share(self._shares.get(task.segment_id, self._gpus))
            if isinstance(cause, TooLittleMemory) and share is not None:
                return OutOfMemory(task, share, str(cause))
            self._lost.add(task.segment_id)
            said = str(cause) if isinstance(cause, EvocompressError) else f"{type(cause).__name__}: {cause}"
            return Lost(task, " ".join(said.split()))
        self._lost.discard(task.segment_id)
        self._shares.pop(task.segment_id, None)
        if others:
            self._give_up(others)
        return outcome

    def _give_up(self, references: Sequence[Any]) -> None:
        reports = self._reported()
        for reference in references:
            number = self._tasks.pop(reference)[1]
            self._reports.forget(number)
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
            if number in reports and (place := reports[number].place) is not None:
                self._reports.end(place)


def _ignore(event: object) -> None:
    """Where nobody listens."""


def _python_path() -> str:
    """This process's import path beside the installed packages: workers must find the user's own modules too."""
    installed = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)}
    paths = [os.path.realpath(path or os.getcwd()) for path in sys.path]
    outside = [path for path in paths if not any(path.startswith(prefix + os.sep) for prefix in installed)]
    return os.pathsep.join(dict.fromkeys(path for path in outside if os.path.isdir(path)))


def _worker_variables(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of workers: what is given, and the import path, after one that is given."""
    path = os.pathsep.join(filter(None, (given.get("PYTHONPATH", ""), _python_path())))
    return {**given, "PYTHONPATH": path}


def ray_executor(segment: Segment, storage: Storage, resources: ExecutorResources) -> Executor:
    """Segments as Ray tasks, on a cluster or on this machine.

    Raises:
        ConfigError: Resources that no segment can have.
        RunError: Ray is not installed, or there is no cluster, or it is too small.
    """
    return RayExecutor(
        segment,
        storage,
        workers=resources.workers,
        cpus=resources.cpus,
        gpus=resources.gpus,
        address=resources.address,
        env_vars=resources.env_vars,
        shipment=resources.shipment,
        observer=resources.observer,
    )
