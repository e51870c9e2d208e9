"""Seeds of a run: files of another run's front, from which its population begins."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evocompress.errors import ConfigError
from evocompress.evolve.config import Config, parse_config
from evocompress.evolve.genome import GenomeReader, network_options
from evocompress.runs.front import in_view, knee
from evocompress.runs.origin import files_evaluated
from evocompress.search.history import History, read_history
from evocompress.search.old_runs import quality_of_run
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, Outcome, SegmentTask
from evocompress.search.run_folder import Run
from evocompress.search.settings import SearchSettings
from evocompress.tasks import DEFAULT_TASK

__all__ = ["Seeds", "read_seeds", "sow"]


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Files of a run's front, each with its genome as one of the new run; `evaluated` files were looked at there."""

    source: str
    files: tuple[tuple[Leaf, bytes], ...] = dataclasses.field(repr=False)
    evaluated: int


def read_seeds(
    source: Path, config: Config, reader: GenomeReader, settings: SearchSettings, header: Mapping[str, Any]
) -> Seeds:
    """The front of a run as seeds of another: as many files as its pool holds, and no more than half its segments.

    Files of chance level (`front.in_view`) are none: their weights have learned nothing that another run could go on
    with. Of the others some are taken that are spread over the front. Where there is room for one alone it is the knee,
    or the best if there is no knee. Their qualities hold only where both runs judge alike, and their files only in the
    same network.

    Args:
        source: The folder of that run.
        config, reader, settings, header: Of the run that is to begin.

    Raises:
        ConfigError: The runs differ in network, data, seed or task, or there is no file.
        RunError: There is no run.
    """
    history = read_history(source)
    _check_alike(history, config, header)
    before = parse_config(history.run["config"], str(source))
    was = GenomeReader(before.genes, reader.groups, before.task, before.parsed_rules, reader.further_groups)
    leaves = []
    for leaf in history.archive:
        genome = reader.space().completed(was.resolve(leaf.genome))
        if network_options(config, genome) == network_options(before, leaf.genome):
            leaves.append(dataclasses.replace(leaf, genome=genome))
    if not leaves:
        raise ConfigError(f"{source} has no file of a network with such options to begin with.")
    most = settings.pool_size if settings.segments is None else min(settings.pool_size, max(1, settings.segments // 2))
    files = tuple((leaf, history.storage.read(leaf.path)) for leaf in _chosen(leaves, most, history.quality))
    return Seeds(str(source), files, files_evaluated(history))


def _chosen(leaves: Sequence[Leaf], most: int, quality: Quality) -> list[Leaf]:
    """At most so many leaves of a front, smallest first: of those that are of use the ends and some between."""
    useful = in_view(leaves, quality)
    if most == 1:  # an end would be the smallest file, and the worst
        return [knee(useful, quality) or min(useful, key=lambda leaf: leaf.error)]
    return [useful[place] for place in _evenly(len(useful), most)]


def _check_alike(history: History, config: Config, header: Mapping[str, Any]) -> None:
    this_run: dict[str, Any] = json.loads(json.dumps(header))
    other: Mapping[str, Any] = history.run.get("config", {})
    pairs = {
        "the network": (config.model, other.get("model")),
        "the task": (config.task, other.get("task", DEFAULT_TASK)),
        "the seed, which the splits follow from": (config.seed, other.get("seed")),
        "the data": (this_run.get("data"), history.run.get("data")),
        "the quality": (quality_of_run(this_run.get("quality")), history.quality),
    }
    if different := [what for what, (mine, theirs) in pairs.items() if mine != theirs]:
        raise ConfigError(f"{history.folder} cannot seed this run: {' and '.join(different)} must be the same.")


def _evenly(count: int, most: int) -> Sequence[int]:
    """At most so many places among `count`, spread evenly, the ends among them.

    >>> _evenly(10, 4), _evenly(3, 9)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def sow(run: Run, seeds: Seeds) -> None:
    """Let a new run begin with seeds, which are journalled as its first segments."""
    leaves = [leaf.leaf_id for leaf, _ in seeds.files]
    run.record("seeded", source=seeds.source, leaves=leaves, evaluated=seeds.evaluated)
    for leaf, data in seeds.files:
        run.give(leaf.genome, _Given(leaf, data))


@dataclasses.dataclass(frozen=True)
class _Given:
    """A segment whose file there is."""

    leaf: Leaf
    data: bytes

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        name = "0.evc"
        Path(folder, name).write_bytes(self.data)
        leaf = dataclasses.replace(self.leaf, leaf_id=f"{task.segment_id}/0", path=name, genome=task.genome)
        return Outcome(task.segment_id, task.index, "ok", (leaf,), metrics={"seed": self.leaf.leaf_id})
