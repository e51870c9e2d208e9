"""What Ray's autoscaler is asked for, and the wait for its nodes: with objects in its place, and with Ray's own."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evocompress.search import ray_autoscaler
from evocompress.search.events import AwaitingNodes
from evocompress.search.ray_autoscaler import NodeRequest
from evocompress.search.ray_cluster import AutoscalerAnswer, answer_of_report, answer_of_state

NEEDS = {"CPU": 1.0, "GPU": 0.0}


class Autoscaled:
    """A cluster in the place of `RayCluster`: a node comes `after` so many looks, where the request can be met."""

    is_joined, is_silent = True, False

    def __init__(
        self, after: int = 0, most: int = 8, is_elsewhere: bool = True, says: AutoscalerAnswer = "yes"
    ) -> None:
        self.after, self.most, self.is_elsewhere = after, most, is_elsewhere
        self.says: AutoscalerAnswer = says
        self.requests: list[list[dict[str, float]]] = []
        self.looks = 0

    @property
    def _is_met(self) -> bool:
        return bool(self.requests) and 0 < len(self.requests[-1]) <= self.most

    def places(self, needs: Mapping[str, float]) -> int:
        assert needs == {"CPU": 1.0}
        self.looks += 1
        return int(self.looks > self.after and (self.after == 0 or self._is_met))

    def request_nodes(self, bundles: Sequence[Mapping[str, float]]) -> None:
        self.requests.append([dict(bundle) for bundle in bundles])

    def autoscaler_clock(self) -> int:
        return len(self.requests)

    def autoscaler_answer(self, asked_at: int) -> AutoscalerAnswer:
        assert 0 < asked_at <= len(self.requests)
        return "no" if self.says == "yes" and not self._is_met else self.says

    def check(self) -> bool:
        return True


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Each sleep takes a minute."""
    now = itertools.count(0, 60)
    clock = SimpleNamespace(now=next(now))
    clock.sleep = lambda seconds: setattr(clock, "now", next(now))
    clock.monotonic = lambda: float(clock.now)
    monkeypatch.setattr(ray_autoscaler, "time", clock)
    return clock


def opened(cluster: Autoscaled, segments: int | None) -> tuple[NodeRequest, list[AwaitingNodes]]:
    heard: list[AwaitingNodes] = []
    request = NodeRequest(cluster, NEEDS, segments, heard.append)  # type: ignore[arg-type]
    request.open()
    return request, heard


def sizes(cluster: Autoscaled) -> list[int]:
    """Of the requests, each once however often it was renewed."""
    assert all(bundle == {"CPU": 1.0} for bundles in cluster.requests for bundle in bundles)
    return [size for size, _ in itertools.groupby(len(bundles) for bundles in cluster.requests)]


def test_as_many_nodes_are_asked_for_as_segments_are_to_run_until_the_end() -> None:
    cluster = Autoscaled()
    request, heard = opened(cluster, 3)
    assert (sizes(cluster), heard) == ([3], [])
    request.withdraw()
    request.withdraw()
    assert sizes(cluster) == [3, 0]


def test_a_request_that_another_run_has_replaced_is_renewed(time: SimpleNamespace) -> None:
    cluster = Autoscaled()
    request, _ = opened(cluster, 3)
    cluster.request_nodes([])  # as another run does at its end
    request.renew()
    assert sizes(cluster) == [3, 0], "not all the time"
    time.sleep(1)
    request.renew()
    assert sizes(cluster) == [3, 0, 3]
    cluster.is_silent = True  # Ray would wait for its head
    request.withdraw()
    request.renew()
    assert sizes(cluster) == [3, 0, 3]


def test_a_request_that_cannot_be_renewed_ends_nothing(time: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Autoscaled()
    request, _ = opened(cluster, 3)

    def lost(bundles: Sequence[Mapping[str, float]]) -> None:
        raise ConnectionError("the head is away")

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "request_nodes", lost)
        time.sleep(1)
        request.renew()
    cluster.request_nodes([])
    time.sleep(1)
    request.renew()
    assert sizes(cluster) == [3, 0, 3]


def test_while_a_node_is_waited_for_the_request_is_renewed(time: None) -> None:
    cluster = Autoscaled(after=40)
    opened(cluster, None)
    assert len(cluster.requests) > 20


def test_nothing_is_asked_for_where_as_many_segments_run_as_fit() -> None:
    cluster = Autoscaled()
    opened(cluster, None)[0].withdraw()
    assert cluster.requests == []


def test_nothing_is_asked_of_a_ray_of_our_own() -> None:
    cluster = Autoscaled(after=10, is_elsewhere=False)
    opened(cluster, 3)[0].withdraw()
    assert (cluster.requests, cluster.looks) == ([], 0)


@pytest.mark.parametrize(("segments", "expected"), [(3, [3]), (None, [1, 0])])
def test_the_first_node_is_waited_for(segments: int | None, expected: list[int], time: None) -> None:
    cluster = Autoscaled(after=40)
    _, heard = opened(cluster, segments)
    assert sizes(cluster) == expected
    assert [event.seconds for event in heard] == [0.0, 600.0, 1800.0], "at once, in the 10th and 30th minute"
    assert {tuple(event.needs) for event in heard} == {("CPU",)}


def test_where_so_many_are_beyond_its_limits_one_is_asked_for(time: None) -> None:
    cluster = Autoscaled(after=5, most=2)
    request, heard = opened(cluster, 3)
    assert (sizes(cluster), len(heard)) == ([3, 1], 1)
    request.withdraw()
    assert sizes(cluster) == [3, 1, 0]


@pytest.mark.parametrize("says", ["no", "unknown"])
def test_nobody_is_waited_for_who_does_not_come(says: AutoscalerAnswer, time: None) -> None:
    cluster = Autoscaled(after=1000, says=says)
    _, heard = opened(cluster, 2)
    assert (sizes(cluster), heard) == ([2, 1, 0], [])
    assert cluster.looks < 10


def report(active: Mapping[str, int], pending: Mapping[str, int] | None = None) -> dict[str, Any]:
    return {"autoscaler_report": {"active_nodes": active, "pending_launches": pending or {}}}


def test_what_the_first_kind_of_autoscaler_reports() -> None:
    assert answer_of_report({}) == answer_of_report(report({})) == "unknown"
    assert answer_of_report(report({f"node_{'0a1b' * 14}": 1, f"node_{'2c3d' * 14}": 1})) == "no"
    assert answer_of_report(report({"ray.head.default": 1})) == "yes"
    assert answer_of_report(report({}, {"worker": 2})) == "yes"


def test_what_the_second_kind_of_autoscaler_answers() -> None:
    def state(seen: int, infeasible: Sequence[object] = ()) -> Any:
        values = {
            "last_seen_cluster_resource_state_version": seen,
            "infeasible_cluster_resource_constraints": infeasible,
        }
        return SimpleNamespace(autoscaling_state=SimpleNamespace(**values))

    assert answer_of_state(state(0), 0) == answer_of_state(state(7, ["what was asked before"]), 7) == "unknown"
    assert answer_of_state(state(8), 7) == "yes"
    assert answer_of_state(state(8, ["3 times 1 CPU"]), 7) == "no"


# Ray's own autoscaler, with a provider that starts nodes on this machine. All is in namespaces of processes and of the
# network, which end with the test: what is left of it there ends, and nothing else can be met.

_CONFIG = {
    "cluster_name": "here",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 10,
    "provider": {
        "type": "fake_multinode",
        "gcs_address": "127.0.0.1:6379",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 80_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{kind}setup_commands": [] for kind in ("", "head_", "worker_")},
    **{f"{kind}start_ray_commands": [] for kind in ("head_", "worker_")},
    "file_mounts_sync_continuously": False,
}

_START = """
set -e
ip link set lo up
"$1" start --head --port=6379 --num-cpus=0 --object-store-memory=80000000 --include-dashboard=false \
    --disable-usage-stats $2 > "$RAY_TMPDIR/start.log" 2>&1
"$3" "$4"
"""

_DRIVER = """
import time
from pathlib import Path
import ray
from evocompress.errors import RunError
from evocompress.search.ray_executor import RayExecutor
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment

def demand():
    from ray.experimental.internal_kv import _internal_kv_get
    return (_internal_kv_get(b"autoscaler_resource_request") or b"").decode()

def say(event):
    print("awaiting", dict(event.needs), flush=True)

storage = open_storage(Path("storage"))
ray.init(address="127.0.0.1:6379", log_to_driver=False)
try:
    executor = RayExecutor(ToySegment(), storage, workers=2, cpus=1, gpus=0, observer=say)
except RunError as error:
    print("refused", error)
else:
    print("there", demand())
    while len([node for node in ray.nodes() if node["Alive"]]) < 3:
        time.sleep(0.5)
    print("both")
    executor.close()
    print("closed", demand())
"""


def can_make_namespaces() -> bool:
    tools = [shutil.which(name) for name in ("unshare", "ip")]
    command = ["unshare", "-fpn", "--mount-proc", "ip", "link", "set", "lo", "up"]
    return None not in tools and subprocess.run(command, capture_output=True).returncode == 0


def said_on_a_cluster(folder: Path, options: str) -> list[str]:
    pytest.importorskip("ray")
    (folder / "driver.py").write_text(_DRIVER)
    places = ["sh", str(Path(sys.executable).with_name("ray")), options, sys.executable, str(folder / "driver.py")]
    names = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as ray_folder:  # sockets need short paths
        done = subprocess.run(
            ["unshare", "-fpn", "--mount-proc", "--kill-child", "sh", "-c", _START, *places],
            cwd=folder,
            env={**os.environ, **names, "RAY_TMPDIR": ray_folder, "RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        started = Path(ray_folder, "start.log").read_text()
    assert done.returncode == 0, done.stderr[-4000:] + started
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not can_make_namespaces(), reason="namespaces of processes are for root")
def test_an_autoscaler_of_rays_own(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(_CONFIG))
    awaiting, there, both, closed = said_on_a_cluster(tmp_path, "--autoscaling-config=cluster.json")
    assert awaiting == "awaiting {'CPU': 1}"
    assert there.startswith("there [{") and len(json.loads(there.removeprefix("there "))) == 2
    assert (both, closed) == ("both", "closed []")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not can_make_namespaces(), reason="namespaces of processes are for root")
def test_a_head_without_places_and_without_an_autoscaler(tmp_path: Path) -> None:
    (line,) = said_on_a_cluster(tmp_path, "")
    assert line.startswith(
        "refused a segment asks for cpus=1, gpus=0, and no node of the Ray cluster has that (up to 0"
    )
    assert line.endswith("GPUs), and no autoscaler adds one; lower those or add a node")
