"""Large run, of 100 000 segments: CPU seconds and peak memory of its resume and of its end.

A journal as such a run leaves it is made first: the search itself decides, the segment is the formula of `search_scale`
with the measurements of a network of seven layers. Then each phase runs in a process of its own: a resume that finds
no snapshot, one that finds the snapshot of the first, the reading of the whole run, and the export at the end. Prints
one JSON line. A shorter run, whose folder is kept:

    python -m benchmarks.search.large_run --segments 10000 --folder /tmp/large
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.search.search_scale import SPACE, surrogate
from evocompress.search import journal
from evocompress.search.ask_tell import Search
from evocompress.search.history import read_history
from evocompress.search.records import Leaf, Outcome, SegmentTask
from evocompress.search.run_folder import Run, open_run
from evocompress.search.settings import SearchSettings

_LAYERS = (("conv1", 144), ("conv2", 4608), ("norm1", 16), ("norm2", 32), ("fc1", 32768), ("bias", 64), ("fc2", 640))
_IN_FLIGHT = 64
_LINES_PER_FILE = 10_000
_PHASES = ("resume", "resume_again", "read", "end")


def _settings(segments: int) -> SearchSettings:
    scale = {"bytes_range": (256, 262144), "probes": 2}
    return SearchSettings.from_json({"segments": segments + _IN_FLIGHT, "deterministic": True, "lag": 128, **scale})


def _open(folder: Path, segments: int, *, resume: bool) -> Run:
    header: dict[str, Any] = {"config": {}, "network": {"name": "formula", "float32_bytes": 153_088}}
    return open_run(folder, header=header, space=SPACE, settings=_settings(segments), resume=resume)


def _measured(leaf: Leaf) -> Leaf:
    layers = [
        {
            "name": f"{name}.weight",
            "shape": [count],
            "codec": "deadzone",
            "payload_bytes": leaf.nbytes * count / 38272,
            "side_bytes": 3,
            "bits_per_weight": 8 * leaf.nbytes / 38272,
        }
        for name, count in _LAYERS
    ]
    measurements = {"loss": leaf.error, "total": 360, "details": {"correct": 300}, "parameters": 38272}
    measurements |= {"float32_bytes": 153_088, "encode_seconds": 0.1, "header_bytes": 96, "layers": layers}
    path = f"seg/{leaf.leaf_id.partition('-')[0]}/0123456789ab/{leaf.leaf_id[-1]}.evc"
    digest = (leaf.leaf_id.partition("-")[0] * 4)[:64]
    return dataclasses.replace(leaf, path=path, sha256=digest, weights_sha256=digest, measurements=measurements)


def _outcome(task: SegmentTask) -> Outcome:
    outcome = surrogate(task, "", ())
    curves = {"train_loss": [0.5, 0.4], "train_quality": [0.8, 0.9], "validation_quality": [0.8, 0.85]}
    metrics = {"curves": curves, "node": "node-a", "device": "cpu", "train_seconds": 1.6, "versions": {"torch": "2.8"}}
    leaves = tuple(map(_measured, outcome.leaves))
    return dataclasses.replace(outcome, leaves=leaves, attempt="0123456789ab", seconds=2.0, metrics=metrics)


def make(folder: Path, segments: int) -> None:
    """Write run.json and journal of a run whose last segments are in flight."""
    with _open(folder, segments, resume=False):
        pass
    search = Search(SPACE, _settings(segments))
    waiting: collections.deque[SegmentTask] = collections.deque()
    (folder / "journal" / "000001.jsonl").unlink()
    seq, completion, file = 0, 0, None

    def write(kind: str, payload: dict[str, Any]) -> None:
        nonlocal seq, file
        if seq % _LINES_PER_FILE == 0:
            if file is not None:
                file.close()
            file = open(folder / "journal" / f"{seq // _LINES_PER_FILE + 1:06d}.jsonl", "xb")
        assert file is not None
        file.write(journal._encode(1, seq, kind, payload))
        seq += 1

    while completion < segments:
        task = search.ask()
        assert task is not None
        elapsed = 0.1 * task.index
        write("submitted", {"task": task.to_json(), "attempt_of_resume": False, "elapsed": elapsed})
        waiting.append(task)
        if len(waiting) == _IN_FLIGHT:
            outcome = _outcome(waiting.popleft())
            told = search.tell(outcome).to_json()
            line = {"outcome": outcome.to_json(), "completion": completion, "told": told, "elapsed": elapsed}
            write("finished", line)
            search.collect()
            completion += 1
    assert file is not None
    file.close()


def phase(name: str, folder: Path, segments: int) -> None:
    """One phase, in this process; prints what it cost."""
    began = time.process_time()
    if name in ("resume", "resume_again"):
        with _open(folder, segments, resume=True) as run:
            front, hypervolume = len(run.search.front()), run.search.hypervolume
            asked = run.search.asked
    else:
        history = read_history(folder)
        front, hypervolume, asked = len(history.archive), history.told[-1]["hypervolume_after"], len(history.tasks)
        if name == "end":
            _export(history, folder)
    cost = {"cpu_seconds": round(time.process_time() - began, 1), "peak_mb": round(_peak_megabytes())}
    print(json.dumps(cost | {"front": front, "hypervolume": hypervolume, "asked": asked}))


def _export(history: Any, folder: Path) -> None:
    """All exporters but that of the front's files, which this run has not."""
    from evocompress.extensions import EXPORTERS

    for name in ("segments", "picture", "report"):
        EXPORTERS[name](history, folder / "export", lambda leaf: b"")


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make the run, and measure each phase in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--folder", help="Where to; kept, and used again where it is there.")
    parser.add_argument("--phase", choices=_PHASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase is not None:
        phase(options.phase, Path(options.folder), options.segments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch, "run")
        if not folder.exists():
            make(folder, options.segments)
        nbytes = sum(path.stat().st_size for path in (folder / "journal").iterdir())
        result: dict[str, Any] = {"benchmark": "large_run", "segments": options.segments, "journal_bytes": nbytes}
        for name in _PHASES:
            command = [sys.executable, "-m", "benchmarks.search.large_run", "--phase", name, "--folder", str(folder)]
            command += ["--segments", str(options.segments)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result[name] = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps(result))


if __name__ == "__main__":
    main()
