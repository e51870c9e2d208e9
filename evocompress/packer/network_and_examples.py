"""Calibration inputs of a pack job: a network with its weights, and examples of a data set or of noise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from evocompress.checkpoint.defaults import CALIBRATION_SAMPLES
from evocompress.checkpoint.forms import loaded
from evocompress.checkpoint.loading import load_formed
from evocompress.data import Examples, Splits
from evocompress.data import load as load_data
from evocompress.data.synthetic_inputs import noise_images
from evocompress.errors import ConfigError, DataError, ModelError, about_argument
from evocompress.protocols import Task
from evocompress.support.inputs import call
from evocompress.support.modules import count_all_outputs, evaluation_mode
from evocompress.tasks import build as build_task
from evocompress.tasks.classification import calibration_examples, check_fit
from evocompress.tasks.regression import Regression
from evocompress.tasks.trial_run import note_on_outputs

__all__ = ["NetworkAndExamples", "of_state", "on_data", "on_noise", "with_noise", "with_splits"]

_JUDGES = 512  # images of noise that are held out
_BATCH = 128


class NetworkAndExamples(NamedTuple):
    """What a job is calibrated with: a network, examples to calibrate on, others to judge by; `noise`: no real ones.

    `task` says what the network is for, by which held-out examples judge; None: classification. `note` is what people
    should know of it.
    """

    model: nn.Module
    train: Examples
    held_out: Examples
    noise: bool = False
    task: Task | None = None
    note: str | None = None


def of_state(
    state: Mapping[str, torch.Tensor],
    plain: nn.Module,
    source: str,
    *,
    data: str | None = None,
    noise: str | None = None,
    task: str | None = None,
    needs_labels: bool = True,
    samples: int = CALIBRATION_SAMPLES,
    seed: int = 0,
) -> NetworkAndExamples:
    """The network in the form of a state dict and with its values, and examples of data, or of noise without data.

    As `on_data` and `on_noise`, with a note on the network's outputs; `source` names the state dict in errors.

    Raises:
        EvocompressError: Something does not fit; the error's `argument` says which: task, data or noise.
    """
    if data is not None:
        with about_argument("task", ConfigError):
            purpose = None if task is None else build_task(task)
        with about_argument("data", DataError):
            splits = load_data(data, seed=seed)
            with about_argument("task", ConfigError):
                examples = with_splits(loaded(plain, state, source), splits, needs_labels=needs_labels, task=purpose)
    else:
        with about_argument("noise", DataError):
            examples = with_noise(loaded(plain, state, source), noise or "", samples, seed)
    return examples._replace(note=examples.note or note_on_outputs(examples.model, examples.train))


def on_data(
    weights: str | os.PathLike[str],
    plain: nn.Module,
    data: str,
    seed: int,
    *,
    needs_labels: bool = True,
    task: Task | None = None,
    strip_prefix: str = "",
) -> NetworkAndExamples:
    """The network with these weights, in the form of their file, and a data set's training and validation examples.

    Without a task it is classification, or regression where the labels are numbers. Unless a loss on labels is asked
    for, labels that the network's outputs do not fit are left out.

    Raises:
        ModelError, DataError: Network and examples do not fit the task that was given.
    """
    splits = load_data(data, seed=seed)
    network = load_formed(weights, plain, strip_prefix=strip_prefix)
    return with_splits(network, splits, needs_labels=needs_labels, task=task)


def with_splits(
    network: nn.Module, splits: Splits, *, needs_labels: bool = True, task: Task | None = None
) -> NetworkAndExamples:
    """A network that has its weights, and the training and validation examples of splits; otherwise as `on_data`."""
    task = Regression() if task is None and splits.train.has_numbers else task
    if task is not None:
        try:
            task.check(network, splits.train, splits.classes)
            return NetworkAndExamples(network, splits.train, splits.validation, task=task)
        except ModelError:
            if needs_labels:
                raise
    elif needs_labels:
        check_fit(network, splits.train, splits.classes)
        return NetworkAndExamples(network, splits.train, splits.validation)
    held_out = calibration_examples(network, splits.validation, splits.classes)
    train = splits.train if held_out.is_labelled else splits.train.without_labels()
    note = None if held_out.is_labelled else _count_all_outputs(network, train)
    return NetworkAndExamples(network, train, held_out, note=note)


def on_noise(
    weights: str | os.PathLike[str], plain: nn.Module, shape: str, samples: int, seed: int, *, strip_prefix: str = ""
) -> NetworkAndExamples:
    """The network with these weights, in the form of their file, and noise of a shape such as 3x32x32, unlabelled."""
    return with_noise(load_formed(weights, plain, strip_prefix=strip_prefix), shape, samples, seed)


def with_noise(network: nn.Module, shape: str, samples: int, seed: int) -> NetworkAndExamples:
    """A network that has its weights, and noise of a shape; otherwise as `on_noise`."""
    noise = noise_images(shape, samples + _JUDGES, seed)
    check_fit(network, noise, 1)
    train, held_out = (noise.take(torch.arange(*ends)) for ends in ((0, samples), (samples, len(noise))))
    return NetworkAndExamples(network, train, held_out, noise=True, note=_count_all_outputs(network, train))


def _count_all_outputs(network: nn.Module, examples: Examples) -> str | None:
    """Without labels nobody says which of several outputs counts, so all do, each by its own variance."""
    with evaluation_mode(network), torch.inference_mode():
        batches = range(0, min(len(examples), _JUDGES), _BATCH)
        results = [call(network, examples.batch(slice(at, at + _BATCH))[0]) for at in batches]
    outputs = count_all_outputs(network, results)
    text = f"all {outputs} outputs of the network count, each by its variance; the network option output chooses one"
    return text if outputs else None
