"""Every selection policy and every executor: a new one is held against this as soon as it has a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from evocompress.extensions import EXECUTORS, SELECTION
from evocompress.search.ask_tell import Search
from evocompress.search.executors import ExecutorResources
from evocompress.search.loop import Loop
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def archive(folder: Path, executor: str = "", **changes: object) -> list[tuple[int, float]]:
    """Bytes and quality of what a search of a toy keeps."""
    search = Search(toy_space(), toy_settings(segments=24, deterministic=True, lag=4, **changes))
    storage = open_storage(folder)
    if executor:
        made = EXECUTORS[executor](ToySegment(), storage, ExecutorResources(workers=2))
        assert made.workers >= 1 and made.slots >= made.workers and made.map(abs, [-2, 3]) == [2, 3]
    else:
        made = SimulatedExecutor(ToySegment(), storage, workers=2)
    try:
        Loop(search, made).run()
    finally:
        made.close()
    return [(leaf.nbytes, leaf.quality) for leaf in search.archive]


@pytest.mark.parametrize("selection", SELECTION.builtin)
def test_a_policy_gives_the_same_front_twice(selection: str, tmp_path: Path) -> None:
    archives = [archive(tmp_path / str(time), selection=selection, pool_size=6) for time in range(2)]
    assert archives[0] == archives[1] and archives[0]


@pytest.mark.parametrize("executor", [name for name in EXECUTORS.builtin if name != "ray"])  # test_ray.py has that
def test_an_executor_gives_the_front_that_all_give(executor: str, tmp_path: Path) -> None:
    assert archive(tmp_path / executor, executor) == archive(tmp_path / "simulated")
