"""Weights & Biases: a run for the search and one for each segment, in one group. Where to: WANDB_PROJECT and so on."""

from __future__ import annotations

import importlib
import os
import uuid
from typing import Any

from evocompress.runs.export import table_row
from evocompress.runs.trackers.tracker import TrackedFront, TrackedRun, TrackedSegment
from evocompress.support.optional_libraries import needs_extra

__all__ = ["WandB"]

_PROJECT = "WANDB_PROJECT"


class WandB:
    """The project is evocompress, or that in WANDB_PROJECT; the group is the run's name."""

    _options: dict[str, Any]
    _search: Any

    def __init__(self) -> None:
        with needs_extra("wandb"):
            self._wandb: Any = importlib.import_module("wandb")

    def begin(self, run: TrackedRun) -> None:
        """Open the search's run, or the one of before."""
        self._options = {"project": os.environ.get(_PROJECT, "evocompress"), "group": run.name}
        self._options |= {"dir": str(run.folder), "reinit": "create_new"}
        run_id = run.kept.setdefault("run_id", uuid.uuid4().hex[:12])
        self._search = self._wandb.init(
            id=run_id, resume="allow", name=run.name, job_type="search", config=dict(run.config), **self._options
        )

    def log(self, segment: TrackedSegment) -> None:
        """Write the segment's run, and a step of the search's curve."""
        tags = [segment.operator, segment.status, *([f"parent {segment.parent}"[:64]] if segment.parent else [])]
        config = {**segment.genome, "segment_id": segment.segment_id, "parent": segment.parent}
        name = f"segment {segment.number}"
        with self._wandb.init(name=name, job_type="segment", tags=tags, config=config, **self._options) as run:
            for epoch in range(max(map(len, segment.curves.values()), default=0)):
                point = {name: curve[epoch] for name, curve in segment.curves.items() if epoch < len(curve)}
                run.log(point, step=epoch + 1)
            run.summary.update({**segment.numbers, "error_text": segment.error})
        self._search.log({"hypervolume": segment.hypervolume}, step=segment.completion + 1)

    def end(self, front: TrackedFront) -> None:
        """Store the front as an artifact."""
        rows = [table_row(row) for row in front.rows]
        columns = [*rows[0]] if rows else []
        self._search.log({"front": self._wandb.Table(columns=columns, data=[list(row.values()) for row in rows])})
        if front.files:
            artifact = self._wandb.Artifact(f"front-{self._search.id}", type="front")
            for path in front.files:
                artifact.add_file(str(path))
            self._search.log_artifact(artifact)
        self._search.finish(exit_code=0 if front.finished else 1)
