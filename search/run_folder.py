"""Run folder: open, create or resume it, drive the search in it, and keep what it promises.

The promise: kill any process at any instant, and a resume loses at most the segments in flight. What holds it up: a
segment exists once its COMMIT.json does; a task is in the journal before it is submitted; an outcome is in the journal
before a file is deleted because of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from evocompress.errors import HopelessError, RunError, StorageError
from evocompress.search.ask_tell import Search, Told
from evocompress.search.attempt import OutOfMemory, Segment, run_attempt
from evocompress.search.events import Reason
from evocompress.search.executors import Executor
from evocompress.search.history import History, check_journal_is_there, read_history, read_run_json, settings_of
from evocompress.search.journal import START, Journal, Place, Record, scan
from evocompress.search.journal_records import BULK, GAVE_UP, LARGER_SHARE, Elapsed, checked_record
from evocompress.search.lease import Lease
from evocompress.search.loop import PAUSES, Loop
from evocompress.search.records import Genome, Outcome, SegmentTask
from evocompress.search.run_header import (
    MARK,
    check_json,
    compare,
    describe,
    identity,
    locked,
    make_run_json,
    measured_as,
    only_budget,
    storage_of_run,
)
from evocompress.search.run_state import RunState
from evocompress.search.segment_commit import attempt_folder, read_commit
from evocompress.search.settings import SearchSettings
from evocompress.search.snapshots import Snapshots
from evocompress.search.space import Space
from evocompress.search.storage import LocalStorage, Storage, open_storage
from evocompress.search.time_limit import TimeLimit

__all__ = ["SNAPSHOT_EVERY", "Run", "made_with", "open_run", "rare_events"]

#: Segments between two snapshots: reading so many again takes a second or two, writing one a few tenths.
SNAPSHOT_EVERY = 5_000

# What a driver that was killed at once may have left, files in the course of being written among it.
_OWN = re.compile(r"journal|probe-[0-9a-f]{12}|lease\.lock|seg|lease\.json|(lease|run)\.json\.[0-9a-f]{8}\.tmp")
_SEGMENT_FILE = 3  # parts of its path at least: seg, the segment, its attempt or a file
_FINGERPRINT = ("id", "created", "seed", "space", "config")  # earlier versions have no id


class Run:
    """An open run; made by `open_run`, used as a context manager, which holds the lease.

    `search` is the folded search, `storage` where files lie, `settings` the resolved settings, `run_json` the header.
    """

    def __init__(
        self,
        folder: Path,
        run_json: dict[str, Any],
        space: Space,
        settings: SearchSettings,
        lease: Lease,
        *,
        state: RunState | None = None,
        read: Place = START,
        of_snapshot: int = 0,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        """`state` is what the journal comes to up to `read`; `of_snapshot` segments are in the last snapshot."""
        self.folder = folder
        self.run_json = run_json
        self.settings = settings
        self.storage: Storage = storage_of_run(folder, run_json["storage"])
        self._state = RunState(space, settings) if state is None else state
        self._lease = lease
        self._journal = Journal(folder / "journal", after=read)
        self._snapshots, self._every = Snapshots(folder, space, settings), snapshot_every
        self._of_snapshot = of_snapshot
        used = self._state.elapsed.seconds
        self._elapsed: Callable[[], float] = lambda: used  # seconds of the whole run; a drive's loop counts on
        self._resubmit: list[SegmentTask] = []
        self._unneeded: deque[str] = deque()  # paths of files that are still to be deleted
        self._closed: str | None = None

    @property
    def search(self) -> Search:
        """The folded search."""
        return self._state.search

    @property
    def completions(self) -> int:
        """How many segments were finished, by this and by earlier drivers."""
        return self._state.completions

    def events(self, kind: str) -> list[Record]:
        """The journal's records of a rare type ("reference", "audited", "teacher" …), in order, from memory."""
        return [event for event in self._state.events if event["type"] == kind]

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        reason = self._closed or "closed"
        if kind is not None and not issubclass(kind, HopelessError):
            reason = "interrupted" if issubclass(kind, KeyboardInterrupt) else f"{kind.__name__}: {error}"
        try:
            elapsed = round(self._elapsed(), 3)
            self.record("closed", reason=reason, in_flight=list(self.search.in_flight), elapsed=elapsed)
        except RunError:
            if kind is None:
                raise
        finally:
            self._journal.close()
            self._lease.__exit__()

    @property
    def elapsed(self) -> float:
        """Seconds that the run has been driven so far, by all its drivers."""
        return self._elapsed()

    def record(self, kind: str, **payload: Any) -> None:
        """Journal an event of another type, such as "reference" or "audited"."""
        self._append([(kind, payload)])
        self._state.events.append({"type": kind, **payload})

    def history(self) -> History:
        """The run as read from its folder."""
        return read_history(self.folder)

    def drive(
        self,
        executor: Executor,
        *,
        observer: Callable[[Any], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
        pauses: Sequence[float] = PAUSES,
        time_limit: float | None = None,
    ) -> Reason:
        """Run segments until the budget is used up ("finished"), `should_stop` ("stopped") or Ctrl-C ("interrupted").

        What is in flight at a stop stays in the journal as submitted, for a resume. The executor stays open. A task
        that is lost for a reason that says nothing of it is tried again after each of the `pauses`, in seconds. Beside
        one that runs for longer than `time_limit` seconds another attempt begins (`search.time_limit`; None for its
        default, infinite for none), if the executor has `SeveralAttempts`.

        Raises:
            InfrastructureError: It was lost once more than there are pauses, or did not end in several attempts.
            HopelessError: The first segments all failed with the same error. They are forgotten, and the budget is
                unspent: a resume begins with them again.
        """
        loop = Loop(
            self.search,
            executor,
            self,
            observer=observer,
            should_stop=should_stop,
            resubmit=self._resubmit,
            completions=self._state.completions,
            elapsed=self._elapsed(),
            pauses=pauses,
            limit=TimeLimit(time_limit, self._state.seconds),
            shares={event["segment_id"]: float(event["share"]) for event in self.events(LARGER_SHARE)},
        )
        self._elapsed = loop.elapsed
        try:
            reason = loop.run()
        except HopelessError:
            self._closed = "gave_up"
            self._give_up()
            raise
        finally:
            self._stop_counting()
        self._resubmit = list(self.search.in_flight.values())
        self._closed = reason
        if reason == "finished":
            self._sweep()
        self._snapshot(max(1, self._every // 10))
        return reason

    def give(self, genome: Genome, segment: Segment) -> Outcome:
        """Take in a segment that is not asked for, run here and now: what a population begins with."""
        task = self.search.give(genome)
        self.submitted([(task, False)])
        outcome = run_attempt(segment, task, self.storage)
        self.finished([(outcome, self._state.completions, self.search.tell(outcome))])
        return outcome

    # ---- what the loop has recorded ---------------------------------------------------------------------------------

    def submitted(self, tasks: Sequence[tuple[SegmentTask, bool]]) -> None:
        """Journal tasks before they are submitted."""
        elapsed = round(self._elapsed(), 3)
        lines = [
            ("submitted", {"task": task.to_json(), "attempt_of_resume": resumed, "elapsed": elapsed})
            for task, resumed in tasks
        ]
        self._append(lines)

    def finished(self, results: Sequence[tuple[Outcome, int, Told]]) -> None:
        """Journal outcomes, then delete the files that nobody needs any more."""
        elapsed = round(self._elapsed(), 3)
        self._append([_finished_line(*result, elapsed) for result in results])
        for outcome, _, _ in results:
            self._state.count(outcome)
        self._unneeded.extend(self.search.collect().values())
        if self._unneeded:
            self._check()  # whoever took over since may need them
        # What storage refuses now is tried again after the next segments: that a file stays there harms nobody.
        with contextlib.suppress(OSError):
            while self._unneeded:
                self._delete(self._unneeded[0])
                self._unneeded.popleft()
        self._snapshot(self._every)

    def larger_share(self, failure: OutOfMemory) -> None:
        """Journal that a segment ran out of memory, and which share of a GPU it gets now."""
        self.record(LARGER_SHARE, segment_id=failure.task.segment_id, share=failure.share, error=failure.error)

    def _snapshot(self, least: int) -> None:
        """Write a snapshot if so many segments were finished since the last; one that fails costs a resume some time.

        Nothing may be pending: which files were still to be deleted is not in it.
        """
        if self._state.completions - self._of_snapshot < least or self._unneeded or not self._snapshots.possible:
            return
        self._of_snapshot = self._state.completions
        self._check()
        self._state.elapsed = Elapsed(round(self._elapsed(), 3))
        with contextlib.suppress(OSError):
            self._snapshots.write(self._state, self._journal)

    def _append(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if entries:
            self._lease.check()
            self._journal.append(entries)

    def _check(self) -> None:
        """Raise `RunError` where another driver has taken over."""
        self._lease.check()
        self._journal.check()

    def _stop_counting(self) -> None:
        used = self._elapsed()
        self._elapsed = lambda: used

    def _give_up(self) -> None:
        """Journal that the first segments all failed alike, and forget all, so that a resume begins with them again."""
        status, error = self.search.hopeless or ("", "")
        self.record(GAVE_UP, status=status, error=error, segments=list(self._state.winners), elapsed=0.0)
        self._state.begin_again()
        self._elapsed = lambda: 0.0
        self._unneeded.clear()
        self._forget_failures()

    def _forget_failures(self) -> None:
        """Delete the COMMIT files of failures, which would be taken for outcomes; a success need not be run again."""
        self._check()
        for path in self.storage.find("seg"):
            if path.endswith("/COMMIT.json"):
                outcome = read_commit(self.storage, path.split("/")[1])
                if outcome is not None and outcome.status != "ok":
                    self._delete(path)

    # ---- resume -----------------------------------------------------------------------------------------------------

    def adopt(self) -> int:
        """Take in segments that were committed but not journalled as finished; the others will be resubmitted."""
        adopted: list[tuple[Outcome, int, Told]] = []
        for segment_id in self.search.in_flight:
            outcome = read_commit(self.storage, segment_id)
            if outcome is not None:
                adopted.append((outcome, self._state.completions + len(adopted), self.search.tell(outcome)))
        self.finished(adopted)
        if self.search.hopeless is not None:  # and the driver was killed before it could say so
            self._give_up()
        elif not self.search.asked and self.events(GAVE_UP):  # perhaps it was killed before all were deleted
            self._forget_failures()
        self._resubmit = list(self.search.in_flight.values())
        self._sweep()
        return len(adopted)

    def _delete(self, path: str) -> None:
        """Delete a file of one of this run's segments; whatever a journal says, nothing else."""
        parts = PurePosixPath(path).parts
        if len(parts) < _SEGMENT_FILE or parts[0] != "seg" or ".." in parts:
            raise RunError(
                f"{self.folder}: the journal names {path!r} as a segment's file, which is not below seg/; it is "
                "damaged, or somebody wrote it to have that deleted"
            )
        self.storage.delete(path)

    def _sweep(self) -> None:
        """Delete what a kill left in finished segments: files of losing attempts, of leaves let go, half a COMMIT.json.

        Segments in flight are left alone: an attempt of a killed driver may still be running on a cluster, and it must
        not commit files that are gone. Once the segment is finished, such an attempt can only lose.
        """
        self._check()
        kept, winners = self.search.needed_paths(), self._state.winners
        for path in self.storage.find("seg"):
            parts = path.split("/")
            if len(parts) < 3 or parts[1] not in winners or parts[2] == "COMMIT.json":
                continue
            committed = path.startswith(attempt_folder(parts[1], winners[parts[1]]) + "/")
            if not committed or (parts[-1] != "metrics.json" and path not in kept):
                self._delete(path)


def _finished_line(outcome: Outcome, completion: int, told: Told, elapsed: float) -> tuple[str, dict[str, Any]]:
    line = {"outcome": outcome.to_json(), "completion": completion, "told": told.to_json(), "elapsed": elapsed}
    return "finished", line


def open_run(
    folder: str | os.PathLike[str],
    *,
    header: Mapping[str, Any],
    space: Space,
    settings: SearchSettings,
    storage_uri: str = "",
    resume: bool = False,
    override: bool = False,
    workers: int = 1,
    free: Collection[str] = (),
    observer: Callable[[Any], object] | None = None,
    snapshot_every: int = SNAPSHOT_EVERY,
) -> Run:
    """Take the lease of `folder` and create the run there, or resume it; use the result in a `with` statement.

    `header` is what run.json holds beside the search's own settings (config, config_text, versions, git_revision,
    network, data, quality). Leave `settings.lag` None: it is resolved for `workers` at creation, and the stored one
    counts at a resume. A resume whose config, network, data, quality, space or settings differ is a `RunError`, but the
    budget of segments and minutes may differ.
    `override` journals changes of config, space and settings and goes on with the new ones, but not of what makes
    results comparable (seed, mode, scale, network, data, quality). Genomes of before are read by `Space.completed`, so
    genes that are added have defaults there. Dotted keys in `free` (such as "config.resources")
    may differ anyway. `observer` hears `Watching` where this has to wait to see whether another driver is alive, and
    `SnapshotIgnored`. Each `snapshot_every` segments the folded state is written down, so that a resume is quick.
    """
    check_json(header)
    path = Path(folder).absolute()
    if resume:
        read_run_json(path)
    else:
        _refuse_existing(path)
        path.mkdir(parents=True, exist_ok=True)
    lease = (Lease(path) if observer is None else Lease(path, observer=observer)).__enter__()
    try:
        if resume:
            run = _resume(path, lease, header, space, settings, storage_uri, override, free, observer, snapshot_every)
        else:
            run = _create(path, lease, header, space, settings.resolve(workers), storage_uri, snapshot_every)
        return run
    except BaseException:
        lease.__exit__()
        raise


def _refuse_existing(path: Path) -> None:
    if (path / "run.json").exists():
        raise RunError(f"{path} already holds a run; resume it, or choose another folder")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose a folder for the run")
    if path.is_dir() and (foreign := sorted(e.name for e in path.iterdir() if not _OWN.fullmatch(e.name))):
        raise RunError(f"{path} is no run, and not empty (it holds {foreign[0]!r}); choose another folder")


def _create(
    path: Path,
    lease: Lease,
    header: Mapping[str, Any],
    space: Space,
    settings: SearchSettings,
    storage_uri: str,
    snapshot_every: int,
) -> Run:
    _refuse_existing(path)  # again, now under the lease
    run_json = make_run_json(header, space, settings, storage_uri)
    _claim_storage(path, run_json, storage_uri)
    data = json.dumps(run_json, indent=1, allow_nan=False).encode()
    if not LocalStorage(str(path)).create("run.json", data):
        raise RunError(f"{path} already holds a run; resume it, or choose another folder")
    return Run(path, run_json, space, settings, lease, snapshot_every=snapshot_every)


def _claim_storage(path: Path, run_json: Mapping[str, Any], storage_uri: str) -> None:
    """Two runs in one storage would adopt each other's segments, whose ids know the search but not the network."""
    if not storage_uri:
        if (path / "seg").exists():
            raise RunError(f"{path} has no run.json but a folder seg of some run; choose another folder")
        return
    storage, place = open_storage(storage_uri), {"host": socket.gethostname(), "folder": str(path)}
    mark = json.dumps(_fingerprint(run_json) | place, sort_keys=True).encode()
    if storage.create(MARK, mark):
        return
    held = _mark_of(storage)
    if held == json.loads(mark):  # it was this call: a store may repeat a creation that had succeeded
        return
    # A driver that was killed before it had made run.json has claimed the storage for this folder and left it empty.
    if {key: held.get(key) for key in place} != place or storage.find("seg"):
        raise RunError(f"storage {storage_uri!r} already holds a run's files; give each run a place of its own")
    storage.write(MARK, mark)


def _mark_of(storage: Storage) -> dict[str, Any]:
    """What the mark of a storage says; nothing where it is no mark of ours."""
    with contextlib.suppress(ValueError):
        mark = json.loads(storage.read(MARK))
        return mark if isinstance(mark, dict) else {}
    return {}


def _fingerprint(run_json: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(json.dumps({key: run_json.get(key) for key in _FINGERPRINT}))
    return parts


def _check_storage(run_json: Mapping[str, Any]) -> None:
    """Refuse storage that is not there, as where it is not mounted, or that is another run's."""
    uri = run_json["storage"]
    if not uri:
        return
    try:
        mark = _mark_of(open_storage(uri))
    except FileNotFoundError:
        raise RunError(f"storage {uri!r} has no {MARK}, the mark of this run: mount or restore it") from None
    except StorageError:
        raise
    except OSError as error:
        raise RunError(f"storage {uri!r} cannot be read: {error}") from error
    if _fingerprint(mark) != _fingerprint(run_json):
        raise RunError(f"storage {uri!r} holds the files of another run, by its {MARK}; restore this run's")


def _resume(
    path: Path,
    lease: Lease,
    header: Mapping[str, Any],
    space: Space,
    settings: SearchSettings,
    storage_uri: str,
    override: bool,
    free: Collection[str],
    observer: Callable[[Any], object] | None,
    snapshot_every: int,
) -> Run:
    run_json = read_run_json(path)
    _check_storage(run_json)
    check_journal_is_there(path, run_json)
    if settings.lag is None:  # which no override can change
        settings = dataclasses.replace(settings, lag=settings_of(run_json, path).lag)
    state, folded = Snapshots(path, space, settings).load(observer)
    of_snapshot = state.completions
    events, read = _events_after(path, folded)
    before = made_with(run_json, [*state.events, *events])
    # A setting that a run's version did not have was what its default is now.
    before = {**before, "search": {**SearchSettings().to_json(), **before["search"]}}
    current = identity(header, space, settings, storage_uri)
    changes = compare(before, current, free)
    if fixed := locked(changes):
        raise RunError(f"{path} cannot go on: {describe(fixed)}; undo that, or start a new run in another folder")
    if problem := space.problem_after(Space.from_json(before["space"])):
        raise RunError(f"{path} cannot go on: {problem}; undo that, or start a new run in another folder")
    if changes and not override and not only_budget(changes):
        raise RunError(
            f"{path} was made with another configuration: {describe(changes)}; undo that, or go on with override=True"
        )
    for line in scan(path / "journal", folded):
        state.take(line)
    state.search.collect()  # whatever fell out of use by then is gone, or found by the sweep
    run = Run(
        path,
        run_json,
        space,
        settings,
        lease,
        state=state,
        read=read,
        of_snapshot=of_snapshot,
        snapshot_every=snapshot_every,
    )
    if changes:
        run.record("override", changes=changes, **current)
        state.overridden(changes)
    run.record("resumed", **{key: header.get(key) for key in ("versions", "git_revision")}, pid=os.getpid())
    run.adopt()
    return run


def _events_after(path: Path, place: Place) -> tuple[list[Record], Place]:
    """The journal's records of rare types after a place, and where it ends; of the others only heads are read."""
    events = []
    for line in scan(path / "journal", place):
        place = line.after
        if line.kind not in BULK:
            events.append(checked_record(line))
    return events, place


def rare_events(folder: str | os.PathLike[str]) -> list[Record]:
    """The journal's records of rare types; of the others only heads are read, so that it takes no time.

    Raises:
        RunError: The journal is damaged.
    """
    return _events_after(Path(folder), START)[0]


def made_with(run: Mapping[str, Any], events: Iterable[Record]) -> dict[str, Any]:
    """What a run is made with by now: run.json, and over it the last override among its `events`."""
    parts = {key: run.get(key) for key in ("config", "network", "data", "space", "search", "storage")}
    parts["quality"] = measured_as(run)
    for event in events:
        if event["type"] == "override":
            parts.update({key: event[key] for key in parts if key in event})
    return parts
