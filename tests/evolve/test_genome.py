"""Genomes: the space that a configuration opens, and what a genome means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from configured_genes import configured_genes

from evocompress.codecs import parse_codec, registry
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import DEFAULT_CODECS, GROUPS, layer_groups
from evocompress.search.space import Choice, Float, Integer
from evocompress.training.genes import gene_specs

SHAPES = {"c1": (8, 1, 3, 3), "c1.b": (8,), "c2[0]": (8, 8, 3, 3), "f1": (16, 8), "f2": (10, 16), "n": ()}


@pytest.fixture
def reader() -> GenomeReader:
    return GenomeReader(configured_genes(), layer_groups(SHAPES))


def test_groups() -> None:
    assert layer_groups(SHAPES) == {
        "c1": "first",
        "c1.b": "vector",
        "c2[0]": "conv",
        "f1": "dense",
        "f2": "last",
        "n": "vector",
    }
    assert layer_groups({"a": (3, 3), "b": (2, 2)}) == {"a": "dense", "b": "dense"}
    assert layer_groups({}) == {}


def test_codecs_are_parsed_once_and_not_for_each_tensor_and_recipe(reader: GenomeReader) -> None:
    genome = reader.space().sample(np.random.default_rng(0))
    assert reader.recipe(genome, examples=100) == reader.recipe(genome, examples=100)
    before = registry._parsed.cache_info().misses
    for _ in range(3):
        reader.recipe(genome, examples=100)
    assert registry._parsed.cache_info().misses == before


def test_every_group_has_codecs_that_parse() -> None:
    assert set(DEFAULT_CODECS) == set(GROUPS)
    for specs in DEFAULT_CODECS.values():
        for spec in specs:
            for part in spec.split("|"):
                parse_codec(part.strip())


def test_kinds_of_genes(reader: GenomeReader) -> None:
    space = reader.space()
    assert isinstance(space.genes["epochs"], Integer)
    assert isinstance(space.genes["learning_rate"], Float) and space.genes["learning_rate"].log
    assert isinstance(space.genes["codec.conv"], Choice)
    assert "batch_size" not in space.genes and "optimiser" not in space.genes
    assert "epochs" not in space.recipe and not space.recipe & {
        spec.name for spec in gene_specs().values() if spec.role == "training"
    }
    assert {"rate_weight", "step_scale", "codec.first", "rate_factor.vector", "sensitivity"} <= space.recipe


def test_any_genome_is_a_recipe_and_a_training(reader: GenomeReader) -> None:
    space = reader.space()
    for genome in space.latin_hypercube(20, np.random.default_rng(0)):
        recipe = reader.recipe(genome, examples=1000)
        recipe.check((name, len(shape)) for name, shape in SHAPES.items())
        assert [recipe.rule(name, len(shape)).rate_factor for name, shape in SHAPES.items()] == [
            genome[f"rate_factor.{group}"] for group in reader.groups.values()
        ]
        assert reader.training(genome).learning_rate == genome["learning_rate"]
        assert 1 <= reader.epochs(genome) <= 4


def test_a_name_with_glob_characters_meets_only_itself(reader: GenomeReader) -> None:
    genome = reader.space().sample(np.random.default_rng(0))
    recipe = reader.recipe(genome, examples=1000)
    assert recipe.rule("c2[0]", 4).codecs != ()
    assert recipe.rule("c20", 4) not in recipe.rules


def test_the_step_gene_reaches_the_quantiser() -> None:
    genes = configured_genes(step_scale=1.25, codecs={"dense": ["deadzone(step_scale=2) | dct-matrix | codebook"]})
    reader = GenomeReader(genes, {"w": "dense"})
    codecs = [
        str(codec)
        for codec in reader.recipe(reader.space().sample(np.random.default_rng(0)), examples=9).rule("w", 2).codecs
    ]
    assert codecs[0] == "deadzone(step_scale=2.5)"
    assert codecs[1].startswith("dct(axes=matrix)+") and codecs[1].endswith("deadzone(step_scale=1.25)")
    assert codecs[2].startswith("codebook")


def test_a_space_without_freedom_still_is_one() -> None:
    fixed = configured_genes(
        rate_weight=0.5, grid=["exact"], rate_factor=1.0, vector_rate_factor=0.1, step_scale=1.0, sensitivity=["none"],
        codecs={"dense": ["deadzone"]}, learning_rate=1e-3, epochs=1, weight_decay=0.0, l1=0.0, noise=0.0,
        projection=["free"],
    )  # fmt: skip
    reader = GenomeReader(fixed, {"w": "dense"})
    space = reader.space()
    assert list(space.genes) == ["replicate"]
    assert reader.recipe({"replicate": 3}, examples=1000).rate_weight == 0.5 * math.log(2) / 1000
    assert not reader.uses_gradients({"replicate": 3})


def test_the_step_gene_reaches_every_quantiser_that_has_a_step() -> None:
    genes = configured_genes(step_scale=1.5, codecs={"dense": ["trellis(states=16) | dct-trellis"]})
    reader = GenomeReader(genes, {"w": "dense"})
    codecs = reader.recipe(reader.space().sample(np.random.default_rng(0)), examples=9).rule("w", 2).candidates
    assert [codec.stages[-1].step_scale for codec in codecs] == [1.5, 1.5]  # type: ignore[attr-defined]


def test_every_gene_says_what_it_does_once() -> None:
    for name, spec in gene_specs().items():
        assert spec.name == name and len(spec.sentence) > 10
        assert spec.kind != "choice" or spec.options
