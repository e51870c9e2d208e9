"""A driver of the toy segment, to be killed in a process of its own."""

from __future__ import annotations

from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

__all__ = ["SEGMENTS", "drive_toy"]

SEGMENTS = 40


def drive_toy(folder: str, mode: str, seconds: str, log: str) -> None:
    """Begin a run, or with `mode` "resume" go on with it; says "open" as soon as it is, and then how it ended."""
    settings = toy_settings(segments=SEGMENTS, deterministic=True, lag=4)
    with open_run(folder, header={"config": {}}, space=toy_space(), settings=settings, resume=mode == "resume") as run:
        print("open", flush=True)
        print(run.drive(InlineExecutor(ToySegment(seconds=float(seconds), log=log), run.storage)), flush=True)
