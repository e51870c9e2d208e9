"""The rate term: does its estimate hit the file, what do its contexts gain, and what does a step cost?

    python -m benchmarks.training.rate_model [--seeds 3] [--epochs 30] [--lenet-train 12000] [--lenet-epochs 6]

- Lineages of three segments under a rising λ with the rate model as it is, with a factorised density (no contexts; the
  same widths and odds for all weights of a tensor), and with drawn rounding: bytes of the file, audit accuracy, and the
  estimate of its symbols against the bytes that they take in the file. `digits_cnn` on digits, and LeNet-5-Caffe on a
  part of Fashion-MNIST where it is there.
- CPU time of a training step with the term, in both of its phases and with either rounding, as a multiple of a plain
  one (medians, one thread).

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from evocompress.data import Splits
    from evocompress.training.quantised_training import Rounding

RISING = (0.2, 0.6, 1.8)
#: Share of the training in which noise stands for the quantiser, by rounding.
NOISE: dict[Rounding, float] = {"free": 0.7, "drawn": 0.3}
PREFIXES: dict[Rounding, str] = {"free": "", "drawn": "drawn "}
STEPS = {"lenet5_caffe": (1, 28, 28), "resnet20": (3, 32, 32), "digits_cnn": (1, 8, 8)}


def segment(
    network: nn.Module,
    splits: Splits,
    rate_weight: float,
    epochs: int,
    grid: Any,
    *,
    contexts: bool,
    rounding: Rounding,
    seed: int,
) -> Any:
    """Train as a segment does; the rate term at its end."""
    import torch

    from evocompress import RateTerm

    rate = RateTerm(
        network, rate_weight, examples=len(splits.train), learning_rate=2e-3, grid=grid, rounding=rounding,
        noise_share=NOISE[rounding], seed=seed,
    )  # fmt: skip
    if not contexts:
        rate.rate_model.lead.requires_grad_(False).zero_()
    optimiser = torch.optim.Adam(rate.parameter_groups())
    generator, batch, step = torch.Generator().manual_seed(seed), 64, 0
    per_epoch = -(-len(splits.train) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * per_epoch)
    network.train()
    for _ in range(epochs):
        for places in torch.split(torch.randperm(len(splits.train), generator=generator), batch):
            progress = step / (epochs * per_epoch)
            rate.rate_weight = rate_weight * (min(1.0, progress / 0.3) if not grid else 1.0)
            inputs, labels = splits.train.batch(places)
            optimiser.zero_grad()
            with rate.quantised(progress):
                loss = torch.nn.functional.cross_entropy(network(inputs), labels) + rate.loss()
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            step += 1
    return rate


def lineage(
    model: str, splits: Splits, epochs: int, seed: int, *, contexts: bool, rounding: Rounding
) -> list[dict[str, Any]]:
    """Three segments: of each the file, its accuracy, and the estimate over what the symbols take in the file."""
    from evocompress import Recipe
    from evocompress.checkpoint.grid import grid_of
    from evocompress.codecs import inspect
    from evocompress.networks import build
    from evocompress.tasks.classification import Classification
    from evocompress.tasks.measure import measure

    network, rows = build(model, seed=seed), []
    grid: dict[str, float] = {}
    for place, rate_weight in enumerate(RISING):
        rate = segment(
            network, splits, rate_weight, epochs, grid, contexts=contexts, rounding=rounding, seed=10 * seed + place
        )
        data = rate.pack(Recipe(coder="mixing", names=False, shapes=False))
        grid = grid_of(data, network.state_dict())
        infos, _ = inspect(data, network.state_dict())
        symbols = sum(info.payload_bytes for info in infos)
        quality = measure(Classification(), network, splits.audit).value
        ratio = rate.estimate() / symbols
        rows.append({"nbytes": len(data), "accuracy": round(quality, 4), "estimate_over_file": round(ratio, 4)})
    return rows


def step_seconds(model: str, progress: float | None = None, rounding: Rounding = "free", steps: int = 12) -> float:
    """Median CPU time of a training step at batch 128: plain, or with the term at a progress of the training."""
    import torch

    from evocompress import RateTerm
    from evocompress.networks import build

    network = build(model, seed=0)
    inputs, labels = torch.rand(128, *STEPS[model]), torch.randint(0, 10, (128,))
    rate = None if progress is None else RateTerm(network, 0.3, examples=50_000, rounding=rounding)
    optimiser = torch.optim.Adam(network.parameters() if rate is None else rate.parameter_groups(), fused=True)
    seconds = []
    for _ in range(steps):
        begin = time.process_time()
        optimiser.zero_grad()
        if rate is None or progress is None:
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        else:
            with rate.quantised(progress):
                loss = torch.nn.functional.cross_entropy(network(inputs), labels) + rate.loss()
                loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds)


def fashion(train: int) -> Splits | None:
    """A part of Fashion-MNIST, or None where it is not there."""
    from evocompress.data import load
    from evocompress.errors import DataError

    try:
        return load("fashion_mnist", seed=0, options={"train": train})
    except DataError:
        return None


def main() -> None:
    """Measure all."""
    import torch

    from evocompress.data import load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lenet-train", type=int, default=12_000)
    parser.add_argument("--lenet-epochs", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    part = fashion(options.lenet_train)
    files: dict[str, Any] = {}
    kinds: dict[str, dict[str, Any]] = {
        "contexts": {"contexts": True, "rounding": "free"},
        "factorised": {"contexts": False, "rounding": "free"},
        "drawn": {"contexts": True, "rounding": "drawn"},
    }
    for kind, how in kinds.items():
        files[f"digits_cnn, {kind}"] = [
            lineage("digits_cnn", load("digits", seed=seed), options.epochs, seed, **how)
            for seed in range(options.seeds)
        ]
        if part is not None:
            files[f"lenet5_caffe, {kind}"] = [lineage("lenet5_caffe", part, options.lenet_epochs, 0, **how)]
    steps = {}
    for model in STEPS:
        plain = step_seconds(model)
        steps[model] = {"plain_ms": round(1e3 * plain, 2)} | {
            f"{prefix}{phase}": round(step_seconds(model, progress, rounding) / plain, 3)
            for rounding, prefix in PREFIXES.items()
            for phase, progress in (("noise", 0.2), ("rounding", 0.9))
        }
    print(json.dumps({"benchmark": "rate_model", "files": files, "steps": steps}))


if __name__ == "__main__":
    main()
