"""Evaluation of a file's network on a data set, as its task measures it: what the command `evaluate` prints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn

from evocompress.checkpoint.loading import load_formed
from evocompress.data import Splits
from evocompress.data import load as load_data
from evocompress.data.user import as_splits
from evocompress.errors import ConfigError, DataError, ModelError, about_argument
from evocompress.networks import build as build_network
from evocompress.protocols import Measured, Observer, Said, Task
from evocompress.support.devices import check_device
from evocompress.tasks import DEFAULT_TASK, build
from evocompress.tasks.measure import measure
from evocompress.tasks.trial_run import note_on_outputs

__all__ = ["Part", "evaluate"]

Part = Literal["audit", "validation", "train"]


def evaluate(
    path: str | os.PathLike[str],
    model: str | nn.Module,
    data: str | Splits | Sequence[Any] | Mapping[str, Any],
    *,
    task: str | Task = DEFAULT_TASK,
    split: Part = "audit",
    seed: int = 0,
    device: str = "cpu",
    max_output_bytes: int | None = None,
    observer: Observer | None = None,
) -> Measured:
    """How good the network of a file is on data: its value, a 95 % interval, loss, and what else the task measures.

    Args:
        path: A compressed file, or a checkpoint as `load` takes it.
        model: The network that the file is of: a name, `package.module:factory`, or the plain module, which stays
            as it is.
        data: A data set's name, `package.module:loader`, its splits, or what a loader returns.
        task: What the network is for: a name, `package.module:Class`, or the task itself.
        split: Which part of the data.
        seed: Of the data's split, where that is not given.
        device: Where to compute.
        max_output_bytes: As for `load`.
        observer: Hears which of several outputs of the network counts (`Said`).

    Raises:
        ConfigError: There is no such task, no such part of the data, or no such device.
        DataError: The data cannot be had, or does not fit the task.
        ModelError: There is no such network, or it fits neither task and data, nor the file.

    >>> import pathlib, tempfile, evocompress
    >>> from evocompress.networks import build
    >>> path, network = pathlib.Path(tempfile.mkdtemp()) / "network.evc", build("digits_cnn")
    >>> _ = evocompress.save(path, network)
    >>> measured = evocompress.evaluate(path, network, "digits")
    >>> measured == evocompress.evaluate(path, "digits_cnn", "digits")
    True
    >>> measured.low <= measured.value <= measured.high
    True
    """
    if split not in get_args(Part):
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(get_args(Part))}.")
    check_device(device)
    purpose = build(task) if isinstance(task, str) else task
    with about_argument("data", DataError):
        splits = load_data(data, seed=seed) if isinstance(data, str) else as_splits("data", data)
        examples = getattr(splits, split)
        with about_argument("model", ModelError):
            plain = build_network(model) if isinstance(model, str) else model
            purpose.check(plain, examples, splits.classes)
    note = note_on_outputs(plain, examples)
    if note is not None and observer is not None:
        observer(Said(note))
    with about_argument("model", ModelError):
        network = load_formed(path, plain, max_output_bytes=max_output_bytes)
    return measure(purpose, network, examples, device)
