"""Certificate of a file: a bound on its test error from its size and its error on the examples that made it.

Those are training and validation examples: the file was trained on the first and perhaps chosen by the others, and the
bound holds whatever was done with either.

The arithmetic is in `evocompress.support.occam_bound`; what it says and assumes, in docs/certificates.md.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from evocompress.checkpoint.loading import load_formed
from evocompress.checkpoint.weight_files import read_evc
from evocompress.data import Examples, Splits, load
from evocompress.data.examples import IGNORED
from evocompress.errors import ConfigError, DataError
from evocompress.evolve.config import parse_config
from evocompress.evolve.genome import network_options
from evocompress.evolve.trust import check_trust
from evocompress.networks import build
from evocompress.protocols import Task
from evocompress.runs.origin import files_evaluated, leaf_of
from evocompress.search.history import read_history
from evocompress.support.devices import check_device
from evocompress.support.inputs import tensors_in
from evocompress.support.intervals import wilson_interval
from evocompress.support.occam_bound import (
    DEFAULT_DELTA,
    OccamBound,
    check_candidates,
    check_delta,
    largest_nbytes,
    occam_bound,
)
from evocompress.tasks import build as build_task
from evocompress.tasks.measure import measure

__all__ = ["ASSUMPTIONS", "Certificate", "Counts", "Source", "certify", "source_of_run"]

ASSUMPTIONS = (
    "The training and validation examples were drawn independently from the distribution that the test error is about.",
    "The network's layout, the decoder, and how inputs are made of the data were fixed before the data were seen; all "
    "that was learned is in the file.",
    "An example is right or wrong as it is in the data set: altered copies are neither counted nor measured.",
)


#: Share of validation examples that may be among the training examples by chance; with more of them none counts.
_MOST_ALIKE = 0.1


class Counts(NamedTuple):
    """How many of `total` labelled examples a network gets wrong."""

    wrong: int
    total: int

    @property
    def error(self) -> float:
        """The share that is wrong, in [0, 1]."""
        return self.wrong / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (Wilson) of the error."""
        return wilson_interval(self.wrong, self.total)


class Source(NamedTuple):
    """What a file is certified with: the plain network, its data and task, and how many files it was chosen among."""

    network: nn.Module
    splits: Splits
    task: Task
    candidates: int = 1
    leaf_id: str | None = None


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A file's bound with what was measured for it.

    `guess_error` is the error, on the same examples, of always naming the most frequent class: a bound that is not
    below it is vacuous. `test` is what was measured on the audit split, which has no part in the bound; None where it
    has no labels. `unlabelled` examples, for training or validation, do not count; `augmentation` is how training
    alters its own.
    """

    bound: OccamBound
    guess_error: float
    test: Counts | None
    unlabelled: int
    augmentation: str
    assumptions: tuple[str, ...] = ASSUMPTIONS

    @property
    def is_vacuous(self) -> bool:
        """Whether the bound says no more than a constant guess would give."""
        return self.bound.value >= self.guess_error

    @functools.cached_property
    def largest_nbytes(self) -> int | None:
        """Size of the largest file that would not be vacuous with this error; None if none is small enough."""
        bound = self.bound
        return largest_nbytes(
            bound.wrong, bound.examples, below=self.guess_error, delta=bound.delta, candidates=bound.candidates
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data; errors are shares in [0, 1]."""
        bound, test = self.bound, self.test
        measured = None
        if test is not None:
            low, high = test.interval
            measured = {"error": test.error, "wrong": test.wrong, "examples": test.total, "low": low, "high": high}
        return {
            "bound": bound.value,
            "vacuous": self.is_vacuous,
            "largest_nonvacuous_bytes": self.largest_nbytes,
            "guess_error": self.guess_error,
            "bytes": bound.nbytes,
            "bits": bound.bits,
            "message_bits": bound.message_bits,
            "candidates": bound.candidates,
            "candidate_bits": bound.candidate_bits,
            "kl_nats": bound.kl_nats,
            "union_nats": bound.union_nats,
            "examples": bound.examples,
            "unlabelled_examples": self.unlabelled,
            "wrong": bound.wrong,
            "training_error": bound.training_error,
            "delta": bound.delta,
            "lambda": bound.lam,
            "measured_test": measured,
            "augmentation": self.augmentation,
            "assumptions": list(self.assumptions),
        }


def certify(
    path: str | os.PathLike[str],
    source: Source,
    *,
    delta: float = DEFAULT_DELTA,
    device: torch.device | str = "cpu",
    max_output_bytes: int | None = None,
) -> Certificate:
    """Decode a file, count what its network gets wrong, in evaluation mode, and bound its test error.

    Args:
        path: The `.evc` file.
        source: The network in its plain form, and its data.
        delta: The chance, in (0, 1), that the sample is one for which the bound does not hold.
        device: Where the network runs.
        max_output_bytes: Refuse a file whose tensors take more bytes together, as for `unpack`.

    Raises:
        ConfigError: There is no such device, δ or the number of candidates is out of its range, or the task has no
            error that counts examples.
        DataError: The labels are not one class for each example.
        ModelError: The file does not fit the network, or the network the data.
        EvocompressError: The file cannot be read, or is no `.evc` file.
    """
    check_delta(delta)
    check_candidates(source.candidates)
    check_device(device)
    splits, task = source.splits, source.task
    _check_labels(splits)
    nbytes = len(read_evc(path))
    network = load_formed(path, source.network, max_output_bytes=max_output_bytes)
    task.check(network, splits.train, splits.classes)
    distinct = _distinct(splits)
    made_of = [part for part in distinct if part.is_labelled]
    counts = [_counts(task, network, part, device) for part in made_of]
    labels = torch.cat([part.labels for part in made_of])
    labels = labels[labels != IGNORED]
    test = _counts(task, network, splits.audit, device) if splits.audit.is_labelled else None
    return Certificate(
        occam_bound(
            nbytes,
            sum(count.wrong for count in counts),
            sum(count.total for count in counts),
            delta=delta,
            candidates=source.candidates,
        ),
        guess_error=1.0 - int(labels.bincount().max()) / len(labels),
        test=test,
        unlabelled=sum(map(len, distinct)) - len(labels),
        augmentation="a function" if callable(splits.train.augmentation) else splits.train.augmentation,
    )


def source_of_run(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    candidates: int | None = None,
    trusted: bool = False,
) -> Source:
    """The network, data and task of the run that a file came from, and how many files the run evaluated.

    Args:
        path: The file; inside the run's folder or not.
        folder: The run's folder.
        candidates: A larger number of candidates, where this run is one of several.
        trusted: Whether code that the run names may be imported although its folder was made elsewhere.

    Raises:
        RunError: The folder is no run, or the file none of the run's; it names code and was made elsewhere.
        ConfigError: There are fewer candidates than the run evaluated.
        DataError: The data set is missing, or is not the one that the run was trained on.
    """
    history = read_history(Path(folder))
    leaf = leaf_of(history, read_evc(path), os.fspath(path))
    evaluated = files_evaluated(history)
    if candidates is not None and candidates < evaluated:
        raise ConfigError(
            f"candidates {candidates}: the run evaluated {evaluated} files on its data; give at least that, or nothing."
        )
    stored = history.run.get("config", {})
    if not trusted:
        check_trust(folder, history.run, stored)
    config = parse_config(stored, f"{folder}/run.json")
    splits = load(config.data, seed=config.seed, options=config.data_options)
    recorded = history.run.get("data", {}).get("sha256")
    if splits.sha256 != recorded:
        raise DataError(
            f"data set {config.data!r} is not the one of the run {folder}, or is split in another way (sha256 "
            f"{splits.sha256[:16]}…, recorded {str(recorded)[:16]}…): restore it."
        )
    network = build(config.model, network_options(config, leaf.genome), seed=config.seed)
    return Source(network, splits, build_task(config.task), candidates or evaluated, leaf.leaf_id)


def _distinct(splits: Splits) -> list[Examples]:
    """Training examples, and validation examples where these are others: a loader may give the same ones twice."""
    train, validation = splits.train, splits.validation
    of_training = set(_digests(train))
    again = sum(digest in of_training for digest in _digests(validation))
    return [train] if again > _MOST_ALIKE * len(validation) else [train, validation]


def _digests(examples: Examples) -> Iterator[bytes]:
    """Of each example's inputs."""
    for place in range(len(examples)):
        digest = hashlib.sha256()
        for tensor in tensors_in(examples.batch(slice(place, place + 1))[0]):
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        yield digest.digest()


def _check_labels(splits: Splits) -> None:
    needed = "A certificate is about the share of independent examples whose one label is wrong"
    for part in (splits.train, splits.validation):
        if part.has_numbers:
            raise DataError(f"{splits.name}: the labels are numbers to predict, whose error has no bound. {needed}.")
        if part.labels.ndim != 1:
            shape = tuple(part.labels.shape)
            raise DataError(f"{splits.name}: labels {shape} of places in sequences are not independent. {needed}.")
    if not splits.train.is_labelled:
        raise DataError(f"{splits.name}: the training examples have no labels (all are -100). {needed}.")


def _counts(task: Task, network: nn.Module, examples: Examples, device: torch.device | str) -> Counts:
    measured = measure(task, network, examples, device)
    correct, total = measured.details.get("correct"), measured.details.get("total")
    if correct is None or not total or abs(measured.error - (1 - correct / total)) > 1e-9 or total > len(examples):
        raise ConfigError(
            f"task {type(task).__name__} measures {task.quality.name}, which is not counted as so many examples right: "
            "a certificate needs an error of 0 or 1 for each example, and the details `correct` and `total` of a "
            "measurement with an error of 1 - correct / total, as classification has them."
        )
    return Counts(int(total) - int(correct), int(total))
