"""LinearConv's table: the paper's networks with plain, full-rank and low-rank convolutions, trained from scratch.

    python -m benchmarks.ideas.linearconv_networks [--networks base_cnn vgg11] [--data fashion_mnist cifar10 mnist]
        [--variants plain full low] [--epochs 10] [--seeds 3] [--schedule cosine] [--train 5000] [--threads 1]
        [--precision bfloat16]

As Kahatapitiya and Rodrigo (WACV 2021) trained them: Adam at 1e-3, batches of 50, 0.01 times the correlation loss with
every tenth batch, crops and flips on CIFAR-10, no layer left out. They did so for 250 epochs at a constant rate,
mirrored Fashion-MNIST, and padded with black where we pad with the mean. `--schedule constant` is theirs; cosine
reaches more where epochs are few. All training images that are not held out are used, unless `--train` says how many.
`--precision bfloat16` trains in mixed precision; the networks are tested in float32. Accuracy is that of the last
weights on the 10 000 test images, which nothing is chosen on.

Prints one JSON line for each run, and at the end one for each variant, with mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.data import Examples, Splits, load
from evocompress.data.augmentation import augment
from evocompress.ideas.linearconv import correlation_loss, fold
from evocompress.networks import build
from evocompress.support.threads import limit_threads
from evocompress.tasks.classification import evaluate

__all__ = ["NETWORKS", "VARIANTS", "one_run", "summary"]

NETWORKS = ("base_cnn", "vgg11")
VARIANTS: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "full": {"alpha": 0.5},
    "low": {"alpha": 0.5, "rank": 0.05},  # the share that makes the paper's numbers of parameters
}
_RATE, _BATCH = 1e-3, 50
_LOSS_EVERY = 10


def one_run(
    network: str,
    data: Splits,
    variant: str,
    *,
    epochs: int,
    seed: int,
    schedule: str = "cosine",
    device: str = "cpu",
    precision: str = "float32",
) -> dict[str, Any]:
    """Train one network and test it, as it is and folded."""
    began = time.perf_counter()
    shape = {"classes": data.classes, "in_channels": data.train.inputs.shape[1]}
    model = build(network, shape | VARIANTS[variant], seed=seed).to(device)
    loss = _train(model, data.train.to(device), epochs, seed, schedule, precision)
    tested = evaluate(model, data.audit, device)
    folded = evaluate(fold(model), data.audit, device)
    return {
        "benchmark": "linearconv_networks",
        "network": network,
        "data": data.name,
        "variant": variant,
        **VARIANTS[variant],
        "seed": seed,
        "epochs": epochs,
        "schedule": schedule,
        "precision": precision,
        "train_images": len(data.train),
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "folded_test_accuracy": folded.accuracy,
        "train_loss": loss,
        "seconds": time.perf_counter() - began,
    }


def _train(model: nn.Module, examples: Examples, epochs: int, seed: int, schedule: str, precision: str) -> float:
    """Train in place; the mean cross-entropy of the last epoch.

    The library's trainer adds the correlation to every step, and this one only to some, as it is slow to compute.
    """
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE, fused=True)
    steps = max(len(examples) // _BATCH, 1)
    total = torch.zeros(())
    model.train()
    for epoch in range(epochs):
        total = torch.zeros((), device=examples.inputs.device)
        batches = torch.randperm(len(examples), generator=order).to(examples.inputs.device).tensor_split(steps)
        for step, index in enumerate(batches):
            if schedule == "cosine":
                progress = (epoch * steps + step) / (epochs * steps)
                optimiser.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * progress)) / 2
            total += _step(model, optimiser, examples, index, order, step, precision)
    return total.item() / len(examples)


def _step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    index: Tensor,
    order: torch.Generator,
    step: int,
    precision: str,
) -> Tensor:
    images, labels = examples.batch(index)
    images = augment(images, examples.augmentation, order)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(images)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    whole = loss + correlation_loss(model) if step % _LOSS_EVERY == _LOSS_EVERY - 1 else loss
    optimiser.zero_grad()
    whole.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.detach() * len(index)


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of the test accuracy over the seeds of each network, data set and variant."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["data"], row["variant"]), []).append(row)
    table = []
    for (network, data, variant), group in groups.items():
        values = [float(row["test_accuracy"]) for row in group]
        entry: dict[str, Any] = {"network": network, "data": data, "variant": variant}
        entry |= {"parameters": group[0]["parameters"], "epochs": group[0]["epochs"], "seeds": len(group)}
        entry |= {"test_accuracy": round(statistics.mean(values), 5)}
        entry |= {"test_accuracy_sd": round(statistics.stdev(values), 5)} if len(values) > 1 else {}
        table.append(entry)
    return table


def _loaded(name: str, train: int | None) -> Splits:
    options: dict[str, Any] = {"train": train} if train else {}
    if name == "cifar10":
        options["augmentation"] = "crop-flip"
    return load(name, options=options)


def main() -> None:
    """Run every combination that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["base_cnn"], choices=NETWORKS)
    parser.add_argument("--data", nargs="+", default=["fashion_mnist", "cifar10"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--schedule", default="cosine", choices=["cosine", "constant"])
    parser.add_argument("--train", type=int, default=None, help="training images; default all that are not held out")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    rows = []
    for name in arguments.data:
        data = _loaded(name, arguments.train)
        for seed in range(arguments.seeds):  # seeds outermost: what is there after half of the time is whole too
            for network in arguments.networks:
                for variant in arguments.variants:
                    names = ("epochs", "schedule", "device", "precision")
                    options = {name: getattr(arguments, name) for name in names}
                    row = one_run(network, data, variant, seed=seed, **options)
                    print(json.dumps(row), flush=True)
                    rows.append(row)
    print(json.dumps({"benchmark": "linearconv_networks", "summary": summary(rows)}))


if __name__ == "__main__":
    main()
