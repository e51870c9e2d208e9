"""The space of genomes: samples, mutation, crossover, probes, and their distributions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.errors import ConfigError
from evocompress.search.records import Genome
from evocompress.search.space import Choice, Float, Integer, Space
from evocompress.search.variation import crossover, mutate, probes

SPACE = Space(
    {
        "lr": Float(1e-4, 1e-1, log=True),
        "decay": Float(0.0, 1.0),
        "epochs": Integer(1, 5),
        "width": Integer(1, 64, log=True),
        "codec": Choice(("dct", "svd", "plain")),
        "flag": Choice((True, False)),
        "weight": Float(1e-6, 1e-2, log=True),
    },
    recipe=["codec", "weight", "flag"],
)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_samples_and_their_variations_stay_in_the_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    genome, other = SPACE.sample(rng), SPACE.sample(rng)
    for made in (
        genome,
        mutate(SPACE, genome, rng, SPACE.names, 0.5, 0.9),
        crossover(SPACE, genome, other, rng),
        *probes(SPACE, genome, rng, 4, 0.5, 0.3),
    ):
        SPACE.validate(made)
        assert json.loads(json.dumps(made)) == made


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SPACE.names))
def test_a_mutation_changes_exactly_what_it_may(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    genome = SPACE.sample(rng)
    changed = mutate(SPACE, genome, rng, [name], 1e-9, 0.3)
    assert {key for key in genome if genome[key] != changed[key]} <= {name}
    if not isinstance(SPACE.genes[name], Float):
        assert changed[name] != genome[name]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_probes_and_crossover_keep_training_genes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    genome, other = SPACE.sample(rng), SPACE.sample(rng)
    tried = probes(SPACE, genome, rng, 6, 0.5, 0.3)
    assert tried and genome not in tried
    for made in (*tried, crossover(SPACE, genome, other, rng)):
        assert all(made[name] == genome[name] for name in SPACE.names if name not in SPACE.recipe)
    mixed = crossover(SPACE, genome, other, rng)
    assert all(mixed[name] in (genome[name], other[name]) for name in SPACE.recipe)


def test_no_recipe_genes_no_probes() -> None:
    space = Space({"lr": Float(0.1, 1.0)})
    rng = np.random.default_rng(0)
    assert probes(space, space.sample(rng), rng, 4, 0.5, 0.3) == ()


def test_latin_hypercube_fills_every_stratum_once() -> None:
    space = Space({"a": Float(0.0, 1.0), "b": Integer(0, 9), "c": Float(1e-3, 1e3, log=True)})
    points = space.latin_hypercube(10, np.random.default_rng(3))
    assert sorted(int(float(point["a"]) * 10) for point in points) == list(range(10))
    assert sorted(int(point["b"]) for point in points) == list(range(10))
    assert sorted(int((np.log10(float(point["c"])) + 3) / 6 * 10) for point in points) == list(range(10))


def test_integers_are_drawn_evenly() -> None:
    gene = Integer(1, 4)
    counts = np.bincount([gene.from_unit(u) for u in np.linspace(0, 1, 4001)], minlength=5)[1:]
    assert counts.max() - counts.min() <= 1


def test_mutation_is_small_and_centred() -> None:
    rng = np.random.default_rng(0)
    moved = np.array([Float(0.0, 1.0).mutate(0.5, rng, 0.1) for _ in range(2000)])
    assert abs(moved.mean() - 0.5) < 0.01
    assert 0.09 < moved.std() < 0.11


def test_json_round_trip_draws_the_same() -> None:
    again = Space.from_json(json.loads(json.dumps(SPACE.to_json())))
    assert again == SPACE
    assert again.sample(np.random.default_rng(5)) == SPACE.sample(np.random.default_rng(5))
    assert hash(again.recipe) == hash(SPACE.recipe)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Float(1.0, 1.0), "low < high"),
        (lambda: Float(0.0, 1.0, log=True), "log=False"),
        (lambda: Float(0.0, float("nan")), "finite"),
        (lambda: Choice(("a", "a")), "each once"),
        (lambda: Choice(()), "at least one"),
        (lambda: Space({}), "at least one gene"),
        (lambda: Space({"a": Float(0, 1)}, recipe=["b"]), "'b'"),
        (lambda: Space.from_json({"genes": {"a": {"type": "flaot"}}, "recipe": []}), "'choice', 'float', 'integer'"),
        (lambda: SPACE.validate({"lr": 0.1}), "this space has"),
        (lambda: SPACE.validate({**SPACE.sample(np.random.default_rng(0)), "epochs": 9}), "'epochs' has the value 9"),
    ],
)
def test_errors_name_the_rule(make: object, text: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("value", [SPACE, SPACE.genes["lr"], SPACE.genes["epochs"], SPACE.genes["codec"]])
def test_a_space_and_its_genes_cannot_be_changed(value: object) -> None:
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, getattr(value, field.name))


def test_a_fresh_start_is_low_and_a_lineage_goes_up() -> None:
    space = Space({"rate": Float(0.05, 8.0, log=True, start=0.3, advance=0.12), "other": Float(0.0, 1.0)})
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(200)] + space.latin_hypercube(50, rng)
    low, highest = 0.05, 0.05 * (8.0 / 0.05) ** 0.3
    assert all(low <= float(genome["rate"]) <= highest * 1.001 for genome in drawn)
    assert max(float(genome["other"]) for genome in drawn) > 0.9
    genome, seen = drawn[0], []
    for _ in range(12):
        genome = space.advanced(genome)
        seen.append(float(genome["rate"]))
        assert genome["other"] == drawn[0]["other"]
    assert seen == sorted(seen) and seen[-1] == seen[-2] == 8.0  # at the end it stays
    assert seen[1] / seen[0] == pytest.approx((8.0 / 0.05) ** 0.12, rel=1e-4)
    assert Space.from_json(space.to_json()) == space


def test_a_lineage_that_begins_anew_takes_what_begins_low_or_advances_from_a_fresh_genome() -> None:
    low, moving = Float(0.0, 1.0, start=0.5), Float(0.0, 1.0, advance=0.1)
    space = Space({"low": low, "moving": moving, "other": Float(0.0, 1.0), "count": Integer(1, 9)})
    genome: Genome = {"low": 0.9, "moving": 0.8, "other": 0.7, "count": 6}
    fresh: Genome = {"low": 0.1, "moving": 0.2, "other": 0.3, "count": 4}
    assert space.restarted(genome, fresh) == {"low": 0.1, "moving": 0.2, "other": 0.7, "count": 6}


@pytest.mark.parametrize("shares", [{"start": 0.0}, {"start": 1.5}, {"advance": -0.1}, {"advance": 2.0}])
def test_shares_of_a_range(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="shares of the range"):
        Float(1.0, 2.0, **shares)  # type: ignore[arg-type]
