"""One attempt at a segment, the same in every executor: check parents, run in a scratch folder, upload, commit.

It may be killed anywhere and it may run twice; whatever happens, a segment gets one committed outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
import tempfile
import traceback
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from evocompress.errors import DataError, InfrastructureError, RunError
from evocompress.search.interrupts import asked_to_end
from evocompress.search.records import Leaf, Outcome, SegmentTask, Status
from evocompress.search.segment_commit import attempt_folder, commit, read_commit, sha256
from evocompress.search.storage import Storage

__all__ = [
    "ChecksMachine",
    "FreesMemory",
    "Lost",
    "OutOfMemory",
    "Running",
    "Segment",
    "SharesData",
    "TooLittleMemory",
    "failure",
    "larger_share",
    "plain",
    "run_attempt",
]

#: What the operating system says where a machine or its network is at fault, and not what ran on it.
_OF_MACHINES = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EIO", "EROFS", "ESTALE", "ENXIO", "ENODEV", "EMFILE", "ENFILE", "ENOMEM", "EBUSY"),
        *("ENOTCONN", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "EHOSTDOWN"),
        *("ENETUNREACH", "ENETDOWN", "ENETRESET", "EREMOTEIO", "ENOLINK"),
    )
    if hasattr(errno, name)
)
#: Errors of ours that say nothing of a genome: data or files that are not there.
_OF_PLACES = (DataError, RunError)


@dataclasses.dataclass(frozen=True)
class Lost:
    """A task whose attempt came to nothing for a reason that says nothing of it: it is to be tried again."""

    task: SegmentTask
    reason: str


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A task that ran out of memory beside others on a GPU: it is to be tried again with a larger `share` of one."""

    task: SegmentTask
    share: float
    error: str


class TooLittleMemory(InfrastructureError):
    """A segment ran out of memory, and may have more of it; the text is what it said."""


def larger_share(share: float) -> float | None:
    """The share of a GPU after this one, where a segment ran out of memory; None where there is none.

    >>> larger_share(0.25), larger_share(0.6), larger_share(1.0), larger_share(0.0)
    (0.5, 1.0, None, None)
    """
    return min(1.0, 2.0 * share) if 0.0 < share < 1.0 else None


@dataclasses.dataclass(frozen=True)
class Running:
    """An attempt that has begun: on which node, and how many seconds ago."""

    node: str
    seconds: float


Segment: TypeAlias = Callable[[SegmentTask, str, Sequence[bytes]], Outcome]


@runtime_checkable
class SharesData(Protocol):
    """What a segment may have besides: data that all of them need, which executors keep once for each machine."""

    def shared(self) -> Any:
        """The data, in plain arrays; None where each worker had better get them itself. Called by the driver."""
        ...

    def receive(self, data: Any) -> None:
        """Take them. Called in a worker before anything runs there, perhaps again and again."""
        ...


@runtime_checkable
class ChecksMachine(Protocol):
    """What a segment may have besides: it can tell whether a machine has all that it needs, such as the data."""

    def check_machine(self) -> None:
        """Raise where it has not; called on each node of a cluster, after `receive`, before segments run there."""
        ...


@runtime_checkable
class FreesMemory(Protocol):
    """What a segment may have besides: it gives back memory that the next one would use, and others may need."""

    def free(self) -> None:
        """Give it back. Called in a worker after each attempt."""
        ...


class _Refused(Exception):
    """What a segment was given or gave back breaks the contract; the text goes into the failed outcome."""


def run_attempt(segment: Segment, task: SegmentTask, storage: Storage, *, more_memory: bool = False) -> Outcome:
    """The committed outcome of `task`: that of an earlier attempt if there is one, else of this.

    An outcome says something about the genome, and only that: an exception that the segment's own code raises, or a
    broken contract, is one, with a status and an error text. What says nothing of it is none, and leaves nothing.
    To run out of memory is one unless there is `more_memory` to be had.

    Raises:
        TooLittleMemory: The segment ran out of memory, and is to be run again with more.
        InfrastructureError: Storage that cannot be reached or written, a full disk, a parent's file that is missing or
            another one, data or modules that this machine lacks. The task is to be run again, perhaps elsewhere.
        RunError: A COMMIT file is damaged.
    """
    attempt = uuid.uuid4().hex[:12]
    try:
        committed = read_commit(storage, task.segment_id)
        if committed is not None:
            return committed
        with tempfile.TemporaryDirectory(prefix="evocompress-", ignore_cleanup_errors=True) as scratch:
            outcome = _run(segment, task, storage, scratch)
            _free(segment)
            if more_memory and outcome.status == "out_of_memory":
                raise TooLittleMemory(outcome.error)
            try:
                outcome = _upload(outcome, task, attempt, scratch, storage)
            except _Refused as error:
                outcome = dataclasses.replace(failure(task, str(error)), seconds=outcome.seconds)
        return commit(storage, dataclasses.replace(outcome, attempt=attempt), task)
    except OSError as error:
        _discard(storage, task, attempt)
        # What went wrong after the commit has not undone it.
        with contextlib.suppress(OSError):
            if (committed := read_commit(storage, task.segment_id)) is not None:
                return committed
        raise InfrastructureError(f"the segment's files could not be stored: {error}") from error
    except BaseException:
        _discard(storage, task, attempt)
        raise


def failure(task: SegmentTask, error: str, status: Status = "failed", **metrics: Any) -> Outcome:
    """The outcome of a segment that came to nothing."""
    return Outcome(task.segment_id, task.index, status, error=error, metrics=metrics)


def _discard(storage: Storage, task: SegmentTask, attempt: str) -> None:
    """Delete what an attempt has stored, unless it has committed: then its files are the segment."""
    with contextlib.suppress(OSError, RunError):
        winner = read_commit(storage, task.segment_id)
        if winner is None or winner.attempt != attempt:
            storage.delete(attempt_folder(task.segment_id, attempt))


def _free(segment: object) -> None:
    """Here, what an error of the segment's held is free already."""
    if isinstance(segment, FreesMemory):
        segment.free()


def _run(segment: Segment, task: SegmentTask, storage: Storage, scratch: str) -> Outcome:
    try:
        outcome = segment(task, scratch, _parent_files(task, storage))
        return dataclasses.replace(outcome, metrics=plain(outcome.metrics))
    except _Refused as error:
        return failure(task, str(error))
    except Exception as error:
        if _is_of_the_machine(error):
            raise InfrastructureError(f"{type(error).__name__}: {error}") from error
        if (told := asked_to_end(error)) is not None:  # says nothing of the segment: it is to be run again
            raise told from None
        text = f"{type(error).__name__}: {error}"
        return failure(task, text, _status_of(error), traceback=traceback.format_exc(limit=-8))


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says nothing of the genome."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (*_OF_PLACES, ModuleNotFoundError)):
            return True
        if isinstance(seen, OSError) and seen.errno in _OF_MACHINES:
            return True
        seen = seen.__cause__
    return False


def _status_of(error: Exception) -> Status:
    """Out of memory is told by name and text: torch must not be imported here."""
    text = str(error).lower()
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or (isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)):
        return "out_of_memory"
    return "failed"


def _parent_files(task: SegmentTask, storage: Storage) -> list[bytes]:
    files = []
    for parent in task.parents:
        try:
            data = storage.read(parent.path)
        except FileNotFoundError:
            raise InfrastructureError(f"parent file {storage.url(parent.path)} is missing") from None
        digest = sha256(data)
        if digest != parent.sha256:
            raise InfrastructureError(
                f"parent file {storage.url(parent.path)} has sha256 {digest}, not {parent.sha256}"
            )
        files.append(data)
    return files


def _upload(outcome: Outcome, task: SegmentTask, attempt: str, scratch: str, storage: Storage) -> Outcome:
    """Check what the segment returned against its files and store those; the outcome with final paths."""
    if (outcome.segment_id, outcome.index) != (task.segment_id, task.index):
        raise _Refused(f"the segment returned an outcome of {outcome.segment_id}, asked was {task.segment_id}")
    leaves = [_checked(leaf, task, number, scratch) for number, leaf in enumerate(outcome.leaves)]
    for name in ("leaf_id", "path"):
        values = [getattr(leaf, name) for leaf in leaves]
        if len(set(values)) != len(values):
            raise _Refused(f"two leaves have the same {name}: {values}")
    folder = attempt_folder(task.segment_id, attempt)
    for leaf in leaves:
        storage.take(os.path.join(scratch, leaf.path), f"{folder}/{leaf.path}")
    leaves = [dataclasses.replace(leaf, path=f"{folder}/{leaf.path}") for leaf in leaves]
    return dataclasses.replace(outcome, leaves=tuple(leaves))


def _checked(leaf: Leaf, task: SegmentTask, number: int, scratch: str) -> Leaf:
    """The leaf with id and hash filled in; what it claims must be true of the file."""
    if Path(leaf.path).name != leaf.path or leaf.path in ("", ".", "..", "metrics.json"):
        raise _Refused(f"leaf path {leaf.path!r} is not a file name in the segment's folder")
    if not math.isfinite(leaf.quality):
        raise _Refused(f"leaf {leaf.path!r} has quality {leaf.quality}; it must be finite")
    if not (math.isfinite(leaf.error) and leaf.error >= 0.0):
        raise _Refused(f"leaf {leaf.path!r} has error {leaf.error}; it must be finite and not negative")
    try:
        data = Path(scratch, leaf.path).read_bytes()
    except FileNotFoundError:
        raise _Refused(f"leaf file {leaf.path!r} was not written") from None
    if leaf.nbytes != len(data):
        raise _Refused(f"leaf {leaf.path!r} says {leaf.nbytes} bytes, its file has {len(data)}")
    digest = sha256(data)
    if leaf.sha256 not in ("", digest):
        raise _Refused(f"leaf {leaf.path!r} says sha256 {leaf.sha256}, its file has {digest}")
    leaf_id = leaf.leaf_id or f"{task.segment_id}-{number}"
    if not leaf_id.startswith(task.segment_id):
        raise _Refused(f"leaf_id {leaf_id!r} must start with the segment_id {task.segment_id}, to be unique in the run")
    return dataclasses.replace(leaf, leaf_id=leaf_id, sha256=digest, measurements=plain(leaf.measurements))


def plain(value: Any) -> Any:
    """As JSON data: numpy scalars and arrays become numbers and lists, NaN and infinity (a diverged loss) None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise _Refused(f"measurements and metrics must be JSON data, found {type(value).__name__}")
