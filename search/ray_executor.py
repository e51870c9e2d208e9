"""The executor on Ray's core tasks; the only file that imports Ray, and only when an executor is made."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from evocompress.errors import ConfigError, EvocompressError, InfrastructureError, RunError
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
from evocompress.search.node_probe import NodeProbe, Seen
from evocompress.search.node_roll import Node, NodeNews, NodeRoll
from evocompress.search.processes import born
from evocompress.search.records import Outcome, Task
from evocompress.search.shipment import Shipment
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.storage import Storage

__all__ = ["GPU_SHARE", "RayExecutor", "default_gpus", "task_options"]

#: What a segment takes of a GPU where the cluster has any and nobody said how much: four small networks share one.
GPU_SHARE = 0.25
# A GPU process is renewed after so many segments: a leak stays bounded, and starting anew costs little per segment.
_GPU_MAX_CALLS = 100
# How often it is looked whether the cluster is still there, and for how long it may not answer. Ray itself ends the
# process: a minute after the head is gone, a quarter of one after the part of Ray on this machine is.
_PROBE_SECONDS = 2.0
_HEAD_SECONDS, _NODE_SECONDS = 30.0, 5.0
_REPORT_SECONDS = 5.0
# For how long nodes may take to answer a probe, which loads the data; and where they install or fetch something before.
# A run begins without those that take longer than the first.
_FIRST_SECONDS, _LOOK_SECONDS, _INSTALL_SECONDS = 30.0, 300.0, 900.0
# Later than this driver itself would stop, and sooner than Ray.
_GUARD_SECONDS = 45.0
# Characters of Ray's own words that a message of ours quotes.
_LONGEST = 400
_PORT_ADDRESS = re.compile(r"(?:ray://)?(?P<host>[^/:]+|\[[^]]+\]):(?P<port>\d+)")


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


class _NotAsked(Exception):
    """Ray has given a node something before it was asked whether it is fit: it joined a moment ago."""


def _check_node(fit: frozenset[str] | None) -> None:
    import ray

    if fit is not None and (node := ray.get_runtime_context().get_node_id()) not in fit:
        raise _NotAsked(node)


def _remote_call(
    fit: frozenset[str] | None,
    modules: ShippedModules,
    segment: object,
    data: Any,
    function: Callable[[Any], Any],
    item: Any,
) -> Any:
    _check_node(fit)
    modules.install()
    _receive(segment, data)
    return function(item)


def _remote_look(modules: ShippedModules, segment: object, data: Any, probe: NodeProbe, node_id: str) -> Seen:
    modules.install()
    _receive(segment, data)
    return probe(node_id, segment)


def _receive(segment: object, data: Any) -> None:
    """What Ray's object store has once for each node, where the segment shares anything."""
    if data is not None and isinstance(segment, SharesData):
        segment.receive(data)


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
    begun: Any,
    attempt: int,
    task: Task,
    more_memory: bool,
) -> Outcome:
    import ray

    _check_node(fit)
    place = _Place(ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid(), born(os.getpid()))
    begun.note.remote(attempt, place)
    modules.install()
    _receive(segment, data)
    return run_attempt(segment, task, storage, more_memory=more_memory)


class _Place(NamedTuple):
    """Where an attempt runs. `born` is the process's start time, since pids are used again."""

    node_id: str
    host: str
    pid: int
    born: str


_Reports: TypeAlias = dict[int, tuple[_Place | None, float]]


class _Begun:
    """The actor that knows which attempts have begun, and when by its own clock."""

    def __init__(self) -> None:
        self.attempts: dict[int, tuple[_Place, float]] = {}

    def note(self, attempt: int, place: _Place) -> None:
        self.attempts[attempt] = (place, time.monotonic())

    def seconds(self, wanted: Sequence[int]) -> _Reports:
        """Where what has begun among `wanted` runs, and for how many seconds; the others are forgotten."""
        now = time.monotonic()
        self.attempts = {attempt: self.attempts[attempt] for attempt in wanted if attempt in self.attempts}
        return {attempt: (place, now - at) for attempt, (place, at) in self.attempts.items()}


def _remote_kill(place: _Place) -> None:
    """End a worker that was given up: one that is stopped does not hear Ray, and would keep its resources."""
    if born(place.pid) == place.born != "":
        os.kill(place.pid, signal.SIGKILL)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray warns of its own future and leaves sockets to the collector; neither is news to whoever runs a search."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, ResourceWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


class RayExecutor:
    """Segments as stateless Ray tasks; checkpoints go by storage path, so a lost node costs only what ran on it.

    Data that a segment shares (`search.attempt.SharesData`) lie in Ray's object store, once for each node.

    Joins the cluster at `address` or `RAY_ADDRESS`, or one that this process is already in; else starts a local one and
    ends it on `close`. `workers` defaults to what the cluster holds: GPUs / gpus, or CPUs / cpus; after `look_at_nodes`
    that follows the nodes that are fit, as they come and go. `gpus` None means `default_gpus`. `env_vars` are set in
    the workers before anything is imported there; `shipment` is what they get beside the segment. A Ray that this
    process is in already was told its folders when it was joined.
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
    ) -> None:
        task_options(cpus, gpus or 0.0, max_calls)  # refuse what cannot be before Ray is started
        shipment = shipment or Shipment()
        shipment.check()
        self._ray = _import_ray()
        self._storage = storage
        cluster = None if self._ray.is_initialized() else address or os.environ.get("RAY_ADDRESS")
        self._guard = _Guard(cluster)
        with self._using(), contextlib.ExitStack() as stack:
            stack.callback(self._guard.dismiss)
            self._owner = _connect(self._ray, address, shipment.of_the_job())
            self._is_elsewhere = not self._owner or cluster is not None
            self._look_seconds = _INSTALL_SECONDS if shipment.of_a_task() else _LOOK_SECONDS
            gpus = default_gpus(self._ray.cluster_resources()) if gpus is None else gpus
            options = task_options(cpus, gpus, max_calls, max_retries)
            options["runtime_env"] = {"env_vars": _worker_variables(env_vars or {}), **shipment.of_a_task()}
            self._options, self._gpus = options, gpus
            self._remote = self._ray.remote(**options)(_remote_attempt)
            data = segment.shared() if isinstance(segment, SharesData) else None
            self._segment = (self._ray.put(shipment.modules), self._ray.put(segment), self._ray.put(data))
            affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            self._affinity = functools.partial(affinity, soft=True)
            here = self._ray.get_runtime_context().get_node_id()
            begun = self._ray.remote(
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=self._affinity(here),
                runtime_env=options["runtime_env"],
            )
            self._begun = begun(_Begun).remote()  # beside the driver: what freezes elsewhere leaves it alone
            self._shared = (*self._segment, self._ray.put(storage), self._begun)
            self._parts = _parts(self._ray, here)
            self._capacity = _capacity(self._ray, cpus, gpus)  # in any case: what fits nowhere would wait for ever
            self._workers = workers
            stack.pop_all()
        self._probed = -math.inf
        self._roll: NodeRoll | None = None  # of a cluster whose nodes are asked
        self._probe: NodeProbe | None = None
        self._asked: dict[Any, str] = {}  # nodes, by what they will answer
        self._probe_files = contextlib.ExitStack()  # what lies in the storage while there are such
        self._id_label = "ray.io/node-id"  # by which Ray knows a node's id; versions of it call it differently
        self._fit: tuple[frozenset[str], Any] | None = None  # the nodes that are fit, and the same in the object store
        self._tasks: dict[Any, tuple[Task, int]] = {}  # with the number of the attempt
        self._attempts = itertools.count()
        self._submitted: dict[int, float] = {}
        self._newest = -1  # of the attempts that are known to have begun
        self._overtaken: dict[int, float] = {}  # since when younger attempts are known to have begun
        self._lost: set[str] = set()
        self._shares: dict[str, float] = {}  # of a GPU, of segments that have more than the others

    @property
    def workers(self) -> int:
        """How many segments run at once: what was given, or as many as nodes hold that are fit; at least 1."""
        if self._workers is not None:
            return self._workers
        return self._capacity if self._roll is None else max(1, self._roll.places)

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

    def submit(self, task: Task) -> None:
        """Hand a task to Ray; one that was lost before had better run on another node."""
        self._start(task, "SPREAD" if task.segment_id in self._lost else None)

    def submit_larger(self, task: Task, share: float) -> None:
        """Hand a task to Ray that has run out of memory, with so much of a GPU."""
        if share > self._gpus > 0:
            self._shares[task.segment_id] = share
        self.submit(task)

    def attempt(self, task: Task) -> None:
        """Hand it to Ray once more, for another node than those where attempts at it have begun, if there is one."""
        with self._using():
            reports = self._reports()
            numbers = [number for other, number in self._tasks.values() if other.segment_id == task.segment_id]
            late = {place.node_id for number in numbers if (place := reports.get(number, (None, 0.0))[0]) is not None}
            others = [node for node in self._fit_nodes() if node not in late]
        self._start(task, self._affinity(others[len(numbers) % len(others)]) if late and others else "SPREAD")

    def running(self) -> Mapping[str, Running]:
        """The oldest attempt of each task that has begun, as Ray's workers report it."""
        with self._using():
            reports = self._reports()
        oldest: dict[str, Running] = {}
        for task, number in sorted(self._tasks.values(), key=lambda item: item[1]):
            if number in reports:
                place, seconds = reports[number]
                node = "an unknown node" if place is None else f"{place.host} (node {place.node_id[:8]})"
                oldest.setdefault(task.segment_id, Running(node, seconds))
        return oldest

    def _reports(self) -> _Reports:
        """What is known of all attempts: that one has begun follows from others that were submitted later, too.

        A worker that freezes at once has no time to report.
        """
        now, numbers = self.now(), [number for _, number in self._tasks.values()]
        try:
            reports: _Reports = self._ray.get(self._begun.seconds.remote(numbers), timeout=_REPORT_SECONDS)
        except self._ray.exceptions.RayError:  # then all that is known is when they were handed over
            return {number: (None, now - self._submitted[number]) for number in numbers}
        self._newest = max(self._newest, *reports, -1)
        overtaken = [number for number in numbers if number < self._newest and number not in reports]
        self._overtaken = {number: self._overtaken.get(number, now) for number in overtaken}
        return reports | {number: (None, now - since) for number, since in self._overtaken.items()}

    def look_at_nodes(self, probe: NodeProbe) -> None:
        """Call the probe on each node that a segment fits on, all at once; not in a Ray of this executor's own.

        From then on only nodes that answered, and are fit, get segments. Those that join later are asked, too; those
        that are slow may answer later.

        Raises:
            RunError: No node is fit; one line says which lack what, and what to do.
        """
        if not self._is_elsewhere:
            return
        self._probe, self._roll, began = probe, NodeRoll(self._look_seconds), self.now()
        while True:
            self._look()
            first = self._roll.fit and self.now() - began >= _FIRST_SECONDS
            if not self._roll.waits or first:
                break
            with self._using():
                self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=1.0)
        try:
            self._roll.open()
        except RunError:
            self._stop_asking()
            raise

    def node_news(self) -> list[NodeNews]:
        """What has become of nodes since the last call: which joined, are unfit, or are gone."""
        news = [] if self._roll is None else self._roll.news()
        return [dataclasses.replace(item, workers=self.workers) for item in news]

    def _look(self) -> None:
        """Ask nodes that are new whether they are fit, and take in answers."""
        if self._roll is None or self._probe is None:
            return
        with self._using():
            self._ask(self._probe, self._roll.enter(self._nodes(), self.now()))
            ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for reference in ready:
                node = self._asked.pop(reference)
                self._roll.hear(node, self._seen(self._probe, reference, node))
            self._roll.check_time(self.now())
            there = {*self._roll.fit, *self._roll.others}
            self._asked = {reference: node for reference, node in self._asked.items() if node in there}
        if not self._asked:
            self._probe_files.close()

    def _ask(self, probe: NodeProbe, nodes: Sequence[str]) -> None:
        if nodes and not self._asked:
            try:
                self._probe_files.enter_context(probe.begun())
            except RunError:
                if not self._roll or not self._roll.fit:  # it is not that the store is away for a while
                    raise
                self._roll.forget(nodes)
                return
        # With the environment of segments, so that a worker which has imported what they need runs them next.
        options = {"num_cpus": 0, "max_retries": 0, "runtime_env": self._options["runtime_env"]}
        look = self._ray.remote(**options)(_remote_look)
        for node in nodes:
            there = look.options(scheduling_strategy=self._affinity(node, soft=False))
            self._asked[there.remote(*self._segment, probe, node)] = node

    def _stop_asking(self) -> None:
        for reference in self._asked:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._asked.clear()
        self._probe_files.close()

    def _seen(self, probe: NodeProbe, reference: Any, node: str) -> Seen:
        try:
            seen: Seen = self._ray.get(reference)
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            words = _last_error(str(error))
            return Seen(self._name(node), (f"cannot be given what resources.pip or image_uri asks for ({words})",))
        except Exception as error:  # evocompress is not there
            cause = getattr(error, "cause", None) or error
            words = " ".join(f"{type(cause).__name__}: {cause}".split())[:_LONGEST]
            return Seen(self._name(node), (f"cannot run this version of evocompress ({words})",))
        return probe.check_answer(node, seen)

    def _name(self, node_id: str) -> str:
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in self._ray.nodes()}
        return f"{hosts.get(node_id, 'a machine')} (node {node_id[:8]})"

    def _nodes(self) -> dict[str, Node]:
        """Nodes that a segment fits on, by id."""
        needs = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"]}
        found = {}
        for node in self._ray.nodes():
            names = [name for name, value in node["Labels"].items() if value == node["NodeID"]]
            self._id_label = names[0] if names else self._id_label
            fits = [node["Resources"].get(name, 0.0) / need for name, need in needs.items() if need > 0]
            if node["Alive"] and (places := int(min(fits) + 1e-9)) > 0:
                found[node["NodeID"]] = Node(f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})", places)
        return found

    def _fit_nodes(self) -> list[str]:
        return list(self._nodes()) if self._roll is None else self._roll.fit

    def _placed(self, strategy: Any = None) -> tuple[Any, Any]:
        """Where Ray is to put something, so that no node gets it which is unfit or was not asked yet.

        A strategy, and what the worker compares its node with: one may join while Ray looks for a place.
        """
        if self._roll is None:
            return strategy, None
        fit = frozenset(self._roll.fit)
        if self._fit is None or self._fit[0] != fit:
            self._fit = fit, self._ray.put(fit)
        if (others := self._roll.others) and (strategy is None or strategy == "SPREAD"):
            strategies = self._ray.util.scheduling_strategies
            labels = {self._id_label: strategies.NotIn(*others)}
            strategy = strategies.NodeLabelSchedulingStrategy(hard=labels)
        return strategy, self._fit[1]

    def _start(self, task: Task, strategy: Any) -> None:
        number = next(self._attempts)
        self._submitted[number] = self.now()
        with self._using():
            strategy, fit = self._placed(strategy)
            share = self._shares.get(task.segment_id, self._gpus)
            options = {} if strategy is None else {"scheduling_strategy": strategy}
            options |= {} if share == self._gpus else {"num_gpus": share}
            remote = self._remote.options(**options) if options else self._remote
            more_memory = larger_share(share) is not None
            self._tasks[remote.remote(fit, *self._shared, number, task, more_memory)] = (task, number)

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self._probe_parts()
        time.sleep(seconds)

    def wait(self, timeout: float | None = None) -> list[Outcome | Lost | OutOfMemory]:
        """Outcomes of every task that has ended, at least one unless `timeout` seconds go by."""
        self._probe_parts()
        if not self._tasks:
            return []
        with self._using():
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
            if ready and len(self._tasks) > 1:
                ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
            return [found for reference in ready if (found := self._outcome(reference)) is not None]

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """As Ray tasks with a segment's resources; an exception inside comes out as it was raised."""
        results: dict[int, Result] = {}
        with _quiet():
            remote = self._ray.remote(**self._options)(_remote_call)
            shared = self._ray.put(function)
            while missing := [place for place in range(len(items)) if place not in results]:
                strategy, fit = self._placed()
                there = remote if strategy is None else remote.options(scheduling_strategy=strategy)
                references = {place: there.remote(fit, *self._segment, shared, items[place]) for place in missing}
                waiting = list(references.values())
                while waiting:
                    self._probe_parts()
                    waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=_PROBE_SECONDS)[1]
                for place, reference in references.items():
                    with contextlib.suppress(_NotAsked):
                        results[place] = self._result(reference)
                if len(results) < len(items):
                    self._look()
        return [results[place] for place in range(len(items))]

    def _result(self, reference: Any) -> Any:
        """What a job has returned; what it raised is raised as it was."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        except self._ray.exceptions.RayError as error:
            words = " ".join(str(error).split())
            raise InfrastructureError(f"a worker was lost for good: {words}; resume the run to try again") from error

    def cancel(self) -> None:
        """Kill everything in flight."""
        with _quiet():
            for reference in self._tasks:
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference, force=True)
        self._tasks.clear()
        self._submitted.clear()
        self._shares.clear()

    def close(self) -> None:
        """Cancel, and end Ray if this executor started it."""
        if self._ray.is_initialized():
            self.cancel()
            self._stop_asking()
            if self._owner:
                with _quiet():
                    self._ray.shutdown()
        self._guard.dismiss()

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        """What Ray raises while it is asked for something, other than what tasks end in, says that it is at its end."""
        try:
            with _quiet():
                yield
        except self._ray.exceptions.RayError as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise InfrastructureError(
                f"Ray cannot go on ({words}). Start the cluster again, and resume the run: what was finished is kept."
            ) from error

    def _probe_parts(self) -> None:
        """Raise `InfrastructureError` where the head or this machine's part of Ray has not answered for too long."""
        now = self.now()
        if now - self._probed < _PROBE_SECONDS:
            return
        self._probed = now
        for part in self._parts:
            part.look(now)
        if all(part.silent_since is None for part in self._parts):  # else Ray would wait for it, without a word
            self._look()

    def _outcome(self, reference: Any) -> Outcome | Lost | OutOfMemory | None:
        """What a finished reference holds; nothing where it was given up, or another attempt may still end."""
        if reference not in self._tasks:
            return None
        task, number = self._tasks.pop(reference)
        self._submitted.pop(number, None)
        self._newest = max(self._newest, number)
        others = [other for other, (same, _) in self._tasks.items() if same.segment_id == task.segment_id]
        try:
            outcome: Outcome = self._ray.get(reference)
        except Exception as error:
            # Not from inside the segment, which records its own: the worker, its node or its storage is at fault.
            if others:
                return None
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, _NotAsked):
                self._look()
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
        reports = self._reports()
        kill = self._ray.remote(num_cpus=0, max_retries=0, runtime_env=self._options["runtime_env"])(_remote_kill)
        for reference in references:
            number = self._tasks.pop(reference)[1]
            self._submitted.pop(number, None)
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
            place = reports.get(number, (None, 0.0))[0]
            if place is not None:
                kill.options(scheduling_strategy=self._affinity(place.node_id, soft=False)).remote(place)


@dataclasses.dataclass
class _Part:
    """A part of Ray without which this driver is nothing, at an address that takes connections as long as it lives."""

    name: str
    address: tuple[str, int]
    patience: float
    silent_since: float | None = None

    def look(self, now: float) -> None:
        try:
            socket.create_connection(self.address, timeout=_PROBE_SECONDS).close()
            self.silent_since = None
        except OSError as error:
            if self.silent_since is None:
                self.silent_since = now
            if now - self.silent_since >= self.patience:
                host, port = self.address
                raise InfrastructureError(
                    f"{self.name} at {host}:{port} has not answered for {now - self.silent_since:.0f} s ({error}). "
                    "Start the cluster again, and resume the run: what was finished is kept, its budget is not spent."
                ) from error


def _parts(ray: Any, node_id: str) -> list[_Part]:
    """The head, and the node that this driver is on, as far as Ray says where they are."""
    parts = []
    with contextlib.suppress(Exception):  # a client of Ray's has neither; it hears of their end from the server
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        parts.append(_Part("the head of the Ray cluster", (host.strip("[]"), int(port)), _HEAD_SECONDS))
        (node,) = [node for node in ray.nodes() if node["NodeID"] == node_id]
        address = (node["NodeManagerAddress"], int(node["NodeManagerPort"]))
        parts.append(_Part("this machine's part of Ray", address, _NODE_SECONDS))
    return parts


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import
    try:
        with _quiet():
            import ray
            import ray.util.scheduling_strategies
    except ModuleNotFoundError as error:
        raise RunError("Ray is not installed: pip install 'evocompress[ray]', or take the executor 'inline'") from error
    return ray


def _connect(ray: Any, address: str | None, folders: Mapping[str, Any] | None = None) -> bool:
    """Make sure that Ray is there; whether this call started or joined it; `folders` is its `runtime_env`."""
    if ray.is_initialized():
        if folders:
            raise ConfigError(
                "resources.working_dir and py_modules must be given to Ray where it is joined, and this process is in "
                "a Ray already; give them to ray.init(runtime_env=…), or leave that to evocompress"
            )
        return False
    cluster = address or os.environ.get("RAY_ADDRESS")
    _probe(cluster or "")
    try:
        # "local" by name: without an address Ray would join whatever cluster somebody else left on this machine.
        with _told_by_us() if cluster else contextlib.nullcontext():
            ray.init(
                address=cluster or "local",
                include_dashboard=None if cluster else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"runtime_env": folders} if folders else {}),
            )
    except Exception as error:
        if _is_about_tokens(error):
            raise InfrastructureError(
                f"the Ray cluster at {cluster!r} refuses this driver's token; set RAY_AUTH_MODE and "
                "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) as the cluster has them"
            ) from error
        if folders and (words := _about_folders(error)):
            raise ConfigError(f"resources.working_dir or py_modules cannot be sent: {words}") from error
        raise RunError(f"no Ray cluster at {cluster!r} ({error}); start one, or leave address out") from error
    return True


class _Guard:
    """A process beside this one that says it where Ray ends this one, or never comes back; see `process_guard`.

    For a cluster at an address with a port; of another it knows no head to look at, and does nothing.
    """

    def __init__(self, cluster: str | None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        match = None if cluster is None or os.name != "posix" else _PORT_ADDRESS.fullmatch(cluster)
        if match is None:
            return
        died = (
            f"error: this process was ended while it was in the Ray cluster at {cluster}, as Ray does where a part of "
            "it is gone. Start the cluster again, and go on: what was finished is kept."
        )
        silent = (
            f"error: the head of the Ray cluster at {cluster} has not answered for {_GUARD_SECONDS:g} s, and Ray waits "
            "for it. Start the cluster again, and go on: what was finished is kept."
        )
        numbers = (os.getpid(), match["host"].strip("[]"), match["port"], _PROBE_SECONDS, _GUARD_SECONDS)
        script = os.path.join(os.path.dirname(__file__), "process_guard.py")
        command = [sys.executable, "-I", "-S", script, *(str(number) for number in numbers), died, silent]
        with contextlib.suppress(OSError):  # where no process can be started, nobody says it
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
            atexit.register(self.dismiss)  # which Ray's own ends do not come to

    def dismiss(self) -> None:
        """This process ends by itself, or has left the cluster."""
        process, self._process = self._process, None
        if process is not None:
            atexit.unregister(self.dismiss)
            with contextlib.suppress(OSError):
                process.communicate(b"1")


@contextlib.contextmanager
def _told_by_us() -> Iterator[None]:
    """Hold back what is written to descriptor 2, and drop it where an exception says it.

    Ray's core writes there by itself, while a cluster refuses it: a line each second, for twenty seconds.
    """
    with tempfile.TemporaryFile() as words:
        try:
            kept = os.dup(2)
        except OSError:  # there is none
            yield
            return
        os.dup2(words.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        words.seek(0)
        os.write(2, words.read())


def _is_about_tokens(error: BaseException | None) -> bool:
    """Whether an error of Ray's, or what it was raised from, is that a token is absent or wrong."""
    while error is not None:
        if type(error).__name__ == "AuthenticationError" or "AuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _last_error(text: str) -> str:
    """The last line of a text with tracebacks that names an error, or all of it in one line."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*[\w.]*(?:Error|Exception)\b", line)]
    return " ".join((lines[-1] if lines else text).split())[:_LONGEST]


def _about_folders(error: BaseException | None) -> str:
    """What Ray says of a folder that it cannot send; nothing where an error is of something else."""
    while error is not None:
        words = " ".join(str(error).split())
        if "exceeds the maximum size" in words or "runtime_env" in words or "package" in words:
            return words[:_LONGEST]
        error = error.__cause__ or error.__context__
    return ""


def _probe(address: str) -> None:
    """Knock at an address that names a port: Ray itself would try for minutes where nobody is."""
    match = _PORT_ADDRESS.fullmatch(address)
    if match is None:
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"no Ray cluster answers at {address!r} ({error}); start one, or leave address out") from None


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


def _capacity(ray: Any, cpus: float, gpus: float) -> int:
    """How many segments the cluster holds at once."""
    resources = ray.cluster_resources()
    fits = []
    if gpus > 0:
        fits.append(resources.get("GPU", 0.0) / gpus)
    if cpus > 0:
        fits.append(resources.get("CPU", 0.0) / cpus)
    if min(fits) < 1:
        raise RunError(
            f"the Ray cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs, "
            f"a segment asks for cpus={cpus:g}, gpus={gpus:g}; lower those or add a node"
        )
    return int(min(fits) + 1e-9)
