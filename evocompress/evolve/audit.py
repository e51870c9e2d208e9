"""Audit of a run: the front's files judged on data that selection never saw, and the uncompressed network beside them.

Both are jobs that an executor runs on its workers: picklable callables that load data and network there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from typing import Any

from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.forms import loaded
from evocompress.checkpoint.packing import unpack
from evocompress.errors import RunError
from evocompress.evolve.segment import Experiment, finite
from evocompress.protocols import Measured
from evocompress.search.storage import Storage
from evocompress.tasks.measure import measure
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["AuditJob", "ReferenceJob", "audited"]


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

    def __call__(self, files: Sequence[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
        """Files as (leaf id, path, sha256) to leaf id → what `audited` gives, nbytes, sha256.

        Raises:
            RunError: A file's bytes are not those that the journal recorded.
        """
        self.experiment.prepare()
        splits, plain, task = self.experiment.splits(), self.experiment.network(), self.experiment.task()
        judged = {}
        for leaf_id, path, sha256 in files:
            data = self.storage.read(path)
            digest = hashlib.sha256(data).hexdigest()
            if digest != sha256:
                raise RunError(f"{path} is not the file that was evaluated: its sha256 is {digest}, recorded {sha256}.")
            model = loaded(plain, unpack(data), path)
            result = measure(task, model, splits.audit, self.experiment.device())
            judged[leaf_id] = audited(result) | {"nbytes": len(data), "sha256": digest}
        return judged


@dataclasses.dataclass(frozen=True)
class ReferenceJob:
    """Trains the network plainly, from the run's initial weights, without compression."""

    experiment: Experiment
    initial: bytes

    def __call__(self, epochs: int) -> dict[str, Any]:
        """Quality on the audit and on the validation split after so many epochs of Adam with a cosine schedule.

        With 0 epochs the initial weights are judged as they are, which is right where they come from a trained network.
        """
        self.experiment.prepare()
        splits, device, task = self.experiment.splits(), self.experiment.device(), self.experiment.task()
        model = loaded(self.experiment.network(), unpack(self.initial), "the initial weights")
        started = time.perf_counter()
        train(
            model,
            splits.train,
            TrainingGenes(self.experiment.task_name),
            epochs=epochs,
            seed=self.experiment.seed,
            device=device,
            precision=self.experiment.precision,
            task=task,
        )
        seconds = time.perf_counter() - started
        measured, validated = (measure(task, model, part, device) for part in (splits.audit, splits.validation))
        return audited(measured) | {
            "validation_quality": finite(validated.value),
            "epochs": epochs,
            "seconds": seconds,
            "float32_bytes": float32_bytes(model.state_dict()),
        }
