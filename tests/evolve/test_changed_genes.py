"""A run of real networks that goes on with a gene that evolves from then on, and one that is fixed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_digits_run import small_digits_run

from evocompress.cli.command_words import as_commands
from evocompress.errors import RunError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import config_of_run, run_experiment
from evocompress.runs.front import front
from evocompress.search.history import read_history

pytestmark = pytest.mark.slow

SMALL = small_digits_run(search={"probes": 1}, genes={"learning_rate": 0.004, "weight_decay": [1e-5, 1e-3]})


def test_a_gene_evolves_and_another_is_fixed_from_now_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_experiment(parse_config(SMALL), folder).finished
    changes = ["genes.learning_rate=[0.001, 0.01]", "genes.weight_decay=1e-4", "search.segments=8"]
    config = config_of_run(folder, changes)
    told = "genes.learning_rate was 0.004, is [0.001, 0.01]; genes.weight_decay was [1e-05, 0.001], is 0.0001"
    with pytest.raises(RunError) as refused:  # each change once, and none of the budget, which may change
        run_experiment(config, folder, resume=True)
    text = f"{folder} was made with another configuration: {told}; undo that, or go on with override=True"
    assert str(refused.value) == text and as_commands(text).endswith("undo that, or go on with --override")
    with pytest.raises(RunError, match="cannot go on: seed was 0, is 3; undo that"):  # not what follows from it
        run_experiment(config_of_run(folder, ["seed=3"]), folder, resume=True)
    assert run_experiment(config, folder, resume=True, override=True).finished
    history = read_history(folder)
    (override,) = history.events("override")
    assert override["space"]["defaults"] == {"learning_rate": 0.004}
    assert all(outcome.status == "ok" for outcome in history.outcomes)
    for task in history.tasks.values():
        assert ("learning_rate" in task.genome, "weight_decay" in task.genome) == (task.index >= 3, task.index < 3)
        assert 0.001 <= float(task.genome.get("learning_rate", 0.004)) <= 0.01
    assert all(point.audited for point in front(history))  # also files of before
    # What was accepted needs no override again, and keeps its defaults.
    assert run_experiment(config_of_run(folder, ["search.segments=9"]), folder, resume=True).finished
    assert read_history(folder).events("override")[-1]["space"]["defaults"] == {"learning_rate": 0.004}


def test_a_gene_of_the_architecture_cannot_be_added(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_experiment(parse_config({**SMALL, "search": {**SMALL["search"], "segments": 1, "initial": 1}}), folder)
    with pytest.raises(RunError, match="genes .'alpha'. are new, and nothing says what they were"):
        run_experiment(config_of_run(folder, ["genes.alpha=[0.2, 0.8]"]), folder, resume=True, override=True)
