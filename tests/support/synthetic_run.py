"""A made-up run with all the fields that a real one records: what the tests of export, plots and report read.

Sizes and qualities follow a plausible law (quality falls off below a size that shrinks with training), every leaf has
bytes whose sha256 and length are true, and lineages, failures, audit and reference are there. No network is trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from evocompress.search.history import History
from evocompress.search.journal import Journal
from evocompress.search.quality import Quality
from evocompress.search.records import Genome, Leaf, Outcome, Parent, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.support.intervals import wilson_interval
from evocompress.tasks.classification import ACCURACY

LAYERS = (
    ("conv1.weight", (16, 1, 3, 3)),
    ("conv2.weight", (32, 16, 3, 3)),
    ("norm1.weight", (16,)),
    ("norm2.weight", (32,)),
    ("fc1.weight", (64, 512)),
    ("fc1.bias", (64,)),
    ("fc2.weight", (10, 64)),
)
CODECS = ("uniform", "dct", "wavelet", "kmeans", "lowrank", "linearconv")
PARAMETERS = sum(math.prod(shape) for _, shape in LAYERS)
START = 1_760_000_000.0


@dataclasses.dataclass(frozen=True)
class MadeRun(History):
    """A history that lies in memory, and can be changed there."""

    tasks: dict[str, SegmentTask]
    outcomes: list[Outcome]
    told: list[dict[str, Any]]
    finished_at: list[float]
    leaves: dict[str, Leaf]
    archive: list[Leaf]
    records: list[dict[str, Any]]
    segment_of: dict[str, str]


def content(leaf: Leaf) -> bytes:
    """The bytes of a leaf's file, as storage would give them."""
    return hashlib.shake_128(leaf.leaf_id.encode()).digest(leaf.nbytes)


def synthetic_run(
    segments: int = 60,
    leaves_per_segment: int = 3,
    *,
    seed: int = 0,
    audited: bool = True,
    reference: bool = True,
    failures: bool = True,
    hostile: str = "",
    quality: Quality = ACCURACY,
) -> MadeRun:
    """A run of `segments` segments; `hostile` is put into every place that holds somebody's text.

    A `quality` that is minimised is three times the share of wrong answers.
    """
    rng = np.random.default_rng(seed)
    history = MadeRun(Path("synthetic"), _run_json(seed, hostile, quality), {}, [], [], [], {}, [], [], {})
    for index in range(segments):
        _segment(history, index, leaves_per_segment, rng, failures=failures, hostile=hostile)
    if reference:
        event = {**_measured(353, quality), "validation_quality": _value(354, quality), "epochs": 40}
        _record(history, "reference", START, {**event, "float32_bytes": 4 * PARAMETERS})
    if audited and history.archive:
        leaves = {leaf.leaf_id: _audit(leaf, rng, quality) for leaf in history.archive}
        _record(history, "audited", START + 2.0 * segments, {"leaves": leaves})
    return history


def write_synthetic_run(folder: Path, history: History) -> None:
    """Put a made-up run into a run folder: run.json, the journal, and the files of the leaves."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(history.run))
    journal = Journal(folder / "journal")
    skipped = ("epoch", "seq", "type", "time")
    journal.append([(line["type"], {k: v for k, v in line.items() if k not in skipped}) for line in history.records])
    journal.close()
    for leaf in history.leaves.values():
        (folder / leaf.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / leaf.path).write_bytes(content(leaf))


def _record(history: MadeRun, kind: str, time: float, payload: dict[str, Any]) -> None:
    history.records.append({"seq": len(history.records), "type": kind, "time": time, **payload})


def _run_json(seed: int, hostile: str, quality: Quality) -> dict[str, Any]:
    network = {"name": "digits_cnn" + hostile, "parameters": PARAMETERS, "float32_bytes": 4 * PARAMETERS}
    return {
        "format": 1,
        "config": {"network": {"name": "digits_cnn"}, "search": {"segments": 60, "note": hostile}},
        "config_text": f'[network]\nname = "digits_cnn"\n# {hostile}\n',
        "seed": seed,
        "reference_point": [1.1, 1.1],
        "ranges": {"bytes": [256, 131072], "error": [0.0, 0.9]},
        "search": SearchSettings().to_json(),
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "versions": {"python": "3.11.2", "numpy": "2.4.6", "torch": "2.13.0"},
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
        "network": network,
        "data": {"name": "digits", "sha256": "ab" * 32, "train": 1077, "validation": 360, "audit": 360},
        "created": "2026-01-02T03:04:05+00:00",
        "storage": "",
        "quality": quality.to_json(),
    }


def _segment(
    history: MadeRun, index: int, count: int, rng: np.random.Generator, *, failures: bool, hostile: str
) -> None:
    segment_id = hashlib.sha256(f"segment {index}".encode()).hexdigest()[:16]
    parent = history.archive[int(rng.integers(len(history.archive)))] if history.archive and index > 8 else None
    genome = _genome(rng, hostile)
    probes = tuple(_genome(rng, hostile) for _ in range(count - 1))
    parents = (_parent(parent),) if parent else ()
    task = SegmentTask(
        index=index,
        segment_id=segment_id,
        operator="mutate" if parent else "initial",
        rule="tournament" if parent else "none",
        parents=parents,
        genome=genome,
        probes=probes,
        seed=index,
        seen=index,
    )
    failed = failures and index % 13 == 7
    leaves = (
        ()
        if failed
        else tuple(_leaf(task, n, g, parent, rng, history.quality) for n, g in enumerate((genome, *probes)))
    )
    outcome = _outcome(task, leaves, failed, hostile)
    before = {leaf.leaf_id for leaf in history.archive}
    history.tasks[segment_id] = task
    history.outcomes.append(outcome)
    history.leaves.update({leaf.leaf_id: leaf for leaf in leaves})
    history.segment_of.update({leaf.leaf_id: segment_id for leaf in leaves})
    history.archive[:] = _archive([*history.archive, *leaves])
    after = {leaf.leaf_id for leaf in history.archive}
    volume = history.told[-1]["hypervolume_after"] if history.told else 0.0
    told: dict[str, Any] = {"hypervolume_before": volume, "hypervolume_after": _volume(history.archive)}
    told |= {"accepted": sorted(after - before), "displaced": sorted(before - after)}
    history.told.append(told)
    history.finished_at.append(START + 2.0 * (index + 1))
    _record(history, "submitted", START + 2.0 * index, {"task": task.to_json(), "attempt_of_resume": False})
    finished = {"outcome": outcome.to_json(), "completion": index, "told": told}
    _record(history, "finished", START + 2.0 * (index + 1), finished)


def _parent(leaf: Leaf) -> Parent:
    return Parent(
        leaf.leaf_id, leaf.path, leaf.sha256, leaf.depth, leaf.epochs, leaf.seconds, weights_sha256=leaf.weights_sha256
    )


def _genome(rng: np.random.Generator, hostile: str) -> Genome:
    return {
        "learning_rate": float(10 ** rng.uniform(-4, -1)),
        "epochs": int(rng.integers(1, 4)),
        "weight_decay": float(10 ** rng.uniform(-6, -3)),
        "conv.codec": str(rng.choice(CODECS)) + hostile,
        "conv.rate_weight": float(10 ** rng.uniform(-7, -3)),
        "dense.codec": str(rng.choice(CODECS)),
        "dense.rate_weight": float(10 ** rng.uniform(-7, -3)),
        "project": bool(rng.integers(2)),
    }


def _value(correct: int, quality: Quality) -> float:
    return correct / 360 if quality.is_maximised else 3.0 * (1.0 - correct / 360)


def _measured(correct: int, quality: Quality) -> dict[str, Any]:
    """What an audit records of so many right of 360."""
    ends = [_value(count, quality) for count in (max(correct - 8, 0), min(correct + 8, 360))]
    value = _value(correct, quality)
    low, high = wilson_interval(correct, 360) if quality.is_maximised else (min(ends), max(ends))
    return {
        "quality": value,
        "low": low,
        "high": high,
        "error": 1.0 - value if quality.is_maximised else value,
        "loss": 2.3 * (1 - correct / 361),
        "total": 360,
        "details": {"correct": correct},
    }


def _leaf(
    task: SegmentTask, number: int, genome: Genome, parent: Leaf | None, rng: np.random.Generator, quality: Quality
) -> Leaf:
    leaf_id = f"{task.segment_id}-{number}"
    depth, epochs = (parent.depth + 1, parent.epochs) if parent else (0, 0)
    epochs += int(genome["epochs"])
    nbytes = int(2 ** (14.5 + 0.45 * math.log10(float(genome["dense.rate_weight"])) * 2 + rng.normal(0, 0.8) + 3.0))
    nbytes = max(400, nbytes)
    half = 11.5 - 0.45 * math.log2(1 + epochs)
    top = 0.985 - 0.3 / (1 + epochs)
    share = 0.1 + (top - 0.1) / (1 + math.exp(-1.6 * (math.log2(nbytes) - half)))
    correct = int(np.clip(round(360 * share + rng.normal(0, 3)), 20, 360))
    found = _measured(correct, quality)
    leaf = Leaf(
        leaf_id=leaf_id,
        path=f"seg/{task.segment_id}/a0/{number}.evc",
        sha256="",
        nbytes=nbytes,
        quality=found["quality"],
        error=found["error"],
        genome=genome,
        depth=depth,
        epochs=epochs,
        seconds=1.9 + (parent.seconds if parent else 0.0),
        weights_sha256=hashlib.sha256(b"w" + leaf_id.encode()).hexdigest(),
        measurements=_measurements(nbytes, found, genome),
    )
    return dataclasses.replace(leaf, sha256=hashlib.sha256(content(leaf)).hexdigest())


def _measurements(nbytes: int, found: dict[str, Any], genome: Genome) -> dict[str, Any]:
    header = 96
    coded = nbytes - header
    layers = []
    for name, shape in LAYERS:
        share = coded * math.prod(shape) / PARAMETERS
        side = round(share * 0.1)
        codec = genome["conv.codec"] if "conv" in name else genome["dense.codec"] if "fc" in name else "uniform"
        layers.append(
            {
                "name": name,
                "shape": list(shape),
                "codec": codec,
                "payload_bytes": share - side,
                "side_bytes": side,
                "bits_per_weight": 8 * share / math.prod(shape),
            }
        )
    return {
        "quality_low": found["low"],
        "quality_high": found["high"],
        **{name: found[name] for name in ("loss", "total", "details")},
        "parameters": PARAMETERS,
        "float32_bytes": 4 * PARAMETERS,
        "encode_seconds": 0.11,
        "decode_seconds": 0.02,
        "evaluate_seconds": 0.03,
        "header_bytes": header,
        "layers": layers,
    }


def _outcome(task: SegmentTask, leaves: tuple[Leaf, ...], failed: bool, hostile: str) -> Outcome:
    epochs = int(task.genome["epochs"])
    metrics = {
        "curves": {
            "train_loss": [2.0 / (epoch + 1) for epoch in range(epochs)],
            "train_quality": [0.9 - 0.5 / (epoch + 1) for epoch in range(epochs)],
            "validation_quality": [0.9 - 0.6 / (epoch + 1) for epoch in range(epochs)],
        },
        "node": "node-a",
        "device": "cpu",
        "started": START + 2.0 * task.index,
        "finished": START + 2.0 * task.index + 1.9,
        "train_seconds": 1.6,
        "encode_seconds": 0.3,
        "peak_memory_bytes": 300_000_000,
        "float_quality": min(leaves, key=lambda leaf: leaf.error).quality if leaves else None,
        "versions": {"torch": "2.13.0"},
    }
    return Outcome(
        segment_id=task.segment_id,
        index=task.index,
        status="diverged" if failed else "ok",
        leaves=leaves,
        error=f"loss is nan after epoch 1{hostile}" if failed else "",
        attempt="a0",
        seconds=1.9,
        encode_fraction=0.15,
        metrics=metrics,
    )


def _archive(leaves: list[Leaf]) -> list[Leaf]:
    kept: list[Leaf] = []
    for leaf in sorted(leaves, key=lambda leaf: (leaf.nbytes, leaf.error, leaf.leaf_id)):
        if not kept or leaf.error < kept[-1].error:
            kept.append(leaf)
    return kept


def _volume(archive: list[Leaf]) -> float:
    """Area between the archive's staircase and the reference point (1, 1) of the scaled objectives."""
    area, right = 0.0, 1.0
    for leaf in sorted(archive, key=lambda leaf: -leaf.nbytes):
        left = (math.log2(leaf.nbytes) - 8.0) / 9.0
        area += max(0.0, right - left) * max(0.0, 1.0 - leaf.error / 0.9)
        right = min(right, left)
    return area


def _audit(leaf: Leaf, rng: np.random.Generator, quality: Quality) -> dict[str, Any]:
    share = leaf.measurements["details"]["correct"] / 360
    correct = int(np.clip(round(360 * (share - 0.006) + rng.normal(0, 2)), 0, 360))
    return {**_measured(correct, quality), "nbytes": leaf.nbytes, "sha256": leaf.sha256}
