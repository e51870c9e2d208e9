"""Speed of the search itself: 100 000 segments on 1 000 simulated workers, with faults, on one core.

The segment is a formula of the genome and of how long its lineage has been trained, without files; what is timed is
ask, tell and the loop. Prints one JSON line. A shorter run:

    python -m benchmarks.search.search_scale --segments 10000
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence

from evocompress.search.ask_tell import Search
from evocompress.search.events import Finished
from evocompress.search.loop import Loop
from evocompress.search.records import Genome, Leaf, Outcome, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.space import Float, Integer, Space

SPACE = Space(
    {
        "rate": Float(1e-4, 1e-1, log=True),
        "epochs": Integer(1, 4),
        "decay": Float(1e-6, 1e-2, log=True),
        **{f"rate_weight_{group}": Float(1e-6, 1e-2, log=True) for group in ("conv", "dense", "rest")},
    },
    recipe=["rate_weight_conv", "rate_weight_dense", "rate_weight_rest"],
)


def surrogate(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
    """Bytes fall and error rises with the rate weights; training epochs and a good rate lower the error."""
    epochs = int(task.genome["epochs"]) + (task.parents[0].epochs if task.parents else 0)
    depth = task.parents[0].depth + 1 if task.parents else 0
    made = [(genome, *_measure(genome, epochs)) for genome in (task.genome, *task.probes)]
    leaves: list[Leaf] = []
    for n, (genome, nbytes, accuracy) in enumerate(made):
        if n and any(b <= nbytes and a >= accuracy for i, (_, b, a) in enumerate(made) if i != n):
            continue
        leaf_id = f"{task.segment_id}-{n}"
        leaves.append(
            Leaf(leaf_id, leaf_id, leaf_id, nbytes, accuracy, 1.0 - accuracy, genome, depth=depth, epochs=epochs)
        )
    return Outcome(task.segment_id, task.index, "ok", tuple(leaves), encode_fraction=0.15)


def _measure(genome: Genome, epochs: int) -> tuple[int, float]:
    weights = [math.log10(float(genome[f"rate_weight_{group}"])) + 6.0 for group in ("conv", "dense", "rest")]
    nbytes = int(200_000 * math.exp(-sum(w * s for w, s in zip(weights, (0.5, 0.35, 0.15), strict=True))))
    rough = sum(w**2 * s for w, s in zip(weights, (0.012, 0.006, 0.002), strict=True))
    off = abs(math.log10(float(genome["rate"])) + 2.3) + 0.2 * abs(math.log10(float(genome["decay"])) + 4.0)
    error = 0.02 + rough + 0.05 * off + 0.5 / (1 + epochs)
    return nbytes, round(1.0 - min(error, 0.95), 5)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--deterministic", action="store_true")
    options = parser.parse_args()
    settings = SearchSettings(
        segments=options.segments, deterministic=options.deterministic, bytes_range=(256, 262144)
    ).resolve(options.workers)
    search = Search(SPACE, settings)
    executor = SimulatedExecutor(surrogate, workers=options.workers, crash=0.01, duplicate=0.01, lost=0.01)
    finished = 0

    def count(event: object) -> None:
        nonlocal finished
        finished += isinstance(event, Finished)

    start = time.perf_counter()
    reason = Loop(search, executor, observer=count).run()
    seconds = time.perf_counter() - start
    assert (reason, finished) == ("finished", options.segments), (reason, finished)
    result = {
        "benchmark": "search_scale",
        "segments": finished,
        "workers": options.workers,
        "deterministic": options.deterministic,
        "seconds": round(seconds, 2),
        "ms_per_segment": round(1e3 * seconds / finished, 4),
        "virtual_seconds": round(executor.now(), 1),
        "busy_share": round(executor.busy_seconds / executor.now() / options.workers, 4),
        "attempts": executor.attempts,
        "front_size": len(search.archive),
        "hypervolume": round(search.hypervolume, 6),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
