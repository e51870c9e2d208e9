"""The search against what one would do instead, at equal training time: the same data and rate term for all.

    python -m benchmarks.search.against [--epochs 1500] [--seeds 3] [--processes 2] [--methods …] [--out DIR]
        [--config configs/digits.toml] [--each 40] [--batch 32] [--trials 300] [--levels 0.98 0.95 0.90] [--set …]
        [--gene rounding="drawn"]

Every method has so many epochs in all, one core, and the same data. `--each` is the length of a lineage's segments;
those of the search are an eighth longer, straight trainings of Optuna's two and a half times as long. A trial of other
symbols (gene `symbol_trials`) counts as a twelfth of an epoch, which is about what it takes on digits; the CPU seconds
of each method are in the result. Files are chosen on validation data (the non-dominated ones), and then judged once on
the audit split.

`--gene` is for all but the search, whose genes are in the configuration. Where these give networks of several widths,
epochs are no measure of time: compare the CPU seconds, and give the methods different `--epochs`.

- `search`: the search as the configuration has it, deterministic, inline, with trials of other symbols in each segment.
- `no rate`: the same without the rate term; `no probes`, `scalar`, `no trials`: without probes, with a scalar score,
  without trials of other symbols.
- `pack`: train once for `--each` epochs, then `pack`, calibrated, at a ladder of λ (cheaper than all others).
- `ladder`: straight rate-aware trainings from random weights, one per λ, which share the epochs.
- `lineages`: lineages under a rising λ, each from its parent's file, restarted until the epochs are used; `lineages
  tried`: the same with as many trials of other symbols in each segment as the search has.
- `turning`: one lineage, first at a large λ, twice as long as its other segments; then λ falls, rises, falls again,
  until the epochs are used.
- `optuna`, `optuna gp`: its default multi-objective sampler (NSGA-II; Deb et al., 2002) and its Gaussian process
  one over straight trainings: λ, learning rate, share of noise.

Prints one JSON line: hypervolume on the axes of the configuration, and bytes at 98, 95 and 90 %, by seed and method.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.search.lineage import Judged, Trainer, genes_of, nondominated

if TYPE_CHECKING:
    from evocompress.evolve.driver import Prepared

CONFIG = Path(__file__).parents[2] / "configs" / "digits.toml"
VARIANTS = {
    "search": [],
    "no rate": ['genes.rate_term=["off"]', 'genes.grid=["codecs"]'],
    "no probes": ["search.probes=0"],
    "scalar": ["search.selection=scalar"],
    "no trials": ["genes.symbol_trials=0"],
}
_LADDER = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
_RISING = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
_TURNING = (2.2, 0.9, 0.4, 0.2, 0.4, 0.9, 2.2, 4.5)  # and again from its second
_TRIALS_OF_EPOCH = 12  # so many trials take about the time of an epoch


@dataclasses.dataclass(frozen=True)
class Budget:
    """What all methods have: epochs in all and of a segment, trials of a segment, the batch, the configuration."""

    epochs: int
    each: int
    trials: int
    batch: int
    config: str
    extra: tuple[str, ...] = ()
    genes: tuple[str, ...] = ()


def ladder(trainer: Trainer, budget: Budget, seed: int) -> None:
    """Straight trainings, one per λ."""
    for rate_weight in _LADDER:
        trainer(rate_weight, budget.epochs // len(_LADDER), seed)


def lineages(trainer: Trainer, budget: Budget, seed: int, trials: int = 0) -> None:
    """Lineages under a rising λ until the epochs are used."""
    each, epochs = budget.each, budget.epochs
    used, number, cost = 0, 0, each + trials // _TRIALS_OF_EPOCH
    while used + cost <= epochs:
        parent = None
        for rate_weight in _RISING:
            if used + cost > epochs:
                return
            parent = trainer(rate_weight, each, 1000 * seed + number, parent, symbol_trials=trials)
            used, number = used + cost, number + 1


def lineages_tried(trainer: Trainer, budget: Budget, seed: int) -> None:
    """Lineages, with trials of other symbols in each segment."""
    lineages(trainer, budget, seed, trials=budget.trials)


def turning(trainer: Trainer, budget: Budget, seed: int) -> None:
    """One lineage whose λ falls and rises, again and again."""
    parent, used, rates = None, 0, itertools.chain(_TURNING[:1], itertools.cycle((*_TURNING[1:], *_TURNING[:1])))
    for number, rate_weight in enumerate(rates):
        epochs = budget.each if number else 2 * budget.each
        if used + epochs > budget.epochs:
            return
        parent = trainer(rate_weight, epochs, 1000 * seed + number, parent)
        used += epochs


def optuna_trials(sampler: Callable[[int], Any]) -> Callable[[Trainer, Budget, int], None]:
    """Straight trainings at what a sampler of Optuna's proposes."""

    def run(trainer: Trainer, budget: Budget, seed: int) -> None:
        import optuna

        each = 5 * budget.each // 2
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler(seed))

        def objective(trial: optuna.Trial) -> tuple[float, float]:
            rate_weight = trial.suggest_float("rate_weight", 0.05, 12.8, log=True)
            learning_rate = trial.suggest_float("learning_rate", 1e-3, 4e-3, log=True)
            noise = trial.suggest_float("noise", 0.3, 0.8)
            trainer(rate_weight, each, 1000 * seed + trial.number, learning_rate=learning_rate, noise=noise)
            return float(trainer.files[-1].nbytes), trainer.files[-1].error

        study.optimize(objective, n_trials=budget.epochs // each)

    return run


def _default_sampler(seed: int) -> Any:
    import optuna

    return optuna.samplers.NSGAIISampler(seed=seed)


def _gaussian_process(seed: int) -> Any:
    import optuna

    return optuna.samplers.GPSampler(seed=seed)


def pack_once(trainer: Trainer, budget: Budget, seed: int) -> None:
    """Train once, then pack at a ladder of λ.

    It is a finer and longer ladder than that of a run's own reference, whose files are judged on the audit split alone.
    """
    from evocompress.checkpoint.loading import load_state
    from evocompress.checkpoint.packing import unpack
    from evocompress.networks import build
    from evocompress.packer.job import PackJob
    from evocompress.packer.network_and_examples import NetworkAndExamples
    from evocompress.training.trainer import TrainingGenes, train

    experiment, splits = trainer.experiment, trainer.splits
    network = build(experiment.model, experiment.model_options, seed=seed)
    train(network, splits.train, TrainingGenes(batch_size=budget.batch), epochs=budget.each, seed=seed)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    job = PackJob(state, names=False, shapes=False)
    job.calibrate(NetworkAndExamples(network, splits.train, splits.validation))
    for exponent in range(9):
        data = job.at(1e-5 * 10 ** (exponent / 2.5)).data
        load_state(network, unpack(data, names=state), "the packed file")
        trainer.judge(network, len(data))


METHODS: dict[str, Callable[[Trainer, Budget, int], None]] = {
    "pack": pack_once,
    "ladder": ladder,
    "lineages": lineages,
    "lineages tried": lineages_tried,
    "turning": turning,
    "optuna": optuna_trials(_default_sampler),
    "optuna gp": optuna_trials(_gaussian_process),
}


def prepared(seed: int, budget: Budget) -> Prepared:
    """The configuration's data and network, of a seed."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import prepare

    return prepare(load_config(budget.config, [f"seed={seed}", "resources.executor=inline", *budget.extra]))


def searched(method: str, seed: int, budget: Budget, folder: str) -> tuple[list[Judged], int]:
    """The search's archive, audited, and the epochs of segments with files: more than given with `first_epochs`."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import run_experiment
    from evocompress.runs.front import audits
    from evocompress.search.history import read_history

    each, trials = 9 * budget.each // 8, 0 if method in ("no rate", "no trials") else budget.trials
    segments = budget.epochs // (each + trials // _TRIALS_OF_EPOCH)
    settings = [f"seed={seed}", "search.deterministic=true", "search.lag=1", f"search.segments={segments}"]
    settings += [f"genes.epochs={each}", f"genes.symbol_trials={trials}"]
    settings += ["resources.executor=inline", "reference_epochs=0"]
    settings += ["search.minutes=100000"]  # epochs end it, not the demo's clock
    run = Path(folder) / f"{method.replace(' ', '-')}-{seed}"
    run_experiment(load_config(budget.config, [*settings, *VARIANTS[method], *budget.extra]), run)
    history = read_history(run)
    by_leaf, files = audits(history), []
    for leaf in history.archive:
        quality = by_leaf[leaf.leaf_id].quality
        assert quality is not None
        files.append(Judged(leaf.nbytes, leaf.error, quality))
    before = {task.segment_id: task.parents[0].epochs if task.parents else 0 for task in history.tasks.values()}
    ended = [outcome for outcome in history.outcomes if outcome.leaves]
    return files, sum(outcome.leaves[0].epochs - before[outcome.segment_id] for outcome in ended)


def one(method: str, seed: int, budget: Budget, folder: str, levels: Sequence[float]) -> dict[str, Any]:
    """One method with one seed."""
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    setup = prepared(seed, budget)
    setup.segment.experiment.prepare()
    clock, epochs = time.process_time(), budget.epochs
    if method in METHODS:
        trainer = Trainer(setup.segment.experiment, budget.batch, genes=genes_of(budget.genes))
        METHODS[method](trainer, budget, seed)
        files = trainer.files
    else:
        files, epochs = searched(method, seed, budget, folder)
    chosen = nondominated(files)
    scale = Scale.of(setup.settings)
    points = [scale.point(file.nbytes, 1 - file.audited) for file in chosen]
    at = {str(level): min((f.nbytes for f in chosen if f.audited >= level), default=None) for level in levels}
    return {
        "method": method,
        "seed": seed,
        "hypervolume": round(hypervolume(points, setup.settings.reference), 4),
        "bytes": at,
        "epochs": epochs,
        "files": len(chosen),
        "cpu_seconds": round(time.process_time() - clock, 1),
        "front": [(file.nbytes, round(file.audited, 4)) for file in chosen],
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean ± sd of the hypervolume, and the median bytes at each level, by method."""
    table: dict[str, Any] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        volumes = [row["hypervolume"] for row in of_method]
        sizes = {}
        for level in of_method[0]["bytes"]:
            reached = [row["bytes"][level] or math.inf for row in of_method]
            middle = statistics.median(reached)
            sizes[level] = None if middle == math.inf else middle
        table[method] = {
            "hypervolume": round(statistics.mean(volumes), 4),
            "sd": round(statistics.stdev(volumes), 4) if len(volumes) > 1 else 0.0,
            "bytes": sizes,
            "cpu_seconds": round(statistics.mean(row["cpu_seconds"] for row in of_method)),
        }
    return table


def main() -> None:
    """Run all methods and seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    names = [*METHODS, *VARIANTS]
    parser.add_argument("--methods", nargs="+", default=["search", *METHODS], choices=names)
    parser.add_argument("--set", dest="extra", action="append", default=[])
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--each", type=int, default=40, help="epochs of a lineage's segment")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--trials", type=int, default=300, help="of other symbols, in a segment of the search")
    parser.add_argument("--gene", action="append", default=[], help="of all but the search: name=value as JSON")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.98, 0.95, 0.90], help="of audited accuracy")
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    budget = Budget(
        arguments.epochs,
        arguments.each,
        arguments.trials,
        arguments.batch,
        arguments.config,
        tuple(arguments.extra),
        tuple(arguments.gene),
    )
    folder = arguments.out or tempfile.mkdtemp(prefix="against-")
    context = multiprocessing.get_context("spawn")
    rows = []
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(one, method, seed, budget, folder, arguments.levels)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            for method in arguments.methods
        ]
        for job in concurrent.futures.as_completed(jobs):
            rows.append(job.result())
            print(json.dumps(rows[-1]), flush=True)
    rows.sort(key=lambda row: (row["seed"], arguments.methods.index(row["method"])))
    print(json.dumps({"benchmark": "against", **dataclasses.asdict(budget), "methods": summary(rows), "runs": rows}))


if __name__ == "__main__":
    main()
