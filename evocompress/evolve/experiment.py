"""Experiment: what all segments of a run have in common, network, data and task, as plain data for any worker."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from evocompress.checkpoint.loading import load_state, names_for
from evocompress.checkpoint.weight_files import read_weights
from evocompress.data import Splits, load
from evocompress.data.shared import from_arrays
from evocompress.networks import build
from evocompress.protocols import Task
from evocompress.support.quantities import OUTPUT_LIMIT, parse_bytes
from evocompress.support.threads import limit_threads
from evocompress.tasks import DEFAULT_TASK
from evocompress.tasks import build as build_task
from evocompress.training.precision import Precision
from evocompress.training.trainer import Curves, TrainingGenes, train

__all__ = ["Experiment", "finite", "load_checkpoint", "train_plainly"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all segments of a run have in common; plain data, so that it can be sent to any worker.

    `path` is put before Python's search path, so that a worker finds the modules that the driver found.
    """

    model: str
    model_options: Mapping[str, Any]
    data: str
    data_options: Mapping[str, Any]
    seed: int
    threads: int
    gpu: bool
    path: tuple[str, ...] = ()
    precision: Precision = "float32"
    task_name: str = DEFAULT_TASK
    named_files: bool = False

    def device(self) -> torch.device:
        """The GPU, if segments are given one and there is one."""
        return torch.device("cuda" if self.gpu and torch.cuda.is_available() else "cpu")

    def splits(self) -> Splits:
        """The data, read once per process, or shared by all of a machine."""
        if (key := self._data_key()) in _SHARED:
            return _SHARED[key]
        if key not in _READ:
            while len(_READ) > 1:
                del _READ[next(iter(_READ))]
            _READ[key] = load(self.data, seed=self.seed, options=dict(self.data_options))
        return _READ[key]

    def share(self, data: dict[str, Any]) -> None:
        """Take what `data.shared.as_arrays` made of the splits in another process."""
        if (key := self._data_key()) not in _SHARED:
            _SHARED.clear()
            _SHARED[key] = from_arrays(data)

    def _data_key(self) -> str:
        return repr((self.data, sorted(self.data_options.items()), self.seed))

    def network(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> nn.Module:
        """A network with random weights, those of the run or of another seed; `options` come beside the run's."""
        seed = self.seed if seed is None else seed
        return build(self.model, {**self.model_options, **(options or {})}, seed=seed)

    def task(self) -> Task:
        """What the network is for."""
        return build_task(self.task_name)

    def prepare(self) -> None:
        """Set threads and search path of this process."""
        limit_threads(self.threads)
        sys.path[:0] = [folder for folder in self.path if folder not in sys.path]


#: Splits that came from the driver's process; one at a time.
_SHARED: dict[str, Splits] = {}
#: Splits that this process has read, the newest last; two at a time. Options may be lists and tables.
_READ: dict[str, Splits] = {}


def finite(value: float) -> float | None:
    """A number as records hold it: None where it is NaN or infinite, which JSON has no word for."""
    return value if math.isfinite(value) else None


def load_checkpoint(network: nn.Module, path: str) -> None:
    """Load a checkpoint into a network, if one is named."""
    if path:
        limit = parse_bytes(OUTPUT_LIMIT)
        state = read_weights(path, functools.partial(names_for, network), max_output_bytes=limit)
        load_state(network, state, path)


def train_plainly(network: nn.Module, experiment: Experiment, epochs: int) -> Curves:
    """Train as one would without a search: Adam, a cosine, and no rate."""
    return train(
        network,
        experiment.splits().train,
        TrainingGenes(experiment.task_name),
        epochs=epochs,
        seed=experiment.seed,
        device=experiment.device(),
        precision=experiment.precision,
        task=experiment.task(),
    )
