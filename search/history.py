"""A run as everything that displays it reads it: a fold over its journal, also while the run is going on."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from evocompress.errors import ConfigError, RunError
from evocompress.search.archive import Archive
from evocompress.search.journal import Record, read_journal
from evocompress.search.objectives import Scale
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, Outcome, Task
from evocompress.search.settings import SearchSettings
from evocompress.search.storage import Storage, open_storage

__all__ = ["History", "read_history", "read_run_json"]

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class History:
    """`run` is run.json; `outcomes`, `told` and `finished_at` (unix seconds) are parallel, in the order of telling.

    `leaves` has every leaf by id, also those whose files are gone; `archive` the non-dominated ones by ascending bytes.
    """

    folder: Path
    run: dict[str, Any]
    tasks: dict[str, Task]
    outcomes: list[Outcome]
    told: list[dict[str, Any]]
    finished_at: list[float]
    leaves: dict[str, Leaf]
    archive: list[Leaf]
    records: list[Record]
    segment_of: dict[str, str]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of all journal lines of a type, in order, each with its "time"."""
        return [
            {key: value for key, value in record.items() if key not in ("epoch", "seq", "crc", "type")}
            for record in self.records
            if record["type"] == kind
        ]

    @property
    def storage(self) -> Storage:
        """Where the leaves' files lie."""
        return open_storage(self.run.get("storage") or self.folder)

    @property
    def quality(self) -> Quality:
        """What the run calls good."""
        try:
            return Quality.from_json(self.run.get("quality"))
        except (TypeError, ConfigError) as error:
            raise RunError(f"{self.folder}: the quality in run.json is damaged ({error}); restore it") from error

    @property
    def settings(self) -> SearchSettings:
        """The search's settings, with what was overridden later."""
        changed = [event["search"] for event in self.events("override") if "search" in event]
        return SearchSettings.from_json(changed[-1] if changed else self.run["search"])

    @property
    def in_flight(self) -> list[Task]:
        """Tasks without an outcome, oldest first."""
        finished = {outcome.segment_id for outcome in self.outcomes}
        return [task for segment_id, task in self.tasks.items() if segment_id not in finished]

    @property
    def elapsed(self) -> float:
        """Seconds that drivers spent on segments, by monotonic clocks; time of a suspended machine is not counted.

        Of journals without such counts: from the first submission to the last outcome of each driver.
        """
        counted = [float(record["elapsed"]) for record in self.records if "elapsed" in record]
        if counted:
            return counted[-1]
        seconds, first, last = 0.0, None, 0.0
        for record in self.records:
            if record["type"] == "resumed" and first is not None:
                seconds, first = seconds + max(0.0, last - first), None
            if record["type"] == "submitted" and first is None:
                first = last = float(record["time"])
            if record["type"] == "finished":
                last = float(record["time"])
        return seconds + (max(0.0, last - first) if first is not None else 0.0)

    def parent_of(self, leaf_id: str) -> str | None:
        """The leaf that this leaf's segment went on from; None for one from the initial weights."""
        parents = self.tasks[self.segment_of[leaf_id]].parents
        return parents[0].leaf_id if parents else None

    def lineage(self, leaf_id: str) -> list[Leaf]:
        """The leaf's ancestors and itself, oldest first."""
        line = [self.leaves[leaf_id]]
        while (parent := self.parent_of(line[-1].leaf_id)) is not None:
            line.append(self.leaves[parent])
        return line[::-1]


def read_run_json(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """run.json of a run folder; `RunError` where there is none or it is of another format."""
    path = Path(folder, "run.json")
    try:
        run = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{os.fspath(folder)} is no run: it has no run.json") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); restore it from a copy") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        file_format = run.get("format") if isinstance(run, dict) else None
        raise RunError(f"{path} has format {file_format!r}, this version reads {FORMAT}; use the version that wrote it")
    return run


def read_history(folder: str | os.PathLike[str]) -> History:
    """The run in `folder`, as far as it has come; a torn last journal line is left out, damage is a `RunError`."""
    run = read_run_json(folder)
    records = read_journal(Path(folder, "journal"))
    history = History(Path(folder), run, {}, [], [], [], {}, [], records, {})
    settings = history.settings
    archive, scale = Archive(settings.reference), Scale.of(settings)
    done: set[str] = set()
    for record in records:
        if record["type"] == "submitted":
            history.tasks.setdefault(record["task"]["segment_id"], Task.from_json(record["task"]))
        if record["type"] != "finished" or record["outcome"]["segment_id"] in done:
            continue
        outcome = Outcome.from_json(record["outcome"])
        done.add(outcome.segment_id)
        history.outcomes.append(outcome)
        history.told.append(record["told"])
        history.finished_at.append(float(record["time"]))
        for number, leaf in enumerate(outcome.leaves):
            history.leaves[leaf.leaf_id] = leaf
            history.segment_of[leaf.leaf_id] = outcome.segment_id
            archive.insert(scale.member(leaf, (outcome.index, number)))
    history.archive.extend(archive)
    return history
