"""A run that is disturbed, and what became of it: drivers in processes of their own, begun again whenever one ends.

`DisturbedRun.drive` injects faults by a seeded schedule while a driver runs, and notes when each segment was seen to
have ended. Afterwards a `Report` says how many faults there were, how long it took until the segments that they hit
had ended all the same, and whether all that the run came to equals an undisturbed run in one process.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos_driver import main as drive
from chaos_driver import what_a_run_came_to

__all__ = ["DisturbedRun", "Report", "Settings", "closing", "undisturbed"]

_PROGRAM = Path(__file__).with_name("chaos_driver.py")
_LOOK_SECONDS = 0.05
_RUN_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run of toy segments is made of: their number, the seconds that each takes, its limit of time, a seed."""

    segments: int = 40
    seconds: float = 0.3
    time_limit: float | None = None
    seed: int = 0


@dataclasses.dataclass
class Report:
    """How a disturbed run compares: faults by kind, seconds to recover from each, leaves that are lost or differ.

    `differences` names what is not equal; `notes` what else is worth knowing.
    """

    name: str
    faults: collections.Counter[str]
    seconds: list[float]
    lost: int
    differences: list[str]
    drivers: int = 1
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether front, all leaves, files and audit equal those of the undisturbed run."""
        return not self.lost and not self.differences

    def row(self) -> str:
        """A line of the table."""
        kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.faults.items()))
        median = f"{statistics.median(self.seconds):.1f}, {max(self.seconds):.1f}" if self.seconds else "–"
        return f"| {self.name} | {kinds or 'none'} | {self.drivers} | {median} | {self.lost} | {_yes(self.equal)} |"

    @staticmethod
    def head() -> str:
        """The two lines above the rows."""
        return (
            "| scenario | faults | drivers | seconds to recover: median, longest | leaves lost | bytes equal |\n"
            "|---|---|---|---|---|---|"
        )

    def merged(self, other: Report) -> Report:
        """Both rounds in one."""
        return Report(
            self.name,
            self.faults + other.faults,
            self.seconds + other.seconds,
            self.lost + other.lost,
            self.differences + other.differences,
            self.drivers + other.drivers,
            self.notes + other.notes,
        )


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _command(action: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, str(_PROGRAM), action, str(folder), *options]


def _read(folder: Path, storage: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """In a process of its own where storage needs libraries or variables that this one has not."""
    if "://" not in storage:
        return what_a_run_came_to(str(folder), storage)
    done = subprocess.run(
        _command("read", folder, "--storage", storage), capture_output=True, text=True, env=dict(variables), timeout=120
    )
    if done.returncode != 0:
        raise AssertionError(f"the run cannot be read: {done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@functools.cache
def undisturbed(settings: Settings) -> dict[str, Any]:
    """What such a run comes to in one process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        options = (f"--segments={settings.segments}", f"--seed={settings.seed}")
        with contextlib.redirect_stdout(None):
            assert drive(["drive", str(path), *options]) == 0
        return _read(path, "", os.environ)


@dataclasses.dataclass
class _Fault:
    kind: str
    at: float
    victims: frozenset[int]
    drivers: int  # how many there are to be before it can be over
    recovered: float | None = None


class DisturbedRun:
    """A run in `folder / "run"` and the driver that runs it now.

    Args:
        folder: Gets the run unless `run_folder` says another place, and what drivers say.
        settings: Of the run.
        address: Tells the address of the Ray cluster, which may be another one after a fault.
        variables: Environment of drivers.
        storage: Where files lie; the run folder unless given.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        address: Callable[[], str] = str,
        variables: Callable[[], Mapping[str, str]] = lambda: os.environ,
        storage: str = "",
        run_folder: Path | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings
        self.run_folder = folder / "run" if run_folder is None else run_folder
        self.log = folder / "attempts"
        self.log.mkdir(parents=True, exist_ok=True)
        self.address, self.variables, self.storage = address, variables, storage
        self.drivers: list[subprocess.Popen[bytes]] = []
        self.faults: list[_Fault] = []
        self.ended: dict[Hashable, float] = {}  # by index: when it was first seen to have ended
        self.endings: list[str] = []  # what drivers said last, but for those that were killed by intent
        self._killed: set[int] = set()

    # ---- the driver -------------------------------------------------------------------------------------------------

    @property
    def output(self) -> Path:
        """What the newest driver says."""
        return self.folder / f"driver-{len(self.drivers)}.txt"

    @property
    def driver(self) -> subprocess.Popen[bytes]:
        """The newest one."""
        return self.drivers[-1]

    def command(self) -> list[str]:
        """The words that begin the run, or go on with it."""
        s = self.settings
        options = [f"--segments={s.segments}", f"--seconds={s.seconds}", f"--seed={s.seed}", f"--log={self.log}"]
        options += [f"--time-limit={s.time_limit}"] if s.time_limit is not None else []
        return _command("drive", self.run_folder, *options, f"--address={self.address()}", f"--storage={self.storage}")

    def begin(self, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a driver."""
        with open(self.folder / f"driver-{len(self.drivers) + 1}.txt", "wb") as output:
            driver = subprocess.Popen(
                [*prefix, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.variables()),
                start_new_session=True,
            )
        self.drivers.append(driver)
        return driver

    def lines(self) -> list[str]:
        """What the newest driver has said."""
        return self.output.read_text(errors="replace").splitlines() if self.output.exists() else []

    @property
    def opened(self) -> bool:
        """Whether the newest driver has the run."""
        return "open" in self.lines()

    @property
    def finished(self) -> bool:
        """Whether the newest driver has ended the run."""
        return "ended finished" in self.lines()

    def segments_that_ended(self) -> set[Hashable]:
        """Those that the newest driver knows of, at least."""
        return {int(m[1]) for line in self.lines() if (m := re.fullmatch(r"finished (\d+)", line))}

    def kill_driver(self) -> None:
        """SIGKILL, wherever it is."""
        self._killed.add(self.driver.pid)
        self.driver.kill()
        self.driver.wait()

    def close(self) -> None:
        """End all drivers."""
        for driver in self.drivers:
            with contextlib.suppress(ProcessLookupError):
                driver.send_signal(signal.SIGKILL)
            driver.wait()

    # ---- faults -----------------------------------------------------------------------------------------------------

    def note(self, kind: str, pids: Sequence[int] = (), *, ends_driver: bool = False) -> None:
        """Count a fault; `pids` are workers whose segments it hits, or it `ends_driver`, so that another is needed."""
        begun = [re.match(r"(\d+)-(\d+)-", path.name) for path in self.log.iterdir()]
        hit = {int(m[1]) for m in begun if m and int(m[2]) in pids and int(m[1]) not in self.ended}
        self.faults.append(_Fault(kind, time.monotonic(), frozenset(hit), len(self.drivers) + ends_driver))

    def look(self) -> None:
        """See which segments have ended since, and which faults are over by that."""
        now = time.monotonic()
        new = self.segments_that_ended() - self.ended.keys()
        self.ended.update(dict.fromkeys(new, now))
        over = self.finished
        for fault in self.faults:
            done = fault.victims <= self.ended.keys() if fault.victims else bool(new)
            enough = len(self.drivers) >= fault.drivers
            if fault.recovered is None and fault.at < now and (done or over) and enough:
                fault.recovered = now

    def sleep(self, seconds: float) -> None:
        """Let so much time go by, and look meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def drive(
        self,
        inject: Callable[[], object] = lambda: None,
        *,
        rng: random.Random,
        times: int = 0,
        every: tuple[float, float] = (0.5, 2.0),
        before_resume: Callable[[], object] = lambda: None,
        while_starting: bool = False,
    ) -> None:
        """Drive to the end; call `inject` so many `times` at random instants, while a driver has the run.

        Args:
            every: Bounds of the seconds between two faults.
            before_resume: Called when a driver has ended without having finished.
            while_starting: Faults may come while a driver starts, too.

        Raises:
            AssertionError: It does not end within ten minutes, or a driver ends otherwise than by one line.
        """
        deadline = time.monotonic() + _RUN_SECONDS
        due = time.monotonic() + rng.uniform(*every)
        self.begin()
        while True:
            assert time.monotonic() < deadline, f"it does not end: {self.lines()[-5:]}"
            self.look()
            status = self.driver.poll()
            if status is not None:
                if status == 0 and self.finished:
                    return
                said = [line for line in self.lines() if line.startswith("error: ")]
                assert status == -signal.SIGKILL or len(said) == 1, "\n".join([f"status {status}", *self.lines()[-30:]])
                self.endings += said if self.driver.pid not in self._killed else []
                before_resume()
                self.begin()
                due = time.monotonic() + rng.uniform(*every)
            if times > 0 and time.monotonic() > due and (while_starting or self.opened):
                inject()
                times -= 1
                due = time.monotonic() + rng.uniform(*every)
            time.sleep(_LOOK_SECONDS)

    # ---- what became of it ------------------------------------------------------------------------------------------

    def expected(self) -> dict[str, Any]:
        """What the undisturbed run came to."""
        return undisturbed(self.settings)

    def found(self) -> dict[str, Any]:
        """What this one came to."""
        return _read(self.run_folder, self.storage, self.variables())

    def report(self, name: str) -> Report:
        """Compare with the undisturbed run."""
        expected, found = self.expected(), self.found()
        missing = [leaf for leaf, about in expected["leaves"].items() if found["leaves"].get(leaf) != about]
        missing += [file for file, digest in expected["files"].items() if found["files"].get(file) != digest]
        differences = [key for key in expected if key != "leaves" and found[key] != expected[key]]
        if found["leaves"].keys() != expected["leaves"].keys():
            differences.append("leaves")
        if found["audited"].keys() != set(found["front"]):
            differences.append("audited")
        seconds = [fault.recovered - fault.at for fault in self.faults if fault.recovered is not None]
        faults = collections.Counter(fault.kind for fault in self.faults)
        notes = sorted(set(self.endings))
        return Report(name, faults, seconds, len(missing), differences, len(self.drivers), notes)


@contextlib.contextmanager
def closing(run: DisturbedRun) -> Iterator[DisturbedRun]:
    """End its drivers, whatever happens."""
    try:
        yield run
    finally:
        run.close()
