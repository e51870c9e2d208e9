"""Train a network plainly, to be the teacher of others, and write its file without loss.

    python -m benchmarks.training.teacher configs/fashion_mnist.toml --epochs 12 --out FILE [--set model=resnet20 …]

The data's own split of `seed` (0 by default) is used: a teacher of another seed has seen what is validation data here.
Prints its quality on validation data.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Train it."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import prepare
    from evocompress.evolve.teacher import TeacherJob

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--set", dest="extra", action="append", default=[])
    options = parser.parse_args()
    experiment = prepare(load_config(options.config, options.extra)).segment.experiment
    data, quality = TeacherJob(experiment, experiment.model, experiment.model_options)(options.epochs)
    Path(options.out).write_bytes(data)
    print(f"{len(data)} bytes, validation {quality:.4f}")


if __name__ == "__main__":
    main()
