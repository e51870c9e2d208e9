"""Thread counts of the numerical libraries of this process."""

from __future__ import annotations

import contextlib
import importlib
import os

from evocompress.errors import ConfigError

__all__ = ["limit_threads"]

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def limit_threads(n: int) -> None:
    """Let torch, BLAS and OpenMP use `n` threads in this process, and in the processes that it starts.

    A worker calls it first: where every worker takes all cores, they wait for each other. Training is reproducible for
    a fixed `n` only. Raises ConfigError for `n` < 1.
    """
    if n < 1:
        raise ConfigError(f"threads {n}: must be at least 1")
    # The environment first: libraries that are not loaded yet read it when they are.
    os.environ.update(dict.fromkeys(_VARIABLES, str(n)))
    import torch

    torch.set_num_threads(n)
    with contextlib.suppress(RuntimeError):  # torch refuses once inter-operation work has begun
        torch.set_num_interop_threads(n)
    with contextlib.suppress(ImportError):  # optional; it reaches a BLAS that numpy or scipy has already loaded
        importlib.import_module("threadpoolctl").threadpool_limits(n)
