"""A run that begins with the front of another one: which files, with which genomes, and where it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_digits_run import small_digits_run
from synthetic_run import synthetic_run
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.errors import ConfigError, RunError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.evolve.seeding import _chosen
from evocompress.runs.front import in_view, knee
from evocompress.runs.origin import files_evaluated
from evocompress.search.history import read_history
from evocompress.tasks.classification import ACCURACY

SMALL = small_digits_run(search={"segments": 4, "probes": 2}, genes={"learning_rate": 0.004})


def test_which_files_are_taken() -> None:
    archive, quality = synthetic_run(30, seed=5).archive, ACCURACY
    useful = in_view(archive, quality)
    bend, best = knee(useful, quality), min(archive, key=lambda leaf: leaf.error)
    assert 3 < len(useful) < len(archive) and bend not in (None, useful[0])
    assert _chosen(archive, 1, quality) == [bend]
    assert _chosen(useful[:1] + useful[-1:], 1, quality) == [best]  # two files have no knee
    assert _chosen(archive, 2, quality) == [useful[0], useful[-1]]
    assert _chosen(archive, 99, quality) == useful
    guess = archive[0]
    assert _chosen([guess], 9, quality) == [guess]  # where there is nothing else


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    assert run_experiment(parse_config(SMALL), folder).finished
    return folder


@pytest.mark.slow
def test_the_population_begins_with_the_front(source: Path, tmp_path: Path) -> None:
    genes = {**SMALL["genes"], "rate_weight": [0.1, 1.0], "learning_rate": [0.001, 0.01]}
    config = parse_config({**SMALL, "genes": genes, "search": {**SMALL["search"], "segments": 9, "initial": 3}})
    folder = tmp_path / "run"
    assert run_experiment(config, folder, seeds=source).finished
    before, history = read_history(source), read_history(folder)
    seeds = [task for task in history.tasks.values() if task.operator == "seed"]
    count = min(len(before.archive), 4)  # at most half of the segments
    assert [task.index for task in seeds] == list(range(count)) and not any(task.parents for task in seeds)
    taken = [history.outcomes[task.index].leaves[0] for task in seeds]
    origin = {leaf.sha256: leaf for leaf in before.archive}
    for leaf in taken:
        other = origin[leaf.sha256]
        assert (leaf.nbytes, leaf.quality, leaf.depth, leaf.epochs) == (
            other.nbytes,
            other.quality,
            other.depth,
            other.epochs,
        )
        assert leaf.genome["learning_rate"] == 0.004 and 0.1 <= float(leaf.genome["rate_weight"]) <= 1.0
    assert {taken[0].sha256, taken[-1].sha256} == {before.archive[0].sha256, before.archive[-1].sha256}
    assert len(history.outcomes) == 9 and all(outcome.status == "ok" for outcome in history.outcomes)
    parents = {task.parents[0].leaf_id for task in history.tasks.values() if task.parents}
    assert parents & {leaf.leaf_id for leaf in taken}
    evaluated_here = sum(1 + len(task.probes) for task in history.tasks.values())
    assert files_evaluated(history) == evaluated_here + files_evaluated(before)
    (said,) = history.events("seeded")
    assert said["source"] == str(source)
    assert run_experiment(config, folder, resume=True).segments == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seed": 1}, "the seed, which the splits follow from"),
        ({"task": "toy_task:DigitError"}, "the task and the quality must be the same"),
        ({"model_options": {"width": 8}}, "has no file of a network with such options"),
    ],
)
def test_runs_that_are_judged_otherwise_are_no_seeds(
    source: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        run_experiment(parse_config({**SMALL, **changes}), tmp_path / "run", seeds=source)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_is_no_run_and_a_resume(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        run_experiment(parse_config(SMALL), tmp_path / "run", seeds=tmp_path)
    done = CliRunner().invoke(app, ["run", "--resume", "--out", str(source), "--from", str(source)])
    assert isinstance(done.exception, ConfigError) and "--from is for a new run" in str(done.exception)
