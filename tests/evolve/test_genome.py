"""Genomes: the space that a configuration opens, and what a genome means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from evocompress.checkpoint.forms import PLAIN, Architecture
from evocompress.codecs import parse_codec
from evocompress.errors import ModelError
from evocompress.evolve.config import Genes
from evocompress.evolve.genome import DEFAULT_CODECS, TRAINING_GENES, GenomeReader
from evocompress.evolve.layer_groups import GROUPS, groups_of, layer_groups
from evocompress.ideas.linearconv import convert
from evocompress.networks import build
from evocompress.search.space import Choice, Float, Integer
from evocompress.training.trainer import TrainingGenes

SHAPES = {"c1": (8, 1, 3, 3), "c1.b": (8,), "c2[0]": (8, 8, 3, 3), "f1": (16, 8), "f2": (10, 16), "n": ()}


@pytest.fixture
def reader() -> GenomeReader:
    return GenomeReader(Genes(), layer_groups(SHAPES))


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
    assert "epochs" not in space.recipe and not space.recipe & set(TRAINING_GENES)
    assert {"rate_weight", "step_scale", "codec.first", "rate_factor.vector", "sensitivity"} <= space.recipe


def test_any_genome_is_a_recipe_and_a_training(reader: GenomeReader) -> None:
    space = reader.space()
    for genome in space.latin_hypercube(20, np.random.default_rng(0)):
        recipe = reader.recipe(genome)
        recipe.check((name, len(shape)) for name, shape in SHAPES.items())
        assert [recipe.rule(name, len(shape)).rate_factor for name, shape in SHAPES.items()] == [
            genome[f"rate_factor.{group}"] for group in reader.groups.values()
        ]
        assert TrainingGenes(**reader.training(genome)).learning_rate == genome["learning_rate"]  # type: ignore[arg-type]
        assert 1 <= reader.epochs(genome) <= 4


def test_a_name_with_glob_characters_meets_only_itself(reader: GenomeReader) -> None:
    genome = reader.space().sample(np.random.default_rng(0))
    recipe = reader.recipe(genome)
    assert recipe.rule("c2[0]", 4).codecs != ()
    assert recipe.rule("c20", 4) not in recipe.rules


def test_the_step_gene_reaches_the_quantiser() -> None:
    genes = Genes(step_scale=1.25, codecs={"dense": ["deadzone(step_scale=2) | dct-matrix | codebook"]})
    reader = GenomeReader(genes, {"w": "dense"})
    codecs = [
        str(codec) for codec in reader.recipe(reader.space().sample(np.random.default_rng(0))).rule("w", 2).codecs
    ]
    assert codecs[0] == "deadzone(step_scale=2.5)"
    assert codecs[1].startswith("dct(axes=matrix)+") and codecs[1].endswith("deadzone(step_scale=1.25)")
    assert codecs[2].startswith("codebook")


def test_a_space_without_freedom_still_is_one() -> None:
    fixed = Genes(
        rate_weight=1e-3, rate_factor=1.0, vector_rate_factor=0.1, step_scale=1.0, sensitivity=["none"],
        codecs={"dense": ["deadzone"]}, learning_rate=1e-3, epochs=1, weight_decay=0.0, l1=0.0, noise=0.0,
        projection=["free"],
    )  # fmt: skip
    reader = GenomeReader(fixed, {"w": "dense"})
    space = reader.space()
    assert list(space.genes) == ["replicate"]
    assert reader.recipe({"replicate": 3}).rate_weight == 1e-3
    assert not reader.uses_gradients({"replicate": 3})


def test_architecture_genes() -> None:
    groups = layer_groups(SHAPES)
    usual = GenomeReader(Genes(), groups)
    assert not {"alpha", "rank"} & set(usual.space().genes)
    assert usual.architecture(usual.space().sample(np.random.default_rng(0))) == PLAIN
    reader = GenomeReader(Genes(alpha=(0.25, 1.0), rank=(0.1, 1.0)), groups)
    space = reader.space()
    assert set(space.genes) - set(usual.space().genes) == {"alpha", "rank"}
    assert space.recipe == usual.space().recipe  # no probe changes them
    assert space.genes["alpha"] == Float(0.25, 1.0) and space.genes["rank"] == Float(0.1, 1.0, log=True)
    genome = space.sample(np.random.default_rng(0))
    assert reader.architecture({**genome, "alpha": 0.51, "rank": 0.3}) == Architecture(0.5625, 2**-1.5)
    assert reader.training(genome) == usual.training({n: v for n, v in genome.items() if n not in ("alpha", "rank")})
    fixed = GenomeReader(Genes(alpha=0.55, rank=0.05), groups)
    assert fixed.architecture(fixed.space().sample(np.random.default_rng(0))) == Architecture(0.55, 0.05)


def test_a_recipe_for_the_names_that_there_are() -> None:
    shapes = {"c1.weight": (8, 1, 3, 3), "c2.weight": (8, 8, 3, 3), "c2.bias": (8,), "f.weight": (10, 8)}
    reader = GenomeReader(Genes(alpha=(0.25, 1.0), rank=(0.1, 1.0)), layer_groups(shapes))
    genome = reader.space().sample(np.random.default_rng(0))
    assert reader.recipe(genome, shapes) == reader.recipe(genome)
    factors = {"c2.primary": 4, "c2.coefficients_left": 2, "c2.coefficients_right": 2}
    state = {"c1.weight": 4, **factors, "c2.bias": 1, "c2.is_primary": 1, "f.weight": 2, "f.coefficients": 2}
    recipe = reader.recipe(genome, state)
    groups = groups_of(state, reader.groups)
    assert groups.keys() == state.keys() - {"c2.is_primary"} and groups["f.coefficients"] == "last"
    assert {groups[name] for name in factors} == {"conv"}
    recipe.check(state.items())
    for name, group in groups.items():
        assert recipe.rule(name, state[name]).rate_factor == genome[f"rate_factor.{group}"]
    assert len(recipe.rules) == len(groups)
    assert groups_of(["primary", "coefficients"], {"weight": "conv"}) == {"primary": "conv", "coefficients": "conv"}
    assert groups_of(["c.kernel", "c.links", "c.plan"], {"c.kernel": "conv"}) == {"c.kernel": "conv", "c.links": "conv"}


@pytest.mark.parametrize("value", [0.5, (0.0, 1.0)])
def test_the_share_of_snapped_kernels_is_a_training_gene(value: Any) -> None:
    reader = GenomeReader(Genes(snap=value), layer_groups(SHAPES))
    space = reader.space()
    assert space.genes.get("snap", 0.5) == (Float(0.0, 1.0, log=False) if isinstance(value, tuple) else 0.5)
    genome = space.sample(np.random.default_rng(0))
    share = TrainingGenes(**reader.training(genome)).snap  # type: ignore[arg-type]
    assert 0 < share < 1 and share == genome.get("snap", 0.5) and "snap" not in space.recipe


@pytest.mark.parametrize("gene", ["symmetry", "distinct", "snap"])
def test_genes_of_kernels_are_refused_for_a_network_without_any(gene: str) -> None:
    points = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(64, 2))
    values: list[Any] = [0.5, (0.1, 0.5)]
    for value in values:
        reader = GenomeReader(Genes(**{gene: value}), {})
        with pytest.raises(ModelError, match=f"genes {gene}: the network trains no kernels"):
            reader.check(points)
        reader.check(nn.Sequential(points, nn.Conv1d(1, 2, 3)))
    GenomeReader(Genes(entropy=0.5), {}).check(points)


def test_the_gene_of_the_correlation_loss_needs_primary_filters() -> None:
    plain = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3))
    for strength in (0.1, (1e-3, 0.1)):
        with pytest.raises(ModelError, match="gene correlation: no convolution has primary filters"):
            GenomeReader(Genes(correlation=strength), {}).check(plain)
        GenomeReader(Genes(correlation=strength, alpha=(0.5, 1.0)), {}).check(plain)
        GenomeReader(Genes(correlation=strength), {}).check(convert(plain, 0.5))


def test_a_plan_may_bring_the_kernels_that_genes_act_on() -> None:
    plain = build("connected_cnn", {"plan": {"kernel": 1}})
    GenomeReader(Genes(snap=0.5, kernel=(1, 3)), {}).check(plain)
    with pytest.raises(ModelError, match="genes snap"):
        GenomeReader(Genes(snap=0.5), {}).check(plain)


def test_architectures_are_snapped_upwards() -> None:
    assert Architecture(0.25, 0.5).snapped() == Architecture(0.25, 0.5)
    assert Architecture(0.26, 0.36).snapped() == Architecture(0.3125, 0.5)
    assert Architecture(0.001, 0.1).snapped().alpha == 1 / 16
    assert Architecture(0.95, 0.71).snapped() == PLAIN
    assert len({Architecture(a / 1000).snapped().alpha for a in range(251, 1001)}) == 12
    for values in ({"alpha": 0.0}, {"rank": 1.5}, {"alpha": float("nan")}):
        with pytest.raises(ModelError, match="it is a share"):
            Architecture(**values)  # type: ignore[arg-type]
