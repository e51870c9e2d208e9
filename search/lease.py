"""The lease on a run folder: one driver at a time, taken over once its holder is gone.

No clock of another machine counts. The holder beats: every few seconds it writes its lease with one more beat. Whoever
wants the lease looks whether that changes while it watches, by its own monotonic clock. A process of this machine is
looked up instead, which takes no time. A holder that was frozen may wake and not know yet that it was overtaken: it
reads its lease again before each append, and what it wrote between the two is dropped (`search.journal`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evocompress.errors import InfrastructureError, RunError
from evocompress.search.events import Watching
from evocompress.search.processes import boot, born
from evocompress.search.storage import write_whole

__all__ = ["Holder", "Lease", "holder_of"]

_BEAT_SECONDS = 5.0
# Six beats: a holder that a slow disk holds up for a while is not taken for dead.
_WATCH_SECONDS = 30.0
_LOOK_SECONDS = 0.5
# What flock answers where the file system has no locks. The journal's exclusive files decide there.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    `born` is the process's start time in kernel ticks: pids are used again, pairs are not. `since` is unix seconds of
    the holder's clock, which is only shown. `beats` counts; that it changes is all that it says.
    """

    token: str
    host: str
    boot: str
    pid: int
    born: str
    since: float
    beats: int = 0

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(uuid.uuid4().hex, socket.gethostname(), boot(), os.getpid(), born(os.getpid()), time.time())

    @classmethod
    def from_json(cls, text: bytes) -> Holder:
        """What is in a lease; fields of other versions are passed over."""
        data: dict[str, Any] = json.loads(text)
        return cls(**{field.name: data[field.name] for field in dataclasses.fields(cls) if field.name in data})

    @property
    def alive(self) -> bool | None:
        """Whether the holder's process is there; None where this machine cannot know."""
        if (self.host, self.boot) != (socket.gethostname(), boot()):
            return None
        return bool(self.born) and born(self.pid) == self.born


def holder_of(folder: str | os.PathLike[str]) -> Holder | None:
    """Who holds the lease of a run folder, or held it when it was killed; None where nobody does.

    Raises:
        RunError: The lease is damaged.
    """
    path = Path(folder) / "lease.json"
    try:
        return Holder.from_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunError(f"lease {path} is damaged ({error}); if no driver runs, delete it") from error


def _ignore(event: object) -> None:
    """Where nobody listens."""


class Lease:
    """Context manager: takes the lease of `folder` or raises `RunError` that names the holder; beats while it is held.

    `check` raises once somebody else has taken it over, which happens to a driver whose machine was frozen.

    Args:
        folder: The run folder.
        observer: Hears `Watching` before this waits to see whether another driver is alive.
        beat_seconds: How often the holder beats.
        watch_seconds: For how long a lease of another machine must not change to be taken over; several beats.
        clock: Monotonic seconds, without those in which this machine was suspended: it did not watch then.
        sleep: Lets so many seconds go by.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        observer: Callable[[Any], object] = _ignore,
        beat_seconds: float = _BEAT_SECONDS,
        watch_seconds: float = _WATCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._folder = Path(folder)
        self._path = self._folder / "lease.json"
        self._observer = observer
        self._beat_seconds, self._watch_seconds = beat_seconds, watch_seconds
        self._clock, self._sleep = clock, sleep
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder = Holder.here()
        self._taken_by: Holder | None = None

    def __enter__(self) -> Lease:
        self._holder, self._taken_by = Holder.here(), None
        watched: bytes | None = None
        while not self._take(watched):
            watched = self._watch()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="evocompress-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError, RunError), self._locked():
            holder = self._parsed(self._read())
            if holder is not None and holder.token == self._holder.token:
                self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `RunError` where the lease is not this driver's any more; reads it anew.

        Raises:
            RunError: Another driver has it.
            InfrastructureError: It cannot be read or written.
        """
        try:
            if self._taken_by is None:
                holder = self._parsed(self._read())
                if holder is None:
                    self._renew()  # somebody deleted it
                elif holder.token != self._holder.token:
                    self._taken_by = holder
        except OSError as error:
            raise InfrastructureError(
                f"the lease of run {self._folder} cannot be read ({error}); mend that, and resume the run"
            ) from error
        if self._taken_by is not None:
            by = self._taken_by
            raise RunError(f"run {self._folder} was taken over by pid {by.pid} on {by.host}; this driver stops")

    # ---- taking it --------------------------------------------------------------------------------------------------

    def _take(self, watched: bytes | None) -> bool:
        """Take a lease that nobody has, or whose holder is dead, or which is still the one that was `watched`.

        Raises:
            RunError: Its holder is alive on this machine.
        """
        with self._locked():
            text = self._read()
            holder = self._parsed(text)
            if holder is not None and holder.alive:
                raise RunError(self._refusal(holder, "is alive"))
            if holder is not None and holder.alive is None and text != watched:
                return False
            self._write()
            return True

    def _watch(self) -> bytes | None:
        """The lease as it stayed for as long as was watched; None where it was given back meanwhile.

        Raises:
            RunError: It changed: somebody is alive.
        """
        text = self._read()
        holder = self._parsed(text)
        if holder is None:
            return None
        self._observer(Watching(holder.pid, holder.host, self._watch_seconds))
        began = self._clock()
        while self._clock() - began <= self._watch_seconds:
            self._sleep(_LOOK_SECONDS)
            now = self._read()
            if now is None:
                return None
            if now != text:
                raise RunError(self._refusal(self._parsed(now) or holder, "its lease changed while this one watched"))
        return text

    def _refusal(self, holder: Holder, why: str) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        return (
            f"run {self._folder} is held by pid {holder.pid} on {holder.host} (since {since} by the clock there; "
            f"{why}); stop that driver first"
        )

    # ---- the file ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Look and act as one step: of two drivers that find a dead lease, one gets it.

        A lock that a frozen process holds is not waited for without end. The lock is a courtesy: where two get the
        lease for lack of it, the journal lets one of them write.
        """
        with open(self._folder / "lease.lock", "a") as lock:
            began = self._clock()
            while not _try_lock(lock.fileno()) and self._clock() - began <= self._watch_seconds:
                self._sleep(0.01)
            yield

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _parsed(self, text: bytes | None) -> Holder | None:
        try:
            return None if text is None else Holder.from_json(text)
        except (ValueError, TypeError) as error:
            raise RunError(f"lease {self._path} is damaged ({error}); if no driver runs, delete it") from error

    def _write(self) -> None:
        self._holder = dataclasses.replace(self._holder, beats=self._holder.beats + 1)
        text = json.dumps(dataclasses.asdict(self._holder), indent=1)
        os.replace(write_whole(str(self._path), text.encode()), self._path)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_seconds):
            # A full disk or a hiccup of a network file system must not end the run; the next beat tries again.
            with contextlib.suppress(OSError, RunError):
                self._renew()
            if self._taken_by is not None:
                return

    def _renew(self) -> None:
        """Beat, unless somebody else holds the lease by now."""
        with self._locked():
            holder = self._parsed(self._read())
            if holder is not None and holder.token != self._holder.token:
                self._taken_by = holder
            else:
                self._write()


def _try_lock(descriptor: int) -> bool:
    """Whether there is nothing to wait for: the lock is had, or cannot be had on this file system."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True
