"""Fixtures for the real data sets, skipped with the reason where one is absent; and the order of tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from evocompress.errors import DataError

if TYPE_CHECKING:
    from selenium import webdriver

    from evocompress.data import Splits

# Results depend on the number of threads: one, here and in the processes that tests start. Read as torch is loaded,
# which only the tests that need it do.
os.environ["OMP_NUM_THREADS"] = "1"
# Ray gives its workers a low priority; on a busy machine tests would then wait for minutes for what takes seconds.
os.environ.setdefault("RAY_worker_niceness", "0")


@functools.cache
def _present(name: str) -> Splits:
    from evocompress.data import load

    try:
        return load(name)
    except DataError as failure:
        pytest.skip(str(failure))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow files first where several workers share them: with one of them last, the other workers would wait for it."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def digits() -> Splits:
    return _present("digits")


@pytest.fixture(scope="session")
def mnist() -> Splits:
    return _present("mnist")


@pytest.fixture(scope="session")
def fashion_mnist() -> Splits:
    return _present("fashion_mnist")


@pytest.fixture(scope="session")
def cifar10() -> Splits:
    return _present("cifar10")


@pytest.fixture
def seeded() -> Iterator[None]:
    """Torch's own random numbers, from a seed; those of other tests stay what they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium for the tests of one file; without one they skip."""
    from browsers import started_browser

    with started_browser(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome
