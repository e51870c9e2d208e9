"""A whole run by its command, watched from outside: time, front, busy cores, and what compressing takes of a segment.

    python -m benchmarks.search.whole_run configs/digits.toml [--set search.segments=20] [--name demo] [--seeds 5]

Prints one JSON line; with several seeds, which split the data anew, it has the runs of each, with the audited front and
what training once and packing gives. `run_seconds` is from the first submission to the last file of export/;
`cores_busy` the share of all cores' time that was not idle, and `workers_busy` the share that lay inside segments, both
between the first and the last finished segment; `encode_share` the median share of a segment that encode + decode +
evaluate of its 1 + K recipes took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from evocompress.runs.front import front, reference
from evocompress.search.history import History, read_history


class Watch(threading.Thread):
    """Samples how busy all cores are, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float]] = []
        self.stop = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.stop.is_set():
            busy = psutil.cpu_percent(interval=0.5)
            self.samples.append((time.time(), busy / 100))


def busy_workers(history: History, begin: float, end: float, workers: int) -> float:
    """Share of workers × time that lay inside segments."""
    inside = 0.0
    for outcome in history.outcomes:
        started, finished = outcome.metrics.get("started", 0.0), outcome.metrics.get("finished", 0.0)
        inside += max(0.0, min(finished, end) - max(started, begin))
    return inside / (workers * (end - begin))


def measure(config: str, settings: list[str], folder: Path) -> dict[str, Any]:
    """Run the command and look at what it left."""
    watch = Watch()
    watch.start()
    command = [sys.executable, "-c", "from evocompress.cli import main; main()", "run", config, "--out", str(folder)]
    started = time.time()
    subprocess.run([*command, *(word for text in settings for word in ("--set", text))], check=True, stdout=sys.stderr)
    ended = time.time()
    watch.stop.set()
    history = read_history(folder)
    begin, end = history.finished_at[0], history.finished_at[-1]
    first = min(outcome.metrics["started"] for outcome in history.outcomes)
    points, whole = front(history), reference(history)
    within = [p for p in points if whole is not None and p.quality >= whole.quality - 0.01]
    best = min(within, key=lambda point: point.nbytes, default=None)
    samples = [busy for when, busy in watch.samples if begin <= when <= end]
    return {
        "config": config,
        "settings": settings,
        "command_seconds": round(ended - started, 1),
        "run_seconds": round((folder / "export" / "report.html").stat().st_mtime - first, 1),
        "segments": len(history.outcomes),
        "statuses": sorted({outcome.status for outcome in history.outcomes}),
        "front_points": len(points),
        "front_factor_in_bytes": round(points[-1].nbytes / points[0].nbytes, 2),
        "points_above_half_accuracy": sum(point.quality > 0.5 for point in points),
        "uncompressed_accuracy": whole.quality if whole else None,
        "front": [[point.nbytes, round(point.quality, 4)] for point in points],
        "packed": [[round(p["nbytes"]), round(p["quality"], 4)] for p in _packed(history)],
        "within_one_point": None if best is None else [best.nbytes, round(best.quality, 4), round(best.ratio, 1)],
        "cores_busy": round(statistics.mean(samples), 4) if samples else None,
        "workers_busy": round(busy_workers(history, begin, end, psutil.cpu_count() or 1), 4),
        "encode_share": round(statistics.median(o.encode_fraction for o in history.outcomes), 4),
        "encode_share_total": round(
            sum(o.metrics.get("encode_seconds", 0.0) for o in history.outcomes)
            / sum(o.seconds for o in history.outcomes),
            4,
        ),
        "mean_probes": round(statistics.mean(len(task.probes) for task in history.tasks.values()), 2),
    }


def _packed(history: History) -> list[dict[str, Any]]:
    """What training once and packing gave, as the journal has it."""
    return [entry for event in history.events("reference") for entry in event.get("packed", [])]


def main() -> None:
    """Measure one configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--name", default="whole_run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    folder = Path(arguments.out or tempfile.mkdtemp(prefix="whole-run-"))
    if arguments.seeds == 1:
        line = measure(arguments.config, arguments.settings, folder / "run")
    else:
        settings = [[*arguments.settings, f"seed={seed}"] for seed in range(arguments.seeds)]
        runs = [measure(arguments.config, own, folder / f"run-{seed}") for seed, own in enumerate(settings)]
        line = {"config": arguments.config, "seeds": arguments.seeds, "runs": runs}
    print(json.dumps({"benchmark": arguments.name, **line}))


if __name__ == "__main__":
    main()
