"""The search against its own ablations, at equal training time: every segment trains the same number of epochs.

    python -m benchmarks.search.ablation [--segments 80] [--seeds 5] [--processes 2] [--out DIR]

Digits, deterministic mode (so K is fixed), inline executor. `full` is the search as it stands; `no probes` has K = 0;
`no selection` draws parents at random from everything ever produced; `scalar` ranks by one weighted sum. Reported is
the hypervolume of the audited front, in the scale that configs/digits.toml fixes, as mean ± sd over the seeds.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path

VARIANTS = {
    "full": [],
    "no probes": ["search.probes=0"],
    "no selection": ["search.selection=random"],
    "scalar": ["search.selection=scalar"],
}
CONFIG = Path(__file__).parents[2] / "configs" / "digits.toml"


def one_run(variant: str, seed: int, segments: int, folder: str, extra: list[str]) -> dict[str, object]:
    """One search to its end: hypervolume of its audited front, and by what selection saw."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import run_experiment
    from evocompress.runs.front import front
    from evocompress.search.history import read_history
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    settings = [f"seed={seed}", f"search.segments={segments}", "search.deterministic=true", "search.lag=2"]
    settings += ["search.probes=4", "genes.epochs=6", "resources.executor=inline", "reference_epochs=0"]
    config = load_config(CONFIG, [*settings, *VARIANTS[variant], *extra])
    run = Path(folder) / f"{variant.replace(' ', '-')}-{seed}"
    run_experiment(config, run)
    history = read_history(run)
    scale = Scale.of(history.settings)
    points = [scale.point(point.nbytes, point.error) for point in front(history)]
    return {
        "variant": variant,
        "seed": seed,
        "audited": hypervolume(points, history.settings.reference),
        "validation": history.told[-1]["hypervolume_after"],
        "leaves": len(history.leaves),
        "train_seconds": sum(outcome.metrics.get("train_seconds", 0.0) for outcome in history.outcomes),
        "seconds": sum(outcome.seconds for outcome in history.outcomes),
    }


def summary(rows: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation per variant."""
    table = {}
    for variant in dict.fromkeys(str(row["variant"]) for row in rows):
        variant_rows = [row for row in rows if row["variant"] == variant]
        entry: dict[str, float] = {}
        for key in ("audited", "validation", "train_seconds", "seconds"):
            values = [float(str(row[key])) for row in variant_rows]
            entry[key] = round(statistics.mean(values), 4)
            entry[f"{key}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
        table[variant] = entry
    return table


def main() -> None:
    """Run all variants and seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--set", dest="extra", action="append", default=[])
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    folder = arguments.out or tempfile.mkdtemp(prefix="ablation-")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(one_run, variant, seed, arguments.segments, folder, arguments.extra)
            for seed in range(arguments.seeds)
            for variant in arguments.variants
        ]
        rows = [job.result() for job in jobs]
    result = {"segments": arguments.segments, "seeds": arguments.seeds, "variants": summary(rows)}
    print(json.dumps({"benchmark": "ablation", **result, "runs": rows}))


if __name__ == "__main__":
    main()
