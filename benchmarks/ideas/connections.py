"""Plans of connections, their worth and their cost: one network with several plans; and a picture of plans.

    python -m benchmarks.ideas.connections compare RESULT.json --seeds 1 --epochs 8
    python -m benchmarks.ideas.connections links RESULT.json --seeds 3 --epochs 10
    python -m benchmarks.ideas.connections speed
    python -m benchmarks.ideas.connections bytes
    python -m benchmarks.ideas.connections picture docs/connections.png

`compare` trains 784 → 500 → 10 on Fashion-MNIST (Adam at 2e-3, batches of 128), thins the first layer after every epoch
but the last two, geometrically, down to the same number of weights for every plan, and packs it at several λ.
Nothing is chosen by looking at the test images. `links` trains `connected_cnn` with links and without on 10 000 images
(Adam at 4e-3, batches of 128), and thins nothing. `speed` takes the processor's time of a training step of 128 images,
on one thread, the least of 20. `bytes` packs a convolution as torch's layer and as a plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import evocompress
from evocompress.data import Splits, load
from evocompress.ideas.connections.drawing import connect, mask
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d, OverProvisionedLinear, thin
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.networks import build
from evocompress.tasks.classification import evaluate
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["GENES", "PLANS", "compare", "draw", "links", "sizes", "speed"]

IN_SHAPE, OUT_SHAPE, KEPT = (1, 28, 28), (5, 10, 10), 8_000
RATE_WEIGHTS = (1e-4, 3e-4, 1e-3, 3e-3)

#: Of the first layer. The random and the local plan have about as many connections before thinning.
PLANS = {
    "dense": ConnectionPlan(kernel=0, far=1.0, period=0, shared=False),
    "random": ConnectionPlan(kernel=0, far=0.08, period=0, shared=False),
    "local": ConnectionPlan(kernel=5, near=0.4, decay=0.77, period=0, shared=False),
    "local and long": ConnectionPlan(kernel=5, near=0.4, decay=0.66, far=0.02, period=0, shared=False),
}

#: Of `connected_cnn`: none, its own, and the densest that the configuration's search may reach.
GENES: dict[str, dict[str, Any]] = {
    "none": {"near": 0, "far": 0},
    "some": {},
    "many": {"near": 0.5, "decay": 0.75, "far": 0.01},
}


def compare(seed: int, epochs: int) -> Iterator[dict[str, Any]]:
    """One line for each plan: weights before and after thinning, and of each file bytes and test accuracy."""
    data = load("fashion_mnist", seed=0)
    for name, plan in PLANS.items():
        torch.manual_seed(seed)
        first = OverProvisionedLinear(784, 500, plan, in_shape=IN_SHAPE, out_shape=OUT_SHAPE)
        network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(500, 10))
        start = time.perf_counter()
        _train_and_thin(network, first, data, epochs, seed)
        line = {"plan": name, "seed": seed, "epochs": epochs, "plan_bytes": len(plan.to_bytes())}
        line |= {"connections": first.n_values, "kept": first.n_alive, "seconds": time.perf_counter() - start}
        line["accuracy"] = evaluate(network, data.audit).accuracy
        yield line | {"files": [_packed(network, data, rate_weight) for rate_weight in RATE_WEIGHTS]}


def _train_and_thin(network: nn.Module, first: OverProvisionedLinear, data: Splits, epochs: int, seed: int) -> None:
    genes, rounds = TrainingGenes(learning_rate=2e-3, batch_size=128, schedule="constant"), epochs - 2
    keep = (KEPT / first.n_values) ** (1 / rounds)
    for epoch in range(epochs):
        last = epoch >= rounds
        settled = TrainingGenes(learning_rate=1e-3, batch_size=128) if last else genes
        train(network, data.train, settled, epochs=1, seed=1000 * seed + epoch)
        if not last:
            thin(network, KEPT / first.n_alive if epoch == rounds - 1 else keep)


def _packed(network: nn.Module, data: Splits, rate_weight: float) -> dict[str, float]:
    """Bytes and test accuracy of the network in a file."""
    state = network.state_dict()
    packed = evocompress.pack(state, rate_weight)
    network.load_state_dict(evocompress.unpack(packed))
    row = {"rate_weight": rate_weight, "bytes": len(packed), "accuracy": evaluate(network, data.audit).accuracy}
    network.load_state_dict(state)
    return row


def links(seed: int, epochs: int) -> Iterator[dict[str, Any]]:
    """One line for each of two networks: how many links it has, and its test accuracy."""
    data = load("fashion_mnist", seed=0)
    few = dataclasses.replace(data.train, inputs=data.train.inputs[:10_000], labels=data.train.labels[:10_000])
    for name in ("none", "some"):
        network = build("connected_cnn", {"plan": GENES[name]}, seed=seed)
        train(network, few, TrainingGenes(learning_rate=4e-3, batch_size=128), epochs=epochs, seed=seed)
        line = {"links": name, "seed": seed, "epochs": epochs, "weights": _links(network)}
        yield line | {"accuracy": evaluate(network, data.audit).accuracy}


def _links(network: nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in network.named_parameters() if name.endswith("links"))


def speed() -> Iterator[dict[str, Any]]:
    """One line for each network: milliseconds of a training step."""
    torch.set_num_threads(1)
    first = OverProvisionedLinear(784, 500, PLANS["local"], in_shape=IN_SHAPE, out_shape=OUT_SHAPE)
    networks = {name: build("connected_cnn", {"plan": genes}) for name, genes in GENES.items()}
    images = torch.randn(128, 1, 28, 28)
    for name, network in {**networks, "784 → 500": first, "784 → 500, torch's": nn.Linear(784, 500)}.items():
        inputs = images if name in networks else images.flatten(1)
        yield {"network": name, "links": _links(network), "milliseconds": round(_step(network, inputs), 1)}


def _step(network: nn.Module, inputs: torch.Tensor) -> float:
    least = float("inf")
    for _ in range(20):
        start = time.process_time()
        network.zero_grad()
        network(inputs).square().mean().backward()
        least = min(least, time.process_time() - start)
    return 1000 * least


def sizes() -> Iterator[dict[str, Any]]:
    """Bytes of a file of a 16 → 32 convolution, as torch's layer and as a plan, without bias and with it."""
    for bias in (False, True):
        torch.manual_seed(0)
        convolution = nn.Conv2d(16, 32, 3, padding=1, bias=bias)
        planned = OverProvisionedConv2d(16, 32, ConnectionPlan(kernel=3), in_size=(14, 14), bias=bias)
        state = {"kernel": convolution.weight, **({"bias": convolution.bias} if bias else {}), "plan": planned.plan}
        planned.load_state_dict(state)
        files = [len(evocompress.pack(module.state_dict(), 1e-6)) for module in (planned, convolution)]
        yield {"bias": bias, "as a plan": files[0], "torch's": files[1]}


def draw(path: Path) -> None:
    """The inputs of one output in the middle, and the mask of a small layer, for four plans."""
    from evocompress.support.figure_style import COLOURS, FAINT, INK, new_figure

    plans = {
        "convolution\nkernel=3": ConnectionPlan(kernel=3),
        "kernel, ring and long links\nkernel=3, near=0.5, far=0.02": ConnectionPlan(kernel=3, near=0.5, far=0.02),
        "another plan at every second place\nthe same, period=2": ConnectionPlan(
            kernel=3, near=0.5, far=0.02, period=2
        ),
        "no two places alike\nthe same, period=0": ConnectionPlan(kernel=3, near=0.5, far=0.02, period=0, shared=False),
    }
    figure, axes = new_figure("Connections of a layer of 12 × 12 places to one of 12 × 12", "")
    figure.set_size_inches(12, 6.4)
    head = axes.get_title(loc="left")
    figure.delaxes(axes)
    figure.suptitle(head, x=0.01, ha="left", fontweight="bold", color=INK)
    for column, (name, plan) in enumerate(plans.items()):
        connected = mask(plan, (1, 12, 12), (1, 12, 12))
        connections = connect(plan, (1, 12, 12), (1, 12, 12))
        top = figure.add_subplot(2, len(plans), column + 1)
        _draw_field(top, connected.reshape(12, 12, 12, 12))
        title, _, genes = name.partition("\n")
        top.set_title(title, fontsize=10.5, color=INK, pad=20)
        top.text(0.5, 1.04, genes, transform=top.transAxes, ha="center", fontsize=8.5, color=FAINT)
        low = figure.add_subplot(2, len(plans), len(plans) + column + 1)
        low.imshow(connected, cmap=_two("white", COLOURS[0]), interpolation="nearest")
        values = connections.n_kernel + connections.n_links
        low.set_xlabel(
            f"{len(connections.outputs)} connections, {values} weights,\nplan of {len(plan.to_bytes())} bytes",
            fontsize=9,
            color=INK,
        )
        low.set_xticks([])
        low.set_yticks([])
        if column == 0:
            top.set_ylabel("inputs of 2 outputs", color=INK, fontsize=9)
            low.set_ylabel("mask: outputs × inputs", color=INK, fontsize=9)
    figure.savefig(path, dpi=110)


def _two(first: str, second: str) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([first, second])


def _draw_field(axes: Any, connected: Any) -> None:
    """The inputs of two outputs, each in its colour, the outputs' own places marked."""
    from matplotlib.colors import to_rgb

    from evocompress.support.figure_style import COLOURS, GRID, INK

    image = torch.ones(12, 12, 3).numpy()
    for colour, (y, x) in zip(COLOURS, [(4, 3), (7, 8)], strict=False):
        image[connected[y, x]] = to_rgb(colour)
        axes.plot(x, y, marker="o", markersize=3.5, color="white", markeredgecolor=INK, markeredgewidth=0.6)
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([n - 0.5 for n in range(12)], labels=[])
    axes.set_yticks([n - 0.5 for n in range(12)], labels=[])
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.tick_params(length=0)


def main() -> None:
    """Write lines of results, as JSON, or the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "links", "speed", "bytes", "picture"))
    parser.add_argument("path", type=Path, nargs="?", help="what to write: not for speed and bytes, which print")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.what in ("speed", "bytes"):
        for line in speed() if arguments.what == "speed" else sizes():
            print(json.dumps(line, ensure_ascii=False), flush=True)
        return
    if arguments.path is None:
        parser.error(f"{arguments.what} writes a file; give its path")
    if arguments.what == "picture":
        draw(arguments.path)
        return
    lines = []
    for seed in range(arguments.seeds):
        for line in (compare if arguments.what == "compare" else links)(seed, arguments.epochs):
            print(json.dumps(line), flush=True)
            lines.append(line)
            arguments.path.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
