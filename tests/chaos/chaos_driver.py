"""A driver of toy segments as a program, to be killed, stopped and doubled; and a reader of what a run has come to.

    python chaos_driver.py drive FOLDER --address 127.0.0.1:6379 --segments 40
    python chaos_driver.py read FOLDER

`drive` begins a run or goes on with the one that is there, audits its front in the executor and journals that. It says
"open", "finished INDEX", "late INDEX", "delayed INDEX: REASON" and "ended REASON", a line each. It ends with 1 and a
line "error: …" where it could not go on. `read` prints as JSON all that is to be compared: front, leaves, the hashes of
the files as they lie in storage, and what the audit said.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evocompress.errors import EvocompressError
from evocompress.search.events import Delayed, Finished, Late
from evocompress.search.executors import Executor
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.node_probe import NodeProbe
from evocompress.search.ray_executor import RayExecutor
from evocompress.search.records import Leaf
from evocompress.search.run_folder import Run, open_run
from evocompress.search.storage import Storage, open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

__all__ = ["main", "what_a_run_came_to"]


@dataclasses.dataclass(frozen=True)
class _Audit:
    """Reads files of a front where the executor runs it."""

    storage: Storage

    def __call__(self, files: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
        """(leaf id, path) to leaf id → SHA-256 of the file."""
        return {leaf_id: {"sha256": hashlib.sha256(self.storage.read(path)).hexdigest()} for leaf_id, path in files}


def _tell(event: object) -> None:
    if isinstance(event, Finished):
        print(f"finished {event.index}", flush=True)
    elif isinstance(event, Late):
        print(f"late {event.task.index} attempt {event.attempt}", flush=True)
    elif isinstance(event, Delayed):
        print(f"delayed {event.task.index}: {event.reason}", flush=True)


def _drive(words: argparse.Namespace) -> int:
    resume = Path(words.folder, "run.json").exists()
    settings = toy_settings(segments=words.segments, deterministic=True, lag=8, seed=words.seed)
    run = open_run(
        words.folder,
        header={"config": {}},
        space=toy_space(),
        settings=settings,
        storage_uri=words.storage,
        resume=resume,
        snapshot_every=words.snapshot_every,
    )
    with run:
        print("open", flush=True)
        segment = ToySegment(seconds=words.seconds, log=words.log)
        executor: Executor = (
            RayExecutor(segment, run.storage, address=words.address)
            if words.address
            else InlineExecutor(segment, run.storage)
        )
        try:
            if isinstance(executor, RayExecutor):
                executor.look_at_nodes(NodeProbe(run.storage))
            reason = run.drive(executor, observer=_tell, time_limit=words.time_limit)
            if reason == "finished":
                _audit(run, executor)
        finally:
            executor.close()
    print(f"ended {reason}", flush=True)
    return 0


def _audit(run: Run, executor: Executor) -> None:
    known = {leaf_id for event in run.events("audited") for leaf_id in event["leaves"]}
    files = [(leaf.leaf_id, leaf.path) for leaf in run.search.front() if leaf.leaf_id not in known]
    judged: dict[str, Any] = {}
    for part in executor.map(_Audit(run.storage), [files[start::2] for start in range(2)]):
        judged |= part
    if judged:
        run.record("audited", leaves=judged)


def _about(leaf: Leaf) -> list[Any]:
    return [leaf.sha256, leaf.nbytes, leaf.quality, leaf.error, leaf.depth, leaf.genome]


def what_a_run_came_to(folder: str, storage_uri: str = "") -> dict[str, Any]:
    """Front, leaves, hashes of the files in storage by segment and name, and what the audit said, as JSON data."""
    history, storage = read_history(folder), open_storage(storage_uri or folder)
    paths = storage.find("seg")
    files = {"/".join(path.split("/")[1::2]): path for path in paths if path.endswith(".evc")}
    return {
        "front": [leaf.leaf_id for leaf in history.archive],
        "leaves": {leaf.leaf_id: _about(leaf) for outcome in history.outcomes for leaf in outcome.leaves},
        "statuses": {str(outcome.index): outcome.status for outcome in history.outcomes},
        "files": {name: hashlib.sha256(storage.read(path)).hexdigest() for name, path in files.items()},
        "file_count": sum(path.endswith(".evc") for path in paths),
        "audited": {k: v for event in history.events("audited") for k, v in event["leaves"].items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if the run is finished, 1 if it could not go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["drive", "read"])
    parser.add_argument("folder")
    parser.add_argument("--storage", default="")
    parser.add_argument("--address", default="", help="a Ray cluster; inline without one")
    parser.add_argument("--segments", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="that each segment takes")
    parser.add_argument("--snapshot-every", type=int, default=15)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--log", default="", help="a folder that gets a file for each attempt")
    words = parser.parse_args(arguments)
    try:
        if words.action == "read":
            print(json.dumps(what_a_run_came_to(words.folder, words.storage), sort_keys=True))
            return 0
        return _drive(words)
    except EvocompressError as error:
        print(f"error: {error}", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
