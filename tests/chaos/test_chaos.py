"""Two of the faults of `make chaos` in one run, as many as the suite has time for; and the comparison itself."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

from chaos_cluster import Cluster
from chaos_driver import main as drive
from chaos_run import DisturbedRun, Settings, closing
from chaos_scenarios import Killer

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="nodes have loopback addresses of their own, as Linux has them"),
]


def test_a_worker_and_a_driver_are_killed_and_the_run_comes_to_the_same(tmp_path: Path) -> None:
    rng = random.Random(0)
    with Cluster(nodes=0) as cluster:
        run = DisturbedRun(
            tmp_path, Settings(segments=16), address=lambda: cluster.address, variables=lambda: cluster.variables
        )
        killer = Killer(run, cluster, rng)
        faults = iter([killer.worker, killer.driver])
        with closing(run):
            run.drive(lambda: next(faults)(), rng=rng, times=2, every=(0.2, 0.6))
            report = run.report("all")
    assert report.faults == {"worker killed": 1, "driver killed": 1}
    assert report.equal, report
    assert len(run.drivers) == 2 and report.notes == []


def test_what_is_lost_or_changed_is_seen(tmp_path: Path) -> None:
    run = DisturbedRun(tmp_path, Settings(segments=8, seconds=0.0))
    assert drive(["drive", str(run.run_folder), "--segments=8"]) == 0
    assert run.report("whole").equal
    lost, changed = sorted(run.run_folder.glob("seg/*/*/*.evc"))[:2]
    lost.unlink()
    changed.write_bytes(b"")
    report = run.report("damaged")
    assert not report.equal
    assert (report.lost, report.differences) == (2, ["files", "file_count"])
