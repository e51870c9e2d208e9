"""Memory that threads freed goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

from evocompress.packer import layerwise_forward

# In a process of its own: what other tests' threads hold at the moment would be counted too.
MEASURE = """
import threading
import psutil
import torch
from evocompress.packer import layerwise_forward

def held_mib():
    return psutil.Process().memory_info().rss / 2**20

def many_blocks():
    blocks = [torch.ones(1 << 16) for _ in range(800)]  # of 256 kB: in a thread's heap, not pages of their own
    del blocks[::2], blocks

torch.set_num_threads(1)
layerwise_forward.give_back()
before = held_mib()
threads = [threading.Thread(target=many_blocks) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
layerwise_forward.give_back()
print(held_mib() - before)
"""


@pytest.mark.skipif(layerwise_forward._trim() is None, reason="no glibc")
def test_what_a_thread_freed_is_given_back() -> None:
    child = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    assert float(child.stdout) < 60  # of 200 or 400


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
