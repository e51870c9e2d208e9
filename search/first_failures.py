"""First failures of a search: whether its first segments have all failed in the same way, so that none can succeed."""

from __future__ import annotations

import re
from typing import Any

from evocompress.search.records import Outcome

__all__ = ["FirstFailures"]

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")  # addresses and shapes differ from genome to genome


class FirstFailures:
    """The outcomes of the first segments, by index, as long as all of them are failures alike.

    Which are the first follows from the order of submission: segments that fail at once are not counted for more than
    those that take their time to succeed. Two failures are alike if statuses and errors are, but for numbers.

    Args:
        count: How many are looked at; 0 for none.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ends: dict[int, str] = {}
        self._over = count == 0
        self.last = ("", "")  # status and error of the last one

    def observe(self, outcome: Outcome) -> None:
        """Take in an outcome."""
        if self._over or outcome.index >= self._count:
            return
        self._ends[outcome.index] = f"{outcome.status}: {_NUMBERS.sub('#', outcome.error)}"
        self.last = (outcome.status, outcome.error)
        if outcome.status == "ok" or len(set(self._ends.values())) > 1:
            self._end()

    @property
    def complete(self) -> bool:
        """Whether all of them have failed alike, and nothing was begun since."""
        return not self._over and len(self._ends) == self._count

    def go_on(self) -> None:
        """A further segment was begun: had the search been given up before, it would not have been."""
        if self.complete:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._ends.clear()

    def state_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        ends = {str(index): end for index, end in self._ends.items()}
        return {"over": self._over, "ends": ends, "last": list(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._over, self.last = bool(state["over"]), (str(state["last"][0]), str(state["last"][1]))
        self._ends = {int(index): str(end) for index, end in state["ends"].items()}
