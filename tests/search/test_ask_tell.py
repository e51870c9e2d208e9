"""Ask and tell: equal asks for equal histories, whatever workers and faults do, and a lag that keeps workers busy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evocompress.errors import RunError
from evocompress.search.ask_tell import Search, Told
from evocompress.search.loop import Loop
from evocompress.search.probe_control import ProbeControl
from evocompress.search.records import Genome, Leaf, Outcome, SegmentTask
from evocompress.search.settings import SearchSettings
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.space import Float, Space
from evocompress.search.toy_segment import toy_settings, toy_space


def evaluate(task: SegmentTask, folder: str = "", parent_files: Sequence[bytes] = ()) -> Outcome:
    """A pure segment without files; noisy in its seed, and failing now and then."""
    rng = np.random.default_rng(task.seed)
    if rng.random() < 0.1:
        return Outcome(task.segment_id, task.index, "diverged")
    depth = task.parents[0].depth + 1 if task.parents else 0
    leaves = []
    for n, genome in enumerate((task.genome, *task.probes)):
        step = float(genome["step"])
        quality = round(math.exp(-step / 3 - 0.5 / (1 + depth) - 0.1 * float(rng.random())), 3)
        leaf_id = f"{task.segment_id}-{n}"
        leaves.append(Leaf(leaf_id, leaf_id, leaf_id, int(40 + 60 / step), quality, 1.0 - quality, genome, depth=depth))
    return Outcome(task.segment_id, task.index, "ok", tuple(leaves), encode_fraction=0.1)


def drive(settings: SearchSettings, workers: int = 1, seed: int = 0, **faults: float) -> Search:
    search = Search(toy_space(), settings)
    executor = SimulatedExecutor(evaluate, workers=workers, seed=seed, **faults)  # type: ignore[arg-type]
    assert Loop(search, executor).run() == "finished"
    return search


def result(search: Search) -> list[tuple[str, int, float]]:
    return [(leaf.leaf_id, leaf.nbytes, leaf.quality) for leaf in search.front()]


def step(search: Search) -> SegmentTask:
    task = search.ask()
    assert task is not None
    search.tell(evaluate(task))
    return task


@pytest.mark.parametrize("selection", ["dominance", "scalar", "random"])
def test_same_seed_same_asks(selection: str) -> None:
    asked = []
    for seed in (3, 3, 4):
        search = Search(toy_space(), toy_settings(seed=seed, selection=selection, byte_budget=100))
        asked.append([step(search) for _ in range(40)])
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]
    assert len({task.segment_id for tasks in asked[1:] for task in tasks}) == 80


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("selection", ["dominance", "random"])
def test_state_round_trip_gives_the_same_next_asks(deterministic: bool, selection: str) -> None:
    settings = toy_settings(deterministic=deterministic, lag=5, selection=selection, byte_budget=100)
    search = Search(toy_space(), settings)
    for _ in range(20):
        step(search)
    flying = [search.ask() for _ in range(3)]
    again = Search(toy_space(), settings)
    again.load_state_dict(json.loads(json.dumps(search.state_dict())))
    assert again.state_dict() == search.state_dict()
    for each in (search, again):
        for task in flying:
            assert task is not None
            each.tell(evaluate(task))
    assert [step(search) for _ in range(20)] == [step(again) for _ in range(20)]
    assert result(search) == result(again)
    assert search.hypervolume == again.hypervolume


@pytest.mark.parametrize("deterministic", [False, True])
def test_replaying_the_history_gives_the_same_next_ask(deterministic: bool) -> None:
    settings = toy_settings(deterministic=deterministic, lag=4)
    search, replayed = Search(toy_space(), settings), Search(toy_space(), settings)
    for _ in range(30):
        task = search.ask()
        assert task is not None
        replayed.replay(SegmentTask.from_json(json.loads(json.dumps(task.to_json()))))
        for each in (search, replayed):
            each.tell(evaluate(task))
    assert search.state_dict() == replayed.state_dict()
    assert search.ask() == replayed.ask()


def test_deterministic_fronts_do_not_depend_on_workers_or_faults() -> None:
    settings = toy_settings(segments=120, deterministic=True, lag=6, seed=7)
    plain = drive(settings)
    expected = result(plain)
    assert len(expected) > 8
    for workers in (1, 2, 7):
        for seed in (1, 2):
            search = drive(settings, workers, seed, crash=0.2, duplicate=0.2, lost=0.2)
            assert result(search) == expected
            assert search.pool == plain.pool


def test_free_mode_does_depend_on_them() -> None:
    """Else the test above would say nothing."""
    settings = toy_settings(segments=120, seed=7)
    assert result(drive(settings, 1)) != result(drive(settings, 7))


def test_lag_of_twice_the_workers_keeps_them_busy() -> None:
    busy = {}
    for lag in (16, 32):
        search = Search(toy_space(), toy_settings(segments=2000, deterministic=True, lag=lag))
        executor = SimulatedExecutor(evaluate, workers=16)
        Loop(search, executor).run()
        busy[lag] = executor.busy_seconds / executor.now() / 16
    assert busy[32] > 0.97 > busy[16]


def nothing(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
    return Outcome(task.segment_id, task.index, "ok")


class OnlyTheLag:
    """A search that decides nothing: task i is there once the outcomes 0 to i - lag are."""

    def __init__(self, segments: int, lag: int) -> None:
        self.settings, self.archive, self.hypervolume = toy_settings(segments=segments), (), 0.0
        self._lag, self._asked, self._told, self._first = lag, 0, set[int](), 0

    def ask(self) -> SegmentTask | None:
        while self._first in self._told:
            self._told.discard(self._first)
            self._first += 1
        if self._asked == self.settings.segments or self._asked - self._lag >= self._first:
            return None
        self._asked += 1
        return SegmentTask(self._asked - 1, str(self._asked), "initial", "none", (), {}, (), 0, 0)

    hopeless = None

    @property
    def share_asked(self) -> float:
        return self._asked / (self.settings.segments or 1)

    def tell(self, outcome: Outcome) -> Told:
        self._told.add(outcome.index)
        return Told(0.0, 0.0)


@pytest.mark.parametrize("workers", [8, 64, 500])
def test_the_lag_that_follows_from_the_workers_keeps_them_busy_whatever_the_faults(workers: int) -> None:
    """Twice the workers is not enough for many: they wait for the slowest of the last segments, run again or not."""
    busy = {}
    rounds = 30
    resolved = toy_settings(deterministic=True).resolve(workers).lag
    assert resolved is not None
    for lag in (resolved, 2 * workers):
        search: Any = OnlyTheLag(rounds * workers, lag)
        faults = {"crash": 0.01, "lost": 0.01, "duplicate": 0.01}
        executor = SimulatedExecutor(nothing, workers=workers, **faults)  # type: ignore[arg-type]
        marks: list[tuple[float, float]] = []  # busy seconds and time, in the middle and when the last was asked

        def mark(search: OnlyTheLag = search, executor: SimulatedExecutor = executor, marks: Any = marks) -> bool:
            if search.share_asked >= (0.3, 1.0, 2.0)[len(marks)]:
                marks.append((executor.busy_seconds, executor.now()))
            return False

        assert Loop(search, executor, should_stop=mark).run() == "finished"
        (busy_before, before), (busy_after, after) = marks
        busy[lag] = (busy_after - busy_before) / (after - before) / workers
    assert busy[resolved] > 0.98
    assert workers < 500 or busy[2 * workers] < 0.9


def test_decision_i_sees_exactly_results_up_to_i_minus_lag() -> None:
    search = Search(toy_space(), toy_settings(deterministic=True, lag=3))
    tasks = []
    for _ in range(3):
        task = search.ask()
        assert task is not None
        tasks.append(task)
    assert search.ask() is None
    search.tell(evaluate(tasks[1]))
    search.tell(evaluate(tasks[2]))
    assert search.ask() is None and not search.done
    search.tell(evaluate(tasks[0]))
    assert [task.seen for task in (search.ask(), search.ask(), search.ask()) if task] == [1, 2, 3]
    assert search.ask() is None


def test_budget_of_segments() -> None:
    search = Search(toy_space(), toy_settings(segments=3))
    for _ in range(3):
        assert not search.done
        step(search)
    assert search.done and search.ask() is None and search.asked == 3


def test_duplicates_change_nothing_and_strangers_are_refused() -> None:
    search = Search(toy_space(), toy_settings())
    task = step(search)
    state = search.state_dict()
    told = search.tell(evaluate(task))
    assert told.duplicate and told.accepted == () and search.state_dict() == state
    with pytest.raises(RunError, match="never asked"):
        search.tell(Outcome("0000", 99, "ok"))


def test_failed_segments_count_and_leave_nothing() -> None:
    search = Search(toy_space(), toy_settings(segments=30))
    while (task := search.ask()) is not None:
        told = search.tell(Outcome(task.segment_id, task.index, "failed", error="x"))
        assert (told.accepted, told.hypervolume_after) == ((), 0.0)
        assert task.operator == "initial"
    assert search.front() == [] and search.pool == []


def test_initial_genomes_are_the_hypercube_and_operators_follow() -> None:
    search = Search(toy_space(), toy_settings(seed=1))
    tasks = [step(search) for _ in range(400)]
    assert [task.operator for task in tasks[:6]] == ["initial"] * 6
    assert all(task.parents and task.rule != "none" for task in tasks[6:])
    shares = {
        name: sum(task.operator == name for task in tasks[6:]) / 394 for name in ("continue", "mutate", "crossover")
    }
    assert shares["continue"] == pytest.approx(0.30, abs=0.08)
    assert shares["mutate"] == pytest.approx(0.60, abs=0.08)
    assert shares["crossover"] == pytest.approx(0.10, abs=0.05)
    assert {len(task.parents) for task in tasks if task.operator == "crossover"} == {2}


def test_operators_change_what_they_may() -> None:
    space = toy_space()
    search = Search(space, toy_settings(seed=1))
    genomes: dict[str, Genome] = {}
    counts = dict.fromkeys(("continue", "mutate", "crossover"), 0)
    for _ in range(200):
        task = step(search)
        genomes.update((leaf.leaf_id, leaf.genome) for leaf in evaluate(task).leaves)
        if task.operator in ("initial", "seed"):
            continue
        parent = genomes[task.parents[0].leaf_id]
        changed = {name for name in space.names if task.genome[name] != parent[name]}
        counts[task.operator] += bool(changed)
        assert task.operator == "mutate" or changed <= space.recipe
        if task.operator == "crossover":
            other = genomes[task.parents[1].leaf_id]
            assert all(task.genome[name] in (parent[name], other[name]) for name in space.recipe)
    assert counts["continue"] == 0 < counts["crossover"] < counts["mutate"]


def test_parent_rules_have_their_shares() -> None:
    search = Search(toy_space(), toy_settings(byte_budget=100))
    tasks = [step(search) for _ in range(500)][6:]
    shares = {
        rule: sum(task.rule == rule for task in tasks) / len(tasks) for rule in ("tournament", "size_bin", "budget")
    }
    assert shares["tournament"] == pytest.approx(0.70, abs=0.07)
    assert shares["size_bin"] == pytest.approx(0.15, abs=0.06)
    assert shares["budget"] == pytest.approx(0.15, abs=0.06)


def test_nothing_still_needed_is_collected_and_nothing_else_is_kept() -> None:
    for settings in (toy_settings(pool_size=5), toy_settings(pool_size=5, deterministic=True, lag=6)):
        search = Search(toy_space(), settings)
        made: set[str] = set()
        gone: set[str] = set()
        flying: list[SegmentTask] = []
        rng = np.random.default_rng(0)
        for _ in range(300):
            task = search.ask() if len(flying) < 5 else None
            if task is not None:
                assert not {parent.leaf_id for parent in task.parents} & gone
                flying.append(task)
                continue
            outcome = evaluate(flying.pop(int(rng.integers(len(flying)))))
            search.tell(outcome)
            made |= {leaf.leaf_id for leaf in outcome.leaves}
            dead = search.collect()
            assert not set(dead) & gone
            gone |= set(dead)
            needed = {leaf.leaf_id for leaf in (*search.pool, *search.front())}
            needed |= {parent.leaf_id for task in flying for parent in task.parents}
            assert not needed & gone
            assert all(search.needs(leaf_id) for leaf_id in made - gone)
        assert len(gone) > 50


def test_probes_adapt_to_their_share() -> None:
    settings = toy_settings(probes=8, probe_share=0.2)
    control = ProbeControl(settings)
    assert control.count == 8
    task_outcome = Outcome("s", 0, "ok", encode_fraction=0.2)
    for _ in range(16):
        control.observe(task_outcome, 4)  # four recipes take exactly the share: K = 3
    assert control.count == 3
    for _ in range(16):
        control.observe(dataclasses.replace(task_outcome, encode_fraction=0.9), 4)
    assert control.count == 0
    for _ in range(16):
        control.observe(dataclasses.replace(task_outcome, encode_fraction=0.001), 4)
    assert control.count == 8
    fixed = ProbeControl(dataclasses.replace(settings, deterministic=True))
    for _ in range(16):
        fixed.observe(dataclasses.replace(task_outcome, encode_fraction=0.9), 4)
    assert fixed.count == 8


def test_told_says_what_changed() -> None:
    search = Search(toy_space(), toy_settings())
    for _ in range(60):
        before = {leaf.leaf_id for leaf in search.front()}
        task = search.ask()
        assert task is not None
        volume = search.hypervolume
        outcome = evaluate(task)
        told = search.tell(outcome)
        after = {leaf.leaf_id for leaf in search.front()}
        assert set(told.accepted) == after - before
        assert set(told.displaced) == before - after
        assert (told.hypervolume_before, told.hypervolume_after) == (volume, search.hypervolume)


def test_more_workers_than_initial_segments_start_fresh() -> None:
    search = Search(toy_space(), toy_settings())
    tasks = [search.ask() for _ in range(20)]
    assert all(task is not None and task.operator == "initial" for task in tasks)
    assert len({json.dumps(task.genome) for task in tasks if task}) == 20


def test_deterministic_without_a_lag_is_refused() -> None:
    with pytest.raises(RunError, match="resolve"):
        Search(toy_space(), toy_settings(deterministic=True))


def test_lineages_are_taken_to_their_end_and_new_ones_begin() -> None:
    space = Space({"rate": Float(0.1, 10.0, log=True, start=0.3, advance=0.25), "other": Float(0.0, 1.0)})
    search = Search(space, toy_settings(initial=1, segments=40, lineage_share=1.0, probes=0, pool_size=2))
    rates: list[list[float]] = []
    last = ""
    while (task := search.ask()) is not None:
        rate = float(task.genome["rate"])
        if task.operator == "initial":
            rates.append([])
            assert task.parents == () and rate <= 0.1 * 100**0.3 * 1.001
        else:
            assert (task.operator, task.rule, task.parents[0].leaf_id) == ("continue", "lineage", last)
        rates[-1].append(rate)
        last = f"{task.segment_id}-0"
        # Each file is worse than the one before, so that neither pool nor front keeps any of them.
        leaf = Leaf(last, last, "s", 30 + task.index, 0.9 - 0.01 * task.index, 0.1 + 0.01 * task.index, task.genome)
        again = Search(space, search.settings)
        again.load_state_dict(json.loads(json.dumps(search.state_dict())))
        for one in (search, again):
            one.tell(Outcome(task.segment_id, task.index, "ok", (leaf,)))
        assert again.state_dict() == search.state_dict()
        assert search.needs(last) or rate == 10.0 or task.index == 0  # its file waits for the next segment
    assert len(rates) > 5 and all(way == sorted(way) and way[-1] == 10.0 for way in rates[:-1])
    assert rates[0][1] / rates[0][0] == pytest.approx(100**0.25, rel=1e-3)


@pytest.mark.parametrize(("begin", "first", "given"), [((0.7, 0.8), -1, 2), ((0.1, 0.2), 1, 3)])
def test_a_lineage_turns_round_at_the_ends_of_the_range(begin: tuple[float, float], first: int, given: int) -> None:
    """It goes to the end that is further away, turns round twice, and then a new one begins."""
    gene = Float(0.1, 10.0, log=True, start=0.3, advance=0.25)
    space = Space({"rate": gene, "other": Float(0.0, 1.0)})
    settings = toy_settings(
        initial=1, segments=40, lineage_share=1.0, probes=0, pool_size=2,
        lineage_turns=given, lineage_start=begin, lineage_step=0.2,
    )  # fmt: skip
    search, after = Search(space, settings), Search(space, settings)
    lineages: list[list[float]] = []
    while (task := search.ask()) is not None:
        if task.operator == "initial":
            lineages.append([])
        lineages[-1].append(gene.place(task.genome["rate"]))
        after.replay(task)
        leaf_id = f"{task.segment_id}-0"
        leaf = Leaf(
            leaf_id, leaf_id, "s", 30 + task.index, 0.9 - 0.01 * task.index, 0.1 + 0.01 * task.index, task.genome
        )
        again = Search(space, settings)
        again.load_state_dict(json.loads(json.dumps(search.state_dict())))
        for one in (search, again, after):
            one.tell(Outcome(task.segment_id, task.index, "ok", (leaf,)))
        assert again.state_dict() == search.state_dict() == after.state_dict()
    assert len(lineages) > 2
    for places in lineages[:-1]:
        assert begin[0] - 1e-6 <= places[0] <= begin[1] + 1e-6
        steps = np.diff(places)
        assert list(dict.fromkeys(np.sign(steps))) == [first, -first]
        turned = np.flatnonzero(np.diff(np.sign(steps))) + 1
        ends = [1.0 if first > 0 else 0.0, 0.0 if first > 0 else 1.0]
        assert [places[turn] for turn in turned] == pytest.approx(ends, abs=1e-5)
        assert places[-1] == pytest.approx(ends[0], abs=1e-5)  # its third end: no turns are left
        lengths = np.abs(steps)  # 0.2, but for the last ones before an end: no step of less than half of that is left
        assert lengths.min() > 0.1 - 1e-5 and lengths.max() < 0.3 + 1e-5
        assert np.isclose(lengths, 0.2, atol=1e-5).sum() > len(lengths) / 2


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("mode", [{}, {"deterministic": True, "lag": 2}], ids=["free", "deterministic"])
def test_a_lineage_that_turns_goes_back_where_the_network_collapses(failed: bool, mode: dict[str, Any]) -> None:
    gene = Float(0.1, 10.0, log=True, start=0.3, advance=0.25)
    space = Space({"rate": gene, "other": Float(0.0, 1.0)})
    settings = toy_settings(
        initial=1, segments=30, lineage_share=1.0, probes=0, pool_size=1,
        lineage_turns=4, lineage_start=(0.1, 0.2), lineage_step=0.2, **mode,
    )  # fmt: skip
    search = Search(space, settings)
    places: dict[str, float] = {}
    went_back = 0
    while (task := search.ask()) is not None:
        place = gene.place(task.genome["rate"])
        leaf_id = f"{task.segment_id}-0"
        places[leaf_id] = place
        if task.parents and places[task.parents[0].leaf_id] > place:
            went_back += 1
            assert places[task.parents[0].leaf_id] <= 0.6
        assert all(search.needs(parent.leaf_id) for parent in task.parents)
        error = 9.0 if place > 0.6 else 0.1 + 0.01 * task.index
        leaves = () if failed and place > 0.6 else (Leaf(leaf_id, leaf_id, "s", 30, 1 - error, error, task.genome),)
        again = Search(space, settings)
        again.load_state_dict(json.loads(json.dumps(search.state_dict())))
        for one in (search, again):
            one.tell(Outcome(task.segment_id, task.index, "ok" if leaves else "diverged", leaves))
        assert again.state_dict() == search.state_dict()
        assert again.needed_paths() == search.needed_paths()
        assert set(search.collect().values()).isdisjoint(search.needed_paths())
    assert went_back > 2


def test_what_goes_on_from_the_front_does_so_both_ways_where_lineages_turn() -> None:
    space = Space({"rate": Float(0.1, 10.0, log=True, start=0.3, advance=0.1), "other": Float(0.0, 1.0)})
    for turns, directions in ((0, {1}), (1, {1, -1})):
        settings = toy_settings(initial=1, segments=30, probes=0, continue_share=1, mutate_share=0, crossover_share=0)
        search = Search(space, dataclasses.replace(settings, lineage_turns=turns, lineage_start=(0.4, 0.6)))
        parents: dict[str, float] = {}
        seen = set()
        while (task := search.ask()) is not None:
            rate = float(task.genome["rate"])
            if task.parents and (before := parents[task.parents[0].leaf_id]) != rate:
                seen.add(1 if rate > before else -1)
            leaf_id = f"{task.segment_id}-0"
            parents[leaf_id] = rate
            leaf = Leaf(leaf_id, leaf_id, "s", 30 + task.index, 0.9, 0.1 / (1 + task.index), task.genome)
            search.tell(Outcome(task.segment_id, task.index, "ok", (leaf,)))
        assert seen == directions


def test_new_lineages_inherit_how_the_front_was_trained() -> None:
    """Half of them begin with genes near those of a file of the front, and with λ where lineages begin."""
    space = Space({"rate": Float(0.1, 10.0, log=True, start=0.3, advance=0.5), "other": Float(0.0, 1.0)})
    search = Search(space, toy_settings(initial=1, segments=400, lineage_share=1.0, probes=0, mutation_sigma=0.02))
    begun: list[float] = []
    while (task := search.ask()) is not None:
        other = float(task.genome["other"])
        if task.operator == "initial":
            begun.append(other)
            assert float(task.genome["rate"]) <= 0.1 * 100**0.3 * 1.001
        leaf_id = f"{task.segment_id}-0"
        error = 0.1 + abs(other - 0.7)  # so the front holds files of lineages whose gene is near 0.7
        search.tell(
            Outcome(
                task.segment_id, task.index, "ok", (Leaf(leaf_id, leaf_id, "s", 30, 1 - error, error, task.genome),)
            )
        )
    late = begun[20:]
    assert len(late) > 60
    assert 0.4 < sum(abs(other - 0.7) < 0.1 for other in late) / len(late) < 0.75  # of uniform draws it were a fifth


def test_a_lineage_that_has_collapsed_is_not_gone_on_with() -> None:
    space = Space({"rate": Float(0.1, 10.0, log=True, start=0.3, advance=0.25)})
    search = Search(space, toy_settings(initial=1, segments=9, lineage_share=1.0, probes=0))
    for _ in range(4):
        task = search.ask()
        assert task is not None and task.operator == "initial"
        leaf = Leaf(f"{task.segment_id}-0", "p", "s", 9, 0.0, 9.0, task.genome)
        search.tell(Outcome(task.segment_id, task.index, "ok", (leaf,)))
