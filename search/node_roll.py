"""Roll of a cluster's nodes: which have been asked whether they are fit, which are, and what is to be said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from evocompress.errors import RunError
from evocompress.search.node_probe import Seen, by_problem, refusal

__all__ = ["Node", "NodeNews", "NodeRoll"]


class Node(NamedTuple):
    """A node that a segment fits on: its name, and how many fit on it at once."""

    name: str
    places: int


@dataclasses.dataclass(frozen=True)
class NodeNews:
    """What has become of nodes of a cluster: they joined, or they are unfit for this `reason`, or they are gone.

    `workers` is how many segments run at once from now on.
    """

    nodes: str
    change: Literal["joined", "unfit", "gone"]
    reason: str
    workers: int


class NodeRoll:
    """The nodes that are there, by id, and what they answered; only those that are fit get segments.

    Args:
        patience: Seconds after which a node that has not answered counts as unfit, until it does.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._nodes: dict[str, Node] = {}
        self._asked: dict[str, float] = {}  # since when
        self._seen: dict[str, Seen] = {}
        self._news: list[NodeNews] = []
        self._is_open = False

    def enter(self, nodes: Mapping[str, Node], now: float) -> list[str]:
        """Take in the nodes that are there now; the ids of those that are to be asked."""
        gone = [node_id for node_id in self._nodes if node_id not in nodes]
        fit = set(self.fit)
        names = [self._nodes[node_id].name for node_id in gone if node_id in fit]
        for node_id in gone:
            self._asked.pop(node_id, None)
            self._seen.pop(node_id, None)
        new = [node_id for node_id in nodes if node_id not in self._nodes]
        self._nodes = dict(nodes)
        self._asked.update(dict.fromkeys(new, now))
        self._tell("gone", [Seen(name, ("",)) for name in names])
        return new

    def forget(self, new: Sequence[str]) -> None:
        """Nodes that could not be asked just now are new again when they are seen next."""
        for node_id in new:
            del self._nodes[node_id], self._asked[node_id]

    def hear(self, node_id: str, seen: Seen) -> None:
        """Take in an answer; that of a node which is gone says nothing."""
        if self._asked.pop(node_id, None) is None:
            return
        self._seen[node_id] = seen
        self._tell(*(("unfit", [seen]) if seen.problems else ("joined", [seen._replace(problems=("",))])))

    def check_time(self, now: float) -> None:
        """Give up those that take too long to answer; they may still do so later."""
        late = [
            node_id
            for node_id, since in self._asked.items()
            if node_id not in self._seen and now - since >= self._patience
        ]
        for node_id in late:
            problem = f"has not answered for {self._patience:g} s; stop it, or repair it"
            self._seen[node_id] = Seen(self._nodes[node_id].name, (problem,))
        self._tell("unfit", [self._seen[node_id] for node_id in late])

    def open(self) -> None:
        """Begin a run on the nodes that are fit; from now on there is news of the others.

        Raises:
            RunError: None is fit; one line says which nodes lack what, and what to do.
        """
        if not self.fit:
            line = refusal([self._seen[node_id] for node_id in self._nodes if node_id in self._seen])
            raise RunError(f"no node of the cluster is fit for this run: {line or 'there is none'}")
        self._is_open = True
        self._tell("unfit", [seen for seen in self._seen.values() if seen.problems])

    def news(self) -> list[NodeNews]:
        """What is new since the last call."""
        news, self._news = self._news, []
        return news

    @property
    def waits(self) -> bool:
        """Whether a node has yet to answer, in the time that it has for it."""
        return any(node_id not in self._seen for node_id in self._asked)

    @property
    def fit(self) -> list[str]:
        """Ids of the nodes that may get segments."""
        return [node_id for node_id in self._nodes if node_id in self._seen and not self._seen[node_id].problems]

    @property
    def others(self) -> list[str]:
        """Ids of the nodes that may not, or not yet."""
        fit = set(self.fit)
        return [node_id for node_id in self._nodes if node_id not in fit]

    @property
    def places(self) -> int:
        """How many segments the nodes that are fit hold at once."""
        return sum(self._nodes[node_id].places for node_id in self.fit)

    def _tell(self, change: Literal["joined", "unfit", "gone"], seen: list[Seen]) -> None:
        if self._is_open:
            self._news += [NodeNews(names, change, problem, self.places) for names, problem in by_problem(seen)]
