"""MLflow: a run for the search, and below it one for each segment. Where to: MLFLOW_TRACKING_URI and the like."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from evocompress.runs.trackers.tracker import TrackedFront, TrackedRun, TrackedSegment
from evocompress.support.optional_libraries import needs_extra

__all__ = ["Mlflow"]

_LONGEST = 500  # letters of a value that any version takes
_MOST = 90  # values in one request, likewise
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"


class Mlflow:
    """By the client alone, so that the process's own active run is left alone.

    The experiment has the run's name, or that in MLFLOW_EXPERIMENT_NAME.
    """

    _client: Any
    _experiment: str
    _search: str

    def __init__(self) -> None:
        with needs_extra("mlflow"):
            self._entities: Any = importlib.import_module("mlflow.entities")
            self._make_client: Any = importlib.import_module("mlflow").MlflowClient

    def begin(self, run: TrackedRun) -> None:
        """Open the search's run, or the one of before."""
        self._client = self._make_client()
        name = os.environ.get(_EXPERIMENT, run.name)
        experiment = self._client.get_experiment_by_name(name)
        self._experiment = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._search = str(run.kept.get("run_id", ""))
        if not self._search:
            created = self._client.create_run(self._experiment, run_name=run.name, tags={"folder": str(run.folder)})
            self._search = run.kept["run_id"] = created.info.run_id
        self._client.update_run(self._search, status="RUNNING")

    def log(self, segment: TrackedSegment) -> None:
        """Write the segment's run, and a step of the search's curve."""
        tags = {
            "mlflow.parentRunId": self._search,
            "segment_id": segment.segment_id,
            "operator": segment.operator,
            "parent": segment.parent,
            "status": segment.status,
            "error": segment.error[:_LONGEST],
        }
        given = {name: text for name, text in tags.items() if text}
        created = self._client.create_run(self._experiment, run_name=f"segment {segment.number}", tags=given)
        run_id = created.info.run_id
        self._write(run_id, segment.genome, [(name, value, 0) for name, value in segment.numbers.items()])
        points = [
            (name, value, epoch) for name, curve in segment.curves.items() for epoch, value in enumerate(curve, 1)
        ]
        self._write(run_id, {}, points)
        self._client.set_terminated(run_id, "FINISHED" if segment.status == "ok" else "FAILED")
        self._write(self._search, {}, [("hypervolume", segment.hypervolume, segment.completion + 1)])

    def end(self, front: TrackedFront) -> None:
        """Store the front as artifacts."""
        self._client.log_dict(self._search, {"front": list(front.rows)}, "front.json")
        for path in front.files:
            self._client.log_artifact(self._search, str(path), "export")
        self._client.set_terminated(self._search, "FINISHED" if front.finished else "KILLED")

    def _write(self, run_id: str, params: Mapping[str, Any], metrics: list[tuple[str, float, int]]) -> None:
        now = math.floor(1000 * time.time())
        values = [self._entities.Param(name, str(value)[:_LONGEST]) for name, value in params.items()]
        points = [self._entities.Metric(name, value, now, step) for name, value, step in metrics]
        for start in range(0, max(len(values), len(points)), _MOST):
            some = slice(start, start + _MOST)
            self._client.log_batch(run_id, metrics=points[some], params=values[some])
