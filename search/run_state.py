"""State of a run folded from its journal: the search, and the few things that a driver needs beside it to go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from evocompress.errors import RunError
from evocompress.search.ask_tell import Search
from evocompress.search.journal import Line, Record
from evocompress.search.journal_records import BULK, GAVE_UP, Elapsed, about_line, checked_record, outcome_of, task_of
from evocompress.search.records import Outcome
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space

__all__ = ["RunState"]

_REMEMBERED = 101  # durations, as many as the limit of time looks at


class RunState:
    """What the lines of a journal come to, taken one by one; it saves and loads, as the search does.

    `completions` counts outcomes, `seconds` are the durations of the last of them, `winners` has the attempt of every
    finished segment, `elapsed` the seconds that drivers spent, `events` the records of rare types.
    """

    def __init__(self, space: Space, settings: SearchSettings) -> None:
        self.search = Search(space, settings)
        self.completions = 0
        self.seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.winners: dict[str, str] = {}
        self.elapsed = Elapsed()
        self.events: list[Record] = []

    def take(self, line: Line) -> None:
        """Fold the next line.

        Raises:
            RunError: It cannot follow what was before, or is damaged; the message names file and line.
        """
        record = checked_record(line)
        self.elapsed.observe(record)
        if line.kind == "submitted" and not record.get("attempt_of_resume"):
            task = task_of(line, record)
            with about_line(line):
                self.search.replay(task)
        elif line.kind == "finished":
            outcome = outcome_of(line, record)
            with about_line(line):
                if self.search.tell(outcome).duplicate:
                    raise RunError(f"segment {outcome.segment_id} is not in flight")
            self.count(outcome)
        elif line.kind not in BULK:
            self.events.append(record)
            if line.kind == GAVE_UP:
                self.begin_again()
            elif line.kind == "override":
                self.overridden(record.get("changes", {}))

    def overridden(self, changes: Mapping[str, Any]) -> None:
        """Take note of an override, which differs from what was before by `changes`."""
        if any(key.startswith("space.") for key in changes):
            self.search.close_lineages()

    def begin_again(self) -> None:
        """Forget all segments: their first ones failed alike, the run was given up, and a resume tries them again."""
        search = self.search
        self.search = Search(search.space, search.settings)
        self.completions = 0
        self.seconds.clear()
        self.winners = {}
        self.elapsed = Elapsed(0.0)

    def count(self, outcome: Outcome) -> None:
        """Take note of an outcome that was told."""
        self.completions += 1
        if outcome.seconds > 0:
            self.seconds.append(outcome.seconds)
        self.winners[outcome.segment_id] = outcome.attempt

    def state_dict(self) -> dict[str, Any]:
        """As JSON-ready data. What `elapsed` counts is in the journal's next line, and here as it is now."""
        return {
            "search": self.search.state_dict(),
            "completions": self.completions,
            "seconds": list(self.seconds),
            "winners": self.winners,
            "elapsed": self.elapsed.seconds,
            "events": self.events,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, on a state of the same space and settings."""
        self.search.load_state_dict(state["search"])
        self.completions = int(state["completions"])
        self.seconds = deque(state["seconds"], maxlen=_REMEMBERED)
        self.winners = dict(state["winners"])
        self.elapsed = Elapsed(float(state["elapsed"]))
        self.events = list(state["events"])
