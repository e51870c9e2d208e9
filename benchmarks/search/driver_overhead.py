"""Driver overhead: the time that the driver and Ray add to a segment, and how busy they keep the workers.

First part: segments that only write a 4 MB file, on two Ray workers; the overhead of a segment is the wall time that a
worker spends on it beyond the segment's own code (scheduling, reading the parent, hashing, storing, COMMIT, journal).
Second part: segments that compute for about half a second; the share of the time after warm-up (the first two rounds)
in which the workers are inside a segment. Prints one JSON line for each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evocompress.search.history import History
from evocompress.search.ray_executor import RayExecutor
from evocompress.search.records import Leaf, Outcome, SegmentTask
from evocompress.search.run_folder import open_run
from evocompress.search.toy_segment import toy_settings, toy_space

_WARM_UP_ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class Writer:
    """Computes for `burn` seconds, writes one file of `nbytes`, and says when it began and ended."""

    nbytes: int
    burn: float

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        """The segment."""
        started = time.time()
        # Its length varies a little, so that the front and the pool do not collapse to one point.
        data = bytes([task.index % 256]) * (self.nbytes - task.index)
        Path(folder, "0.evc").write_bytes(data)
        while time.time() < started + self.burn:
            sum(range(1000))
        quality = 0.5 - 1e-4 * task.index
        leaf = Leaf("", "0.evc", "", len(data), quality, 1.0 - quality, task.genome)
        metrics = {"started": started, "finished": time.time(), "pid": os.getpid()}
        return Outcome(task.segment_id, task.index, "ok", (leaf,), encode_fraction=0.1, metrics=metrics)


def measure(segment: Writer, segments: int, workers: int, folder: str) -> tuple[History, int, float]:
    """Run that many segments; the history, the number of workers, and CPU seconds of this process meanwhile."""
    settings = toy_settings(segments=segments, probes=0, bytes_range=(1e3, 1e7))
    with open_run(folder, header={"config": {}}, space=toy_space(), settings=settings) as run:
        executor = RayExecutor(segment, run.storage, workers=workers)
        before = time.process_time()
        try:
            run.drive(executor)
            seconds = time.process_time() - before
        finally:
            executor.close()
        return run.history(), executor.workers, seconds


def gaps(history: History) -> list[float]:
    """Seconds between the end of a segment and the start of the next on the same worker, after warm-up."""
    spans: dict[int, list[tuple[float, float]]] = {}
    for outcome in history.outcomes:
        metrics: dict[str, Any] = outcome.metrics
        spans.setdefault(metrics["pid"], []).append((metrics["started"], metrics["finished"]))
    pauses: list[float] = []
    for worker in spans.values():
        worker.sort()
        pauses += [after[0] - before[1] for before, after in zip(worker, worker[1:], strict=False)][_WARM_UP_ROUNDS:]
    return pauses


def busy_share(history: History, workers: int) -> float:
    """Share of workers x time inside segments, from the end of warm-up to the moment the last segment began."""
    spans = sorted((o.metrics["started"], o.metrics["finished"]) for o in history.outcomes)
    begin, end = spans[_WARM_UP_ROUNDS * workers][0], spans[-1][0]
    inside = sum(max(0.0, min(b, end) - max(a, begin)) for a, b in spans)
    return float(inside / (workers * (end - begin)))


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nbytes", type=int, default=4_000_000)
    parser.add_argument("--burn", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        history, workers, cpu = measure(Writer(options.nbytes, 0.0), options.segments, options.workers, f"{folder}/a")
        between = gaps(history)
        overhead = {
            "benchmark": "driver_overhead",
            "segments": len(history.outcomes),
            "workers": workers,
            "file_bytes": options.nbytes,
            "median_ms": round(1e3 * statistics.median(between), 2),
            "p90_ms": round(1e3 * statistics.quantiles(between, n=10)[-1], 2),
            "driver_cpu_ms_per_segment": round(1e3 * cpu / len(history.outcomes), 2),
            "wall_ms_per_segment": round(1e3 * history.elapsed / len(history.outcomes), 2),
        }
        print(json.dumps(overhead), flush=True)
        history, workers, _ = measure(Writer(100_000, options.burn), 20 * workers, workers, f"{folder}/b")
        busy = {"benchmark": "busy_share", "workers": workers, "segment_seconds": options.burn}
        print(json.dumps({**busy, "segments": len(history.outcomes), "share": round(busy_share(history, workers), 4)}))


if __name__ == "__main__":
    main()
