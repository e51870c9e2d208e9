"""What selection never saw: the front's files judged on the audit split, and the uncompressed network to compare with.

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
from evocompress.evolve.segment import Experiment
from evocompress.search.storage import Storage
from evocompress.tasks.classification import evaluate
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["AuditJob", "ReferenceJob"]


@dataclasses.dataclass(frozen=True)
class AuditJob:
    """Decodes files from storage and evaluates them on the audit split."""

    experiment: Experiment
    storage: Storage

    def __call__(self, files: Sequence[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
        """Files as (leaf id, path, sha256) to leaf id → accuracy, correct, total, nbytes, sha256.

        Raises:
            RunError: A file's bytes are not those that the journal recorded.
        """
        self.experiment.prepare()
        splits, plain = self.experiment.splits(), self.experiment.network()
        judged = {}
        for leaf_id, path, sha256 in files:
            data = self.storage.read(path)
            digest = hashlib.sha256(data).hexdigest()
            if digest != sha256:
                raise RunError(f"{path} is not the file that was evaluated: its sha256 is {digest}, recorded {sha256}.")
            model = loaded(plain, unpack(data), path)
            result = evaluate(model, splits.audit, self.experiment.device())
            judged[leaf_id] = {
                "accuracy": result.accuracy,
                "correct": result.correct,
                "total": result.total,
                "nbytes": len(data),
                "sha256": digest,
            }
        return judged


@dataclasses.dataclass(frozen=True)
class ReferenceJob:
    """Trains the network plainly, from the run's initial weights, without compression."""

    experiment: Experiment
    initial: bytes

    def __call__(self, epochs: int) -> dict[str, Any]:
        """Accuracy on the audit and on the validation split after so many epochs of Adam with a cosine schedule.

        With 0 epochs the initial weights are judged as they are, which is right where they come from a trained network.
        """
        self.experiment.prepare()
        splits, device = self.experiment.splits(), self.experiment.device()
        model = loaded(self.experiment.network(), unpack(self.initial), "the initial weights")
        started = time.perf_counter()
        seed, precision = self.experiment.seed, self.experiment.precision
        train(model, splits.train, TrainingGenes(), epochs=epochs, seed=seed, device=device, precision=precision)
        seconds = time.perf_counter() - started
        audited, validated = evaluate(model, splits.audit, device), evaluate(model, splits.validation, device)
        return {
            "accuracy": audited.accuracy,
            "correct": audited.correct,
            "total": audited.total,
            "validation_accuracy": validated.accuracy,
            "epochs": epochs,
            "seconds": seconds,
            "float32_bytes": float32_bytes(model.state_dict()),
        }
