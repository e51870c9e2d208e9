"""Does an idea help the front? The search with the idea among its genes, and without, on Fashion-MNIST.

    python -m benchmarks.ideas.in_search [--ideas linearconv symmetry …] [--seeds 3] [--segments 80] [--train 6000]
        [--processes 2] [--out DIR]

Each idea runs beside its `without`: the same network, data, number of segments and seeds, in deterministic mode with
the inline executor, so that a loaded machine changes nothing but the time. A segment is one epoch of `--train` images.
Saccades and connections have networks of their own; without the idea these have plain 3×3 convolutions.

Reported, mean ± sd over the seeds: the hypervolume of the audited front, in one scale for all (400 B to 20 kB, errors
of 8 to 50 %, scaled as every run scales them); and the bytes with the idea over those without at equal audited
accuracy: of the smallest files that reach a level, geometric mean over the levels that both fronts of a seed reach,
then over the seeds, with the least and the largest seed.
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
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.ideas.settings import IDEAS, WITHOUT

CONFIG = Path(__file__).parents[2] / "configs" / "fashion_mnist.toml"
BYTES, ERRORS, REFERENCE = (400.0, 20_000.0), (0.08, 0.50), (1.0, 1.0)
LEVELS = (0.70, 0.75, 0.78, 0.80, 0.82, 0.84, 0.85, 0.86, 0.87)


class SmallCNN(nn.Module):
    """Three 3×3 convolutions of stride 2 and a linear layer: 21 k weights, most of them in the convolutions."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.linear = nn.Linear(4 * width * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, 28, 28)."""
        x = images
        for layer in (self.conv1, self.conv2, self.conv3):
            x = layer(x).relu()
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def one_run(idea: str, seed: int, segments: int, train: int, folder: str) -> dict[str, Any]:
    """One search to its end; read from `folder` where it is there already."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import run_experiment
    from evocompress.runs.front import front
    from evocompress.search.history import read_history
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    run = Path(folder) / f"{idea}-{seed}"
    kept = run.with_suffix(".json")
    if kept.exists():
        stored: dict[str, Any] = json.loads(kept.read_text())
        return stored
    settings = [f"seed={seed}", f"search.segments={segments}", "search.deterministic=true", "search.lag=2"]
    settings += ["search.probes=3", "search.initial=12", "reference_epochs=0", "resources.executor=inline"]
    settings += ["search.ratio_range=[4,200]", "search.error_range=[0.08,0.5]"]
    settings += ["genes.epochs=1", "genes.batch_size=64", f"data_options={{train={train}, validation=2000}}"]
    shutil.rmtree(run, ignore_errors=True)  # of an interrupted one
    config = load_config(CONFIG, [*settings, *IDEAS[idea]])
    run_experiment(config, run)
    history = read_history(run)
    scale = Scale(BYTES, ERRORS)
    files = [(point.nbytes, point.quality) for point in front(history, audited=True)]
    row = {
        "idea": idea,
        "seed": seed,
        "hypervolume": hypervolume([scale.point(*file) for file in files], REFERENCE),
        "front": files,
        "train_seconds": sum(outcome.metrics.get("train_seconds", 0.0) for outcome in history.outcomes),
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=80)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    folder = arguments.out or tempfile.mkdtemp(prefix="ideas-")
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for idea in arguments.ideas for name in (WITHOUT[idea], idea)))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(one_run, name, seed, arguments.segments, arguments.train, folder)
            for seed in range(arguments.seeds)
            for name in names
        ]
        rows = [job.result() for job in jobs]
    shape = {"segments": arguments.segments, "seeds": arguments.seeds, "train": arguments.train}
    print(json.dumps({"benchmark": "ideas", **shape, "ideas": summary(rows), "runs": rows}))


if __name__ == "__main__":
    main()
