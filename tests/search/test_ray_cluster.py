from __future__ import annotations

import dataclasses
import gc
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evocompress.search.executors import RayExecutor
from evocompress.search.history import read_history
from evocompress.search.records import Outcome, Task
from evocompress.search.run_folder import open_run
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

    def __call__(self, task: Task, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        node = ray.get_runtime_context().get_node_id()
        Path(self.folder, f"{task.index}-{node}-{os.getpid()}").touch()
        deadline = time.monotonic() + 120
        while node != self.lost and not any(Path(self.folder).glob(f"*-{self.lost}-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        return ToySegment(seconds=600.0 if node == self.lost else 0.1)(task, folder, parent_files)


@pytest.fixture
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
        executor = RayExecutor(Noted(str(notes), lost.node_id), run.storage, address=cluster.address)
        assert executor.workers == 2
        assert run.drive(executor, observer=observer) == "finished"
        executor.close()
    assert removed
    assert [outcome.status for outcome in read_history(tmp_path / "run").outcomes] == ["ok"] * 12
    attempts = [int(path.name.split("-")[0]) for path in notes.iterdir()]
    assert set(attempts) == set(range(12)) and len(attempts) == 13
