"""Draw of parents: by tournament, from the least-tried size bin of the front, or the best under the byte budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evocompress.search.objectives import Member, Scale
from evocompress.search.population import Population
from evocompress.search.records import ParentRule
from evocompress.search.settings import SearchSettings

__all__ = ["choose_parent", "size_bin"]


def size_bin(x: float, bins: int) -> int:
    """The bin of a scaled size: `bins` equal ones over [0, 1], the outer two open to the outside.

    >>> [size_bin(x, 4) for x in (-3, 0.3, 0.99, 7)]
    [0, 1, 3, 3]
    """
    return min(max(int(x * bins), 0), bins - 1)


def choose_parent(
    population: Population,
    tries: Sequence[int],
    children: Mapping[str, int],
    settings: SearchSettings,
    rng: np.random.Generator,
) -> tuple[Member, ParentRule]:
    """A parent and the rule that chose it; the pool must not be empty.

    `tries` counts parents taken per size bin, `children` the tasks that a leaf has been a parent of, by its id.
    """
    if not settings.policy.ranks:
        return population.pool.draw(rng, children), "random"
    in_bins = settings.size_bin_share
    in_budget = settings.budget_share if settings.byte_budget is not None else 0.0
    draw = float(rng.random()) * (settings.tournament_share + in_bins + in_budget)
    if draw < in_bins:
        return _least_tried(population, tries, rng), "size_bin"
    if settings.byte_budget is not None and draw < in_bins + in_budget:
        return _under_budget(population, settings, settings.byte_budget), "budget"
    return population.pool.draw(rng, children), "tournament"


def _least_tried(population: Population, tries: Sequence[int], rng: np.random.Generator) -> Member:
    """A random front member of the bin that has had the fewest parents, among the bins that hold any.

    Members that are worse than the reference point, such as networks that have collapsed to nothing, are passed over
    unless there are no others: along a front they are the first.
    """
    bins, archive = len(tries), population.archive
    limit = archive.reference[1]
    useless = next((i for i, member in enumerate(archive.members) if member.y < limit), 0)
    edges = [-float("inf"), *(i / bins for i in range(1, bins)), float("inf")]
    ranges = [archive.between(edges[i], edges[i + 1]) for i in range(bins)]
    ranges = [(max(first, useless), end) for first, end in ranges]
    filled = [i for i in range(bins) if ranges[i][1] > ranges[i][0]]
    fewest = min(tries[i] for i in filled)
    candidates = [i for i in filled if tries[i] == fewest]
    first, end = ranges[candidates[int(rng.integers(len(candidates)))]]
    return archive.members[int(rng.integers(first, end))]


def _under_budget(population: Population, settings: SearchSettings, budget: int) -> Member:
    """The front member of least error within the budget; the smallest of all where none fits."""
    within = population.archive.within(Scale.of(settings).point(budget, 1.0)[0])
    return within if within is not None else population.archive.members[0]
