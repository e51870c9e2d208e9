"""Genes of kernels: penalties and snapping in a genome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from configured_genes import configured_genes
from torch import nn

from evocompress.errors import ModelError
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import layer_groups
from evocompress.search.space import Float

SHAPES = {"c1": (8, 1, 3, 3), "c1.b": (8,), "c2[0]": (8, 8, 3, 3), "f1": (16, 8), "f2": (10, 16), "n": ()}


@pytest.mark.parametrize("value", [0.5, (0.0, 1.0)])
def test_the_share_of_snapped_kernels_is_a_training_gene(value: Any) -> None:
    reader = GenomeReader(configured_genes(snap=value), layer_groups(SHAPES))
    space = reader.space()
    assert space.genes.get("snap", 0.5) == (Float(0.0, 1.0, log=False) if isinstance(value, tuple) else 0.5)
    genome = space.sample(np.random.default_rng(0))
    share = reader.training(genome).snap
    assert 0 < share < 1 and share == genome.get("snap", 0.5) and "snap" not in space.recipe


@pytest.mark.parametrize("gene", ["symmetry", "distinct", "snap"])
def test_genes_of_kernels_are_refused_for_a_network_without_any(gene: str) -> None:
    points = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(64, 2))
    values: list[Any] = [0.5, (0.1, 0.5)]
    for value in values:
        reader = GenomeReader(configured_genes(**{gene: value}), {})
        with pytest.raises(ModelError, match=f"genes {gene}: the network trains no kernels"):
            reader.check(points)
        reader.check(nn.Sequential(points, nn.Conv1d(1, 2, 3)))
    GenomeReader(configured_genes(entropy=0.5), {}).check(points)
