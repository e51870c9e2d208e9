"""Fixtures for the real data sets; a test that needs one is skipped, with the reason, where it is absent."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch

from evocompress.data import Splits, load
from evocompress.errors import DataError


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Results depend on the number of threads; tests use one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def _present(name: str) -> Splits:
    try:
        return load(name)
    except DataError as failure:
        pytest.skip(str(failure))


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
