"""Peak memory of packing and unpacking, in multiples of the tensors' size: a JSON line a preset.

    python -m benchmarks.pack.memory [--presets fast balanced best]

Checkpoints of Laplace weights in float32: 100 M of them for `fast`, 25 M for the others (memory is proportional to
size; time is the reason). A fifth is one tensor, as embeddings are, the rest matrices of 2.4 M. From a process's peak
that of the same process on a checkpoint of 2 304 weights is taken off: Python, libraries, compiled code.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from benchmarks.pack.runs import PackSetting, pack, unpack

WEIGHTS = {"fast": 100_000_000}
_OTHERS = 25_000_000
_MATRIX = (1024, 2304)
_RATE_WEIGHT = 3e-4


def write_checkpoint(path: Path, weights: int) -> int:
    """Write at least so many weights; returns their number."""
    draws = np.random.default_rng(0)
    columns = _MATRIX[1]
    shapes = [(max(weights // 5 // columns, 1), columns)]
    shapes += [_MATRIX] * (-(-(weights - weights // 5) // (_MATRIX[0] * columns)) if weights > 10_000 else 0)
    state = {f"{i}.weight": (draws.standard_exponential(s, np.float32) * 0.05) for i, s in enumerate(shapes)}
    for tensor in state.values():
        np.negative(tensor, out=tensor, where=draws.random(tensor.shape, np.float32) < 0.5)
    safetensors.numpy.save_file(state, path)
    return sum(tensor.size for tensor in state.values())


def measure(preset: str, folder: Path, weights: int) -> dict[str, Any]:
    """One preset: peaks in MiB as they are, and in multiples of the tensor data."""
    peaks: dict[str, list[float]] = {"pack": [], "unpack": []}
    count, row = 0, {}
    for size in (4096, weights):
        checkpoint, packed = folder / "weights.safetensors", folder / "weights.evc"
        count = write_checkpoint(checkpoint, size)
        done = pack(checkpoint, packed, PackSetting(preset, _RATE_WEIGHT))
        undone = unpack(packed, checkpoint)
        peaks["pack"].append(done.ran.peak_mib)
        peaks["unpack"].append(undone.peak_mib)
        row = {"pack_s": round(done.ran.seconds, 1), "unpack_s": round(undone.seconds, 1), "bytes": done.nbytes}
    for name, (base, peak) in peaks.items():
        row |= {f"{name}_base_mib": round(base), f"{name}_mib": round(peak)}
        row[f"{name}_times_data"] = round((peak - base) * 2**20 / (4 * count), 2)
    return {"benchmark": "memory", "preset": preset, "weights": count, **row}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced", "best"])
    options = parser.parse_args()
    for preset in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(preset, Path(folder), WEIGHTS.get(preset, _OTHERS))), flush=True)


if __name__ == "__main__":
    main()
