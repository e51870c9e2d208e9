"""Audit of a run: the front's files judged on data that selection never saw, and beside them what one would do instead.

Both are jobs that an executor runs on its workers: picklable callables that load data and network there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.forms import loaded
from evocompress.checkpoint.packing import unpack
from evocompress.data import Splits
from evocompress.errors import ModelError, RunError
from evocompress.evolve.experiment import Experiment, finite, train_plainly
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples
from evocompress.protocols import Measured
from evocompress.search.storage import Storage
from evocompress.support.modules import tensors_of
from evocompress.tasks.measure import measure

__all__ = ["AuditJob", "ReferenceJob", "audited"]

#: λ of packing, in squared error per bit: from files that lose nothing to such as know little.
_LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def audited(measured: Measured) -> dict[str, Any]:
    """What the journal holds of a measurement: quality, low, high, error, loss, total, details; None: not finite."""
    numbers = {
        "quality": measured.value,
        "low": measured.low,
        "high": measured.high,
        "error": measured.error,
        "loss": measured.loss,
    }
    details = {name: finite(value) for name, value in measured.details.items()}
    return {name: finite(value) for name, value in numbers.items()} | {"total": measured.total, "details": details}


@dataclasses.dataclass(frozen=True)
class AuditJob:
    """Decodes files from storage and evaluates them on the audit split."""

    experiment: Experiment
    storage: Storage

    def __call__(self, files: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Files as (leaf id, path, sha256, options of the network) to leaf id → what `audited` gives, nbytes, sha256.

        Raises:
            RunError: A file's bytes are not those that the journal recorded.
        """
        self.experiment.prepare()
        splits, task = self.experiment.splits(), self.experiment.task()
        judged = {}
        for leaf_id, path, sha256, options in files:
            plain = self.experiment.network(options=options)
            data = self.storage.read(path)
            digest = hashlib.sha256(data).hexdigest()
            if digest != sha256:
                raise RunError(f"{path} is not the file that was evaluated: its sha256 is {digest}, recorded {sha256}.")
            model = loaded(plain, unpack(data, names=tensors_of(plain)), path)
            result = measure(task, model, splits.audit, self.experiment.device())
            judged[leaf_id] = audited(result) | {"nbytes": len(data), "sha256": digest}
        return judged


@dataclasses.dataclass(frozen=True)
class ReferenceJob:
    """Trains the network plainly, from the run's initial weights, without compression."""

    experiment: Experiment
    initial: bytes
    packs: bool = True

    def __call__(self, epochs: int) -> dict[str, Any]:
        """Quality on the audit and on the validation split after so many epochs of Adam with a cosine schedule.

        With 0 epochs the initial weights are judged as they are, which is right where they come from a trained network.
        `packed` has what `evocompress pack` makes of that network at a ladder of λ, judged on the audit split: training
        once and packing is what one would do without a search.
        """
        self.experiment.prepare()
        splits, device, task = self.experiment.splits(), self.experiment.device(), self.experiment.task()
        model = loaded(self.experiment.network(), unpack(self.initial), "the initial weights")
        started = time.perf_counter()
        train_plainly(model, self.experiment, epochs)
        seconds = time.perf_counter() - started
        measured, validated = (measure(task, model, part, device) for part in (splits.audit, splits.validation))
        return audited(measured) | {
            "validation_quality": finite(validated.value),
            "epochs": epochs,
            "seconds": seconds,
            "float32_bytes": float32_bytes(tensors_of(model)),
            "packed": [*self._packed(model, splits, device)] if self.packs else [],
        }

    def _packed(self, model: nn.Module, splits: Splits, device: torch.device) -> Iterator[dict[str, Any]]:
        """The trained network packed with the default preset, calibrated where its layers and outputs allow that."""
        plain, task = self.experiment.network(), self.experiment.task()
        state = {name: tensor.detach().cpu().clone() for name, tensor in tensors_of(model).items()}
        job = PackJob(state, names=False, shapes=False)
        with contextlib.suppress(ModelError):
            examples = NetworkAndExamples(model, splits.train, splits.validation, task=task)
            job.calibrate(examples, device=str(device))
        for rate_weight in _LADDER:
            data = job.at(rate_weight).data
            network = loaded(plain, unpack(data, names=state), "the packed file")
            result = measure(task, network, splits.audit, device)
            yield audited(result) | {"nbytes": len(data), "rate_weight": rate_weight}
