"""Orbits of a kernel's places under signed permutations, all places at a time.

Each place stands twice, as itself and as its opposite, and a rule that changes the sign goes to the other one. Then an
orbit in which signs clash is one that meets its own opposite, and all that is left is to find what hangs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["orbits", "permutation"]

Ints = npt.NDArray[np.int64]


def permutation(name: str, height: int, width: int) -> Ints:
    """Where a rule of symmetry_groups.py takes each place of a kernel, (h·w,).

    >>> permutation("left-right", 1, 3)
    array([2, 1, 0])
    """
    grid = np.arange(height * width).reshape(height, width)
    if name == "ring":
        return _ring(height, width)
    moved = {
        "stay": grid,
        "next column": np.roll(grid, 1, axis=1),
        "next row": np.roll(grid, 1, axis=0),
        "left-right": grid[:, ::-1],
        "up-down": grid[::-1],
        "half turn": grid[::-1, ::-1],
        "quarter turn": np.rot90(grid),
        "transpose": grid.T,
        "anti-transpose": grid[::-1, ::-1].T,
    }
    return np.asarray(moved[name].ravel(), np.int64)


def _ring(height: int, width: int) -> Ints:
    """The places at one distance from the centre go round: each to the next one, the last one to the first."""
    rows, columns = (2 * np.arange(n) - (n - 1) for n in (height, width))  # in half places, so that they are integers
    distance = (rows[:, None] ** 2 + columns**2).ravel()
    order = np.argsort(distance, kind="stable")
    first = np.flatnonzero(np.diff(distance[order], prepend=-1))
    following = np.roll(order, -1)
    following[np.append(first[1:], len(order)) - 1] = order[first]
    target = np.empty_like(order)
    target[order] = following
    return target


def orbits(rules: Sequence[tuple[Ints, int]], places: int) -> tuple[Ints, Ints, Ints]:
    """What rules "± itself after this permutation" leave free: `index`, `sign`, `size` of `symmetry_groups.Group`.

    Args:
        rules: Permutations (places,), each with 1 or -1.
        places: How many.

    >>> [found.tolist() for found in orbits([(permutation("left-right", 1, 3), -1)], 3)]
    [[0, 1, 0], [1, 0, -1], [2]]
    """
    turns = [np.concatenate([to, to + places] if sign > 0 else [to + places, to]) for to, sign in rules]
    label, before = np.arange(2 * places), np.empty(0, np.int64)
    while not np.array_equal(before, label):
        before = label
        for turn in turns:
            label = _least(label, turn)
    first, live = np.minimum(label[:places], label[places:]), label[:places] != label[places:]
    begins = live & (first == np.arange(places))
    number = np.cumsum(begins) - 1
    n_free = int(begins.sum())
    index = np.where(live, number[first], n_free)
    sign = np.where(live, np.where(label[:places] == first, 1, -1), 0)
    return index, sign, np.bincount(index[live], minlength=n_free)


def _least(label: Ints, turn: Ints) -> Ints:
    """The least label of each one's cycle; twice as far round it at each step."""
    while not np.array_equal(lower := np.minimum(label, label[turn]), label):
        label, turn = lower, turn[turn]
    return label
