"""TensorBoard: event files in tensorboard/ of the run folder, one folder for each segment and one for the search."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.runs.trackers.tracker import TrackedFront, TrackedRun, TrackedSegment
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoard"]


class TensorBoard:
    """`tensorboard --logdir RUN/tensorboard` shows it: curves, and genomes in the tab of hyperparameters."""

    _folder: Path
    _search: SummaryWriter

    def __init__(self) -> None:
        with needs_extra("tensorboard"):
            importlib.import_module("tensorboard")  # which torch's writer needs

    def begin(self, run: TrackedRun) -> None:
        """Open the files of the search."""
        self._folder = run.folder / "tensorboard"
        self._search = _writer(self._folder / "search")

    def log(self, segment: TrackedSegment) -> None:
        """Write a folder for the segment, and the curve of the search."""
        folder = self._folder / "segments" / f"{segment.number:06d}"
        with _writer(folder) as writer:
            for name, values in segment.curves.items():
                for epoch, value in enumerate(values, start=1):
                    writer.add_scalar(name, value, epoch)
            for name, number in segment.numbers.items():
                writer.add_scalar(f"segment/{name}", number, segment.completion + 1)
            for name in ("segment_id", "operator", "parent", "status", "error"):
                if text := getattr(segment, name):
                    writer.add_text(name, f"    {text}")  # as code, which Markdown leaves alone
            results = {f"result/{name}": number for name, number in segment.numbers.items()}
            genome: dict[str, Any] = {**segment.genome, "operator": segment.operator, "parent": segment.parent}
            # Within the segment's own folder, not in one of the time's name.
            writer.add_hparams(genome, results, run_name=str(folder.absolute()))
        self._search.add_scalar("hypervolume", segment.hypervolume, segment.completion + 1)
        self._search.flush()

    def end(self, front: TrackedFront) -> None:
        """Write the front as a table, and its picture if there is one."""
        columns = ("file", "bytes", "quality", "ratio", "depth", "epochs")
        lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
        lines += ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in front.rows]
        self._search.add_text("front", "\n".join(lines))
        self._search.close()


def _writer(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
