"""Whole files of ResNet-20 for CIFAR-10 against NNCodec's (ISO/IEC 15938-17) tuned front, at equal test quality.

    python -m benchmarks.pack.resnet20 --work DIR --peer-python NNCODEC/bin/python [--parts …] [--fresh PART …]

Seven parts, in one run: `peer`, NNCodec over a grid of its settings; `data-free`, every preset over a ladder of λ;
`noise`, the same with the network but without data, from images of noise; `calibrated`, over a ladder and several seeds
of the calibration; `fitted`, the same with confidence fitted; `allocated`, with rounds of allocation too;
`baselines`, what users do today. Every file is decoded and evaluated once on the test
images, and on held-out training images that no calibration sees. The peer's curve is the envelope of its whole grid on
the test images themselves, its luck included; ours are monotone regressions (curves.py), one a seed, so that no
lucky file counts. What was measured lies in DIR/ledger.jsonl and is not measured again, whatever code it was measured
with, unless --fresh names its part. Prints one JSON line, and with --picture draws all points.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch

from benchmarks.pack.baselines import baselines
from benchmarks.pack.cifar10 import HELD_OUT, WEIGHTS
from benchmarks.pack.curves import Curve, Point, compare, envelope, pooled
from benchmarks.pack.data import Judge
from benchmarks.pack.peer import Peer, add_peer_options
from benchmarks.pack.runs import ROOT, Ledger, PackSetting, code, commit, packed_and_judged, sha256

PARTS = ("peer", "data-free", "noise", "calibrated", "fitted", "allocated", "baselines")
PRESETS = ("fast", "balanced", "best")
#: λ of the files without data: about 150 to 70 kB.
DATA_FREE = (1.7e-5, 2.6e-5, 4e-5, 6e-5, 9e-5, 1.35e-4, 2e-4, 3e-4, 4.5e-4)
#: λ of the calibrated files: about 57 to 38 kB.
CALIBRATED = (2e-4, 2.6e-4, 3.4e-4, 4.5e-4, 6e-4, 8e-4)
#: λ of those whose confidence is fitted: about 67 to 36 kB.
FITTED = (1.1e-4, 1.5e-4, 2.2e-4, 3.2e-4, 4.5e-4, 6.5e-4, 9e-4)
#: λ of those whose allocation is corrected too: about 60 to 40 kB.
ALLOCATED = (1.5e-4, 2.2e-4, 3.2e-4, 4.5e-4, 6.5e-4)
#: What the parts add to a calibrated pack, and their ladders.
CALIBRATED_PARTS: dict[str, tuple[str, tuple[float, ...], dict[str, Any]]] = {
    "calibrated": ("", CALIBRATED, {}),
    "fitted": (", confidence fitted", FITTED, {"fit_confidence": True}),
    "allocated": (", confidence fitted, allocated", ALLOCATED, {"fit_confidence": True, "allocation_rounds": 2}),
}
#: λ of the files without data, but with the network and noise: about 100 to 55 kB.
NOISE = (4e-5, 6e-5, 9e-5, 1.35e-4, 2e-4)
NOISE_SAMPLES = 512
#: For evaluation only, by a reader who has the network, as the peer's files are too (their names are shortened).
OPTIONS: dict[str, Any] = {"inference": True, "names": False}
SAMPLES = 1024
#: Files of the peer's that are judged: larger ones cannot be on its front below the highest level, nor smaller ones
#: above the lowest (at 78 kB it has 89.5 %, at 112 kB 91.6 %).
PEER_BYTES = (76_000, 125_000)
#: Cross-entropies at which sizes are compared where both sides' confidence was fitted.
FITTED_LEVELS = (0.27, 0.28, 0.29, 0.31)
#: Qualities at which sizes are compared.
LEVELS = {"accuracy": (0.915, 0.91, 0.90), "cross_entropy": (0.373, 0.38, 0.40, 0.43)}

Row = dict[str, Any]


class Bench:
    """One checkpoint, one ledger; every method gives rows of bytes, settings and qualities."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.weights: Path = options.weights
        self.work: Path = options.work
        self.ledger = Ledger(self.work / "ledger.jsonl", frozenset(options.fresh))
        self.jobs: int = options.jobs
        self._sha = sha256(self.weights)

    @functools.cached_property
    def judge(self) -> Judge:
        """Loaded when the first file is to be judged."""
        return Judge()

    def peer(self, peer: Peer) -> list[Row]:
        """NNCodec's settings."""
        version = peer.version

        def judged(setting: Any) -> Row:
            row = self.ledger.get(
                "peer", f"nncodec {version} {setting.name} {self._sha}", lambda: self.judge(setting.decoded)
            )
            return {"setting": setting.name, "bytes": setting.nbytes, **row}

        # λ between its ends last: if the benchmark is interrupted, the front is nearly whole by then.
        grid = sorted(peer.grid(self.weights, self.work / "nncodec"), key=lambda setting: "lambda0.5" in setting.name)
        files = [setting for setting in grid if PEER_BYTES[0] <= setting.nbytes <= PEER_BYTES[1]]
        rows = [judged(setting) for setting in files]
        best = {size for metric in LEVELS for size, _ in envelope(point(row, metric) for row in rows)}
        for row, setting in zip(rows, files, strict=True):
            if setting.nbytes in best:  # those of its files that can be on its front with another confidence too
                key = f"nncodec {version} {setting.name} {self._sha}, confidence fitted"
                row["fitted"] = self.ledger.get("peer", key, functools.partial(self.judge.fitted, setting.decoded))
        return rows

    def ours(self, part: str, jobs: Sequence[tuple[str, float, int | None]]) -> list[Row]:
        """Files of ours: preset, λ, and the seed of the calibration, or None for no data."""
        _ = self.judge  # before there are threads
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda job: self._one(part, *job), jobs))

    def _one(self, part: str, preset: str, rate_weight: float, seed: int | None) -> Row:
        extra: dict[str, Any] = {}
        if part == "noise":
            extra = {"network": "resnet20", "noise": "3x32x32", "samples": NOISE_SAMPLES, "seed": seed}
        elif seed is not None:
            extra = {"network": "resnet20", "data": "benchmarks.pack.data:cifar10_to_pack", "samples": SAMPLES}
            extra |= {"seed": seed, **CALIBRATED_PARTS[part][2]}
        setting = PackSetting(preset, rate_weight, **OPTIONS, **extra)
        row = self.ledger.get(
            part,
            f"pack {setting} {self._sha}",
            lambda: packed_and_judged(self.weights, self.work / "ours", setting, self.judge, "resnet20"),
        )
        return {"preset": preset, "rate_weight": rate_weight, "seed": seed, **row}

    def baselines(self) -> list[Row]:
        """What users do today."""

        def measure() -> Row:
            rows = []
            for baseline in baselines(safetensors.numpy.load_file(self.weights)):
                with tempfile.TemporaryDirectory(dir=self.work) as folder:
                    path = Path(folder) / "decoded.safetensors"
                    safetensors.numpy.save_file(baseline.state, path)
                    rows.append({"name": baseline.name, "bytes": baseline.nbytes, **self.judge(path)})
            return {"rows": rows}

        rows: list[Row] = self.ledger.get("baselines", f"all {self._sha}", measure)["rows"]
        return rows

    def whole(self) -> Row:
        """The checkpoint itself."""
        return self.ledger.get("float", self._sha, lambda: self.judge(self.weights))


def point(row: Row, metric: str, split: str = "test") -> Point:
    """Bytes and quality of a row; quality is the accuracy, or minus the cross-entropy."""
    value = float(row[split][metric])
    return row["bytes"], value if metric == "accuracy" else -value


def curves(rows: Sequence[Row], metric: str) -> list[Curve]:
    """The monotone regression of each seed's points."""
    seeds = sorted({row["seed"] or 0 for row in rows})
    return [pooled(point(row, metric) for row in rows if (row["seed"] or 0) == seed) for seed in seeds]


def honest(rows: Sequence[Row], metric: str) -> Curve:
    """The peer's curve if its settings are chosen on held-out images, and then treated as ours are."""
    chosen = {nbytes for nbytes, _ in envelope(point(row, metric, "held_out") for row in rows)}
    return pooled(point(row, metric) for row in rows if row["bytes"] in chosen)


def compared(rows: Sequence[Row], peer: Sequence[Row]) -> Row:
    """A method against the peer at equal test accuracy and cross-entropy: with its luckiest settings, and without."""
    result: Row = {}
    for metric, levels in LEVELS.items():
        wanted = [level if metric == "accuracy" else -level for level in levels]
        mine = curves(rows, metric)
        result[metric] = compare(envelope(point(row, metric) for row in peer), mine, wanted)
        result[f"{metric}, peer chosen on held-out"] = compare(honest(peer, metric), mine, wanted)
    return result


def compared_as_fitted(rows: Sequence[Row], peer: Sequence[Row]) -> Row:
    """Files whose confidence was fitted against the peer's with theirs fitted in the same way."""
    front = envelope((row["bytes"], -row["fitted"]["cross_entropy"]) for row in peer if "fitted" in row)
    return compare(front, curves(rows, "cross_entropy"), [-level for level in FITTED_LEVELS])


def _methods(bench: Bench, options: argparse.Namespace) -> dict[str, list[Row]]:
    methods: dict[str, list[Row]] = {}
    if "data-free" in options.parts:
        for preset in options.presets:
            methods[f"{preset}, data-free"] = bench.ours("data-free", [(preset, weight, None) for weight in DATA_FREE])
    if "noise" in options.parts:
        for preset in options.calibrated_presets:
            jobs = [(preset, weight, seed) for seed in range(options.noise_seeds) for weight in NOISE]
            methods[f"{preset}, network and noise, no data"] = bench.ours("noise", jobs)
    for part, (suffix, ladder, _) in CALIBRATED_PARTS.items():
        for preset in options.calibrated_presets if part in options.parts else ():
            jobs = [(preset, weight, seed) for seed in range(options.seeds) for weight in ladder]
            methods[f"{preset}, calibrated{suffix}"] = bench.ours(part, jobs)
    return methods


def measure(options: argparse.Namespace) -> Row:
    """All parts that were asked for, as one result."""
    bench = Bench(options)
    wants_peer = "peer" in options.parts and options.peer_python
    peer = bench.peer(Peer(options.peer_python, options.peer_script)) if wants_peer else []
    if not peer:
        print("no NNCodec (--peer-python or $NNCODEC_PYTHON): there is nothing to compare with", file=sys.stderr)
    methods = _methods(bench, options)
    fitted = {name: rows for name, rows in methods.items() if "confidence fitted" in name}
    result = {
        "benchmark": "pack_resnet20",
        "float": bench.whole(),
        "settings": {"samples": SAMPLES, "seeds": options.seeds, "held_out": HELD_OUT, "jobs": options.jobs},
        "peer": [_short(row) for row in peer],
        "methods": {
            name: {"against_peer": compared(rows, peer), "files": [_short(row) for row in rows]}
            for name, rows in methods.items()
        },
        "both_fitted": {name: compared_as_fitted(rows, peer) for name, rows in fitted.items()},
        "baselines": [_short(row) for row in bench.baselines()] if "baselines" in options.parts else [],
    }
    return {**result, "commits": bench.ledger.measured_with(PARTS), "code": code(), "commit": commit()}


def _short(row: Row) -> Row:
    """A row with its qualities rounded and on one level."""
    flat = {key: value for key, value in row.items() if key not in ("test", "held_out", "fitted")}
    flat |= {f"fitted_{key}": value for key, value in row.get("fitted", {}).items()}
    return flat | {
        f"{split}_{key}": round(value, 5) for split in ("test", "held_out") for key, value in row[split].items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks" / "resnet20")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--fresh", nargs="+", default=[], choices=[*PARTS, "float", "all"])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--calibrated-presets", nargs="+", default=["best"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noise-seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="files at a time; 1 for times that mean something")
    parser.add_argument("--picture", type=Path)
    add_peer_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work = options.work.resolve()
    result = measure(options)
    if options.picture:
        from benchmarks.pack.picture import draw

        draw(result, options.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
