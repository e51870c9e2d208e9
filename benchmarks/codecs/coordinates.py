"""Coordinate prediction of weights, and where it pays: scores of codecs on every matrix of a checkpoint.

    python -m benchmarks.codecs.coordinates W.safetensors RESULT.json
    python -m benchmarks.codecs.coordinates --train mlp.safetensors

Scores are squared error + λ·bits, those of `deadzone` being 1. `--train` writes a checkpoint to try it on: 784 → 300 →
100 → 10 after four epochs of Fashion-MNIST (Adam at 1e-3, weight decay 0.02, batches of 128, seed 0).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evocompress.checkpoint.weight_files import read_weights, write_weights
from evocompress.codecs import Cost, try_codec
from evocompress.codecs.codec import Codec
from evocompress.codecs.coordinates import Coordinates
from evocompress.codecs.dct import Dct
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.entropy import State
from evocompress.codecs.lowrank import LowRank
from evocompress.data import load
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["CHAINS", "scores"]

RATE_WEIGHTS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
CHAINS = {
    "deadzone": Codec((DeadZone(),)),
    "dct": Codec((Dct(), DeadZone())),
    "dct-matrix": Codec((Dct("matrix"), DeadZone())),
    "lowrank": Codec((LowRank(), DeadZone())),
    "coordinates": Codec((Coordinates(), DeadZone())),
    "coordinates+lowrank": Codec((Coordinates(), LowRank(), DeadZone())),
}


def scores(path: Path) -> Iterator[dict[str, Any]]:
    """A line for every λ: each codec's score of the whole file, and the best choices' without and with coordinates."""
    arrays = [tensor.double().numpy() for tensor in read_weights(path).values() if tensor.ndim > 1]
    for rate_weight in RATE_WEIGHTS:
        table = [
            {name: try_codec(codec, x, Cost(rate_weight), State()).score for name, codec in CHAINS.items()}
            for x in arrays
        ]
        plain = sum(row["deadzone"] for row in table)
        line = {name: round(sum(row[name] for row in table) / plain, 4) for name in CHAINS}
        for title, known in (("best without", [n for n in CHAINS if "coord" not in n]), ("best with", list(CHAINS))):
            line[title] = round(sum(min(row[name] for name in known) for row in table) / plain, 4)
        yield {"rate_weight": rate_weight, **line}


def main() -> None:
    """Print the lines, or train the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("result", type=Path, nargs="?")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    if arguments.train:
        torch.manual_seed(0)
        layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
        network = nn.Sequential(nn.Flatten(), *layers)
        genes = TrainingGenes(weight_decay=0.02, batch_size=128)
        train(network, load("fashion_mnist", seed=0).train, genes, epochs=4, seed=0)
        write_weights(network.state_dict(), arguments.weights)
        return
    lines = []
    for line in scores(arguments.weights):
        print(json.dumps(line), flush=True)
        lines.append(line)
    if arguments.result is not None:
        arguments.result.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
