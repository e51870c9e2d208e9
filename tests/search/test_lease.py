from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evocompress.errors import RunError
from evocompress.search.lease import Holder, Lease

_HOLD = """
import sys, time
from evocompress.search.lease import Lease
with Lease(sys.argv[1], beat_seconds=0.05):
    print("held", flush=True)
    time.sleep(60)
"""


def other_machine(folder: Path, beat: float) -> None:
    holder = dataclasses.replace(Holder.here(), host="elsewhere", boot="b", beat=beat, pid=77)
    (folder / "lease.json").write_text(json.dumps(dataclasses.asdict(holder)))


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
    with Lease(tmp_path) as lease:
        lease.check()


def test_on_another_machine_the_heartbeat_decides(tmp_path: Path) -> None:
    other_machine(tmp_path, time.time() - 30)
    with pytest.raises(RunError, match="pid 77 on elsewhere"), Lease(tmp_path, stale_seconds=60):
        pass
    with Lease(tmp_path, stale_seconds=10) as lease:
        lease.check()


def test_a_used_pid_of_another_process_does_not_hold(tmp_path: Path) -> None:
    holder = dataclasses.replace(Holder.here(), born="1")
    (tmp_path / "lease.json").write_text(json.dumps(dataclasses.asdict(holder)))
    with Lease(tmp_path):
        pass


def test_it_beats(tmp_path: Path) -> None:
    def beat() -> float:
        return float(json.loads((tmp_path / "lease.json").read_text())["beat"])

    with Lease(tmp_path, beat_seconds=0.01):
        first, deadline = beat(), time.monotonic() + 20
        while beat() == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert beat() > first


def test_a_driver_whose_lease_was_taken_over_stops_and_leaves_the_new_one(tmp_path: Path) -> None:
    with Lease(tmp_path, beat_seconds=0.01) as lease:
        lease.check()
        other_machine(tmp_path, time.time())
        with pytest.raises(RunError, match="taken over by pid 77 on elsewhere"):
            for _ in range(2000):
                time.sleep(0.01)
                lease.check()
    assert json.loads((tmp_path / "lease.json").read_text())["host"] == "elsewhere"


def test_a_driver_that_slept_looks_before_it_writes(tmp_path: Path) -> None:
    """Overdue beats prove nothing: `check` finds the new holder without waiting for the next one."""
    with Lease(tmp_path, beat_seconds=1000, stale_seconds=0.2) as lease:
        other_machine(tmp_path, time.time())
        lease.check()  # its own beat is fresh yet
        time.sleep(0.2)
        with pytest.raises(RunError, match="taken over by pid 77 on elsewhere"):
            lease.check()
    assert json.loads((tmp_path / "lease.json").read_text())["host"] == "elsewhere"


def test_a_damaged_lease_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text("{")
    with pytest.raises(RunError, match="delete it"), Lease(tmp_path):
        pass
