"""The lease on a run folder: one driver at a time, taken over once its holder is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evocompress.errors import RunError
from evocompress.search.storage import write_whole

__all__ = ["Holder", "Lease"]

_BEAT_SECONDS = 5.0
_STALE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lease. `born` is the process's start time in kernel ticks: pids are used again, pairs are not."""

    token: str
    host: str
    boot: str
    pid: int
    born: str
    since: float
    beat: float

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), _boot(), os.getpid(), _born(os.getpid()), now, now)

    def alive(self, stale_seconds: float) -> bool:
        """Whether the holder still counts: on this machine by its process, elsewhere by its heartbeat."""
        if (self.host, self.boot) == (socket.gethostname(), _boot()):
            return bool(self.born) and _born(self.pid) == self.born
        return time.time() - self.beat < stale_seconds


def _boot() -> str:
    """Which boot, and which process namespace, this is: pids mean something only within one of each."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    return f"uid{os.getuid()}"


def _born(pid: int) -> str:
    """Start time of a process, "" where there is none (a zombie, which holds nothing any more, included)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # without /proc the pid alone must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


class Lease:
    """Context manager: takes the lease of `folder` or raises `RunError` that names the holder; beats while it is held.

    `check` raises once somebody else has taken it over, which happens to a driver that slept for longer than
    `stale_seconds` on another machine.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        beat_seconds: float = _BEAT_SECONDS,
        stale_seconds: float = _STALE_SECONDS,
    ) -> None:
        self._folder = Path(folder)
        self._path = self._folder / "lease.json"
        self._beat_seconds = beat_seconds
        self._stale_seconds = stale_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._holder = Holder.here()
        self._taken_by: Holder | None = None

    def __enter__(self) -> Lease:
        self._holder = Holder.here()
        with self._locked():
            other = self._read()
            if other is not None and other.alive(self._stale_seconds):
                raise RunError(self._refusal(other))
            self._write()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="evocompress-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError), self._locked():
            holder = self._read()
            if holder is not None and holder.token == self._holder.token:
                self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `RunError` where the lease is not this driver's any more.

        A driver whose beats are overdue (it slept) looks for itself first: nothing may be written on an old belief.
        """
        if time.time() - self._holder.beat > self._stale_seconds / 2:
            try:
                self._renew()
            except OSError as error:
                raise RunError(f"the lease of run {self._folder} cannot be renewed ({error}); resume it") from error
        if self._taken_by is not None:
            by = self._taken_by
            raise RunError(f"run {self._folder} was taken over by pid {by.pid} on {by.host}; this driver stops")

    def _refusal(self, other: Holder) -> str:
        age = time.time() - other.beat
        return (
            f"run {self._folder} is held by pid {other.pid} on {other.host} (since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(other.since))}, last heartbeat {age:.0f} s ago); "
            "stop that driver first. A driver that died on another machine is forgotten after "
            f"{self._stale_seconds:.0f} s"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Look and act as one step: of two drivers that find a stale lease, one gets it."""
        with open(self._folder / "lease.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> Holder | None:
        try:
            data: dict[str, Any] = json.loads(self._path.read_text())
            return Holder(**data)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise RunError(f"lease {self._path} is damaged ({error}); if no driver runs, delete it") from error

    def _write(self) -> None:
        self._holder = dataclasses.replace(self._holder, beat=time.time())
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
            holder = self._read()
            if holder is not None and holder.token != self._holder.token:
                self._taken_by = holder
            else:
                self._write()
