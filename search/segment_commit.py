"""Commit of a segment: COMMIT.json, created exclusively, names the attempt that won and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from evocompress.errors import RunError
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.storage import Storage

__all__ = ["attempt_folder", "commit", "commit_path", "read_commit", "read_task", "sha256"]


def sha256(data: bytes) -> str:
    """Hex digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()


def attempt_folder(segment_id: str, attempt: str) -> str:
    """The folder that only this attempt writes to."""
    return f"seg/{segment_id}/{attempt}"


def commit_path(segment_id: str) -> str:
    """Where a segment's COMMIT.json lies."""
    return f"seg/{segment_id}/COMMIT.json"


def commit(storage: Storage, outcome: Outcome, task: SegmentTask) -> Outcome:
    """Commit an outcome whose leaves are in the storage; returns the committed one, this or an earlier attempt's.

    The outcome itself goes to the attempt's metrics.json, whose hash COMMIT.json holds: one small exclusive file
    decides. The task is in it too, so that a damaged journal can be rebuilt.
    """
    folder = attempt_folder(outcome.segment_id, outcome.attempt)
    metrics = json.dumps(outcome.to_json(), separators=(",", ":"), allow_nan=False).encode()
    storage.write(f"{folder}/metrics.json", metrics)
    files = {leaf.path.removeprefix(f"{folder}/"): leaf.sha256 for leaf in outcome.leaves}
    content = {
        "segment_id": outcome.segment_id,
        "index": outcome.index,
        "attempt": outcome.attempt,
        "files": {**files, "metrics.json": sha256(metrics)},
        "task": task.to_json(),
    }
    if storage.create(commit_path(outcome.segment_id), json.dumps(content, indent=1, sort_keys=True).encode()):
        return outcome
    winner = read_commit(storage, outcome.segment_id)
    if winner is None:
        raise RunError(
            f"{storage.url(commit_path(outcome.segment_id))} appeared and vanished; something else deletes files"
        )
    if winner.attempt != outcome.attempt:  # it may be this one's: a store may repeat a creation that had succeeded
        storage.delete(folder)
    return winner


def read_commit(storage: Storage, segment_id: str) -> Outcome | None:
    """The committed outcome of a segment, None where nothing is committed; `RunError` where it is damaged."""
    path = commit_path(segment_id)
    try:
        raw = storage.read(path)
    except FileNotFoundError:
        return None
    try:
        content: dict[str, Any] = json.loads(raw)
        metrics = f"{attempt_folder(segment_id, content['attempt'])}/metrics.json"
        data = storage.read(metrics)
        if sha256(data) != content["files"]["metrics.json"]:
            raise RunError(f"{storage.url(metrics)} is not the file that its COMMIT.json names (sha256 differs)")
        return Outcome.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise RunError(
            f"{storage.url(path)} is damaged ({type(error).__name__}: {error}); restore it or delete it"
        ) from error


def read_task(storage: Storage, segment_id: str) -> SegmentTask | None:
    """The task that a segment's COMMIT.json holds, None where it has none (of earlier versions) or cannot be read."""
    try:
        content: dict[str, Any] = json.loads(storage.read(commit_path(segment_id)))
        return SegmentTask.from_json(content["task"])
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        return None
