"""Autoscaler of a Ray cluster: it is asked for nodes, and waited for where a segment fits on none.

Ray adds nodes for tasks that wait, and for what is requested of it. Of the second there is one list in a cluster.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping

from evocompress.search.events import AwaitingNodes
from evocompress.search.ray_cluster import CHECK_SECONDS, RayCluster
from evocompress.search.time_limit import FLOOR_SECONDS, doubled

__all__ = ["NodeRequest"]

# For how long nobody may report on the cluster's nodes before it counts as one that nothing is added to. An
# autoscaler looks around every 5 seconds, and begins some seconds after the head.
_REPORT_SECONDS = 30.0
_RENEW_SECONDS = 30.0


class NodeRequest:
    """What the autoscaler is asked for: nodes that hold so many segments at once.

    Where the cluster has no autoscaler a request has no effect.

    Args:
        cluster: Whose autoscaler.
        needs: What a segment takes of Ray's resources, by their names.
        segments: How many at once; None for as many as fit on the nodes that are there. Then one is asked for, and only
            until there is a node; further ones are added for the tasks that wait.
        observer: Hears that nodes are waited for.
    """

    def __init__(
        self,
        cluster: RayCluster,
        needs: Mapping[str, float],
        segments: int | None,
        observer: Callable[[AwaitingNodes], object],
    ) -> None:
        self._cluster, self._segments, self._observer = cluster, segments, observer
        self._needs = {name: need for name, need in needs.items() if need > 0}
        self._is_asked = False
        self._asked_at = -math.inf

    def open(self) -> None:
        """Ask, and wait until a segment fits on a node, as long as the autoscaler may add one.

        Returns without one where nothing adds it. Ray's own nodes on this machine are not asked for.
        """
        if not self._cluster.is_elsewhere:
            return
        if self._segments is not None:
            self._ask(self._segments)
        if self._cluster.places(self._needs) > 0:
            return
        # A part of Ray's autoscalers takes a request as a whole or not at all, so many may be too many for its limits.
        is_there = any(self._wait(segments) for segments in dict.fromkeys((self._segments or 1, 1)))
        if not is_there or self._segments is None:
            self.withdraw()

    def withdraw(self) -> None:
        """Ask for nothing from now on, so that nodes which are idle may go."""
        if self._is_asked and self._cluster.is_joined and not self._cluster.is_silent:
            self._cluster.request_nodes([])
        self._is_asked = False

    def renew(self) -> None:
        """Ask again from time to time: another run in the cluster may have asked for something else since, or ended."""
        if self._is_asked and self._segments is not None and time.monotonic() - self._asked_at >= _RENEW_SECONDS:
            with contextlib.suppress(Exception):  # the next time may do; that a cluster is gone is noticed elsewhere
                self._ask(self._segments)

    def _ask(self, segments: int) -> None:
        self._is_asked, self._asked_at = True, time.monotonic()
        self._cluster.request_nodes([dict(self._needs)] * segments)

    def _wait(self, segments: int) -> bool:
        """Ask for so many, and wait for the first node; False as soon as it is known that none will come."""
        self._ask(segments)
        asked_at, began, lines = self._cluster.autoscaler_clock(), time.monotonic(), 0
        while self._cluster.places(self._needs) < 1:
            answer, waited = self._cluster.autoscaler_answer(asked_at), time.monotonic() - began
            if answer == "no" or (answer == "unknown" and not lines and waited >= _REPORT_SECONDS):
                return False
            if (answer == "yes" or lines) and waited >= doubled(FLOOR_SECONDS, lines):
                self._observer(AwaitingNodes(self._needs, waited))
                lines += 1
            if time.monotonic() - self._asked_at >= _RENEW_SECONDS:
                self._ask(segments)
            self._cluster.check()
            time.sleep(CHECK_SECONDS / 2)
        return True
