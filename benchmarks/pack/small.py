"""Two small networks that the benchmark trains on Fashion-MNIST: LeNet-5, and a recurrent one that reads rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

import evocompress
from evocompress.checkpoint.weight_files import write_weights
from evocompress.data import load
from evocompress.networks import build
from evocompress.tasks.classification import evaluate
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["RECURRENT", "RowReader", "judge", "trained"]

#: The recurrent network's name, as `networks.build` takes it.
RECURRENT = "benchmarks.pack.small:RowReader"


class RowReader(nn.Module):
    """An LSTM of two layers that reads an image row by row and says its class after the last one.

    Images (n, 1, rows, columns) to logits (n, classes).
    """

    def __init__(self, *, hidden: int = 128, columns: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(columns, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        states: Tensor = self.lstm(images[:, 0])[0]
        logits: Tensor = self.head(states[:, -1])
        return logits


def trained(model: str, epochs: int, folder: Path) -> Path:
    """The network's trained weights, which stay in the folder; Adam at 2e-3 with a cosine, batches of 128."""
    path = folder / f"{model.replace(':', '.')}_{epochs}.safetensors"
    if not path.exists():
        network = build(model, seed=0)
        genes = TrainingGenes(learning_rate=2e-3, batch_size=128)
        train(network, load("fashion_mnist", seed=0).train, genes, epochs=epochs, seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(network.state_dict(), path)
    return path


def judge(model: str, weights: Path) -> dict[str, Any]:
    """Accuracy and cross-entropy on the 10 000 test images."""
    judged = evaluate(evocompress.load(weights, build(model)), load("fashion_mnist").audit, batch_size=100)
    return {"accuracy": judged.accuracy, "cross_entropy": round(judged.loss, 6)}
