"""Nodes of a Ray cluster: each is asked whether it is fit for a run, and only those that are get something of it.

A node is asked by a Ray task, which is made ready as a segment's worker is and then calls a `NodeProbe`. Which nodes
have answered what is in a `NodeRoll`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evocompress.errors import RunError
from evocompress.search.attempt import SharesData
from evocompress.search.node_probe import NodeProbe, Seen
from evocompress.search.node_roll import Node, NodeNews, NodeRoll
from evocompress.search.ray_cluster import RayCluster, node_here, places_on, quoted
from evocompress.search.shipped_modules import ShippedModules

__all__ = ["NotAsked", "RayNodes", "Sent", "check_node", "make_ready"]

# For how long nodes may take to answer a probe, which loads the data; and where they install or fetch something before.
# A run begins without those that take longer than the first.
_FIRST_SECONDS, _LOOK_SECONDS, _INSTALL_SECONDS = 30.0, 300.0, 900.0


class NotAsked(Exception):
    """Ray has given a node something before it was asked whether it is fit: it joined a moment ago."""


def check_node(fit: frozenset[str] | None) -> None:
    """Called first in a worker, with what `RayNodes.placed` gives; None where no node is asked.

    Raises:
        NotAsked: This worker's node is not among those that are fit.
    """
    if fit is not None and (node := node_here()) not in fit:
        raise NotAsked(node)


def make_ready(modules: ShippedModules, segment: object, data: Any) -> None:
    """Called in a worker before anything of the user's runs there: give it modules, and the segment its shared data."""
    modules.install()
    if data is not None and isinstance(segment, SharesData):
        segment.receive(data)


class Sent(NamedTuple):
    """What Ray's object store has once for each node, as references: what `make_ready` takes in a worker."""

    modules: Any
    segment: Any
    data: Any


def _remote_look(modules: ShippedModules, segment: object, data: Any, probe: NodeProbe, node_id: str) -> Seen:
    make_ready(modules, segment, data)
    return probe(node_id, segment)


class RayNodes:
    """The nodes that get something of a run: all of them, until they are asked; then those that are fit.

    Args:
        cluster: Whose nodes.
        sent: What they are made ready with.
        needs: What a segment takes of Ray's resources, by their names; nodes that have less are not looked at.
        runtime_env: Ray's environment of a segment's workers.
        installs: Whether that makes a node install or fetch something.
    """

    def __init__(
        self,
        cluster: RayCluster,
        sent: Sent,
        *,
        needs: Mapping[str, float],
        runtime_env: Mapping[str, Any],
        installs: bool,
    ) -> None:
        self._cluster, self._ray = cluster, cluster.ray
        self._sent, self._runtime_env = sent, runtime_env
        self._needs = {name: need for name, need in needs.items() if need > 0}
        self._patience = _INSTALL_SECONDS if installs else _LOOK_SECONDS
        self._roll: NodeRoll | None = None  # None until they are asked, and so is the probe
        self._probe: NodeProbe | None = None
        self._asked: dict[Any, str] = {}  # nodes, by what they will answer
        self._probe_files = contextlib.ExitStack()  # what lies in the storage while there are such
        self._id_label = "ray.io/node-id"  # by which Ray knows a node's id; versions of it call it differently
        self._fit: tuple[frozenset[str], Any] | None = None  # the nodes that are fit, and the same in the object store

    def ask(self, probe: NodeProbe) -> None:
        """Call the probe on each node that a segment fits on, all at once.

        From then on only nodes that answered, and are fit, get something. `look` asks those that join later, too; those
        that are slow may answer later.

        Raises:
            RunError: No node is fit; one line says which lack what, and what to do.
        """
        self._probe, self._roll, began = probe, NodeRoll(self._patience), time.monotonic()
        while True:
            self.look()
            first = self._roll.fit and time.monotonic() - began >= _FIRST_SECONDS
            if not self._roll.waits or first:
                break
            with self._cluster.using():
                self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=1.0)
        try:
            self._roll.open()
        except RunError:
            self.stop_asking()
            raise

    def look(self) -> None:
        """Ask nodes that are new, and take in answers; nothing as long as no node is asked."""
        if self._roll is None or self._probe is None:
            return
        with self._cluster.using():
            self._ask_new(self._probe, self._roll.enter(self._there(), time.monotonic()))
            ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for reference in ready:
                node = self._asked.pop(reference)
                self._roll.hear(node, self._seen(self._probe, reference, node))
            self._roll.check_time(time.monotonic())
            there = {*self._roll.fit, *self._roll.others}
            self._asked = {reference: node for reference, node in self._asked.items() if node in there}
        if not self._asked:
            self._probe_files.close()

    def stop_asking(self) -> None:
        """Give up what has not been answered."""
        for reference in self._asked:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._asked.clear()
        self._probe_files.close()

    def news(self) -> list[NodeNews]:
        """What has become of nodes since the last call: which joined, are unfit, or are gone."""
        return [] if self._roll is None else self._roll.news()

    @property
    def places(self) -> int | None:
        """How many segments the nodes that are fit hold at once; None where no node is asked."""
        return None if self._roll is None else self._roll.places

    def fit(self) -> list[str]:
        """Ids of the nodes that get something."""
        return list(self._there()) if self._roll is None else self._roll.fit

    def placed(self, strategy: Any = None) -> tuple[Any, Any]:
        """Where Ray is to put something, so that no node gets it which is unfit or was not asked yet.

        A strategy, and what the worker gives to `check_node`: a node may join while Ray looks for a place.
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

    def _ask_new(self, probe: NodeProbe, nodes: Sequence[str]) -> None:
        if nodes and not self._asked:
            try:
                self._probe_files.enter_context(probe.begun())
            except RunError:
                if not self._roll or not self._roll.fit:  # it is not that the store is away for a while
                    raise
                self._roll.forget(nodes)
                return
        # With the environment of segments, so that a worker which has imported what they need runs them next.
        look = self._ray.remote(num_cpus=0, max_retries=0, runtime_env=self._runtime_env)(_remote_look)
        for node in nodes:
            there = look.options(scheduling_strategy=self._cluster.on_node(node, soft=False))
            self._asked[there.remote(*self._sent, probe, node)] = node

    def _seen(self, probe: NodeProbe, reference: Any, node: str) -> Seen:
        try:
            seen: Seen = self._ray.get(reference)
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            words = _last_error(str(error))
            return Seen(self._name(node), (f"cannot be given what resources.pip or image_uri asks for ({words})",))
        except Exception as error:  # evocompress is not there
            cause = getattr(error, "cause", None) or error
            words = quoted(f"{type(cause).__name__}: {cause}")
            return Seen(self._name(node), (f"cannot run this version of evocompress ({words})",))
        return probe.check_answer(node, seen)

    def _name(self, node_id: str) -> str:
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in self._ray.nodes()}
        return f"{hosts.get(node_id, 'a machine')} (node {node_id[:8]})"

    def _there(self) -> dict[str, Node]:
        """Nodes that a segment fits on, by id."""
        found = {}
        for node in self._ray.nodes():
            names = [name for name, value in node["Labels"].items() if value == node["NodeID"]]
            self._id_label = names[0] if names else self._id_label
            if node["Alive"] and (places := places_on(node["Resources"], self._needs)) > 0:
                found[node["NodeID"]] = Node(f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})", places)
        return found


def _last_error(text: str) -> str:
    """The last line of a text with tracebacks that names an error, or all of it in one line."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*[\w.]*(?:Error|Exception)\b", line)]
    return quoted(lines[-1] if lines else text)
