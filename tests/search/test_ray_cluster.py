"""The executor on a Ray cluster of several nodes: nodes that are lost, that join, and that lack something."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import DataError, RunError
from evocompress.search.events import Finished, LargerShare
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.node_probe import NodeProbe
from evocompress.search.node_roll import NodeNews
from evocompress.search.ray_executor import RayExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.run_folder import open_run
from evocompress.search.shipment import Shipment
from evocompress.search.shipped_modules import ShippedModule, ShippedModules
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclasses.dataclass(frozen=True)
class Noted:
    """The toy that notes each attempt and the node it runs on; on the node that will be lost it never ends.

    Elsewhere it waits for that one to have begun: on a busy machine a node's first worker takes long to start.
    """

    folder: str
    lost: str

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        node = ray.get_runtime_context().get_node_id()
        Path(self.folder, f"{task.index}-{node}-{os.getpid()}").touch()
        deadline = time.monotonic() + 120
        while node != self.lost and not any(Path(self.folder).glob(f"*-{self.lost}-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        return ToySegment(seconds=600.0 if node == self.lost else 0.1)(task, folder, parent_files)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The loss is noticed after 2.5 seconds instead of 25.
        noticing = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 5,
        }
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": noticing}
        made = Cluster(initialize_head=True, head_node_args=head)
        yield made
        ray.shutdown()
        made.shutdown()
        gc.collect()


def test_a_node_lost_in_mid_segment_costs_only_what_ran_on_it(cluster: Any, tmp_path: Path) -> None:
    lost = cluster.add_node(num_cpus=1)
    notes = tmp_path / "notes"
    notes.mkdir()
    removed = False

    def observer(event: object) -> None:
        nonlocal removed
        if not removed and list(notes.glob(f"*-{lost.node_id}-*")):
            cluster.remove_node(lost, allow_graceful=False)
            removed = True

    settings = toy_settings(segments=12)
    with open_run(tmp_path / "run", header={"config": {}}, space=toy_space(), settings=settings) as run:
        with pytest.raises(RunError, match="asks for cpus=2, gpus=0, and no node"):  # two halves are no node
            RayExecutor(ToySegment(), run.storage, address=cluster.address, cpus=2)
        assert not ray.is_initialized()  # there is no executor that would leave the cluster
        executor = RayExecutor(Noted(str(notes), lost.node_id), run.storage, address=cluster.address)
        assert executor.workers == 2
        assert run.drive(executor, observer=observer) == "finished"
        executor.close()
    assert removed
    assert [outcome.status for outcome in read_history(tmp_path / "run").outcomes] == ["ok"] * 12
    attempts = [int(path.name.split("-")[0]) for path in notes.iterdir()]
    assert set(attempts) == set(range(12)) and len(attempts) == 13


@dataclasses.dataclass(frozen=True)
class Joined:
    """The toy that notes the nodes it runs on. From its fifth segment on it waits until a second node runs one.

    A node of which a file `unfit-…` lies in the folder lacks what segments need.
    """

    folder: str

    def check_machine(self) -> None:
        if Path(self.folder, f"unfit-{ray.get_runtime_context().get_node_id()}").exists():
            raise DataError("its disk is empty")

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        Path(self.folder, f"ran-{ray.get_runtime_context().get_node_id()}").touch()
        deadline = time.monotonic() + 120
        while task.index > 3 and len(list(Path(self.folder).glob("ran-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        return ToySegment()(task, folder, parent_files)


def test_nodes_that_join_are_asked_before_they_get_segments(cluster: Any, tmp_path: Path) -> None:
    notes, heard, added = tmp_path / "notes", list[NodeNews](), list[Any]()
    notes.mkdir()

    def observer(event: object) -> None:
        if isinstance(event, NodeNews):
            heard.append(event)
        if len(added) == len(heard) < 2 and isinstance(event, Finished | NodeNews):
            added.append(cluster.add_node(num_cpus=1))
            if len(added) == 1:
                (notes / f"unfit-{added[0].node_id}").touch()

    settings = toy_settings(segments=12, deterministic=True, lag=4)
    with open_run(tmp_path / "run", header={"config": {}}, space=toy_space(), settings=settings) as run:
        executor = RayExecutor(Joined(str(notes)), run.storage, address=cluster.address)
        executor.look_at_nodes(NodeProbe(run.storage))
        assert (executor.workers, executor.node_news()) == (1, [])
        assert run.drive(executor, observer=observer) == "finished"
        assert executor.workers == 2
        assert executor._reports.number() < 20, "Ray has put hardly anything on a node that was left out"
        cluster.remove_node(added[1])
        while not (gone := executor.node_news()):
            executor.sleep(0.1)
        assert (executor.workers, gone[0].change) == (1, "gone") and added[1].node_id[:8] in gone[0].nodes
        cluster.remove_node(added[0])
        executor.close()
    assert [(news.change, news.workers) for news in heard] == [("unfit", 1), ("joined", 2)]
    assert added[0].node_id[:8] in heard[0].nodes
    assert heard[0].reason == "lacks what segments need (DataError: its disk is empty): put it there"
    nodes = {path.name.removeprefix("ran-") for path in notes.glob("ran-*")}
    assert added[1].node_id in nodes and added[0].node_id not in nodes and len(nodes) == 2
    assert not list((tmp_path / "run").glob("probe-*"))
    with open_run(tmp_path / "inline", header={"config": {}}, space=toy_space(), settings=settings) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    fronts = [read_history(tmp_path / name).archive for name in ("run", "inline")]
    assert [leaf.sha256 for leaf in fronts[0]] == [leaf.sha256 for leaf in fronts[1]]


def needs_half_a_gpu(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
    share = ray.get_runtime_context().get_assigned_resources()["GPU"]
    if task.index % 2 and share < 0.5:
        raise MemoryError
    return dataclasses.replace(ToySegment()(task, folder, parent_files), metrics={"share": share})


def test_what_ran_out_of_memory_gets_a_larger_share_of_a_gpu(cluster: Any, tmp_path: Path) -> None:
    node, heard = cluster.add_node(num_cpus=1, num_gpus=1), list[object]()
    with open_run(tmp_path, header={"config": {}}, space=toy_space(), settings=toy_settings(segments=4)) as run:
        executor = RayExecutor(needs_half_a_gpu, run.storage, cpus=0.25, gpus=0.25, address=cluster.address)
        assert (executor.workers, executor.slots) == (4, 5)
        assert run.drive(executor, observer=heard.append) == "finished"
        assert executor.slots == 5
        executor.close()
    cluster.remove_node(node)
    assert sorted(event.task.index for event in heard if isinstance(event, LargerShare)) == [1, 3]
    outcomes = sorted(read_history(tmp_path).outcomes, key=lambda outcome: outcome.index)
    assert [outcome.metrics["share"] for outcome in outcomes] == [0.25, 0.5, 0.25, 0.5]


def can_hide_folders() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.fixture
def node_without(cluster: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder that a second node does not see: there another one, which is empty, is mounted over it."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    ray_command = str(Path(sys.executable).with_name("ray"))
    start = 'mount -t tmpfs none "$1" && exec "$2" start --address="$3" --num-cpus=1 --disable-usage-stats'
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", start, "sh", str(hidden), ray_command, cluster.address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.wait(60) == 0
        yield hidden
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def named(numbers: Sequence[int]) -> list[tuple[int, str]]:
    import shipped_by_name  # type: ignore[import-not-found]

    return [(shipped_by_name.twice(number), ray.get_runtime_context().get_node_id()) for number in numbers]


@pytest.mark.skipif(not can_hide_folders(), reason="mount namespaces are for root")
def test_a_node_that_does_not_see_the_storage(cluster: Any, node_without: Path, tmp_path: Path) -> None:
    sources = ShippedModules({"shipped_by_name": ShippedModule("/nowhere.py", b"def twice(x):\n    return 2 * x\n")})
    (node_without / "package").mkdir()
    (node_without / "package" / "__init__.py").write_text("")
    shipment = Shipment(modules=sources, py_modules=(str(node_without / "package"),))
    seen, hidden = open_storage(tmp_path / "seen"), open_storage(node_without / "run")
    executor = RayExecutor(ToySegment(), seen, address=cluster.address, shipment=shipment)
    try:
        executor.look_at_nodes(NodeProbe(seen, ("shipped_by_name", "package"), sources))
        assert not (tmp_path / "seen").exists()
        assert (executor.workers, executor.node_news()) == (2, [])
        pairs = [pair for part in executor.map(named, [[1, 2]] * 4) for pair in part]
        assert [number for number, _ in pairs] == [2, 4] * 4
        with pytest.raises(
            RunError,
            match=r"^no node of the cluster is fit for this run: \S+ \(node \w{8}\) and \S+ \(node \w{8}\): "
            r"cannot import absent \(ModuleNotFoundError",
        ):
            executor.look_at_nodes(NodeProbe(seen, ("absent",)))
        executor.look_at_nodes(NodeProbe(hidden))
        (news,) = executor.node_news()
        assert (news.change, news.workers, executor.workers) == ("unfit", 1, 1)
        assert news.reason.startswith(f"does not see the run's storage {node_without}/run (")
        assert "set storage to a folder that all machines share" in news.reason
        assert list(node_without.iterdir()) == [node_without / "package"]
        head = ray.get_runtime_context().get_node_id()
        assert {node for part in executor.map(named, [[1]] * 4) for _, node in part} == {head}
    finally:
        executor.close()
