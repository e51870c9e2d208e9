"""Logging of a run by trackers: an observer that gives them what ends, each in a thread of its own.

A tracker may be slow, or its server away; the run waits for none before its end. How far each has come stands in the
run folder, in trackers/NAME.json, so that a resume logs what is missing, also what was stored while nobody listened.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from evocompress.extensions import TRACKERS
from evocompress.protocols import Observer, Said
from evocompress.runs.export import front_rows
from evocompress.runs.front import front
from evocompress.runs.trackers.tracker import TrackedFront, TrackedRun, TrackedSegment, Tracker, tracked_segment
from evocompress.search.events import Ended, Finished, Opened, Submitted
from evocompress.search.history import History, read_history
from evocompress.search.records import SegmentTask
from evocompress.support.atomic_files import write_bytes
from evocompress.support.wording import counted

__all__ = ["Trackers"]

#: Seconds that the end of a run waits for a tracker; what is left is logged by a resume.
PATIENCE = 300.0

Item: TypeAlias = "TrackedRun | TrackedSegment | TrackedFront"


class Trackers:
    """Observer of a run that logs it, and a context manager: `with Trackers(["mlflow"], folder) as log: …`.

    Args:
        names: Of `extensions.TRACKERS`.
        folder: The run folder.
        observer: Hears all events too, and what trackers could not do.

    Raises:
        ConfigError: There is no such tracker.
        EvocompressError: Its library is missing.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, observer: Observer | None = None, *, patience: float = PATIENCE
    ) -> None:
        makers = {name: TRACKERS.find(name) for name in names}
        self._folder, self._observer, self._patience = folder, observer, patience
        self._made: dict[str, Tracker] = {name: make() for name, make in makers.items()}
        self._logs: list[_Log] = []
        self._tasks: dict[str, SegmentTask] = {}
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._logs:  # the run was never opened
            return
        history = read_history(self._folder)
        export = self._folder / "export"
        finished = self._finished and kind is None
        files = [path for path in sorted(export.rglob("*")) if path.is_file()] if finished else []
        rows = front_rows(front(history), history.quality)
        for log in self._logs:
            log.put(TrackedFront(rows, files, finished))
        for log in self._logs:
            log.close(self._patience)

    def __call__(self, event: object) -> None:
        """Take an event of the run."""
        match event:
            case Opened():
                self._open()
            case Submitted():
                self._tasks[event.task.segment_id] = event.task
            case Finished():
                task = self._tasks.pop(event.outcome.segment_id)
                self._put(tracked_segment(task, event.outcome, event.completion, event.hypervolume))
            case Ended():
                self._finished = event.reason == "finished"
            case _:
                pass
        if self._observer is not None:
            self._observer(event)

    def _open(self) -> None:
        history = read_history(self._folder)
        name = str(history.run.get("config", {}).get("name") or self._folder.name)
        for kind, tracker in self._made.items():
            path = self._folder / "trackers" / f"{kind}.json"
            log = _Log(kind, tracker, path, self._say, begun=len(history.events("gave_up")))
            run = TrackedRun(name, self._folder, history.run.get("config", {}), history.quality, log.kept)
            log.put(run)
            self._logs.append(log)
        # All in one pass; a log passes over what it has.
        if history.outcomes and any(log.logged < len(history.outcomes) for log in self._logs):
            for segment in _segments(history):
                self._put(segment)

    def _put(self, segment: TrackedSegment) -> None:
        for log in self._logs:
            log.put(segment)

    def _say(self, text: str) -> None:
        if self._observer is not None:
            self._observer(Said(text, "warning"))


def _segments(history: History) -> list[TrackedSegment]:
    """All segments that have ended, in the order in which they did."""
    volumes = history.hypervolumes
    return [
        tracked_segment(history.tasks[outcome.segment_id], outcome, number, float(volumes[number]))
        for number, outcome in enumerate(history.outcomes)
    ]


class _Log:
    """One tracker, the thread that calls it, and how far it has come."""

    def __init__(self, name: str, tracker: Tracker, path: Path, say: Callable[[str], None], *, begun: int) -> None:
        """`begun` says how often the run was given up and began anew, with other segments."""
        self._name, self._tracker, self._path, self._say, self._begun = name, tracker, path, say, begun
        state = _read(path)
        self.logged = int(state.get("logged", 0)) if state.get("begun", 0) == begun else 0
        self.kept: dict[str, Any] = dict(state.get("kept", {}))
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._waiting: deque[Item] = deque()
        self._failing = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Have it logged, some time."""
        self._queue.put(item)

    def close(self, patience: float) -> None:
        """Wait until all is logged, or tried for the last time."""
        self._queue.put(None)
        self._thread.join(patience)
        if left := sum(isinstance(item, TrackedSegment) for item in tuple(self._waiting)):
            self._say(f"tracker {self._name}: {counted(left, 'segment')} could not be logged; a resume logs them")
        elif self._thread.is_alive():
            self._say(f"tracker {self._name}: it has not come to its end; a resume logs what is missing")

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._waiting.append(item)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        """Log what waits, in order, as far as it goes."""
        while self._waiting:
            try:
                self._log(self._waiting[0])
            except Exception as error:  # a tracker's library and its server may fail in any way, and end no run
                if not self._failing:
                    text = " ".join(str(error).split())
                    self._say(f"tracker {self._name}: {type(error).__name__}: {text}; it is tried again")
                self._failing = True
                return
            self._failing = False
            self._waiting.popleft()

    def _log(self, item: Item) -> None:
        match item:
            case TrackedRun():
                self._tracker.begin(item)
            case TrackedSegment() if item.completion >= self.logged:
                self._tracker.log(item)
                self.logged = item.completion + 1
            case TrackedFront():
                self._tracker.end(item)
            case _:
                pass
        self._write()

    def _write(self) -> None:
        content = {"logged": self.logged, "begun": self._begun, "kept": self.kept}
        self._path.parent.mkdir(exist_ok=True)
        write_bytes(self._path, json.dumps(content).encode())


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        state = json.loads(path.read_bytes())
        if isinstance(state, dict) and isinstance(state.get("kept", {}), dict):
            return state
    return {}
