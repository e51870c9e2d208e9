"""LinearConv conversion of a trained network: its cost before and after a little training; draws docs/linearconv.png.

    python -m benchmarks.ideas.linearconv_convert WEIGHTS.safetensors [--images 2000] [--steps 150] [--picture FILE.png]

WEIGHTS are those of a CIFAR-10 ResNet-20 of `evocompress.networks`. Its convolutions are replaced (`convert`, not the
first one) for a ladder of alpha, with coefficients of full rank and of a quarter of it. Accuracy is of the first
`--images` test images; then the alphas 0.75 and 0.5 are trained for `--steps` batches of 64 (SGD, 0.02, half a cosine).
Prints one JSON line for each network; parameters are those that are trained, without running statistics and masks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from evocompress.data import Splits, load
from evocompress.ideas.linearconv import LinearConv2d, compare, convert
from evocompress.networks import build
from evocompress.support.optional_libraries import needs_extra
from evocompress.support.threads import limit_threads
from evocompress.tasks.classification import evaluate
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["draw", "rows"]

_LADDER = (1.0, 0.9, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4)
_TRAINED = (0.75, 0.5)
_RANKS = (None, 0.25)
_BATCH = 64
_GENES = TrainingGenes(learning_rate=0.02, batch_size=_BATCH, optimiser="sgd", schedule="cosine")


def rows(network: nn.Module, data: Splits, steps: int) -> Sequence[dict[str, Any]]:
    """Accuracy of every converted network, `trained` 0 or `steps` batches."""
    table = []
    for rank in _RANKS:
        for alpha in _LADDER:
            if rank and alpha == 1:
                continue
            converted = convert(network, alpha, rank)
            layers = [row for row in compare(network, converted) if not row.reason]
            row: dict[str, Any] = {
                "benchmark": "linearconv_convert",
                "alpha": alpha,
                "rank": rank or 1.0,
                "parameters": sum(p.numel() for p in converted.parameters()),
                "parameters_before": sum(p.numel() for p in network.parameters()),
                "relative_error": sum(layer.relative_error for layer in layers) / len(layers),
            }
            results = [{"trained": 0, "test_accuracy": evaluate(converted, data.audit).accuracy}]
            if alpha in _TRAINED and steps:
                train(converted, data.train, _GENES, epochs=1, seed=0)
                results.append({"trained": steps, "test_accuracy": evaluate(converted, data.audit).accuracy})
            for result in results:
                table.append(row | result)
                print(json.dumps(table[-1]), flush=True)
    return table


def draw(network: nn.Module, points: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over parameters, and the first layer's filters before and after (half of them primary)."""
    with needs_extra("report"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    left, right = parts
    axes = left.subplots()
    for rank, colour in ((1.0, "#2a6fb0"), (0.25, "#c4622d")):
        name = "full rank" if rank == 1 else f"rank {rank:g}"
        for trained, style in ((0, "o-"), (1, "^:")):
            curve = [p for p in points if p["rank"] == rank and bool(p["trained"]) == bool(trained)]
            text = (
                f"{name}, {curve[0]['trained']} batches of training" if trained and curve else f"{name}, as converted"
            )
            share = [p["parameters"] / p["parameters_before"] for p in curve]
            axes.plot(share, [100 * p["test_accuracy"] for p in curve], style, color=colour, label=text)
    whole = [p for p in points if p["rank"] == 1 and not p["trained"]]
    for p in whole:
        place = p["parameters"] / p["parameters_before"], 100 * p["test_accuracy"]
        axes.annotate(f"{p['alpha']:g}", place, (4, -10), textcoords="offset points", fontsize=8, color="#2a6fb0")
    axes.set(
        xlabel="share of the parameters", ylabel="test accuracy, %", title="ResNet-20, converted (α at the points)"
    )
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    _filters(network, right)
    figure.savefig(path, dpi=130)


def _filters(network: nn.Module, figure: Any) -> None:
    """The first layer's filters as colour images: the primary ones, the others, and what the primaries make of them."""
    first = convert(network.get_submodule("conv1"), 0.5, skip_first=False)
    assert isinstance(first, LinearConv2d) and first.is_primary is not None
    exact, rebuilt = network.get_parameter("conv1.weight").detach(), first.weight.detach()
    limit = 2 * exact.abs().max()
    rows = {"primary": exact[first.is_primary], "others": exact[~first.is_primary]}
    rows["others,\ncombined"] = rebuilt[~first.is_primary]
    grid = figure.subplots(3, 8)
    for axes, (title, bank) in zip(grid, rows.items(), strict=True):
        for axis, kernel in zip(axes, bank, strict=True):
            axis.imshow((kernel / limit + 0.5).permute(1, 2, 0).clip(0, 1).numpy())
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(title, fontsize=8)
    figure.suptitle("first layer, 8 of 16 filters primary", fontsize=11)


def main() -> None:
    """Convert, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--picture", type=Path, default=None)
    arguments = parser.parse_args()
    limit_threads(1)
    network = build("resnet20")
    network.load_state_dict(load_file(arguments.weights))
    data = load("cifar10", options={"train": max(arguments.steps, 1) * _BATCH})
    few = data.audit.take(torch.arange(arguments.images))
    data = Splits(data.name, data.classes, data.train, data.validation, few)
    points = rows(network.eval(), data, arguments.steps)
    if arguments.picture:
        draw(network, points, arguments.picture)


if __name__ == "__main__":
    main()
