"""Repair of a run's journal from what is whole of it, and from the COMMIT files and metrics of the segments.

Every outcome lies a second time beside its files, and every task in its COMMIT.json (since version 0.4; of older runs a
task is decided again: it follows from the seed and from what was known, and its id says whether it came out the same).
So the lines that are whole are gone through in order, as a resume does, and where something is missing for the next
one, it is put back. The damaged journal is kept aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evocompress.errors import ConfigError, InfrastructureError, JournalError, RunError
from evocompress.search.ask_tell import Search
from evocompress.search.history import read_run_json, settings_of
from evocompress.search.journal import Journal, Line, Record, journal_names, scan, walk
from evocompress.search.journal_records import BULK, GAVE_UP, checked_record, outcome_of, task_of
from evocompress.search.lease import Lease
from evocompress.search.records import Genome, Outcome, SegmentTask
from evocompress.search.run_header import storage_of_run
from evocompress.search.run_state import RunState
from evocompress.search.segment_commit import read_commit, read_task
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space
from evocompress.search.storage import Storage

__all__ = ["Repair", "repair_run"]

_BATCH = 1_000  # lines that are written at once
_NEW = "journal.new"


@dataclasses.dataclass
class Repair:
    """What a repair found and did, or would do.

    Args:
        damage: Where the journal is damaged, a text each; empty where there is nothing to repair.
        kept: Lines that were whole.
        outcomes: Outcomes put back from their COMMIT files.
        tasks: Tasks put back from their COMMIT files.
        decided: Tasks that were decided again, as they had been.
        unknown_tasks: Segments of which only the outcome is known: their parents are lost.
        given_up: Segments of which nothing is left and on which others depend, or whose parents are gone: they count
            as failed.
        open: Segments that were in flight, or of which nothing is left: a resume runs them.
        broken: What is damaged or gone of the segments' own files, a text each.
        lost: Lines that were not put back: of what a driver noted besides, such as that it had begun.
        aside: Where the damaged journal is now; None if nothing was done.
    """

    damage: list[str] = dataclasses.field(default_factory=list)
    kept: int = 0
    outcomes: int = 0
    tasks: int = 0
    decided: int = 0
    unknown_tasks: list[str] = dataclasses.field(default_factory=list)
    given_up: list[str] = dataclasses.field(default_factory=list)
    open: int = 0
    broken: list[str] = dataclasses.field(default_factory=list)
    lost: int = 0
    aside: Path | None = None


def repair_run(folder: str | os.PathLike[str], *, dry_run: bool = False) -> Repair:
    """Rebuild the journal of a run where it is damaged; says what could be put back and what not.

    Args:
        folder: The run folder. Its run.json must be whole.
        dry_run: Only say it.

    Raises:
        RunError: There is no run, a driver is alive, or run.json is damaged.
        InfrastructureError: The storage of the segments cannot be read.
    """
    path = Path(folder).absolute()
    run_json = read_run_json(path)
    with Lease(path):
        _finish_a_move(path)
        return _Repairer(path, run_json).run(dry_run)


def _finish_a_move(path: Path) -> None:
    """Of a repair that was killed between its two renames: the new journal was complete by then."""
    if not (path / "journal").exists() and (path / _NEW).exists() and any(path.glob("journal.damaged-*")):
        (path / _NEW).rename(path / "journal")


class _Repairer:
    def __init__(self, folder: Path, run_json: dict[str, Any]) -> None:
        self._folder, self._run_json = folder, run_json
        self._journal = folder / "journal"
        self._storage: Storage = storage_of_run(folder, run_json.get("storage") or "")
        self.report = Repair()
        self._submitted: set[str] = set()
        self._finished: set[str] = set()
        self._ids: dict[int, str] = {}  # of segments, by index
        self._again: dict[str, SegmentTask] = {}  # tasks of resubmissions
        self._committed: dict[str, int] = {}  # segments with a whole COMMIT and no whole line, to their index
        self._begins: dict[int, int] = {}
        self._overrides: list[Record] = []
        self._last = 0
        self._given_up = -1  # the line's number, where the run was given up for the last time and began anew

    def run(self, dry_run: bool) -> Repair:
        self._look()
        self._look_at_commits()
        if not self.report.damage:
            self._check()
        if not self.report.damage:
            return self.report
        target = None if dry_run else self._folder / _NEW
        if target is not None:
            _clear(target)
        builder = _Builder(self, target)
        expected = 0
        for line in self._whole_lines():
            record = checked_record(line)
            if line.seq > self._given_up or line.kind not in BULK:  # segments of before count no more
                builder.take(line, record)
            self.report.lost += line.seq - expected
            expected = line.seq + 1
        builder.finish()
        back = self.report.tasks + self.report.decided + len(self.report.unknown_tasks) + self.report.outcomes
        self.report.lost = max(0, self.report.lost - back)
        if target is not None:
            self._put_in_place(target)
        return self.report

    # ---- what there is ----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Which lines are whole, and what they are about."""
        report, numbers = self.report, [int(path.stem) for path in journal_names(self._journal)]
        missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
        report.damage += [f"{self._journal / f'{number:06d}.jsonl'} is missing" for number in missing]
        before: tuple[Path | None, int] = (None, 0)  # damaged lines at the beginning of a file
        for path, number, line, complete in self._lines():
            if before[0] != path:
                before = (path, 0)
            record = None if line is None else self._readable(line)
            if line is None or record is None:
                before = (path, before[1] + complete)
                if complete:
                    report.damage.append(f"{path} line {number}")
                continue
            self._begins.setdefault(line.epoch, line.seq - before[1])
            self._last = max(self._last, line.seq + 1)
            if line.kind == "submitted":
                task = task_of(line, record)
                if record["attempt_of_resume"]:
                    self._again[task.segment_id] = task
                else:
                    self._submitted.add(task.segment_id)
                self._ids[task.index] = task.segment_id
            elif line.kind == "finished":
                outcome = record["outcome"]
                self._finished.add(outcome["segment_id"])
                self._ids[outcome["index"]] = outcome["segment_id"]
            elif line.kind == "override":
                self._overrides.append(record)
            elif line.kind == GAVE_UP:
                self._given_up = line.seq
                for of_before in (self._submitted, self._finished, self._ids, self._again):
                    of_before.clear()

    def _look_at_commits(self) -> None:
        """Segments that were committed, and of whose outcome there is no whole line."""
        ids = {path.split("/")[1] for path in self._storage.find("seg") if path.endswith("/COMMIT.json")}
        for segment_id in sorted(ids - self._finished):
            try:
                outcome = read_commit(self._storage, segment_id)
            except InfrastructureError:
                raise
            except RunError as error:
                self.report.broken.append(str(error))
                continue
            if outcome is None or outcome.segment_id != segment_id:
                self.report.broken.append(f"the COMMIT file of segment {segment_id} is of another segment")
                continue
            self._committed[segment_id] = outcome.index
            self._ids.setdefault(outcome.index, segment_id)
        if unknown := sorted(set(self._committed) - self._submitted - set(self._again)):
            self.report.damage.append(f"{len(unknown)} stored segments that it does not know, such as {unknown[0]}")

    def _check(self) -> None:
        """Find what is wrong with lines that are whole each for itself."""
        state = RunState(self.space, self.settings)
        try:
            for line in scan(self._journal):
                state.take(line)
        except JournalError as error:
            self.report.damage.append(error.damage)
        except RunError as error:
            self.report.damage.append(str(error))
        else:
            self._look_at_front(state)

    def _look_at_front(self, state: RunState) -> None:
        """Files of the front that are gone: no journal brings them back."""
        front = [leaf.path for leaf in state.search.front()]
        if gone := [path for path in front if not self.is_stored(path)]:
            counts = f"{len(gone)} of {len(front)}"
            self.report.broken.append(f"files of the front are gone, {counts}, such as {gone[0]}; restore them")

    def _lines(self) -> Iterator[tuple[Path, int, Line | None, bool]]:
        for path in journal_names(self._journal):
            yield from walk([path], strict=False)

    def _readable(self, line: Line) -> Record | None:
        with contextlib.suppress(RunError):
            record = checked_record(line)
            if line.kind == "submitted":
                task_of(line, record)
                record["attempt_of_resume"] = bool(record.get("attempt_of_resume"))
            elif line.kind == "finished":
                outcome_of(line, record)
            return record
        return None

    def _whole_lines(self) -> Iterator[Line]:
        """The whole lines that count, in the order of their numbers, each number once."""
        expected = 0
        ends = {
            epoch: min((seq for later, seq in self._begins.items() if later > epoch), default=None)
            for epoch in self._begins
        }
        for _, _, line, _ in self._lines():
            if line is None or self._readable(line) is None or line.seq < expected:
                continue
            end = ends.get(line.epoch)
            if end is None or line.seq < end:
                expected = line.seq + 1
                yield line

    @property
    def space(self) -> Space:
        """That of run.json, or of the last override that is whole."""
        changed = [record["space"] for record in self._overrides if "space" in record]
        try:
            return Space.from_json(changed[-1] if changed else self._run_json["space"])
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self._folder / 'run.json'} is damaged (space: {error}); restore it from a copy"
            ) from error

    @property
    def settings(self) -> SearchSettings:
        """Those of run.json, or of the last override that is whole."""
        settings = settings_of(self._run_json, self._folder)
        for record in self._overrides:
            with contextlib.suppress(ConfigError, TypeError, ValueError):
                settings = SearchSettings.from_json(record["search"]) if "search" in record else settings
        return settings

    # ---- what the builder asks --------------------------------------------------------------------------------------

    def id_at(self, index: int) -> str | None:
        """The segment of this index, if anything of it is left."""
        return self._ids.get(index)

    def stored_task(self, segment_id: str) -> SegmentTask | None:
        """The task as a resubmission or a COMMIT file has it."""
        return self._again.get(segment_id) or read_task(self._storage, segment_id)

    def genome_of(self, segment_id: str) -> Genome:
        """The genome of a segment's first leaf, which is its own; empty where it has none."""
        with contextlib.suppress(RunError):
            outcome = read_commit(self._storage, segment_id)
            return dict(outcome.leaves[0].genome) if outcome is not None and outcome.leaves else {}
        return {}

    def take_committed(self, segment_id: str) -> Outcome | None:
        """The outcome of a segment that has a COMMIT and no whole line; once."""
        if self._committed.pop(segment_id, None) is None:
            return None
        return read_commit(self._storage, segment_id)

    @property
    def committed(self) -> dict[str, int]:
        """Segments whose outcome is still to be put back, to their index."""
        return self._committed

    def is_stored(self, path: str) -> bool:
        """Whether a leaf's file is there."""
        try:
            self._storage.read(path)
        except FileNotFoundError:
            return False
        return True

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _put_in_place(self, target: Path) -> None:
        aside = next(path for n in range(1, 10_000) if not (path := self._folder / f"journal.damaged-{n}").exists())
        # As many files as there were, so that a driver that wakes from a long sleep finds itself overtaken.
        before = max((int(path.stem) for path in journal_names(self._journal)), default=0)
        for number in range(len(journal_names(target)) + 1, before + 1):
            (target / f"{number:06d}.jsonl").touch()
        report = self.report
        journal = Journal(target)
        note = {"damage": report.damage[:100], "outcomes": report.outcomes, "given_up": report.given_up}
        journal.append([("repaired", {**note, "unknown_tasks": report.unknown_tasks, "aside": aside.name})])
        journal.close()
        if self._journal.exists():
            self._journal.rename(aside)
        else:
            aside.mkdir()
        target.rename(self._journal)
        if (self._folder / "snapshots").exists():
            (self._folder / "snapshots").rename(aside / "snapshots")
        report.aside = aside


class _Builder:
    """The new journal, line by line, beside the search that it comes to."""

    def __init__(self, repairer: _Repairer, target: Path | None) -> None:
        self._repairer, self.report = repairer, repairer.report
        self._search = Search(repairer.space, repairer.settings)
        self._journal = None if target is None else Journal(target)
        self._entries: list[tuple[str, dict[str, Any]]] = []
        self._done: set[str] = set()
        self._time = 0.0
        self._elapsed: float | None = None

    def take(self, line: Line, record: Record) -> None:
        """A line that is whole, after what is missing before it."""
        self._time, self._elapsed = record["time"], record.get("elapsed", self._elapsed)
        if line.kind == "submitted":
            task = task_of(line, record)
            if not record.get("attempt_of_resume"):
                if task.index < self._search.asked:
                    return
                self._ask_up_to(task.index)
                self._replay(task)
            elif task.segment_id not in self._search.in_flight:
                self._ask_up_to(task.index + 1)
        elif line.kind == "finished":
            outcome = outcome_of(line, record)
            if outcome.segment_id in self._done:
                return
            self._ask_up_to(outcome.index + 1)
            self._put_back_up_to(record.get("completion", 0))
            if self._search.tell(outcome).duplicate:
                return
            self._done.add(outcome.segment_id)
            record = {**record, "completion": len(self._done) - 1}
        self.report.kept += 1
        self._emit(
            line.kind, {key: value for key, value in record.items() if key not in ("crc", "epoch", "seq", "type")}
        )

    def finish(self) -> None:
        """What was stored and never noted, then what cannot go on."""
        self._ask_up_to(max(self._repairer.committed.values(), default=-1) + 1)
        for segment_id in self._search.in_flight:
            self._put_back(segment_id)
        for segment_id, task in self._search.in_flight.items():
            if not all(self._repairer.is_stored(parent.path) for parent in task.parents):
                self._give_up(segment_id, task)
        self.report.open = len(self._search.in_flight)
        self._flush()
        if self._journal is not None:
            self._journal.close()

    def _ask_up_to(self, index: int) -> None:
        while self._search.asked < index:
            self._recover(self._search.asked)

    def _recover(self, index: int) -> None:
        """The task of an index of which there is no whole line."""
        self._unblock()
        segment_id = self._repairer.id_at(index)
        stored = None if segment_id is None else self._repairer.stored_task(segment_id)
        decided = self._search.peek()
        assert decided is not None
        if stored is not None and stored.index == index and self._search.identify(stored) == segment_id:
            task, self.report.tasks = stored, self.report.tasks + 1
        elif segment_id is None or decided.segment_id == segment_id:
            task, self.report.decided = decided, self.report.decided + (segment_id is not None)
        else:
            task = self._unknown(index, segment_id)
            self.report.unknown_tasks.append(segment_id)
        self._search.replay(task)
        self._emit("submitted", {"time": self._time, "task": task.to_json(), "attempt_of_resume": False})

    def _unknown(self, index: int, segment_id: str) -> SegmentTask:
        """What is known of a task from the outcome alone."""
        return SegmentTask(index, segment_id, "initial", "none", (), self._repairer.genome_of(segment_id), (), 0, 0)

    def _replay(self, task: SegmentTask) -> None:
        self._unblock()
        self._search.replay(task)

    def _unblock(self) -> None:
        """Put back outcomes that the next decision must have seen."""
        while (segment_id := self._search.waits_for) is not None:
            if not self._put_back(segment_id):
                self._give_up(segment_id, self._search.in_flight[segment_id])

    def _put_back_up_to(self, completions: int) -> None:
        """Outcomes whose numbers are missing before the next."""
        while len(self._done) < completions:
            waiting = [segment_id for segment_id in self._search.in_flight if segment_id in self._repairer.committed]
            if not waiting or not self._put_back(waiting[0]):
                return

    def _put_back(self, segment_id: str) -> bool:
        outcome = self._repairer.take_committed(segment_id)
        if outcome is None:
            return False
        self._tell(outcome)
        self.report.outcomes += 1
        return True

    def _give_up(self, segment_id: str, task: SegmentTask) -> None:
        reason = "its outcome, or a file that it needs, was lost; given up by a repair"
        self._tell(Outcome(segment_id, task.index, "failed", error=reason))
        self.report.given_up.append(segment_id)

    def _tell(self, outcome: Outcome) -> None:
        told = self._search.tell(outcome).to_json()
        line = {"time": self._time, "outcome": outcome.to_json(), "completion": len(self._done), "told": told}
        self._done.add(outcome.segment_id)
        self._emit("finished", line)

    def _emit(self, kind: str, payload: dict[str, Any]) -> None:
        if self._elapsed is not None and kind in ("submitted", "finished"):
            payload.setdefault("elapsed", self._elapsed)
        self._search.collect()
        if self._journal is None:
            return
        self._entries.append((kind, payload))
        if len(self._entries) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._journal is not None:
            self._journal.append(self._entries)
        self._entries = []


def _clear(target: Path) -> None:
    """Remove what a repair that was killed left: its own files, and nothing else."""
    for path in journal_names(target):
        path.unlink()
    target.mkdir(exist_ok=True)
