"""Selection: policies, the draw of parents, settings that break a rule, and the pool."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.errors import ConfigError
from evocompress.extensions import SELECTION
from evocompress.search.ask_tell import Search
from evocompress.search.loop import Loop
from evocompress.search.objectives import Member, Scale
from evocompress.search.parent_draw import choose_parent
from evocompress.search.parent_pool import Pool
from evocompress.search.population import Population
from evocompress.search.records import Leaf, Outcome
from evocompress.search.selection_policies import Fitness, Policy, by_dominance
from evocompress.search.settings import SearchSettings
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def hypervolumes(folder: Path, **changes: object) -> list[float]:
    values = []
    for seed in range(4):
        search = Search(toy_space(), toy_settings(segments=80, seed=seed, **changes))
        storage = open_storage(folder / f"{'-'.join(map(str, changes.values()))}-{seed}")
        Loop(search, SimulatedExecutor(ToySegment(), storage, workers=4)).run()
        values.append(search.hypervolume)
    return values


def test_dominance_beats_random_and_probes_beat_none(tmp_path: Path) -> None:
    full = hypervolumes(tmp_path)
    assert np.mean(full) > np.mean(hypervolumes(tmp_path, selection="random"))
    assert np.mean(full) > np.mean(hypervolumes(tmp_path, probes=0))


def tell(search: Search, nbytes: int, quality: float) -> str:
    task = search.ask()
    assert task is not None
    leaf = Leaf(f"{task.segment_id}-0", "p", "s", nbytes, quality, 1.0 - quality, task.genome)
    search.tell(Outcome(task.segment_id, task.index, "ok", (leaf,)))
    return leaf.leaf_id


def test_scalar_keeps_one_end_and_dominance_the_whole_front() -> None:
    sizes = [(2 ** (5 + n / 4), n / 16) for n in range(16)]
    kept = {}
    for selection in ("dominance", "scalar"):
        search = Search(toy_space(), toy_settings(selection=selection, pool_size=5))
        for nbytes, quality in sizes:
            tell(search, int(nbytes), 0.5 * quality)
        kept[selection] = sorted(leaf.nbytes for leaf in search.pool)
    spread = {name: math.log2(values[-1] / values[0]) for name, values in kept.items()}
    assert spread["dominance"] > 2 * spread["scalar"]


def test_random_keeps_everything() -> None:
    search = Search(toy_space(), toy_settings(selection="random", pool_size=2))
    made = {tell(search, 100 + n, 0.5) for n in range(20)}
    assert {leaf.leaf_id for leaf in search.pool} == made
    assert search.collect() == {}
    task = search.ask()
    assert task is not None and task.rule == "random"


def test_the_budget_rule_takes_the_best_that_fits() -> None:
    search = Search(toy_space(), toy_settings(byte_budget=100, budget_share=1e9, initial=3))
    tell(search, 50, 0.2)
    best = tell(search, 99, 0.6)
    tell(search, 101, 0.9)
    task = search.ask()
    assert task is not None
    assert (task.rule, task.parents[0].leaf_id) == ("budget", best)


def test_size_bins_are_tried_in_turn() -> None:
    search = Search(toy_space(), toy_settings(size_bin_share=1e9, initial=3, size_bins=4, crossover_share=0))
    leaves = {tell(search, nbytes, quality) for nbytes, quality in ((25, 0.1), (120, 0.5), (500, 0.9))}
    for _ in range(3):
        tasks = [search.ask() for _ in range(3)]
        assert {task.parents[0].leaf_id for task in tasks if task} == leaves


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"initial": 0}, "initial"),
        ({"probes": -1}, "probes"),
        ({"segments": 0}, "segments"),
        ({"minutes": 0.0}, "minutes"),
        ({"probe_share": 1.0}, "probe_share"),
        ({"bytes_range": (100, 10)}, "bytes_range"),
        ({"reference": (1.1, float("inf"))}, "reference"),
        ({"tournament_share": 0.0}, "tournament_share"),
        ({"mutation_rate": 0.0}, "mutation_rate"),
        ({"segmants": 3}, "segmants"),
        ({"initial": []}, r"initial = \(\); it must be a whole number"),
        ({"pool_size": 2.5}, "pool_size = 2.5; it must be a whole number"),
        ({"initial": True}, "initial = True; it must be a whole number"),
        ({"segments": "4"}, "segments = 4; it must be a whole number, or left out"),
        ({"deterministic": 1}, "deterministic = 1; it must be true or false"),
        ({"bytes_range": [1, "2"]}, "bytes_range .* must be two numbers"),
        ({"selection": 3}, "selection = 3; it must be a text"),
        ({"seed": None}, "seed = None; it must be a whole number"),
        ({"mutation_rate": "high"}, "mutation_rate = high; it must be a number"),
    ],
)
def test_settings_name_what_is_wrong(change: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SearchSettings.from_json(change)


def test_a_policy_of_ones_own_decides_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def smallest(members: Sequence[Member], size: int, reference: tuple[float, float]) -> dict[int, Fitness]:
        order = sorted(range(len(members)), key=lambda i: members[i].key)
        return {i: (members[i].x, 0.0) for i in sorted(order, key=lambda i: members[i].x)[:size]}

    monkeypatch.setitem(SELECTION._builtin, "smallest", "test_selection_policies:smallest")
    monkeypatch.setitem(SELECTION._loaded, "smallest", Policy(smallest))
    search = Search(toy_space(), toy_settings(selection="smallest", pool_size=3))
    for n in range(10):
        tell(search, 100 + n, 0.5 + n / 100)
    assert [leaf.nbytes for leaf in search.pool] == [100, 101, 102]
    with pytest.raises(ConfigError, match="selection 'smalest' is unknown. Did you mean 'smallest'"):
        Search(toy_space(), toy_settings(selection="smalest"))
    monkeypatch.setitem(SELECTION._loaded, "smallest", smallest)
    with pytest.raises(ConfigError, match="selection 'smallest' is a function; it must be a Policy"):
        Search(toy_space(), toy_settings(selection="smallest"))


def test_settings_round_trip() -> None:
    settings = toy_settings(segments=4, minutes=2.5, deterministic=True).resolve(3)
    assert settings.lag == 6 and settings.resolve(9) is settings
    assert SearchSettings.from_json(settings.to_json()) == settings


def member(x: float, y: float, place: int) -> Member:
    leaf = Leaf(f"s{place}", f"{place}.evc", "", 100, 0.5, 0.5, {})
    return Member(leaf, (place, 0), x, y)


def test_what_is_of_no_use_is_dominated_by_all_others() -> None:
    """A collapsed network's file is the smallest there is, so nothing dominates it; yet nobody wants its children."""
    members = [member(0.9, 0.1, 0), member(0.95, 0.2, 1), member(-1.0, 3.0, 2), member(0.5, 0.3, 3)]
    fitness = by_dominance(members, 4, (1.1, 1.1))
    assert max(fitness, key=lambda i: fitness[i]) == 2 and fitness[2][0] > fitness[1][0]
    assert set(by_dominance(members, 3, (1.1, 1.1))) == {0, 1, 3}
    assert by_dominance(members[2:3], 1, (1.1, 1.1))  # unless there is nothing else


def test_of_equal_rank_the_one_with_fewer_children_is_the_parent() -> None:
    pool = Pool(toy_settings(pool_size=4, tournament_size=16))
    pool.insert([member(0.2, 0.8, 0), member(0.4, 0.4, 1), member(0.8, 0.2, 2), member(0.9, 0.9, 3)])
    rng, children = np.random.default_rng(0), Counter[str]()
    for _ in range(30):
        children[pool.draw(rng, children).leaf.leaf_id] += 1
    assert all(children[f"s{place}"] >= 8 for place in range(3)) and children["s3"] == 0


def test_a_tournament_is_won_by_rank_then_few_children_then_what_is_dominated_then_age() -> None:
    pool = Pool(toy_settings(pool_size=5, tournament_size=200))  # so many that each takes part
    pool.insert([member(0.2, 0.8, 0), member(0.4, 0.4, 1), member(0.8, 0.2, 2), member(0.9, 0.9, 3)])
    pool.insert([member(0.4, 0.4, 4)])  # as good as 1: neither alone dominates anything
    rng, ids = np.random.default_rng(0), [f"s{place}" for place in range(5)]
    winner = {
        (0, 0, 0, 0, 0): "s0",
        (1, 0, 0, 0, 0): "s2",
        (1, 0, 1, 0, 0): "s1",
        (1, 1, 1, 0, 0): "s4",
        (3, 2, 3, 0, 2): "s1",
    }
    for tries, best in winner.items():
        assert pool.draw(rng, dict(zip(ids, tries, strict=True))).leaf.leaf_id == best
    assert pool.insert([member(0.1, 0.1, 5)]) == [member(0.9, 0.9, 3)]
    assert "s5" in pool and "s3" not in pool and len(pool) == 5


def test_a_neighbour_is_next_in_size_on_either_side() -> None:
    pool = Pool(toy_settings(pool_size=8))
    pool.insert([member(x, 1 - x, place) for place, x in enumerate((0.5, 0.1, 0.9, 0.3, 0.3))])
    rng = np.random.default_rng(0)
    expected = {0: {4, 2}, 1: {3}, 2: {0}, 3: {1, 4}, 4: {3, 0}}
    for one in pool.members:
        partners = {near.key[0] for _ in range(40) if (near := pool.neighbour(one, rng)) is not None}
        assert partners == expected[one.key[0]]
    alone = Pool(toy_settings())
    alone.insert([member(0.5, 0.5, 0)])
    assert alone.neighbour(alone.members[0], rng) is None
    unranked = Pool(toy_settings(selection="random"))
    unranked.insert(pool.members)
    for one in unranked.members:
        others = {near.key[0] for _ in range(80) if (near := unranked.neighbour(one, rng)) is not None}
        assert others == set(range(5)) - {one.key[0]}
    assert {unranked.draw(rng, {}).key[0] for _ in range(80)} == set(range(5))
    assert unranked.insert([member(0.5, 0.5, 5)]) == [] and "s5" in unranked and "s0" in unranked


def test_a_pool_is_the_same_after_it_was_saved() -> None:
    settings = toy_settings(pool_size=4)
    population = Population(settings)
    leaves = [Leaf(f"s{n}-0", "p", "s", 40 * 2**n, 0.1 * n, 1 - 0.1 * n, {}) for n in range(6)]
    released = population.insert([Scale.of(settings).member(leaf, (n, 3)) for n, leaf in enumerate(leaves)])
    again = Population.from_state(population.state_dict(), settings)
    assert again.pool.members == population.pool.members and again.archive.members == population.archive.members
    assert again.pool._fitness == population.pool._fitness
    for leaf in leaves:
        kept = again.find(leaf.leaf_id)
        assert (kept is not None) == (leaf.leaf_id in again) and (kept is None or kept.leaf == leaf)
    stayed = {one.leaf.leaf_id for one in again.pool.members}
    assert {one.leaf.leaf_id for one in released} == {leaf.leaf_id for leaf in leaves} - stayed and len(stayed) == 4


def chosen(count: int, tries: Sequence[int] = (0, 0), **changes: object) -> Counter[tuple[str, str]]:
    """Rules and parents of so many draws from four members, of which one is beyond the reference point."""
    settings = toy_settings(size_bins=len(tries), pool_size=8, tournament_size=99, **changes)
    population = Population(settings)
    low, high = (math.log2(end) for end in settings.bytes_range)
    sizes = [round(2 ** (low + x * (high - low))) for x in (0.05, 0.2, 0.4, 0.8)]
    errors = (3.0, 0.8, 0.5, 0.2)
    for n, (nbytes, error) in enumerate(zip(sizes, errors, strict=True)):
        population.insert([Scale.of(settings).member(Leaf(f"l{n}", "p", "s", nbytes, 0.5, error, {}), (n, 0))])
    rng = np.random.default_rng(0)
    pairs = (choose_parent(population, tries, {}, settings, rng) for _ in range(count))
    return Counter((rule, parent.leaf.leaf_id) for parent, rule in pairs)


def test_rules_are_drawn_by_their_shares() -> None:
    shares: dict[str, Any] = {"tournament_share": 1.0, "size_bin_share": 2.0, "budget_share": 5.0}
    rules = Counter[str]()
    for (rule, _), count in chosen(800, byte_budget=10**9, **shares).items():
        rules[rule] += count
    assert rules["size_bin"] == pytest.approx(200, abs=40) and rules["budget"] == pytest.approx(500, abs=45)
    assert rules["tournament"] == pytest.approx(100, abs=30) and rules.total() == 800
    rules.clear()
    for (rule, _), count in chosen(300, **shares).items():  # without a budget its share is nobody's
        rules[rule] += count
    assert rules["size_bin"] == pytest.approx(200, abs=30) and rules["size_bin"] + rules["tournament"] == 300


def test_a_bin_that_was_tried_less_comes_first_and_what_is_of_no_use_last() -> None:
    only: dict[str, Any] = {"tournament_share": 1e-9, "size_bin_share": 1.0}
    assert set(chosen(60, (0, 1), **only)) == {("size_bin", "l1"), ("size_bin", "l2")}
    assert set(chosen(60, (1, 0), **only)) == {("size_bin", "l3")}
    both = chosen(400, (2, 2), **only)
    assert both["size_bin", "l3"] == pytest.approx(200, abs=40) and both["size_bin", "l1"] == pytest.approx(100, abs=35)
    assert set(both) == {("size_bin", f"l{n}") for n in (1, 2, 3)}
    # The second and the third of four bins: an empty one is passed over, though nobody was tried there.
    assert set(chosen(60, (9, 1, 0, 0), **only)) == {("size_bin", "l3")}
    assert set(chosen(60, (9, 1, 0, 5), **only)) == {("size_bin", "l2")}


def test_without_any_member_of_use_a_bin_gives_what_there_is() -> None:
    settings = toy_settings(size_bins=2, tournament_share=1e-9, size_bin_share=1.0)
    population = Population(settings)
    population.insert([member(0.2, 5.0, 0), member(0.7, 4.0, 1)])
    rng = np.random.default_rng(0)
    assert {choose_parent(population, [0, 0], {}, settings, rng)[0].key[0] for _ in range(40)} == {0, 1}


def test_a_budget_that_nothing_meets_gets_the_smallest() -> None:
    only: dict[str, Any] = {"tournament_share": 1e-9, "size_bin_share": 0.0, "budget_share": 1.0}
    assert set(chosen(5, byte_budget=1, **only)) == {("budget", "l0")}
    assert set(chosen(5, byte_budget=10**9, **only)) == {("budget", "l3")}
