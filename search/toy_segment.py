"""A segment without a network, for tests and benchmarks of the search: milliseconds, real files, real inheritance.

The "network" is a vector that training moves towards a target and the "codec" quantises: a small step gives a large,
exact file, a wide one a small, rough file, and what rounding lost has to be trained again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evocompress.search.records import Genome, Leaf, Outcome, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Choice, Float, Integer, Space

__all__ = ["ToySegment", "toy_settings", "toy_space"]

_SIZE = 96


def toy_space() -> Space:
    """Three training genes and two recipe genes."""
    return Space(
        {
            "rate": Float(0.01, 1.0, log=True),
            "noise": Float(0.001, 0.3, log=True),
            "epochs": Integer(1, 4),
            "step": Float(0.01, 3.0, log=True),
            "rounding": Choice(("nearest", "down")),
        },
        recipe=["step", "rounding"],
    )


def toy_settings(**changes: object) -> SearchSettings:
    """Settings whose scale fits the toy."""
    fields = {
        "initial": 6,
        "pool_size": 12,
        "probes": 2,
        "bytes_range": (24, 512),
        "error_range": (0.0, 1.0),
        **changes,
    }
    return SearchSettings.from_json(fields)


@dataclasses.dataclass(frozen=True)
class ToySegment:
    """Callable as a segment; `seconds` of sleep and `burn` of computing are added for tests of executors.

    `log`: a folder that gets one empty file per call, named by index and process, so that a test can count the calls.
    """

    seconds: float = 0.0
    burn: float = 0.0
    log: str = ""

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        """Train, compress under 1 + K recipes, keep the non-dominated and the first."""
        self._spend(task)
        genome, rng = task.genome, np.random.default_rng(task.seed)
        weights = _train(_decode(parent_files[0]) if parent_files else np.zeros(_SIZE), genome, rng)
        made = [(recipe, *_encode(weights, recipe)) for recipe in (genome, *task.probes)]
        depth = task.parents[0].depth + 1 if task.parents else 0
        leaves: list[Leaf] = []
        for n, (recipe, data, quality) in enumerate(made):
            if n and any(len(d) <= len(data) and q >= quality for i, (_, d, q) in enumerate(made) if i != n):
                continue
            Path(folder, f"{n}.evc").write_bytes(data)
            leaves.append(Leaf("", f"{n}.evc", "", len(data), quality, 1.0 - quality, recipe, depth=depth))
        return Outcome(
            task.segment_id, task.index, "ok", tuple(leaves), encode_fraction=0.1, metrics={"pid": os.getpid()}
        )

    def _spend(self, task: SegmentTask) -> None:
        if self.log:
            Path(self.log, f"{task.index}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        end = time.perf_counter() + self.burn
        while time.perf_counter() < end:
            pass


def _target() -> npt.NDArray[np.float64]:
    positions = np.arange(_SIZE, dtype=np.float64)
    return np.asarray(4.0 * np.sin(positions * 0.7) * np.linspace(1.0, 0.1, _SIZE), dtype=np.float64)


def _train(weights: npt.NDArray[np.float64], genome: Genome, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    rate = float(genome["rate"])
    for _ in range(int(genome["epochs"])):
        # Steps that are too long overshoot, and the gradient noise grows with them: the best rate lies in between.
        noise = float(genome["noise"]) * rng.standard_normal(_SIZE)
        weights = weights + 1.7 * rate * (_target() - weights + noise / (0.1 + rate))
    return weights


def _encode(weights: npt.NDArray[np.float64], genome: Genome) -> tuple[bytes, float]:
    """The file and the quality of what it decodes to: 1 at the target, towards 0 far from it."""
    step = float(genome["step"])
    scaled = weights / step
    symbols = np.clip(np.trunc(scaled) if genome["rounding"] == "down" else np.rint(scaled), -30000, 30000)
    data = json.dumps({"step": step}).encode() + b"\n" + zlib.compress(symbols.astype("<i2").tobytes(), 9)
    distance = float(np.sqrt(np.mean((_decode(data) - _target()) ** 2)))
    return data, round(float(np.exp(-distance)), 4)


def _decode(data: bytes) -> npt.NDArray[np.float64]:
    head, _, body = data.partition(b"\n")
    step = float(json.loads(head)["step"])
    return np.frombuffer(zlib.decompress(body), dtype="<i2").astype(np.float64) * step
