"""Ideas in the search: its front with an idea among the genes, and without, on digits.

    python -m benchmarks.ideas.in_search [--ideas linearconv symmetry …] [--seeds 6] [--first-seed 0] [--epochs 720]
        [--processes 2] [--out DIR]

Each idea runs beside its `without`: the same network, data, number of epochs and seeds (which also split the data
anew), the rate in the loss, a deterministic search in one process, so that a loaded machine changes nothing but the
time. Segments are of 45 epochs, as in `make demo`. Saccades and connections have networks of their own; without the
idea these have plain 3×3 convolutions.

Reported, mean ± sd over the seeds: the hypervolume of the audited front on one scale for all (150 B to
9.6 kB, errors of 0 to 25 %); and the bytes with the idea over those without at equal audited accuracy: of the smallest
files that reach a level, geometric mean over the levels that both fronts of a seed reach, then over the seeds, with the
least and the largest seed.
Finished runs are kept in DIR and not run again. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ideas.settings import IDEAS, WITHOUT

CONFIG = Path(__file__).parents[2] / "configs" / "digits.toml"
EACH = 45  # epochs of a segment
#: About the configuration's, and the same for all networks.
BYTES, ERRORS, REFERENCE = (150.0, 9600.0), (0.0, 0.25), (1.0, 1.0)
LEVELS = (0.80, 0.85, 0.90, 0.93, 0.95, 0.96, 0.97, 0.98)


def one_run(idea: str, seed: int, epochs: int, folder: str) -> dict[str, Any]:
    """One search to its end; read from `folder` where it is there already."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import run_experiment
    from evocompress.runs.front import front
    from evocompress.search.history import read_history
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    run = Path(folder) / f"{idea.replace(' ', '-')}-{seed}"
    kept = run.with_suffix(".json")
    if kept.exists():
        stored: dict[str, Any] = json.loads(kept.read_text())
        return stored
    settings = [f"seed={seed}", f"search.segments={epochs // EACH}", "search.deterministic=true", "search.lag=1"]
    settings += ["search.minutes=100000", "reference_epochs=0", "resources.executor=inline", f"genes.epochs={EACH}"]
    shutil.rmtree(run, ignore_errors=True)  # of an interrupted one
    config, clock = load_config(CONFIG, [*settings, *IDEAS[idea]]), time.process_time()
    run_experiment(config, run)
    history, spent = read_history(run), time.process_time() - clock
    scale = Scale(BYTES, ERRORS)
    points = front(history, audited=True)
    row = {
        "idea": idea,
        "seed": seed,
        "hypervolume": hypervolume([scale.point(point.nbytes, point.error) for point in points], REFERENCE),
        "front": [(point.nbytes, point.quality) for point in points],
        "failed": sum(outcome.status != "ok" for outcome in history.outcomes),
        "cpu_seconds": round(spent, 1),
    }
    kept.write_text(json.dumps(row))
    return row


def bytes_ratio(with_idea: list[Any], without: list[Any]) -> float | None:
    """Bytes with to without, of the smallest files that reach a level, geometric mean; None: no common level."""
    ratios = []
    for level in LEVELS:
        least = [min((nbytes for nbytes, accuracy in files if accuracy >= level), default=0)
                 for files in (with_idea, without)]  # fmt: skip
        if all(least):
            ratios.append(math.log(least[0] / least[1]))
    return math.exp(statistics.mean(ratios)) if ratios else None


def _spread(values: list[float]) -> list[float]:
    return [round(statistics.mean(values), 4), round(statistics.stdev(values), 4) if len(values) > 1 else 0.0]


def _range(ratios: list[float]) -> list[float]:
    return [round(value, 3) for value in (statistics.geometric_mean(ratios), min(ratios), max(ratios))]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each idea beside its `without`, over the seeds that both have."""
    runs = {(row["idea"], row["seed"]): row for row in rows}
    comparisons = []
    for idea in dict.fromkeys(row["idea"] for row in rows):
        other = WITHOUT.get(idea)
        pairs = [(runs[idea, seed], runs[other, seed]) for name, seed in runs if name == idea and (other, seed) in runs]
        if other is None or not pairs:
            continue
        ratios = [bytes_ratio(mine["front"], theirs["front"]) for mine, theirs in pairs]
        common = [ratio for ratio in ratios if ratio is not None]
        comparisons.append(
            {
                "idea": idea,
                "without": other,
                "seeds": len(pairs),
                "hypervolume": _spread([mine["hypervolume"] for mine, _ in pairs]),
                "hypervolume_without": _spread([theirs["hypervolume"] for _, theirs in pairs]),
                "difference": _spread([mine["hypervolume"] - theirs["hypervolume"] for mine, theirs in pairs]),
                "bytes_ratio": _range(common) if common else None,
                "best_accuracy": _spread([max(a for _, a in mine["front"]) for mine, _ in pairs]),
                "best_accuracy_without": _spread([max(a for _, a in theirs["front"]) for _, theirs in pairs]),
            }
        )
    return comparisons


def main() -> None:
    """Run the ideas and what they are compared with, for every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ideas", nargs="+", default=list(WITHOUT), choices=list(WITHOUT))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=720)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    folder = arguments.out or tempfile.mkdtemp(prefix="ideas-")
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for idea in arguments.ideas for name in (WITHOUT[idea], idea)))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(one_run, name, seed, arguments.epochs, folder)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
            for name in names
        ]
        rows = [job.result() for job in jobs]
    shape = {"epochs": arguments.epochs, "seeds": arguments.seeds}
    print(json.dumps({"benchmark": "ideas", **shape, "ideas": summary(rows), "runs": rows}))


if __name__ == "__main__":
    main()
