"""The Ray cluster that a driver is in: how it is joined, what it has, and whether it is still there.

The only file that imports Ray: where a driver joins a cluster, and in Ray's own workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import re
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from evocompress.errors import ConfigError, InfrastructureError, RunError
from evocompress.search.process_guard import ProcessGuard, host_and_port

__all__ = [
    "CHECK_SECONDS",
    "AutoscalerAnswer",
    "RayCluster",
    "answer_of_report",
    "answer_of_state",
    "heard",
    "node_here",
    "places_on",
    "quiet",
    "quoted",
]

#: How often it is looked whether the cluster is still there.
CHECK_SECONDS = 2.0
# For how long it may not answer. Ray itself ends the process: a minute after the head is gone, a quarter of one after
# the part of Ray on this machine is.
_HEAD_SECONDS, _NODE_SECONDS = 30.0, 5.0
# Later than this driver itself would stop, and sooner than Ray.
_GUARD_SECONDS = 45.0
# Characters of Ray's own words that a message of ours quotes.
_LONGEST = 400
# Under which key Ray's autoscaler writes its report.
_REPORT_KEY = b"__autoscaling_status"

#: Whether nodes can come that were asked for: "yes" and "no" are an autoscaler's word, "unknown" is that of nobody.
AutoscalerAnswer: TypeAlias = Literal["yes", "no", "unknown"]


def node_here() -> str:
    """Id of the Ray node that this process is on, a driver or a worker."""
    import ray

    node_id: str = ray.get_runtime_context().get_node_id()
    return node_id


def heard(answer: Any, seconds: float) -> None:
    """In a worker: wait until something that it said has been answered, for so long at most."""
    import ray
    from ray.exceptions import RayError

    with contextlib.suppress(RayError):
        ray.get(answer, timeout=seconds)


def quoted(words: str) -> str:
    """Ray's own words in one line, not too long for a message of ours."""
    return " ".join(words.split())[:_LONGEST]


def places_on(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many segments with these needs, each above 0, a node with these resources holds at once."""
    return int(min(resources.get(name, 0.0) / need for name, need in needs.items()) + 1e-9)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ray warns of its own future and leaves sockets to the collector; neither is news to whoever runs a search."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, ResourceWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


class RayCluster:
    """The Ray that this process is in, or joins by this: at an address or at `RAY_ADDRESS`, or else a local one.

    Args:
        address: Of the cluster to join.
        folders: Keys of Ray's `runtime_env` that hold for the whole job, and can be told only where it is joined.

    Attributes:
        ray: Ray's module, which nobody else imports.
        here: Id of the node that this process is on.
        is_elsewhere: Whether there may be nodes besides this machine.

    Raises:
        RunError: Ray is not installed, or there is no cluster.
        InfrastructureError: The cluster refuses this driver.
        ConfigError: The folders cannot be sent, or come too late.
    """

    def __init__(self, address: str | None = None, folders: Mapping[str, Any] | None = None) -> None:
        self.ray = _import_ray()
        cluster = None if self.ray.is_initialized() else address or os.environ.get("RAY_ADDRESS")
        self._guard = ProcessGuard(cluster, every=CHECK_SECONDS, patience=_GUARD_SECONDS)
        with self.using(), contextlib.ExitStack() as stack:
            stack.callback(self.dismiss_guard)
            self._is_owner = _connect(self.ray, address, folders)
            self.is_elsewhere = not self._is_owner or cluster is not None
            self.here = node_here()
            self._parts = _parts(self.ray, self.here)
            stack.pop_all()
        self._checked = -math.inf

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """What Ray raises while it is asked for something, other than what tasks end in, says that it is at its end."""
        try:
            with quiet():
                yield
        except self.ray.exceptions.RayError as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise InfrastructureError(
                f"Ray cannot go on ({words}). Start the cluster again, and resume the run: what was finished is kept."
            ) from error

    def check(self) -> bool:
        """Look at the head and at this machine's part of Ray, unless that was just done; whether both answer now.

        Raises:
            InfrastructureError: One of them has not answered for too long.
        """
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return False
        self._checked = now
        for part in self._parts:
            part.look(now)
        return all(part.silent_since is None for part in self._parts)

    def on_node(self, node_id: str, *, soft: bool = True) -> Any:
        """Ray's strategy that puts something on this node, or, where it is `soft` and that one is gone, on another."""
        return self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=soft)

    def places(self, needs: Mapping[str, float]) -> int:
        """How many segments with these needs, each above 0, its nodes hold at once."""
        return sum(places_on(node["Resources"], needs) for node in self.ray.nodes() if node["Alive"])

    def capacity(self, cpus: float, gpus: float) -> int:
        """How many segments that take so much its nodes hold at once.

        Raises:
            RunError: None; several nodes together do not help.
        """
        places = self.places({name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need > 0})
        if places < 1:
            there = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            most = {name: max((node.get(name, 0.0) for node in there), default=0.0) for name in ("CPU", "GPU")}
            adds = ", and no autoscaler adds one" if self.is_elsewhere else ""
            raise RunError(
                f"a segment asks for cpus={cpus:g}, gpus={gpus:g}, and no node of the Ray cluster has that (up to "
                f"{most['CPU']:g} CPUs on one, up to {most['GPU']:g} GPUs){adds}; lower those or add a node"
            )
        return places

    def request_nodes(self, bundles: Sequence[Mapping[str, float]]) -> None:
        """Ask the cluster's autoscaler for nodes with room for all these at once, in the place of what it was asked.

        The request outlives this process. Without an autoscaler, and through Ray's client, it has no effect.
        """
        with contextlib.suppress(RuntimeError, AssertionError):  # as there is no autoscaler's state at hand
            import ray.autoscaler.sdk

            ray.autoscaler.sdk.request_resources(bundles=[dict(bundle) for bundle in bundles])

    def autoscaler_clock(self) -> int:
        """By which `autoscaler_answer` knows what was asked before now."""
        return 0 if (status := _cluster_status(self.ray)) is None else _asked_at(status)

    def autoscaler_answer(self, asked_at: int) -> AutoscalerAnswer:
        """Whether nodes can come for what was asked before this reading of `autoscaler_clock`, as far as is known."""
        if (status := _cluster_status(self.ray)) is None:
            return "unknown"
        return answer_of_report(status) if isinstance(status, dict) else answer_of_state(status, asked_at)

    @property
    def is_silent(self) -> bool:
        """Whether a part of it did not answer the last time: Ray would wait for that, without a word."""
        return any(part.silent_since is not None for part in self._parts)

    def alive(self) -> set[str]:
        """Ids of its nodes."""
        return {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}

    @property
    def is_joined(self) -> bool:
        """Whether this process is in Ray still."""
        return bool(self.ray.is_initialized())

    def leave(self) -> None:
        """End Ray in this process if this started or joined it."""
        if self.is_joined and self._is_owner:
            with quiet():
                self.ray.shutdown()
        self.dismiss_guard()

    def dismiss_guard(self) -> None:
        """From now on nobody says it where Ray ends this process."""
        self._guard.dismiss()


@dataclasses.dataclass
class _Part:
    """A part of Ray without which this driver is nothing, at an address that takes connections as long as it lives."""

    name: str
    address: tuple[str, int]
    patience: float
    silent_since: float | None = None

    def look(self, now: float) -> None:
        try:
            socket.create_connection(self.address, timeout=CHECK_SECONDS).close()
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


_NAMED_BY_ID = re.compile("node_[0-9a-f]{32,}")


def answer_of_report(report: Mapping[str, Any]) -> AutoscalerAnswer:
    """What an autoscaler of Ray's first kind says of itself, in the report that `ray status` prints.

    It names its nodes by their types. Where nothing adds nodes, a process in its place names each by its id.
    """
    nodes = report.get("autoscaler_report")
    if not nodes or not (types := [*nodes["active_nodes"], *nodes["pending_launches"]]):
        return "unknown"
    return "no" if all(_NAMED_BY_ID.fullmatch(name) for name in types) else "yes"


def answer_of_state(status: Any, asked_at: int) -> AutoscalerAnswer:
    """What an autoscaler of Ray's second kind answers, the same on a cluster to which nothing adds nodes.

    It says which requests it can never meet, of the state of the cluster that it has seen last.
    """
    state = status.autoscaling_state
    if state.last_seen_cluster_resource_state_version <= asked_at:
        return "unknown"
    return "no" if state.infeasible_cluster_resource_constraints else "yes"


def _asked_at(status: Any) -> int:
    """Which state of the cluster is the newest; reports of the first kind do not say it."""
    return 0 if isinstance(status, dict) else int(status.cluster_resource_state.cluster_resource_state_version)


def _cluster_status(ray: Any) -> Any:
    """What the cluster's autoscaler says: a report (dict) or a state (protobuf), or None where nobody says anything.

    Ray has no public function for it, so whatever goes wrong here counts as silence.
    """
    with contextlib.suppress(Exception):
        from ray.autoscaler.v2.utils import is_autoscaler_v2
        from ray.experimental.internal_kv import _internal_kv_get

        if not is_autoscaler_v2():
            report = json.loads(_internal_kv_get(_REPORT_KEY))
            return report if isinstance(report, dict) else None
        status = importlib.import_module("ray.core.generated.autoscaler_pb2").GetClusterStatusReply()
        client = ray._raylet.GcsClient(ray.get_runtime_context().gcs_address)
        status.ParseFromString(client.get_cluster_status(timeout_s=10))
        return status
    return None


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
        with quiet():
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
    _knock(cluster or "")
    try:
        # "local" by name: without an address Ray would join whatever cluster somebody else left on this machine.
        with _signals_kept(), _told_by_us() if cluster else contextlib.nullcontext():
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


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what SIGTERM does, which Ray makes the end of the process where it is joined."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


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


def _about_folders(error: BaseException | None) -> str:
    """What Ray says of a folder that it cannot send; nothing where an error is of something else."""
    while error is not None:
        words = " ".join(str(error).split())
        if "exceeds the maximum size" in words or "runtime_env" in words or "package" in words:
            return quoted(words)
        error = error.__cause__ or error.__context__
    return ""


def _knock(address: str) -> None:
    """Knock at an address that names a port: Ray itself would try for minutes where nobody is."""
    head = host_and_port(address)
    if head is None:
        return
    try:
        socket.create_connection(head, timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"no Ray cluster answers at {address!r} ({error}); start one, or leave address out") from None
