"""Teacher of a run: a file beside the run's others, of given weights, or of a network that the run trains first."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from evocompress.checkpoint.forms import loaded
from evocompress.checkpoint.packing import pack_without_loss, unpack
from evocompress.data import Splits
from evocompress.errors import ModelError, RunError
from evocompress.evolve.experiment import Experiment, finite, load_checkpoint, train_plainly
from evocompress.networks import build
from evocompress.protocols import Observer, Said, reporting
from evocompress.search.storage import Storage, open_storage
from evocompress.support.modules import tensors_of
from evocompress.support.wording import counted
from evocompress.tasks.measure import measure

if TYPE_CHECKING:
    from evocompress.evolve.config import Config
    from evocompress.search.executors import Executor
    from evocompress.search.run_folder import Run

__all__ = ["TeacherFile", "TeacherJob", "check_teacher", "provide_teacher", "teacher_file"]

#: Where it lies below the storage's root.
TEACHER = "teacher.evc"


@dataclasses.dataclass(frozen=True)
class TeacherFile:
    """Where the teacher's weights lie, and of which network they are; picklable, for workers."""

    storage: Storage
    model: str
    model_options: Mapping[str, Any]
    path: str = TEACHER

    def network(self) -> nn.Module:
        """The network with its weights."""
        plain = build(self.model, self.model_options)
        return loaded(plain, unpack(self.storage.read(self.path), names=tensors_of(plain)), "the teacher's file")


@dataclasses.dataclass(frozen=True)
class TeacherJob:
    """Trains a network plainly, from random weights, to be a teacher; a job for an executor's workers."""

    experiment: Experiment
    model: str
    model_options: Mapping[str, Any]

    def __call__(self, epochs: int) -> tuple[bytes, float]:
        """Its file, without loss, and its quality on the validation split, after so many epochs.

        Raises:
            ModelError: Its training diverged.
        """
        experiment = dataclasses.replace(self.experiment, model=self.model, model_options=self.model_options)
        experiment.prepare()
        network = experiment.network()
        if train_plainly(network, experiment, epochs).diverged:
            raise ModelError(f"the training of the teacher {self.model!r} diverged; give teacher.weights")
        quality = measure(experiment.task(), network, experiment.splits().validation, experiment.device()).value
        return pack_without_loss(tensors_of(network.cpu())), quality


def teacher_file(config: Config, storage: Storage) -> TeacherFile:
    """Where a run's teacher lies, and of which network it is."""
    teacher = config.teacher
    if teacher.model:
        return TeacherFile(storage, teacher.model, teacher.model_options)
    return TeacherFile(storage, config.model, config.model_options | teacher.model_options)


def check_teacher(config: Config, experiment: Experiment, splits: Splits) -> None:
    """Refuse a teacher that does not fit the task, and weights that do not fit the teacher.

    Raises:
        ModelError: Says why.
    """
    named = teacher_file(config, open_storage(os.getcwd()))
    try:
        network = build(named.model, named.model_options, seed=config.seed)
        experiment.task().check(network, splits.train, splits.classes)
        load_checkpoint(network, config.teacher.weights)
    except ModelError as error:
        raise ModelError(f"teacher: {error}") from error


def provide_teacher(
    run: Run, config: Config, file: TeacherFile, experiment: Experiment, executor: Executor, observer: Observer
) -> None:
    """See to it that the teacher's file is there, and is what it was when the run began.

    Raises:
        RunError: It is another one.
    """
    described = config.teacher.model_dump(mode="json")
    # An accepted override of [teacher] makes another one.
    recorded = [event["sha256"] for event in run.events("teacher")[-1:] if event["teacher"] == described]
    try:
        data = file.storage.read(file.path) if recorded else b""
    except FileNotFoundError:
        data = b""
    quality = math.nan
    if is_new := not data:
        if config.teacher.weights:
            network = build(file.model, file.model_options, seed=config.seed)
            load_checkpoint(network, config.teacher.weights)
            data = pack_without_loss(tensors_of(network))
        else:
            what = f"training the teacher, {counted(config.teacher.epochs, 'epoch')}"
            observer(Said(what))
            job = TeacherJob(experiment, file.model, file.model_options)
            with reporting(observer, what):
                data, quality = executor.map(job, [config.teacher.epochs], what=what, observer=observer)[0]
    digest = hashlib.sha256(data).hexdigest()
    if recorded and digest != recorded[0]:
        raise RunError(
            f"{file.path} is not the teacher that the run began with: its sha256 is {digest}, recorded {recorded[0]}. "
            "Restore the file, or the weights that it was made of."
        )
    if is_new:
        file.storage.write(file.path, data)
    if not recorded:
        run.record("teacher", teacher=described, sha256=digest, validation_quality=finite(quality))
