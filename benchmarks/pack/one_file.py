"""Packs or unpacks one file in a process of its own, so that its time and memory are those of nothing else.

    python -m benchmarks.pack.one_file pack WEIGHTS OUTPUT SETTING
    python -m benchmarks.pack.one_file unpack FILE OUTPUT [NETWORK]

SETTING is a `PackSetting` as JSON; NETWORK gives the names of a file that has none. `pack` and `unpack` in
`benchmarks/pack/runs.py` start this module.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

from benchmarks.pack.runs import PackSetting

__all__ = ["pack_file", "unpack_to"]


def pack_file(weights: Path, output: Path, setting: PackSetting) -> None:
    """Pack a checkpoint."""
    from evocompress.checkpoint.weight_files import read_weights
    from evocompress.networks import build
    from evocompress.packer.job import PackJob
    from evocompress.packer.network_and_examples import on_data, on_noise

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part, source in (("pack", "weights"), ("unpack", "file")):
        command = parts.add_parser(part)
        command.add_argument(source, type=Path)
        command.add_argument("output", type=Path)
    parts.choices["pack"].add_argument("setting", type=json.loads)
    parts.choices["unpack"].add_argument("network", nargs="?")
    arguments = parser.parse_args()
    if arguments.part == "pack":
        pack_file(arguments.weights, arguments.output, PackSetting(**arguments.setting))
    else:
        unpack_to(arguments.file, arguments.output, arguments.network)


if __name__ == "__main__":
    main()
