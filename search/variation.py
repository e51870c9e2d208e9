"""Variation of genomes, from parents' to a child's: mutation, recipe crossover, probes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evocompress.search.records import Genome
from evocompress.search.space import Space

__all__ = ["crossover", "mutate", "probes"]


def mutate(
    space: Space, genome: Genome, rng: np.random.Generator, names: Sequence[str], rate: float, sigma: float
) -> Genome:
    """Change each gene of `names` with probability `rate`, and at least one of them."""
    if not names:
        return dict(genome)
    chosen = [name for name, draw in zip(names, rng.random(len(names)), strict=True) if draw < rate]
    chosen = chosen or [names[int(rng.integers(len(names)))]]
    return {**genome, **{name: space.genes[name].mutate(genome[name], rng, sigma) for name in chosen}}


def crossover(space: Space, genome: Genome, other: Genome, rng: np.random.Generator) -> Genome:
    """`genome` with about half of its recipe genes taken from `other`; training genes stay."""
    inherited = {
        name: other[name]
        for name, draw in zip(space.recipe_names, rng.random(len(space.recipe_names)), strict=True)
        if draw < 0.5
    }
    return {**genome, **inherited}


def probes(
    space: Space, genome: Genome, rng: np.random.Generator, count: int, rate: float, sigma: float
) -> tuple[Genome, ...]:
    """Up to `count` genomes that differ from `genome` and from each other in recipe genes only.

    One that comes out twice is dropped, not drawn again: the number of draws stays fixed, and a space with few recipes
    ends at once.
    """
    distinct: list[Genome] = []
    for _ in range(count):
        probe = mutate(space, genome, rng, space.recipe_names, rate, sigma)
        if probe != genome and probe not in distinct:
            distinct.append(probe)
    return tuple(distinct)
