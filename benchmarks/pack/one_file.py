"""Packs or unpacks one file in a process of its own, so that its time and memory are those of nothing else.

    python -m benchmarks.pack.one_file pack WEIGHTS OUTPUT SETTING
    python -m benchmarks.pack.one_file unpack FILE OUTPUT [NETWORK]

SETTING is a `PackSetting` as JSON; NETWORK gives the names of a file that has none. `pack` and `unpack` in
`benchmarks/pack/runs.py` start this module.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from benchmarks.pack.runs import PackSetting

__all__ = ["pack_file", "unpack_to"]


def pack_file(weights: Path, output: Path, setting: PackSetting) -> None:
    """Pack a checkpoint."""
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.networks import build
    from evocompress.packer.job import PackJob, on_data, on_noise

    state = read_weights(weights)
    job = PackJob(state, setting.preset, names=setting.names, inference=setting.inference)
    if setting.network is not None:
        network, seed = build(setting.network), setting.seed
        if setting.data is not None:
            examples = on_data(weights, network, setting.data, seed, needs_labels=setting.fit_confidence)
        else:
            examples = on_noise(weights, network, setting.noise or "", setting.samples, seed)
        if setting.fit_confidence:
            job.fit_confidence(examples)
        job.calibrate(examples, samples=setting.samples, seed=seed, allocation_rounds=setting.allocation_rounds)
    job.at(setting.rate_weight).write(output)


def unpack_to(file: Path, output: Path, network: str | None = None) -> None:
    """Unpack a file to safetensors."""
    from evocompress.checkpoint.loading import fitting_names
    from evocompress.checkpoint.weight_files import unpack_file
    from evocompress.networks import build

    unpack_file(file, output, None if network is None else functools.partial(fitting_names, build(network)))


def main() -> None:
    """Do what the command line says."""
    what, source, output, *rest = sys.argv[1:]
    if what == "pack":
        pack_file(Path(source), Path(output), PackSetting(**json.loads(rest[0])))
    else:
        unpack_to(Path(source), Path(output), *rest)


if __name__ == "__main__":
    main()
