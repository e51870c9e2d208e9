"""A language model of bytes in 16, 64 and 256 kB: the search, training once and packing, and compressors for scale.

    python -m benchmarks.search.text_models configs/text.toml [--set data_options.path=kjv.txt] [--seeds 1] [--out DIR]

Prints one JSON line. Under each budget: the audited bits per byte of the front's best file (chosen on validation text),
and those of the best of the ladder of "train once, then pack"; beside them what zstd makes of the audited text with a
dictionary of as many bytes, trained on the training text, and what xz needs more for the audited text behind as many
bytes of the training text. Training once is at the plain settings (learning rate 1e-3, batches of 64), so it is a
baseline that nobody has tuned. zstd needs the package zstandard, and is left out without it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["zstd_bits"]

_BUDGETS = (16_000, 64_000, 256_000)
_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def zstd_bits(training: bytes, text: bytes, budget: int) -> float | None:
    """Bits per byte of the text, in frames of 16 kB, by zstd -19 with a dictionary of so many bytes."""
    try:
        import zstandard
    except ImportError:
        return None
    samples = [training[start : start + 4096] for start in range(0, len(training), 4096)]
    dictionary = zstandard.train_dictionary(budget, samples, level=19)
    compressor = zstandard.ZstdCompressor(level=19, dict_data=dictionary)
    frames = [compressor.compress(text[start : start + 16_384]) for start in range(0, len(text), 16_384)]
    return 8 * sum(map(len, frames)) / len(text)


def xz_bits(training: bytes, text: bytes, budget: int) -> float:
    """Bits per byte that the text adds to so many bytes of training text before it, by xz -9e."""
    before = training[-budget:]
    sizes = [len(lzma.compress(data, lzma.FORMAT_RAW, filters=_XZ)) for data in (before, before + text)]
    return 8 * (sizes[1] - sizes[0]) / len(text)


def measure(config: str, settings: list[str], folder: Path) -> dict[str, Any]:
    """One run and what it is compared with."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import run_experiment
    from evocompress.runs.front import front, reference
    from evocompress.search.history import read_history

    loaded = load_config(config, settings)
    started = time.time()
    run_experiment(loaded, folder)
    seconds = time.time() - started
    history = read_history(folder)
    points, whole = front(history), reference(history)
    packed = [entry for event in history.events("reference") for entry in event.get("packed", [])]
    from evocompress.data import load

    splits = load(loaded.data, seed=loaded.seed, options=loaded.data_options)
    training, text = (bytes(part.inputs.flatten().tolist()) for part in (splits.train, splits.audit))
    rows = []
    for budget in _BUDGETS:
        files = [point for point in points if point.nbytes <= budget]
        # Of the ladder the best on the audited text itself: a choice in its favour.
        once = [entry for entry in packed if entry["nbytes"] <= budget]
        best = min(files, key=lambda point: point.validation_quality, default=None)
        other = min(once, key=lambda entry: entry["quality"], default=None)
        zstd = zstd_bits(training, text, budget)
        rows.append(
            {
                "budget": budget,
                "search": None if best is None else [best.nbytes, round(best.quality, 4)],
                "train_once_then_pack": None if other is None else [other["nbytes"], round(other["quality"], 4)],
                "zstd": None if zstd is None else round(zstd, 4),
                "xz": round(xz_bits(training, text, budget), 4),
            }
        )
    return {
        "seconds": round(seconds, 1),
        "segments": len(history.outcomes),
        "uncompressed": None if whole is None else round(whole.quality, 4),
        "budgets": rows,
        "front": [[point.nbytes, round(point.quality, 4)] for point in points],
        "packed": [[entry["nbytes"], round(entry["quality"], 4)] for entry in packed],
    }


def main() -> None:
    """Run, once for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    from evocompress.evolve.config import load_config

    text = load_config(options.config, options.settings).data_options["path"]
    if not Path(text).exists():
        print(f"text_models: skipped, there is no {text}; {options.config} says how to make it", file=sys.stderr)
        return
    folder = Path(options.out or tempfile.mkdtemp(prefix="text-models-"))
    runs = [
        measure(options.config, [*options.settings, f"seed={seed}"], folder / f"run-{seed}")
        for seed in range(options.seeds)
    ]
    print(json.dumps({"benchmark": "text_models", "config": options.config, "runs": runs}))


if __name__ == "__main__":
    main()
