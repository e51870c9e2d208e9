"""The same packing on networks that it was not tuned on: LeNet-5, a recurrent one, a sentence transformer.

    python -m benchmarks.pack.others --work DIR --peer-python NNCODEC/bin/python [--only lenet5 rows minilm] [--fresh …]

Presets and code are those of resnet20.py; only the ladders of λ differ, since λ is in the unit of squared
weights. NNCodec is run over a small grid with its trellis. Compared are bytes at equal quality, between the envelope of
NNCodec's grid on the test data and monotone regressions of ours. The transformer needs $MINILM (minilm.py).
Prints one JSON line a network.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pack import minilm, small
from benchmarks.pack.curves import compare, envelope, pooled
from benchmarks.pack.peer import Peer, add_peer_options
from benchmarks.pack.runs import ROOT, Ledger, PackSetting, code, commit, packed_and_judged, sha256
from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.weight_files import read_weights
from evocompress.errors import DataError

Row = dict[str, Any]
PRESETS = ("fast", "best")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network, where its weights come from, how its files are judged, and the settings that span its sizes.

    `losses` are what is compared at: how much a metric may lie below (accuracy, cosine) or above (cross-entropy) the
    uncompressed network's.
    """

    name: str
    weights: Callable[[Path], Path]
    judge: Callable[[Path], Row]
    model: str
    data: str
    losses: dict[str, tuple[float, ...]]
    data_free: tuple[float, ...]
    calibrated: tuple[float, ...]
    qps: tuple[int, ...]
    grid: tuple[str, ...] = ("--dq", "1", "--rd-lambda", "0", "1", "--opt-qp", "0", "1")
    seeds: int = 3
    calibrated_preset: str = "best"


def _small(name: str, model: str, epochs: int, **settings: Any) -> Subject:
    return Subject(
        name,
        functools.partial(small.trained, model, epochs),
        functools.partial(small.judge, model),
        model,
        "fashion_mnist",
        {"accuracy": (0.0025, 0.005, 0.01), "cross_entropy": (0.005, 0.01, 0.03)},
        **settings,
    )


SUBJECTS = (
    _small(
        "lenet5", "lenet5_caffe", 6,
        data_free=(5e-5, 1e-4, 2e-4, 3.5e-4, 6e-4, 1e-3, 1.5e-3),
        calibrated=(3e-5, 6e-5, 1.2e-4, 2.5e-4, 5e-4, 1e-3), qps=(-28, -25, -22, -20, -18, -16),
    ),
    _small(
        "rows", small.RECURRENT, 4,
        data_free=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4),
        calibrated=(2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4), qps=(-32, -30, -28, -26, -24, -22),
    ),
    Subject(
        "minilm", minilm.checkpoint, minilm.judge,
        "benchmarks.pack.minilm:network", "benchmarks.pack.minilm:sentences_to_pack",
        {"cosine": (0.005, 0.01, 0.02, 0.05), "cosine_p1": (0.01, 0.02, 0.05)},
        data_free=(2e-6, 5e-6, 1e-5, 2e-5, 5e-5), calibrated=(3e-6, 1e-5, 3e-5, 1e-4), qps=(-32, -29, -26, -23),
        grid=("--dq", "1", "--rd-lambda", "1", "--opt-qp", "0", "1"), seeds=1, calibrated_preset="balanced",
    ),
)  # fmt: skip


def quality(metric: str, value: float, whole: float) -> float:
    """A metric as a number that is larger for better networks, and grows about linearly with log bytes.

    For cosines that is -log10 of what they lack to the original network's; for the others the value, with its sign.
    """
    if metric.startswith("cosine"):
        return -math.log10(max(whole - value, 1e-9))
    return value if metric == "accuracy" else -value


class Bench:
    """One subject and its ledger."""

    def __init__(self, subject: Subject, work: Path, fresh: Sequence[str]) -> None:
        self.subject = subject
        self.work = work / subject.name
        self.weights = subject.weights(self.work)
        self.ledger = Ledger(self.work / "ledger.jsonl", frozenset(fresh))
        self._sha = sha256(self.weights)

    def whole(self) -> Row:
        """The checkpoint itself."""
        return self.ledger.get("float", self._sha, lambda: self.subject.judge(self.weights))

    def peer(self, peer: Peer) -> list[Row]:
        """NNCodec's settings."""
        subject, version = self.subject, peer.version

        def judged(setting: Any) -> Row:
            key = f"nncodec {version} {setting.name} {self._sha}"
            return self.ledger.get("peer", key, lambda: subject.judge(setting.decoded))

        grid = peer.grid(self.weights, self.work / "nncodec", subject.qps, subject.grid)
        return [{"setting": setting.name, "bytes": setting.nbytes, **judged(setting)} for setting in grid]

    def ours(self, part: str, preset: str, weights: Sequence[float], seed: int | None) -> list[Row]:
        """One curve: a file at each λ."""
        return [self._one(part, preset, weight, seed) for weight in weights]

    def _one(self, part: str, preset: str, rate_weight: float, seed: int | None) -> Row:
        subject = self.subject
        setting = PackSetting(preset, rate_weight)
        if seed is not None:
            setting = dataclasses.replace(setting, network=subject.model, data=subject.data, seed=seed)
        row = self.ledger.get(
            part,
            f"pack {setting} {self._sha}",
            lambda: packed_and_judged(self.weights, self.work / "ours", setting, subject.judge),
        )
        return {"preset": preset, "rate_weight": rate_weight, "seed": seed, **row}

    def methods(self, parts: Sequence[str]) -> dict[str, list[Row]]:
        """Files of ours by method."""
        methods: dict[str, list[Row]] = {}
        if "data-free" in parts:
            for preset in PRESETS:
                methods[f"{preset}, data-free"] = self.ours("data-free", preset, self.subject.data_free, None)
        if "calibrated" in parts and self._takes_data():
            seeds = range(self.subject.seeds)
            preset = self.subject.calibrated_preset
            curves = [self.ours("calibrated", preset, self.subject.calibrated, seed) for seed in seeds]
            methods[f"{preset}, calibrated"] = [row for curve in curves for row in curve]
        return methods

    def _takes_data(self) -> bool:
        if self.subject.name != "minilm":
            return True
        try:
            minilm.sentences_to_pack(0)
        except DataError as error:
            print(f"{self.subject.name} is not calibrated: {error}", file=sys.stderr)
            return False
        return True


def compared(subject: Subject, whole: Row, rows: Sequence[Row], peer: Sequence[Row]) -> Row:
    """Bytes at equal quality, and for the cosines the quality at the peer's bytes."""
    result: Row = {}
    for metric, losses in subject.losses.items():

        def points(rows: Sequence[Row], metric: str = metric) -> list[tuple[float, float]]:
            return [(row["bytes"], quality(metric, row[metric], whole[metric])) for row in rows]

        seeds = dict.fromkeys(row["seed"] for row in rows)
        curves = [pooled(points([row for row in rows if row["seed"] == seed])) for seed in seeds]
        sign = 1 if metric == "cross_entropy" else -1
        levels = [quality(metric, whole[metric] + sign * loss, whole[metric]) for loss in losses]
        comparison = compare(envelope(points(peer)), curves, levels)
        for row, loss in zip(comparison["at"], losses, strict=True):
            row["loss"] = loss
        result[metric] = comparison
    return result


def cosines_at(rows: Sequence[Row], peer: Sequence[Row], metric: str) -> list[list[float]]:
    """At the bytes of each file on the peer's front: [bytes, its cosine, ours], ours interpolated over log bytes."""

    ordered = sorted(rows, key=lambda row: row["bytes"])
    sizes = [math.log(row["bytes"]) for row in ordered]
    lacks = [math.log(max(1 - row[metric], 1e-9)) for row in ordered]
    front = envelope((row["bytes"], row[metric]) for row in peer)
    inside = [(size, theirs) for size, theirs in front if sizes[0] <= math.log(size) <= sizes[-1]]
    return [[size, theirs, round(1 - math.exp(np.interp(math.log(size), sizes, lacks)), 5)] for size, theirs in inside]


def measure(subject: Subject, options: argparse.Namespace) -> Row:
    """One network, all methods."""
    bench = Bench(subject, options.work, options.fresh)
    whole = bench.whole()
    peer = bench.peer(Peer(options.peer_python, options.peer_script)) if options.peer_python else []
    methods = bench.methods(options.parts)
    return {
        "benchmark": "pack_others",
        "network": subject.name,
        "float": whole,
        "float32_bytes": float32_bytes(read_weights(bench.weights)),
        "peer": peer,
        "methods": {
            name: {
                "against_peer": compared(subject, whole, rows, peer),
                "at_equal_bytes": {
                    metric: cosines_at(rows, peer, metric) for metric in subject.losses if metric.startswith("cosine")
                },
                "files": rows,
            }
            for name, rows in methods.items()
        },
        "commits": bench.ledger.measured_with(["peer", "data-free", "calibrated"]),
        "code": code(),
        "commit": commit(),
    }


def main() -> None:
    """Measure and print."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks" / "others")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--parts", nargs="+", default=["data-free", "calibrated"])
    parser.add_argument("--fresh", nargs="+", default=[])
    add_peer_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work = options.work.resolve()
    for subject in SUBJECTS:
        if subject.name == "minilm" and minilm.folder() is None:
            print("no $MINILM: the transformer is skipped", file=sys.stderr)
        elif subject.name in options.only:
            print(json.dumps(measure(subject, options)), flush=True)


if __name__ == "__main__":
    main()
