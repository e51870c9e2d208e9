"""Heritability, how much a file tells of its descendants: lineages from several beginnings, and several ends of each.

    python -m benchmarks.search.heritability [--starts 10] [--tails 3] [--seed 0] [--epochs 40] [--out DIR]

Selection among lineages can only gain what differs between them and lasts. On digits each start has weights of its own
and goes up to λ = 0.4; from its last file several tails go on to λ = 6.4, which differ in the order of examples alone.
Of a tail's hypervolume (validation and audit images together, for less noise) the variance within starts is luck of
the tail, that between starts is what a parent hands down. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks.search.against import CONFIG
from benchmarks.search.lineage import Judged, Trainer

_HEAD, _TAIL = (0.05, 0.1, 0.2, 0.4), (0.8, 1.6, 3.2, 6.4)  # λ
_BATCH, _START_WIDTH = 32, 0.7


def shares(values: list[list[float]]) -> dict[str, float]:
    """Standard deviations within and between groups of equal size, and the share of variance between them.

    >>> shares([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    {'within': 0.0, 'between': 1.0, 'share': 1.0}
    """
    within = statistics.mean(statistics.variance(group) for group in values)
    between = max(statistics.variance([statistics.mean(group) for group in values]) - within / len(values[0]), 0.0)
    share = between / (between + within) if between + within else 0.0
    return {"within": round(within**0.5, 4), "between": round(between**0.5, 4), "share": round(share, 3)}


def main() -> None:
    """Train them."""
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import prepare
    from evocompress.search.objectives import Scale
    from evocompress.search.pareto import hypervolume

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--tails", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the data's split")
    parser.add_argument("--epochs", type=int, default=40, help="of a segment")
    parser.add_argument("--out", default="", help="a folder for one JSON line for each segment")
    options = parser.parse_args()
    setup = prepare(load_config(CONFIG, [f"seed={options.seed}"]))
    setup.segment.experiment.prepare()
    trainer, scale, clock = Trainer(setup.segment.experiment, _BATCH), Scale.of(setup.settings), time.process_time()

    def segment(rate_weight: float, seed: int, parent: bytes | None) -> bytes:
        width = {} if parent else {"start_width": _START_WIDTH}
        data = trainer(rate_weight, options.epochs, seed, parent, **width)
        if options.out:
            with (Path(options.out) / "segments.jsonl").open("a") as lines:
                print(json.dumps({"λ": rate_weight, "seed": seed, **trainer.files[-1]._asdict()}), file=lines)
        return data

    def volume(files: list[Judged]) -> float:
        points = [scale.point(file.nbytes, 1 - (1 - file.error + file.audited) / 2) for file in files]
        return hypervolume(points, setup.settings.reference)

    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
    heads, tails = [], []
    for start in range(options.starts):
        parent, first = None, len(trainer.files)
        for place, rate_weight in enumerate(_HEAD):
            parent = segment(rate_weight, 1000 * start + place, parent)
        heads.append(volume(trainer.files[first:]))
        middle, ends = parent, []
        for tail in range(options.tails):
            parent, first = middle, len(trainer.files)
            for place, rate_weight in enumerate(_TAIL):
                parent = segment(rate_weight, 1000 * start + 100 * (tail + 1) + place, parent)
            ends.append(volume(trainer.files[first:]))
        tails.append(ends)
        print([round(value, 4) for value in (heads[-1], *ends)], flush=True)
    means = [statistics.mean(ends) for ends in tails]
    row = {
        "benchmark": "heritability",
        **shares(tails),
        "tails": round(statistics.mean(means), 4),
        "correlation_with_head": round(statistics.correlation(heads, means), 3),
        "cpu_seconds": round(time.process_time() - clock, 1),
        "options": vars(options),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
