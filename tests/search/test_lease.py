"""The lease on a run folder: refused while its holder is alive, taken over once it is not, whatever clocks say."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import InfrastructureError, RunError
from evocompress.search import lease as module
from evocompress.search.events import Watching
from evocompress.search.lease import Holder, Lease, holder_of

_HOLD = """
import sys, time
from evocompress.search.lease import Lease
with Lease(sys.argv[1], beat_seconds=0.05):
    print("held", flush=True)
    time.sleep(60)
"""


class Time:
    """A monotonic clock that goes on by sleeping only; `then` happens at some second of it."""

    def __init__(self, at: float = float("inf"), then: Callable[[], object] = lambda: None) -> None:
        self.now, self.at, self.then = 0.0, at, then

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.at:
            self.at = float("inf")
            self.then()


def lease(folder: Path, passing: Time, **changes: Any) -> Lease:
    return Lease(folder, clock=passing.clock, sleep=passing.sleep, **changes)


def other_machine(folder: Path, **changes: Any) -> None:
    holder = dataclasses.replace(Holder.here(), host="elsewhere", boot="b", pid=77, **changes)
    (folder / "lease.json").write_text(json.dumps(dataclasses.asdict(holder)))


def beat(folder: Path) -> None:
    """What a holder does every few seconds."""
    fields = json.loads((folder / "lease.json").read_text())
    (folder / "lease.json").write_text(json.dumps({**fields, "beats": fields["beats"] + 1}))


def test_a_second_driver_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with Lease(tmp_path):
        with pytest.raises(RunError, match=f"held by pid {os.getpid()} on "), Lease(tmp_path):
            pass
    with Lease(tmp_path):
        pass
    assert not (tmp_path / "lease.json").exists()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"pid {process.pid}"), Lease(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / "lease.json").exists()
    passing = Time()
    with lease(tmp_path, passing) as taken:
        taken.check()
    assert passing.now == 0.0


@pytest.mark.parametrize("hours", [-30.0, -2 / 60, 0.0, 2 / 60, 30.0])
def test_a_live_lease_of_another_machine_is_refused_whatever_its_clock_says(tmp_path: Path, hours: float) -> None:
    other_machine(tmp_path, since=time.time() + 3600 * hours)
    heard: list[object] = []
    passing = Time(5.0, lambda: beat(tmp_path))
    with (
        pytest.raises(RunError, match="held by pid 77 on elsewhere .*changed while this one watched"),
        lease(tmp_path, passing, observer=heard.append),
    ):
        pass
    assert heard == [Watching(77, "elsewhere", 30.0)] and 5.0 <= passing.now < 6.0


@pytest.mark.parametrize("hours", [-30.0, -2 / 60, 0.0, 2 / 60, 30.0])
def test_a_dead_lease_of_another_machine_is_taken_over_after_it_was_watched(tmp_path: Path, hours: float) -> None:
    other_machine(tmp_path, since=time.time() + 3600 * hours)
    heard: list[object] = []
    passing = Time()
    with lease(tmp_path, passing, observer=heard.append) as taken:
        taken.check()
    assert heard == [Watching(77, "elsewhere", 30.0)] and 30.0 < passing.now < 31.0


def test_a_clock_that_jumps_while_it_is_watched_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_machine(tmp_path)
    jumps = iter([7200.0, -7200.0] * 100)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + next(jumps))
    with pytest.raises(RunError, match="changed"), lease(tmp_path, Time(29.0, lambda: beat(tmp_path))):
        pass


def test_one_that_is_given_back_meanwhile_is_taken_at_once(tmp_path: Path) -> None:
    other_machine(tmp_path)
    passing = Time(3.0, lambda: (tmp_path / "lease.json").unlink())
    with lease(tmp_path, passing) as taken:
        taken.check()
    assert passing.now < 4.0


def test_leases_of_earlier_versions_are_watched_too(tmp_path: Path) -> None:
    """They have a time in place of a count, which changes as well."""
    fields = dataclasses.asdict(Holder.here()) | {"host": "elsewhere", "boot": "b", "pid": 77, "beat": 1.7e9}
    del fields["beats"]
    text = json.dumps(fields)
    (tmp_path / "lease.json").write_text(text)
    passing = Time(5.0, lambda: (tmp_path / "lease.json").write_text(json.dumps(fields | {"beat": 1.7e9 + 5})))
    with pytest.raises(RunError, match="pid 77 on elsewhere"), lease(tmp_path, passing):
        pass
    (tmp_path / "lease.json").write_text(text)
    with lease(tmp_path, Time()):
        pass


def test_a_used_pid_of_another_process_does_not_hold(tmp_path: Path) -> None:
    holder = dataclasses.replace(Holder.here(), born="1")
    (tmp_path / "lease.json").write_text(json.dumps(dataclasses.asdict(holder)))
    with lease(tmp_path, passing := Time()):
        pass
    assert passing.now == 0.0


def test_it_beats(tmp_path: Path) -> None:
    def beats() -> int:
        return int(json.loads((tmp_path / "lease.json").read_text())["beats"])

    with Lease(tmp_path, beat_seconds=0.01):
        first, deadline = beats(), time.monotonic() + 20
        while beats() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert beats() > first


def test_a_driver_whose_lease_was_taken_over_sees_it_at_its_next_look_and_leaves_the_new_one(tmp_path: Path) -> None:
    with Lease(tmp_path, beat_seconds=1000) as held:
        held.check()
        other_machine(tmp_path)
        with pytest.raises(RunError, match="taken over by pid 77 on elsewhere"):
            held.check()
        (tmp_path / "lease.json").unlink()  # the other one ends; its run is not this driver's any more
        with pytest.raises(RunError, match="taken over by pid 77 on elsewhere"):
            held.check()
        other_machine(tmp_path)
    assert json.loads((tmp_path / "lease.json").read_text())["host"] == "elsewhere"


def test_a_lease_that_somebody_deleted_is_written_again(tmp_path: Path) -> None:
    with Lease(tmp_path, beat_seconds=1000) as held:
        (tmp_path / "lease.json").unlink()
        held.check()
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_lease_that_cannot_be_read_stops_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    with Lease(tmp_path, beat_seconds=1000) as held, monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", stale)
        with pytest.raises(InfrastructureError, match=r"Stale file handle.*resume the run"):
            held.check()


def test_a_lock_that_a_frozen_process_holds_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with open(tmp_path / "lease.lock", "a") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        passing = Time()
        with lease(tmp_path, passing, beat_seconds=1000) as taken:
            taken.check()
        assert 30.0 < passing.now


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with lease(tmp_path, passing := Time()) as taken:
        taken.check()
    assert passing.now == 0.0


@pytest.mark.parametrize("text", [b"{", b"[]", b"3", b"null", b'"token"', b'{"token": "a"}', b"\xff"])
def test_a_damaged_lease_says_what_to_do(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(text)
    with pytest.raises(RunError, match=r"lease .*lease.json is damaged .*delete it"), Lease(tmp_path):
        pass
    with pytest.raises(RunError, match=r"lease .*lease.json is damaged .*delete it"):
        holder_of(tmp_path)


def test_who_holds_a_run_is_told_without_taking_it(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with Lease(tmp_path):
        holder = holder_of(tmp_path)
        assert holder is not None and (holder.pid, holder.alive) == (os.getpid(), True)
    other_machine(tmp_path)
    holder = holder_of(tmp_path)
    assert holder is not None and (holder.host, holder.alive) == ("elsewhere", None)


@pytest.mark.parametrize("token", ["0" * 32, "f" * 32])
def test_whoever_else_has_it_is_seen_at_the_next_beat_and_at_the_next_look(tmp_path: Path, token: str) -> None:
    with Lease(tmp_path, beat_seconds=0.01) as beating:
        other_machine(tmp_path, token=token)
        beats = next(thread for thread in threading.enumerate() if thread.name == "evocompress-lease")
        assert beats.daemon  # it must not keep a driver alive that has failed elsewhere
        beats.join(20)  # once it has seen the other one it ends
        assert not beats.is_alive()
        (tmp_path / "lease.json").unlink()
        with pytest.raises(RunError, match="taken over by pid 77"):
            beating.check()
    with Lease(tmp_path, beat_seconds=1000) as looking:
        other_machine(tmp_path, token=token)
        with pytest.raises(RunError, match="taken over by pid 77"):
            looking.check()
    assert json.loads((tmp_path / "lease.json").read_text())["token"] == token


def test_a_lease_can_be_taken_again_after_it_was_lost(tmp_path: Path) -> None:
    again = Lease(tmp_path, beat_seconds=0.01)
    with again:
        other_machine(tmp_path)
        with pytest.raises(RunError, match="taken over"):
            again.check()
    (tmp_path / "lease.json").unlink()
    with again:
        again.check()
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_beat_that_is_late_does_not_bring_back_a_lease_that_was_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, left = threading.Event(), threading.Event()
    with Lease(tmp_path, beat_seconds=0.01) as held:
        renew = held._renew

        def late() -> None:
            begun.set()
            left.wait(0.3)  # where nobody waits for the beats to end, the lease is gone by then
            renew()

        monkeypatch.setattr(held, "_renew", late)
        assert begun.wait(20)
    left.set()
    for thread in threading.enumerate():
        if thread.name == "evocompress-lease":
            thread.join(20)
    assert not (tmp_path / "lease.json").exists()


def test_a_full_disk_does_not_end_the_beating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = threading.Event()

    def full(path: str, data: bytes) -> str:
        refused.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    with Lease(tmp_path, beat_seconds=0.01) as held:
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_whole", full)
            assert refused.wait(20)
        before, deadline = (tmp_path / "lease.json").read_bytes(), time.monotonic() + 20
        while (tmp_path / "lease.json").read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "lease.json").read_bytes() != before
        held.check()
