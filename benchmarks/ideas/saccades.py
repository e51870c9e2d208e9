"""Saccades against dense networks on Fashion-MNIST: accuracy, multiply-adds that are really done, and wall time.

    python -m benchmarks.ideas.saccades [--data fashion_mnist] [--epochs 10] [--seeds 3] [--train 20000] [--width 32]
        [--cost-weights 0.02 0.05 0.1 0.3] [--consistency-weights 0.3 1] [--plans 4/2 7/7] [--sequences 4 8]
        [--canvas 56] [--device cpu] [--threads 1] [--weights FOLDER] [--precision bfloat16]

One network (`saccade_cnn`) in all its forms: dense with 3×3 kernels at the full width, three quarters, half, a quarter
and an eighth of it, dense with 5×5, and with saccades at several weights of their cost and with several plans (the side
of a block, and how much smaller an image the gate sees); beside it the second form, which reads the K best blocks as a
sequence. `--canvas` puts each image at a random place of a larger black one, so that most of what is seen is empty.
With `--consistency-weights` each weight of the cost is trained with each of these too, for gates that decide alike on
corrupted images; such a step takes three times as long. Adam at 2e-3 along half a cosine, batches of 64, the cost's
weight rising along the first third. `--precision bfloat16` trains in mixed precision; tests and times are of float32.
Accuracy is that of the last weights on the test images, which nothing is chosen on. With `--weights` networks are kept
in a folder, and those that are there are measured, not trained again: use one folder for one set of other options.

Prints a JSON line for each run. Time is the least of several repetitions over the same 1 000 test images in batches of
100, the networks of a seed taking turns. `deleted_chosen` and `deleted_others` are accuracies after deletion of blocks
that the first gate chose, and of as many others. `corrupted_accuracy` is that on test images with noise, another
contrast and another brightness (`evocompress.ideas.saccades.corrupt`, one seed); `gate_agreement` the share of blocks,
on 1 000 images, whose decision is the same there; `chosen` the share that is not left out, as gates that choose nothing
agree too. The last line has, for each form with saccades, the cheapest dense network of at least its mean accuracy, in
multiply-adds and in time, and whether saccades win against it; where all dense networks are more accurate, or none is,
there is nothing to compare with. `benchmarks.ideas.saccade_layer` times one layer alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.checkpoint.weight_files import read_weights, write_weights
from evocompress.data import Examples, Splits, load
from evocompress.data.examples import SPLITS
from evocompress.errors import DataError, ModelError
from evocompress.ideas.saccades.consistency import corrupt, gate_agreement
from evocompress.ideas.saccades.cost import multiply_adds
from evocompress.ideas.saccades.maps import deletion_test, saccade_maps
from evocompress.ideas.saccades.networks import SaccadeCNN, saccade_sequence
from evocompress.support.threads import limit_threads
from evocompress.tasks.classification import evaluate

__all__ = ["milliseconds", "on_canvas", "one_seed", "summary", "train", "variants"]

_RATE, _BATCH, _RAMP = 2e-3, 64, 1 / 3
_TIMED, _REPEATS = 1000, 5
_CORRUPTION = 1
_SHARED = ("data", "network", "epochs", "train_images", "parameters")
_MEANS = ("deleted_chosen", "deleted_others", "corrupted_accuracy", "gate_agreement", "chosen")


def variants(
    data: Splits,
    width: int,
    cost_weights: Sequence[float],
    sequences: Sequence[int],
    consistency_weights: Sequence[float] = (),
    plans: Sequence[tuple[int, int]] = ((4, 2),),
) -> dict[str, dict[str, Any]]:
    """The options of each network, by the name that it has in the table."""
    shape = {"classes": data.classes, "in_channels": data.train.inputs.shape[1]}
    parts = [max(width * eighths // 8, 1) for eighths in (8, 6, 4, 2, 1)]
    table: dict[str, dict[str, Any]] = {
        f"dense 3×3, width {part}": {**shape, "width": part, "dense": 3} for part in parts
    }
    table[f"dense 5×5, width {width}"] = {**shape, "width": width, "dense": 5}
    for block, reduction in plans:
        for cost in cost_weights:
            saccades = {**shape, "width": width, "block": block, "reduction": reduction, "cost_weight": cost}
            name = f"saccades {block}/{reduction}, cost {cost:g}"
            table[name] = saccades
            table |= {f"{name}, consistency {w:g}": {**saccades, "consistency_weight": w} for w in consistency_weights}
    table |= {f"sequence, k {k}": {**shape, "width": 2 * width, "k": k} for k in sequences}
    return table


def on_canvas(data: Splits, side: int, seed: int = 0) -> Splits:
    """The same images (n, c, h, w), each at a random place of a black square of `side` pixels."""

    def placed(examples: Examples, number: int) -> Examples:
        count, channels, height, width = examples.inputs.shape
        draws = np.random.default_rng([seed, number])
        tops, lefts = draws.integers(0, side - height + 1, count), draws.integers(0, side - width + 1, count)
        canvas = examples.inputs.new_zeros((count, channels, side, side))
        for index, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            canvas[index, :, top : top + height, left : left + width] = examples.inputs[index]
        return dataclasses.replace(examples, inputs=canvas)

    if side < max(data.train.inputs.shape[2:]):
        raise DataError(f"a canvas of {side} pixels is smaller than images of {tuple(data.train.inputs.shape[2:])}")
    parts = {name: placed(getattr(data, name), number) for number, name in enumerate(SPLITS)}
    return dataclasses.replace(data, name=f"{data.name} on {side}×{side}", **parts)


def _plan(text: str) -> tuple[int, int]:
    block, reduction = text.split("/")
    return int(block), int(reduction)


def train(model: nn.Module, examples: Examples, epochs: int, seed: int, precision: str = "float32") -> None:
    """Train in place, with the network's own penalty where it has one.

    The library's trainer has no penalty that grows, which this one needs.
    """
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE, fused=True)
    steps = max(len(examples) // _BATCH, 1)
    model.train()
    for epoch in range(epochs):
        batches = torch.randperm(len(examples), generator=order).to(examples.inputs.device).tensor_split(steps)
        for step, index in enumerate(batches):
            progress = (epoch * steps + step) / (epochs * steps)
            optimiser.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * progress)) / 2
            images, labels = examples.batch(index)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            if isinstance(model, SaccadeCNN):
                # A gate that is paid for zeroes before the network knows anything closes for good.
                loss = loss + min(progress / _RAMP, 1.0) * model.penalty()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()


def milliseconds(models: Mapping[str, nn.Module], images: Tensor) -> dict[str, float]:
    """For 100 of the images, by the network's name: the least of several turns."""
    least = dict.fromkeys(models, math.inf)
    batches = torch.split(images, 100)
    with torch.inference_mode():
        for turn in range(_REPEATS + 1):
            for name, model in models.items():
                began = time.perf_counter()
                for batch in batches:
                    model(batch)
                if images.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first one warms up
                    least[name] = min(least[name], (time.perf_counter() - began) / len(images) * 1e5)
    return least


def one_seed(
    data: Splits,
    options: Mapping[str, dict[str, Any]],
    *,
    epochs: int,
    seed: int,
    device: str,
    weights: Path | None,
    precision: str = "float32",
) -> list[dict[str, Any]]:
    """Train all networks from one seed, and measure them together."""
    models: dict[str, nn.Module] = {}
    for name, network_options in options.items():
        torch.manual_seed(seed)
        model: nn.Module = (
            saccade_sequence(**network_options) if "k" in network_options else SaccadeCNN(**network_options)
        )
        models[name] = model.to(device)
        stem = name.replace("×", "x").replace("/", "-").replace(",", "").replace(" ", "_")
        kept = weights / f"{stem}_{seed}.safetensors" if weights is not None else None
        if kept is not None and kept.exists():
            model.load_state_dict(read_weights(kept))
            model.eval()
            continue
        train(model, data.train.to(device), epochs, seed, precision)
        if kept is not None:
            write_weights(model.state_dict(), kept)
    images, _ = data.audit.to(device).batch(slice(0, _TIMED))
    times = milliseconds(models, images)
    rows = []
    for name, model in models.items():
        tested = evaluate(model, data.audit, device)
        row = {"benchmark": "saccades", "data": data.name, "network": name, "device": device, "seed": seed}
        row |= {"epochs": epochs, "precision": precision, "train_images": len(data.train), "options": options[name]}
        row |= {"parameters": sum(p.numel() for p in model.parameters()), "test_accuracy": tested.accuracy}
        row |= {
            "multiply_adds": multiply_adds(model, images),
            "ms_per_100": times[name],
            **_deletion(model, data, seed),
            **_robustness(model, data, device),
        }
        rows.append(row)
    return rows


def _deletion(model: nn.Module, data: Splits, seed: int) -> dict[str, float]:
    device = next(model.parameters()).device
    try:
        accuracies = deletion_test(model, data.audit.to(device), seed)
    except ModelError:  # a dense network, or a gate that is open or closed everywhere
        return {}
    return {"deleted_chosen": accuracies.chosen, "deleted_others": accuracies.others}


def _robustness(model: nn.Module, data: Splits, device: str) -> dict[str, float]:
    """Accuracy on corrupted test images, and how constant the gates are."""
    images, labels = data.audit.batch(slice(None))
    corrupted = corrupt(images, torch.Generator().manual_seed(_CORRUPTION))
    row = {"corrupted_accuracy": evaluate(model, Examples(corrupted, labels), device).accuracy}
    pairs = list(zip(images[:_TIMED].to(device).split(250), corrupted[:_TIMED].to(device).split(250), strict=True))
    try:
        row["gate_agreement"] = statistics.mean(gate_agreement(model, *pair) for pair in pairs)
    except ModelError:  # a dense network
        return row
    choices = [reading.choices > 0 for one, _ in pairs for reading in saccade_maps(model, one).values()]
    return row | {"chosen": sum(int(mask.sum()) for mask in choices) / sum(mask.numel() for mask in choices)}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds by network, and for those with saccades how they compare with dense ones."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["network"], []).append(row)
    table = [_mean(group) for group in groups.values()]
    dense = [entry for entry in table if entry["network"].startswith("dense")]
    for entry in table:
        if entry in dense:
            continue
        accuracies = [other["test_accuracy"] for other in dense]
        if not min(accuracies) <= entry["test_accuracy"] <= max(accuracies):
            better = entry["test_accuracy"] > max(accuracies)
            entry["verdict"] = f"{'more' if better else 'less'} accurate than every dense network here: not comparable"
            continue
        equals = [other for other in dense if other["test_accuracy"] >= entry["test_accuracy"]]
        for what in ("multiply_adds", "ms_per_100"):
            best = min(equals, key=lambda other: float(other[what]))
            ratio = entry[what] / best[what]
            entry[f"{what}_against"] = best["network"]
            entry[f"{what}_ratio"] = round(ratio, 3)
            entry[f"{what}_verdict"] = "wins" if ratio < 1 else "loses"
    return table


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {what: rows[0][what] for what in _SHARED}
    entry["seeds"] = len(rows)
    for what in ("test_accuracy", "multiply_adds", "ms_per_100", *_MEANS):
        values = [float(row[what]) for row in rows if what in row]
        if values:
            entry[what] = round(statistics.mean(values), 5)
    accuracies = [float(row["test_accuracy"]) for row in rows]
    return entry | ({"test_accuracy_sd": round(statistics.stdev(accuracies), 5)} if len(rows) > 1 else {})


def main() -> None:
    """Train, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=None, help="training images; default all that are not held out")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--cost-weights", type=float, nargs="*", default=[0.02, 0.05, 0.1, 0.3])
    parser.add_argument("--consistency-weights", type=float, nargs="*", default=[], help="beside none, for each cost")
    plans = "BLOCK/REDUCTION of the saccade layers"
    parser.add_argument("--plans", type=_plan, nargs="+", default=[(4, 2)], metavar="BLOCK/REDUCTION", help=plans)
    parser.add_argument("--canvas", type=int, default=None, help="side of a black image that each image is put into")
    parser.add_argument("--sequences", type=int, nargs="*", default=[4, 8], help="K of the networks that read blocks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--weights", type=Path, default=None, help="a folder for the trained weights; what it has is not trained again"
    )
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    data = load(arguments.data, options={"train": arguments.train} if arguments.train else {})
    if arguments.canvas:
        data = on_canvas(data, arguments.canvas)
    chosen = [getattr(arguments, name) for name in ("width", "cost_weights", "sequences", "consistency_weights")]
    options = variants(data, *chosen, plans=arguments.plans)
    rows = []
    for seed in range(arguments.seeds):
        named = {name: getattr(arguments, name) for name in ("epochs", "device", "weights", "precision")}
        for row in one_seed(data, options, seed=seed, **named):
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(json.dumps({"benchmark": "saccades", "summary": summary(rows)}))


if __name__ == "__main__":
    main()
