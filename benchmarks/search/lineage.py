"""One lineage under a rising λ, each segment from its parent's file alone: what a search does, without a population.

    python -m benchmarks.search.lineage configs/fashion_mnist.toml [--rates 0.1 0.3 …] [--epochs 5] [--seed 0]
        [--gene learning_rate=2e-3] [--batch 128] [--set model=…] [--from FILE]
        [--teacher FILE] [--teacher-model resnet20 in_channels=1] [--out DIR]

Prints one JSON line: the bytes and validation error of each file; of those that no other is better than, the accuracy
on the audit split, and their hypervolume on the axes of the configuration. With `--out` each file lies there once there
is one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

    from evocompress.evolve.experiment import Experiment

__all__ = ["Judged", "Trainer", "genes_of", "nondominated"]


class Judged(NamedTuple):
    """A file: its size, its validation error, its audited accuracy."""

    nbytes: int
    error: float
    audited: float


class Trainer:
    """One network at a time, trained with the rate term from random weights or from a file, as a segment does.

    Dead parts are cut out as in a segment, so that the same epochs take the same time, and files are cropped.
    `genes` hold where a call says nothing else.
    """

    def __init__(
        self,
        experiment: Experiment,
        batch_size: int = 32,
        teacher: nn.Module | None = None,
        genes: Mapping[str, Any] | None = None,
    ) -> None:
        from evocompress.checkpoint.recipe import Recipe

        self.experiment, self.splits, self.batch_size = experiment, experiment.splits(), batch_size
        self.recipe = Recipe(coder="mixing", names=False, shapes=False)
        self.files: list[Judged] = []
        self.teacher = teacher
        self.genes = {"learning_rate": 2e-3, "noise": 0.6, **(genes or {})}

    def __call__(
        self,
        rate_weight: float,
        epochs: int,
        seed: int,
        parent: bytes | None = None,
        *,
        start_width: float = 1.0,
        **genes: Any,
    ) -> bytes:
        """Train, write the file, judge it."""
        from evocompress.checkpoint.grid import grid_of
        from evocompress.checkpoint.packing import pack, unpack
        from evocompress.networks import build
        from evocompress.training.dead_parts import cut, narrow, put_live_first
        from evocompress.training.trainer import TrainingGenes, train

        experiment = self.experiment
        network = build(experiment.model, experiment.model_options, seed=seed)
        template, grid = network.state_dict(), None
        if parent is not None:
            network.load_state_dict(unpack(parent, names=template))
            grid = grid_of(parent, template)
        given = {"batch_size": self.batch_size, **self.genes, **genes}
        given["rate_noise"] = given.pop("noise")
        few = self.splits.train.batch(slice(0, 2))[0]
        if parent is None and start_width < 1:
            narrow(network, start_width, few, seed=seed)
        live = cut(network, few)
        curves = train(
            live.network,
            self.splits.train,
            TrainingGenes(rate_term="on", **given),
            epochs=epochs,
            seed=seed,
            rate_weight=rate_weight,
            grid=grid,
            teacher=self.teacher,
            precision=experiment.precision,
        )
        network.load_state_dict(live.scatter(live.network.state_dict()))
        put_live_first(network, few)
        data = pack(network.state_dict(), self.recipe, grid=curves.grid)
        self.judge(network, len(data))
        return data

    def judge(self, network: nn.Module, nbytes: int) -> Judged:
        """Both errors; the audited one is shown only of the files that validation chooses."""
        from evocompress.tasks.measure import measure

        task = self.experiment.task()
        parts = (measure(task, network, part) for part in (self.splits.validation, self.splits.audit))
        validated, audited = parts
        self.files.append(Judged(nbytes, validated.error, audited.value))
        return self.files[-1]


def genes_of(pairs: Sequence[str]) -> dict[str, Any]:
    """What `--gene name=value` says, each value as JSON."""
    return {name: json.loads(value) for name, value in (pair.split("=") for pair in pairs)}


def nondominated(files: list[Judged]) -> list[Judged]:
    """Those that no other file is better than, by size and validation error, from the smallest on; one of equals."""
    from evocompress.search.pareto import is_nondominated

    # Files of one size and error are one; of their audited accuracies the worst counts.
    different = sorted({file[:2]: file for file in sorted(files, reverse=True)}.values())
    kept = is_nondominated([file[:2] for file in different])
    return [file for file, stays in zip(different, kept, strict=True) if stays]


def _teacher(experiment: Experiment, path: str, model: list[str]) -> nn.Module:
    """The network of a file: of `model`, a name and options such as width=32, or where it is empty the experiment's."""
    from evocompress.evolve.teacher import TeacherFile
    from evocompress.search.storage import open_storage

    folder, file = os.path.split(os.path.abspath(path))
    name, options = experiment.model, experiment.model_options
    if model:
        name, options = model[0], {key: json.loads(value) for key, value in (pair.split("=") for pair in model[1:])}
    return TeacherFile(open_storage(folder), name, options, file).network()


def main() -> None:
    """Train the lineage."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import prepare
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
    parser.add_argument("--epochs", type=int, nargs="+", default=[5], help="of each segment; the last one goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--gene", action="append", default=[], help="name=value as JSON, such as learning_rate=2e-3")
    parser.add_argument("--set", dest="extra", action="append", default=[])
    parser.add_argument(
        "--from", dest="start", default="", help="a file to begin with, of the same seed, so of the same split"
    )
    parser.add_argument(
        "--teacher", default="", help="a file of the network to learn from, as --gene distillation=0.9 says"
    )
    parser.add_argument(
        "--teacher-model", nargs="+", default=[], help="its network and options, such as width=32, where it is another"
    )
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    genes = genes_of(options.gene)
    start_width = genes.pop("start_width", 1.0)
    setup = prepare(load_config(options.config, [f"seed={options.seed}", *options.extra]))
    setup.segment.experiment.prepare()
    teacher = _teacher(setup.segment.experiment, options.teacher, options.teacher_model) if options.teacher else None
    trainer, clock = Trainer(setup.segment.experiment, options.batch, teacher, genes), time.process_time()
    parent = Path(options.start).read_bytes() if options.start else None
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
    for place, rate_weight in enumerate(options.rates):
        epochs = options.epochs[min(place, len(options.epochs) - 1)]
        parent = trainer(rate_weight, epochs, 1000 * options.seed + place, parent, start_width=start_width)
        file, spent = trainer.files[-1], time.process_time() - clock
        print(
            f"λ {rate_weight:<8g} {file.nbytes:>7} B  validation {100 * (1 - file.error):.2f} %  {spent:.0f} s",
            flush=True,
        )
        if options.out:
            (Path(options.out) / f"{file.nbytes}.evc").write_bytes(parent)
    chosen = nondominated(trainer.files)
    scale = Scale.of(setup.settings)
    points = [scale.point(file.nbytes, 1 - file.audited) for file in chosen]
    row = {
        "benchmark": "lineage",
        "hypervolume": round(hypervolume(points, setup.settings.reference), 4),
        "cpu_seconds": round(time.process_time() - clock, 1),
        "files": [(file.nbytes, round(file.error, 4)) for file in trainer.files],
        "front": [(file.nbytes, round(file.audited, 4)) for file in chosen],
        "options": vars(options),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
