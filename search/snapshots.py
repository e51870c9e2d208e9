"""Snapshots of a run's folded state, so that a resume of a long run need not fold all of its journal.

A snapshot is a file of its own, written whole: a line with the SHA-256 of the rest, then JSON. It says how long each
file of the journal was and which SHA-256 it had, and holds what the journal's lines up to there came to. It is never
trusted over the journal: one that does not fit what is there, or that was made by another version of this package or
under other settings, is passed over, and the journal is read from its beginning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evocompress import __version__
from evocompress.search.events import SnapshotIgnored
from evocompress.search.journal import START, Journal, Overwritten, Place, file_digest, journal_files, scan
from evocompress.search.run_state import RunState
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space
from evocompress.search.storage import write_whole

__all__ = ["Snapshots"]

_FORMAT = 2  # to be raised where the same lines come to another state
_NAME = re.compile(r"\d{9}\.json")
_KEPT = 2  # the one before the last too: the last may be what a failing disk lost
# What may differ between the settings of a snapshot and those of a resume: how long a run goes on is no part of a fold.
_FREE = ("segments", "minutes")


class _Misfit(Exception):
    """Why a snapshot is passed over."""


class Snapshots:
    """The snapshots of one run folder, for a space and settings.

    Args:
        folder: The run folder.
        space: The space that the search folds in.
        settings: Its settings.
    """

    def __init__(self, folder: Path, space: Space, settings: SearchSettings) -> None:
        self.folder = folder / "snapshots"
        self._journal = folder / "journal"
        self._space, self._settings = space, settings

    @property
    def possible(self) -> bool:
        """Whether the state stays small: a pool that keeps all there ever were is as large as the journal."""
        return self._settings.policy.ranks

    def write(self, state: RunState, journal: Journal) -> None:
        """Write what the journal came to so far, then delete snapshots that are older than the last but one.

        Raises:
            OSError: The disk does not take it; nothing but perhaps a file of another name is left of it.
        """
        place, files = journal.mark()
        content = self._identity() | {
            "place": dataclasses.asdict(place),
            "files": [list(file) for file in files],
            "state": state.state_dict(),
        }
        body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
        self.folder.mkdir(exist_ok=True)
        target = self.folder / f"{place.seq:09d}.json"
        head = hashlib.sha256(body).hexdigest().encode() + b"\n"
        os.replace(write_whole(str(target), head + body), target)
        for path in self._paths()[:-_KEPT]:
            path.unlink(missing_ok=True)
        for path in self.folder.glob("*.tmp"):  # of a driver that was killed while it wrote
            path.unlink(missing_ok=True)

    def load(self, observer: Callable[[Any], object] | None = None) -> tuple[RunState, Place]:
        """The state of the newest snapshot that fits and the place from which the journal goes on; fresh ones if none.

        `observer` hears `SnapshotIgnored` of each that does not fit.
        """
        for path in reversed(self._paths()) if self.possible else ():
            try:
                return self._load(path)
            except (_Misfit, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                reason = str(error) if isinstance(error, _Misfit) else f"{type(error).__name__}: {error}"
                if observer is not None:
                    observer(SnapshotIgnored(str(path), reason))
        return RunState(self._space, self._settings), START

    def forget(self) -> None:
        """Delete all."""
        for path in self._paths():
            with contextlib.suppress(OSError):
                path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if _NAME.fullmatch(path.name))

    def _identity(self) -> dict[str, Any]:
        settings = {key: value for key, value in self._settings.to_json().items() if key not in _FREE}
        identity = {"space": self._space.to_json(), "search": settings}
        return {"format": _FORMAT, "version": __version__, "made_with": identity}

    def _load(self, path: Path) -> tuple[RunState, Place]:
        digest, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise _Misfit("it is damaged")
        content = json.loads(body)
        identity = json.loads(json.dumps(self._identity()))
        if any(content.get(key) != identity[key] for key in ("format", "version")):
            raise _Misfit("another version of evocompress made it")
        if content["made_with"] != identity["made_with"]:
            raise _Misfit("it was made with other settings")
        place = Place(**content["place"])
        self._check_journal(content["files"], place)
        state = RunState(self._space, self._settings)
        state.load_state_dict(content["state"])
        return state, place

    def _check_journal(self, files: list[list[Any]], place: Place) -> None:
        paths = journal_files(self._journal)
        if len(files) != place.file or files[-1][0] != place.offset or len(paths) < len(files):
            raise _Misfit("the journal has fewer files than when it was made")
        with contextlib.suppress(StopIteration):
            try:
                next(scan(self._journal, place))
            except Overwritten as error:
                raise _Misfit(str(error)) from error
        for number, (path, (size, digest)) in enumerate(zip(paths, files, strict=False), start=1):
            now = path.stat().st_size
            if now < size or (number < len(files) and now != size) or file_digest(path, size) != digest:
                raise _Misfit(f"{path.name} of the journal is not as it was when it was made")
