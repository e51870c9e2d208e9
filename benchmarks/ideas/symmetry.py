"""The numbers of docs/symmetry.md: snapping as a codec, as a constraint, and step by step.

    python -m benchmarks.ideas.symmetry codec W.safetensors
    python -m benchmarks.ideas.symmetry constraint [--seeds 2]
    python -m benchmarks.ideas.symmetry freeze [--seeds 7] [--fractions 0.9 1.0]

`codec` scores codecs on a checkpoint's convolutions: squared error + λ·bits under each of two entropy coders, and how
much less that is than `deadzone`'s, in per cent; "best of 2" chooses deadzone or dct for each tensor, "best of 4" has
symmetry and symmetry+dct+deadzone too. `constraint` trains a small network of four 3×3 convolutions on the digits (30
epochs of Adam at 5e-3, 10 at 1e-3), free or with symmetric layers, and finds the smallest of 15 files that still has
94 %. `freeze` trains one (40 and 8 epochs), snaps its kernels at once, in 4 or in 12 steps, and fine-tunes for 12
epochs at 2e-3 in all. Accuracy is that on validation and audit examples. Prints one JSON line for each result.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evocompress import Recipe, Rule, pack, unpack
from evocompress.checkpoint.weight_files import read_weights
from evocompress.codecs import Cost, parse_codec, try_codec
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.data import Splits, load
from evocompress.ideas.symmetry.layers import make_radial, make_separable_1d, release
from evocompress.ideas.symmetry.snap import FrozenKernels, freeze_and_fine_tune
from evocompress.support.threads import limit_threads
from evocompress.tasks.classification import evaluate

__all__ = ["codec_rows", "constraint_rows", "freeze_rows"]

_RATE_WEIGHTS = (1e-4, 1e-3, 3e-3, 1e-2)
_CODECS = ("deadzone", "symmetry", "dct", "denoise(strength=0.5)+deadzone", "symmetry+dct+deadzone")
_CHOICES = {"best of 2": ("deadzone", "dct"), "best of 4": ("deadzone", "dct", "symmetry", "symmetry+dct+deadzone")}
_CODERS: tuple[CoderName, ...] = ("classes", "mixing")
_BATCH = 64
_TUNED = 12  # epochs after snapping, in all
_STEPS = (1, 4, 12)
_ENOUGH = 0.94


def codec_rows(weights: Path) -> Iterator[dict[str, Any]]:
    """A row for each λ, entropy coder and codec: bytes, squared error, score relative to deadzone's."""
    arrays = [tensor.double().numpy() for tensor in read_weights(weights).values() if tensor.ndim == 4]
    for rate_weight in _RATE_WEIGHTS:
        for coder in _CODERS:
            state, cost = CODERS[coder].state(), Cost(rate_weight)
            trials = {name: [try_codec(parse_codec(name), x, cost, state) for x in arrays] for name in _CODECS}
            for title, names in _CHOICES.items():
                rows = zip(*(trials[name] for name in names), strict=True)
                trials[title] = [min(row, key=lambda trial: trial.score) for row in rows]
            plain = sum(trial.score for trial in trials["deadzone"])
            for name, coded in trials.items():
                yield {
                    "rate_weight": rate_weight,
                    "coder": coder,
                    "codec": name,
                    "bytes": round(sum(trial.bits for trial in coded) / 8),
                    "error": round(sum(trial.distortion for trial in coded), 2),
                    "score_percent": round(100 * (sum(trial.score for trial in coded) / plain - 1), 2),
                }


class _Network(nn.Module):
    """Four 3×3 convolutions of one and two times `width` filters, the mean over the image, one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.c, self.d = nn.Conv2d(width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.f = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.b(self.a(x).relu()).relu(), 2)
        scores: Tensor = self.f(self.d(self.c(x).relu()).relu().mean((2, 3)))
        return scores


def _train(
    model: nn.Module, data: Splits, optimiser: torch.optim.Optimizer, epochs: int, generator: torch.Generator
) -> None:
    # Not the library's trainer: the numbers in the notes are of this order of examples, and of its last short batch.
    images, labels = data.train.batch(torch.arange(len(data.train)))
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()


def _trained(model: nn.Module, data: Splits, plan: Sequence[tuple[int, float]], seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for epochs, rate in plan:
        _train(model, data, torch.optim.Adam(model.parameters(), lr=rate), epochs, generator)
    return model


def _accuracy(model: nn.Module, data: Splits) -> float:
    judged = [evaluate(model, part) for part in (data.validation, data.audit)]
    return sum(part.correct for part in judged) / sum(part.total for part in judged)


def _radial(model: _Network) -> None:
    make_radial(model.b)
    make_radial(model.d)


def _one_dimensional(model: _Network) -> None:
    make_separable_1d(model.b, "x")
    make_separable_1d(model.c, "y")
    make_separable_1d(model.d, "x")


def _smallest(state: dict[str, Tensor], codecs: tuple[str, ...], data: Splits) -> float:
    """Bytes of the smallest of 15 files that reaches the accuracy; NaN where none does."""
    sizes = []
    for rate_weight in np.geomspace(3e-5, 1e-1, 15):
        packed, decoded = pack(state, Recipe(float(rate_weight), (Rule(codecs=codecs),))), _Network(12)
        decoded.load_state_dict(unpack(packed))
        if _accuracy(decoded, data) >= _ENOUGH:
            sizes.append(len(packed))
    return min(sizes, default=math.nan)


def constraint_rows(seeds: int) -> Iterator[dict[str, Any]]:
    """A row for each kind of network and seed: accuracy, and bytes at 94 % without and with symmetry as a candidate."""
    data = load("digits")
    kinds: dict[str, Callable[[_Network], None] | None] = {
        "free": None, "radial": _radial, "one-dimensional": _one_dimensional,
    }  # fmt: skip
    for kind, constrained in kinds.items():
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = _Network(12)
            if constrained is not None:
                constrained(model)
            _trained(model, data, ((30, 5e-3), (10, 1e-3)), seed)
            release(model)
            row: dict[str, Any] = {"kind": kind, "seed": seed, "accuracy": round(_accuracy(model, data), 4)}
            for codecs in (("deadzone", "dct"), ("deadzone", "dct", "symmetry")):
                row["bytes, " + "+".join(codecs)] = _smallest(model.state_dict(), codecs, data)
            yield row


def _after_snapping(model: nn.Module, data: Splits, fractions: Sequence[float], seed: int) -> float:
    tuned, generator = copy.deepcopy(model), torch.Generator().manual_seed(100 + seed)
    optimiser, attached = torch.optim.Adam(tuned.parameters(), lr=2e-3), list[Callable[[], None]]()

    def tune(frozen: FrozenKernels) -> None:
        if not attached:
            attached.append(frozen.attach(optimiser))
        _train(tuned, data, optimiser, _TUNED // len(fractions), generator)

    freeze_and_fine_tune(tuned, fractions, tune)
    return _accuracy(tuned, data)


def freeze_rows(seeds: int, fractions: Sequence[float]) -> Iterator[dict[str, Any]]:
    """A row for each fraction that is frozen in the end: accuracies in per cent, mean and sd over the seeds."""
    data, accuracies = load("digits"), dict[tuple[float, int], list[float]]()
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = _trained(_Network(8), data, ((40, 5e-3), (8, 1e-3)), seed)
        accuracies.setdefault((0.0, 0), []).append(_accuracy(model, data))
        for fraction in fractions:
            for steps in _STEPS:
                plan = [fraction * step / steps for step in range(1, steps + 1)]
                accuracies.setdefault((fraction, steps), []).append(_after_snapping(model, data, plan, seed))
    for (fraction, steps), values in accuracies.items():
        less = [100 * (a - b) for a, b in zip(values, accuracies.get((fraction, 1), values), strict=True)]
        yield {
            "frozen": fraction,
            "steps": steps,
            "seeds": seeds,
            "accuracy": _mean_and_sd([100 * value for value in values]),
            "points_less_at_once": _mean_and_sd(less),
        }


def _mean_and_sd(values: Sequence[float]) -> list[float]:
    return [round(statistics.fmean(values), 2), round(statistics.stdev(values), 2) if len(values) > 1 else 0.0]


def main() -> None:
    """Print the lines of one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("codec").add_argument("weights", type=Path)
    parts.add_parser("constraint").add_argument("--seeds", type=int, default=2)
    freeze = parts.add_parser("freeze")
    freeze.add_argument("--seeds", type=int, default=7)
    freeze.add_argument("--fractions", type=float, nargs="+", default=[0.9, 1.0])
    arguments = parser.parse_args()
    limit_threads(1)
    rows = {
        "codec": lambda: codec_rows(arguments.weights),
        "constraint": lambda: constraint_rows(arguments.seeds),
        "freeze": lambda: freeze_rows(arguments.seeds, arguments.fractions),
    }[arguments.part]()
    for row in rows:
        print(json.dumps({"benchmark": f"symmetry_{arguments.part}", **row}), flush=True)


if __name__ == "__main__":
    main()
