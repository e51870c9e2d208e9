"""Training step without the dead parts of a network: how much faster it is, see `evocompress.training.dead_parts`.

    python -m benchmarks.training.dead_parts [--batch 64] [--steps 200] [--threads 1]

In each network a share of the filters and neurons of all layers but the last has zero weights and a bias of -0.1, or 0
where the layer has none. Steps of stochastic gradient descent of the plain network and of the smaller one alternate;
reported are the medians and their ratio, the parameters, and the seconds of the cut: the first of a process, and the
median of five more. Prints one JSON line for each network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

CASES = (
    ("digits_cnn", {"width": 16}, (1, 8, 8), 0.75),
    ("lenet5_caffe", {}, (1, 28, 28), 0.8),
    ("base_cnn", {}, (3, 32, 32), 0.75),
)


@torch.no_grad()
def with_dead_parts(name: str, options: dict[str, Any], share: float) -> nn.Module:
    """A network of which the first part of every layer's filters and neurons is dead."""
    from evocompress.networks import build

    network = build(name, options, seed=1)
    layers: list[Any] = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        count = round(share * len(layer.weight))
        layer.weight[:count] = 0
        if layer.bias is not None:
            layer.bias[:count] = -0.1
    return network


def one_step(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    """A function that makes one training step and returns its seconds."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
    network.train()

    def step() -> float:
        start = time.perf_counter()
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    """Measure, and print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from evocompress.training.dead_parts import cut

    for name, options, shape, share in CASES:
        network = with_dead_parts(name, options, share)
        images, labels = torch.randn(arguments.batch, *shape), torch.randint(10, (arguments.batch,))
        cuts = []
        for _ in range(6):
            start = time.perf_counter()
            live = cut(network, images[:2])
            cuts.append(time.perf_counter() - start)
        steps = one_step(network, images, labels), one_step(live.network, images, labels)
        times = [[step() for step in steps] for _ in range(arguments.steps)][5:]
        plain, smaller = (statistics.median(column) for column in zip(*times, strict=True))
        line = {
            "network": name,
            "dead": share,
            "parameters": [live.parameters_before, live.parameters_after],
            "milliseconds": [round(1e3 * plain, 3), round(1e3 * smaller, 3)],
            "ratio": round(plain / smaller, 2),
            "cut_seconds": [round(cuts[0], 2), round(statistics.median(cuts[1:]), 3)],
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
