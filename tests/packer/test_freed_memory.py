"""Memory that threads freed goes back to the system."""

import ctypes
import threading

import psutil
import pytest
import torch

from evocompress.packer import layerwise_forward


def _held_mib() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def _many_blocks() -> None:
    blocks = [torch.ones(1 << 16) for _ in range(800)]  # of 256 kB: in a thread's heap, not pages of their own
    del blocks[::2], blocks


@pytest.mark.skipif(layerwise_forward._trim() is None, reason="no glibc")
def test_what_a_thread_freed_is_given_back() -> None:
    layerwise_forward.give_back()
    before = _held_mib()
    threads = [threading.Thread(target=_many_blocks) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    layerwise_forward.give_back()
    assert _held_mib() - before < 60  # of 200


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        pass

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    layerwise_forward._trim.cache_clear()
    try:
        assert layerwise_forward._trim() is None
        layerwise_forward.give_back()
    finally:
        layerwise_forward._trim.cache_clear()
