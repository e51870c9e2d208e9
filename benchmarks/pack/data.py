"""CIFAR-10 for the packing benchmark: what the pack job is shown, and what its files are judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import evocompress
from benchmarks.pack.alterations import STRENGTH, altered
from benchmarks.pack.cifar10 import held_out_images, split_training_images
from evocompress.data import Splits, load
from evocompress.networks import build
from evocompress.packer.temperature_scaling import fit_confidence
from evocompress.tasks.classification import evaluate

__all__ = ["Judge", "cifar10_to_pack"]

_BATCH = 100  # images; larger ones leave the cache and take twice as long


def cifar10_to_pack(seed: int, *, validation: int = 5000) -> Splits:
    """A loader of data: the training images less `cifar10.HELD_OUT` of them, split by the seed.

    The network was trained on all of them, so that those to validate on are altered until they are new to it. The test
    images are not in it at all: its audit part is the held-out training images.
    """
    rest, held_out = split_training_images()
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    train, chosen = rest.take(order[validation:]), rest.take(order[:validation])
    return Splits("cifar10", 10, train, altered(chosen, STRENGTH, seed), held_out)


class Judge:
    """Accuracy and cross-entropy of a checkpoint on the test images and on the held-out training images."""

    def __init__(self, network: str = "resnet20") -> None:
        self._network = network
        self._sets = {"test": load("cifar10").audit, "held_out": held_out_images()}

    def fitted(self, weights: Path) -> dict[str, float]:
        """{"scale": …, "cross_entropy": …}: the latter on the test images, with confidence fitted as `pack` does."""
        network: Any = build(self._network)
        model = evocompress.load(weights, network.to(memory_format=torch.channels_last))
        confidence = fit_confidence(model, altered(self._sets["held_out"], STRENGTH, seed=0))
        model.load_state_dict(confidence.scaled(model.state_dict()))
        loss = evaluate(model, self._sets["test"], batch_size=_BATCH).loss
        return {"scale": round(confidence.scale, 4), "cross_entropy": round(loss, 6)}

    def __call__(self, weights: Path) -> dict[str, Any]:
        """{"test": {"accuracy": …, "cross_entropy": …}, "held_out": …} of a safetensors file."""
        network: Any = build(self._network)  # torch's types do not have the next line's memory format
        model = evocompress.load(weights, network.to(memory_format=torch.channels_last))
        judged = {name: evaluate(model, examples, batch_size=_BATCH) for name, examples in self._sets.items()}
        return {name: {"accuracy": e.accuracy, "cross_entropy": round(e.loss, 6)} for name, e in judged.items()}
