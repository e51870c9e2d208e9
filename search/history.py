"""History of a run for all that displays it: a fold over its journal, also while the run is going on."""

from __future__ import annotations

import dataclasses
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evocompress.errors import ConfigError, RunError
from evocompress.search.archive import Archive
from evocompress.search.journal import Record, damage, scan
from evocompress.search.journal_index import LEAVES, JournalIndex, Leaves, Outcomes, Records, SegmentOf, Tasks, Told
from evocompress.search.journal_records import GAVE_UP, Elapsed, about_line, checked_record, outcome_of, task_of
from evocompress.search.objectives import Scale
from evocompress.search.old_runs import quality_of_run
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, Outcome, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.storage import Storage, open_storage

__all__ = ["History", "check_journal_is_there", "read_history", "read_run_json", "settings_of"]

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class History:
    """`run` is run.json; `outcomes`, `told` and `finished_at` (unix seconds) are parallel, in the order of telling.

    `leaves` has every leaf by id, also those whose files are gone; `archive` the non-dominated ones by ascending bytes.
    Of a run that `read_history` gave, all but the archive and the rare events stay in the journal, and are read there
    when they are looked at: go over `outcomes` or `leaves.values()` once, and not again for each of them.
    """

    folder: Path
    run: dict[str, Any]
    tasks: Mapping[str, SegmentTask]
    outcomes: Sequence[Outcome]
    told: Sequence[Mapping[str, Any]]
    finished_at: Sequence[float]
    leaves: Mapping[str, Leaf]
    archive: list[Leaf]
    records: Sequence[Record]
    segment_of: Mapping[str, str]

    def __repr__(self) -> str:
        """Which run it is, in a line: all that was recorded takes pages, and is read from the journal."""
        return f"<History {self.folder}: segments {len(self.outcomes)}, files {len(self.leaves)}>"

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of all journal lines of a type, in order, each with its "time"."""
        return list(self._events(kind))

    def first_event(self, kind: str) -> dict[str, Any] | None:
        """The first of `events`, without looking for the others."""
        return next(self._events(kind), None)

    def _events(self, kind: str) -> Iterator[dict[str, Any]]:
        records = self.records
        of_kind = records.of_kind(kind) if isinstance(records, Records) else (r for r in records if r["type"] == kind)
        for record in of_kind:
            yield {key: value for key, value in record.items() if key not in ("epoch", "seq", "crc", "type")}

    @property
    def hypervolumes(self) -> Sequence[float]:
        """The hypervolume after each outcome, in the order of telling."""
        told = self.told
        return told.hypervolumes if isinstance(told, Told) else [entry["hypervolume_after"] for entry in told]

    @property
    def completions(self) -> Sequence[int]:
        """The completion number of each outcome, in the order of telling."""
        if isinstance(self.outcomes, Outcomes):
            return self.outcomes.index_of_journal.completions
        numbers = {event["outcome"]["segment_id"]: event["completion"] for event in self.events("finished")}
        return [numbers.get(outcome.segment_id, place) for place, outcome in enumerate(self.outcomes)]

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of segments that did not end "ok", in the order of telling."""
        if isinstance(self.outcomes, Outcomes):
            return [self.outcomes[number] for number in self.outcomes.index_of_journal.failed]
        return [outcome for outcome in self.outcomes if outcome.status != "ok"]

    @property
    def given_up(self) -> dict[str, Any] | None:
        """The event of a run that was given up, as its first segments all failed alike; None once it has begun anew.

        Those segments are no longer among the outcomes, as a resume tries them again.
        """
        events = [] if self.tasks else self.events(GAVE_UP)
        return events[-1] if events else None

    @property
    def storage(self) -> Storage:
        """Where the leaves' files lie."""
        return open_storage(self.run.get("storage") or self.folder)

    @property
    def quality(self) -> Quality:
        """What the run calls good."""
        try:
            return quality_of_run(self.run.get("quality"))
        except (TypeError, ConfigError) as error:
            raise RunError(f"{self.folder}: the quality in run.json is damaged ({error}); restore it") from error

    @property
    def settings(self) -> SearchSettings:
        """The search's settings, with what was overridden later."""
        changed = [event["search"] for event in self.events("override") if "search" in event]
        return SearchSettings.from_json(changed[-1] if changed else self.run["search"])

    @property
    def in_flight(self) -> list[SegmentTask]:
        """Tasks without an outcome, oldest first."""
        finished = set(self._finished_ids())
        return [self.tasks[segment_id] for segment_id in self.tasks if segment_id not in finished]

    def _finished_ids(self) -> Iterable[str]:
        index = self.outcomes.index_of_journal if isinstance(self.outcomes, Outcomes) else None
        return (outcome.segment_id for outcome in self.outcomes) if index is None else index.segment_ids

    @property
    def elapsed(self) -> float:
        """Seconds that drivers spent on segments; see `Elapsed`."""
        elapsed = Elapsed()
        last = next((record for record in reversed(self.records) if "elapsed" in record), None)
        for record in self.records if last is None else [last]:
            elapsed.observe(record)
        return elapsed.seconds

    def parent_of(self, leaf_id: str) -> str | None:
        """The leaf that this leaf's segment went on from; None for one from the initial weights."""
        if isinstance(self.tasks, Tasks):
            return self.tasks.parent_of(self.segment_of[leaf_id])
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
    except NotADirectoryError:
        raise RunError(f"{os.fspath(folder)} is no run: it is a file, not a folder") from None
    except FileNotFoundError:
        if not os.path.exists(folder):
            raise RunError(f"{os.fspath(folder)} is no run: it does not exist") from None
        raise RunError(f"{os.fspath(folder)} is no run: it has no run.json") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); restore it from a copy") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        file_format = run.get("format") if isinstance(run, dict) else None
        raise RunError(f"{path} has format {file_format!r}, this version reads {FORMAT}; use the version that wrote it")
    for name in ("config", "data", "network", "search", "space", "versions"):
        if not isinstance(run.get(name, {}), dict):
            raise RunError(f"{path} is damaged ({name} is no mapping); restore it from a copy")
    if not isinstance(run.get("network", {}).get("float32_bytes", 0), int | float):
        raise RunError(f"{path} is damaged (network.float32_bytes is no number); restore it from a copy")
    return run


def read_history(folder: str | os.PathLike[str]) -> History:
    """The run in `folder`, as far as it has come; a torn last journal line is left out, damage is a `RunError`.

    The journal is read once, line by line.
    """
    run = read_run_json(folder)
    check_journal_is_there(Path(folder), run)
    path = Path(folder, "journal")
    index = JournalIndex(path)
    told, times = Told(index), array("d")
    settings = settings_of(run, Path(folder))
    archive, scale = Archive(settings.reference), Scale.of(settings)
    done: set[str] = set()
    for line in scan(path):
        record = checked_record(line)
        position = index.add(line, record)
        if line.kind == GAVE_UP:  # what was before counts no more
            index.forget_segments()
            told, times, archive = Told(index), array("d"), Archive(settings.reference)
            done.clear()
        if line.kind == "submitted":
            task = task_of(line, record)
            if task.segment_id in index.tasks and not record.get("attempt_of_resume"):
                raise damage(line, f"segment {task.segment_id} was submitted before")
            index.tasks.setdefault(task.segment_id, position)
            if task.parents:
                index.parents[task.segment_id] = task.parents[0].leaf_id
        if line.kind != "finished":
            continue
        outcome = outcome_of(line, record)
        if outcome.segment_id in done:
            raise damage(line, f"segment {outcome.segment_id} was finished before")
        done.add(outcome.segment_id)
        number = len(index.finished)
        index.finished.append(position)
        if outcome.status != "ok":
            index.failed.append(number)
        index.segment_ids.append(outcome.segment_id)
        index.completions.append(record.get("completion", number))
        told.hypervolumes.append(record["told"]["hypervolume_after"])
        times.append(record["time"])
        with about_line(line):
            for place, leaf in enumerate(outcome.leaves):
                index.leaves[leaf.leaf_id] = LEAVES * number + place
                archive.insert(scale.member(leaf, (outcome.index, place)))
    views = Tasks(index), Outcomes(index), told, times, Leaves(index), list(archive), Records(index), SegmentOf(index)
    return History(Path(folder), run, *views)


def check_journal_is_there(folder: Path, run: Mapping[str, Any]) -> None:
    """Refuse a run whose journal is gone while its segments are there: it would look as if it had none.

    Raises:
        RunError: It is so; the message says how it is put back.
    """
    if not any((folder / "journal").glob("*.jsonl")) and open_storage(run.get("storage") or folder).find("seg"):
        raise RunError(
            f"{folder} has segments but its journal is gone; restore the folder journal from a copy, or let "
            f"`repair_run({folder})` rebuild it"
        )


def settings_of(run: dict[str, Any], folder: Path) -> SearchSettings:
    """The settings in run.json; `RunError` where they are damaged."""
    try:
        return SearchSettings.from_json(run["search"])
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder / 'run.json'} is damaged (search: {error}); restore it from a copy") from error
