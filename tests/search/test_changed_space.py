"""A run that goes on with other genes: ranges that are wider or narrower, genes that are new or gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.errors import RunError
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.repair import repair_run
from evocompress.search.run_folder import Run, open_run
from evocompress.search.space import Choice, Float, Gene, Integer, Space
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

TOY = toy_space()
RECIPE = ("step", "rounding")


def changed(defaults: dict[str, Any] | None = None, without: tuple[str, ...] = (), **genes: Gene) -> Space:
    """The toy's space with some genes otherwise."""
    kept = {name: gene for name, gene in {**TOY.genes, **genes}.items() if name not in without}
    return Space(kept, [name for name in RECIPE if name in kept], (), defaults)


#: All at once: wider, narrower, another option less, and a gene that the toy does not look at.
OTHER = changed(
    {"extra": 7},
    rate=Float(0.001, 2.0, log=True),
    step=Float(0.05, 0.5, log=True),
    rounding=Choice(("nearest",)),
    extra=Integer(1, 9),
)


def open_toy(folder: Path, space: Space = TOY, *, resume: bool = False, override: bool = False, **settings: Any) -> Run:
    chosen = toy_settings(**{"segments": 12, **settings})
    arguments: dict[str, Any] = {"header": {"config": {}}, "space": space, "settings": chosen}
    return open_run(folder, **arguments, resume=resume, override=override)


def drive(run: Run) -> None:
    assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"


@pytest.mark.parametrize("mode", [{}, {"deterministic": True, "lag": 3}, {"lineage_share": 0.5}], ids=str)
def test_a_run_goes_on_with_other_genes(tmp_path: Path, mode: dict[str, Any]) -> None:
    with open_toy(tmp_path, **mode) as run:
        drive(run)
    before = [outcome.to_json() for outcome in read_history(tmp_path).outcomes]
    with pytest.raises(RunError, match="space.genes.extra was null.*go on with override=True"):
        open_toy(tmp_path, OTHER, resume=True, segments=40, **mode)
    with open_toy(tmp_path, OTHER, resume=True, override=True, segments=40, **mode) as run:
        drive(run)
    history = read_history(tmp_path)
    assert [outcome.to_json() for outcome in history.outcomes[:12]] == before
    (override,) = history.events("override")
    assert Space.from_json(override["space"]) == OTHER and "space.genes.step.high" in override["changes"]
    later = [task for task in history.tasks.values() if task.index >= 12]
    assert len(later) == 28
    for task in later:
        for genome in (task.genome, *task.probes):
            OTHER.validate(genome)
    children = [
        task
        for task in later
        if task.parents and history.leaves[task.parents[0].leaf_id].genome.keys() == TOY.genes.keys()
    ]
    assert children  # of files of before, whose gene that is new is at its default unless it has been changed
    assert 7 in {task.genome["extra"] for task in children}
    with open_toy(tmp_path, OTHER, resume=True, segments=40, **mode) as run:  # and needs no override any more
        assert run.completions == 40 and not run.search.in_flight


def test_a_gene_that_moves_along_lineages_can_be_added(tmp_path: Path) -> None:
    turning: dict[str, Any] = {"lineage_share": 0.5, "lineage_turns": 1}
    with open_toy(tmp_path, **turning) as run:
        drive(run)
    rate = Float(0.1, 10.0, log=True, advance=0.2)
    space = Space({**TOY.genes, "lam": rate}, RECIPE, defaults={"lam": 5.0})
    with open_toy(tmp_path, space, resume=True, override=True, segments=20, **turning) as run:
        drive(run)
    assert read_history(tmp_path).events("override")


def test_a_run_of_before_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        drive(run)
    content = json.loads((tmp_path / "run.json").read_text())
    for name in ("lineage_turns", "lineage_start", "lineage_step"):
        del content["search"][name]
    (tmp_path / "run.json").write_text(json.dumps(content))
    with open_toy(tmp_path, resume=True, segments=14) as run:
        drive(run)
    with pytest.raises(RunError, match="cannot go on: search.lineage_turns was 0, is 1; undo that"):
        open_toy(tmp_path, resume=True, override=True, lineage_turns=1)


def test_genes_can_be_taken_back(tmp_path: Path) -> None:
    fewer = changed(without=("noise",))
    with open_toy(tmp_path) as run:
        drive(run)
    with open_toy(tmp_path, fewer, resume=True, override=True) as run:
        for _ in range(2):
            assert run.search.ask() is None
        assert all("noise" not in run.search.space.completed(leaf.genome) for leaf in run.search.front())


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (changed(extra=Float(0.0, 1.0)), "genes .'extra'. are new, and nothing says what they were"),
        (Space(TOY.genes, RECIPE, ["rate"]), "genes .'rate'. are kept by a lineage"),
    ],
)
def test_changes_that_leave_open_what_files_are(tmp_path: Path, space: Space, text: str) -> None:
    open_toy(tmp_path).__exit__(None, None, None)
    if space.lasting:  # the same genes, but one of them lasts
        space = Space({**TOY.genes, "rate": Float(0.5, 0.6)}, RECIPE, ["rate"])
    with pytest.raises(RunError, match=text):
        open_toy(tmp_path, space, resume=True, override=True)


def test_a_repair_knows_the_space_of_the_last_override(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        drive(run)
    with open_toy(tmp_path, OTHER, resume=True, override=True, segments=16) as run:
        drive(run)
    journal = sorted((tmp_path / "journal").glob("*.jsonl"))[-1]
    lines = journal.read_bytes().splitlines(keepends=True)
    place = max(n for n, line in enumerate(lines) if b'"submitted"' in line)
    lines[place] = lines[place].replace(b'"submitted"', b'"subXitted"')
    journal.write_bytes(b"".join(lines))
    done = repair_run(tmp_path)
    assert done.tasks == 1 and not done.unknown_tasks and not done.given_up
    with open_toy(tmp_path, OTHER, resume=True, segments=16) as run:
        assert run.completions == 16


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_completed_genome_is_one_of_the_space(seed: int) -> None:
    genome = TOY.sample(np.random.default_rng(seed))
    assert TOY.completed(genome) is genome
    completed = OTHER.completed(genome)
    OTHER.validate(completed)
    assert completed["extra"] == 7 and completed["rate"] == genome["rate"] and OTHER.completed(completed) == completed
    TOY.validate(TOY.completed(completed))
