"""Second-order quantisation in blocks finds what a search that moves whole rows for every survivor finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from evocompress.codecs.dependent import MACHINES, Machine, levels
from evocompress.codecs.feedback import MAGNITUDES, classes_of, inverse_factor, quantise_rows, rates_of

Floats = npt.NDArray[np.float64]
Symbols = npt.NDArray[np.int32]


def problem(rows: int, columns: int, spread: float, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Weights in steps, the second moment of correlated inputs, weights of rows."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns)) / np.sqrt(columns) + 0.7 * np.eye(columns)
    return rng.laplace(0, spread, (rows, columns)), mixing.T @ mixing, rng.uniform(0.2, 2, rows)


def oracle(x: Floats, factor: Floats, weight: Floats, price: float, machine: Machine) -> Symbols:
    """One pass of the search as its definition has it: every survivor is a path and a row of moved weights."""
    start = np.rint(np.where(np.abs(x) < 1, 0.0, x) / 2).astype(np.int32)
    classes = classes_of(start)
    rates = rates_of(start, classes, machine, searched=False)
    diagonal, found = np.diag(factor), np.empty(x.shape, np.int32)
    for row, values in enumerate(x):
        paths: dict[int, tuple[float, list[int], Floats]] = {0: (0.0, [], values.copy())}
        for j in range(len(values)):
            following: dict[int, tuple[float, list[int], Floats]] = {}
            for state, (total, path, moved) in paths.items():
                quantiser, size, sign = state & 1, abs(moved[j]), 1 if moved[j] >= 0 else -1
                nearest = round((size + quantiser) / 2)
                for magnitude in {max(nearest - 1, 0), nearest, nearest + 1, 0}:
                    error = size - (2 * magnitude - quantiser if magnitude else 0)
                    bits = rates[classes[row, j], quantiser, min(magnitude, MAGNITUDES - 1)]
                    bits += 2 * np.log2(max(magnitude, MAGNITUDES - 1) / (MAGNITUDES - 1))
                    score = total + weight[row] * (error / diagonal[j]) ** 2 / price + bits
                    target = int(machine[state, magnitude & 1])
                    if target not in following or score < following[target][0]:
                        after = moved - sign * error * factor[j] / diagonal[j]
                        following[target] = (score, [*path, sign * magnitude], after)
            paths = following
        found[row] = min(paths.values(), key=lambda one: one[0])[1]
    return found


def cost(x: Floats, H: Floats, weight: Floats, symbols: Symbols, machine: Machine = MACHINES[8]) -> float:
    error = levels(symbols, machine) - x
    return float((weight * np.einsum("ok,ok->o", error @ H, error)).sum())


@pytest.mark.parametrize("states", [8, 64])
@pytest.mark.parametrize(("columns", "spread"), [(1, 1.0), (2, 1.0), (9, 30.0), (64, 1.0), (65, 2.0), (200, 1.0)])
def test_blocks_find_what_whole_rows_find(columns: int, spread: float, states: int) -> None:
    x, H, weight = problem(5, columns, spread)
    factor = inverse_factor(H, 0.003)
    expected = oracle(x, factor, weight, 0.3, MACHINES[states])
    found = quantise_rows(x, [factor], weight, 0.3, 1, states=states)
    # Sums in another order may tip a tie, rarely; then the costs are alike.
    assert np.array_equal(found, expected) or cost(x, H, weight, found, MACHINES[states]) == pytest.approx(
        cost(x, H, weight, expected, MACHINES[states]), rel=1e-3
    )


@pytest.mark.parametrize("columns", [700, 1030])
def test_survivors_that_differ_for_long_are_ended_without_harm(columns: int) -> None:
    x, H, weight = problem(6, columns, 0.05, seed=1)  # nearly all zeros, so that states go round side by side
    x[0] = 0
    factor = inverse_factor(H, 0.003)
    found = quantise_rows(x, [factor], weight, 2.0, 2)
    assert cost(x, H, weight, found) <= cost(x, H, weight, np.zeros_like(found)) * 1.001
    assert not found[0].any()


def test_every_row_is_searched_on_its_own() -> None:
    x, H, weight = problem(400, 700, 1.0)  # more than are searched at a time
    factor, last = inverse_factor(H, 0.003), slice(390, 400)
    together = quantise_rows(x, [factor], weight, 1.0, 1)
    assert cost(x[last], H, weight[last], together[last]) < 1.2 * cost(
        x[last], H, weight[last], quantise_rows(x[last], [factor], weight[last], 1.0, 1)
    )


def test_large_weights_and_a_huge_cost_come_back() -> None:
    x = np.array([[2.0**30, -(2.0**30), 0.0, 1e6, 3.0]])
    symbols = quantise_rows(x, [inverse_factor(np.eye(5), 1e-6)], np.ones(1), 1e-12, 1)
    assert np.abs(levels(symbols, MACHINES[8]) - x).max() <= 1
    quantise_rows(x + 0.4, [inverse_factor(np.eye(5), 1e-6)], np.full(1, 1e150), 1e-149, 1)  # beyond what counts as far


def test_rates_count_symbols_where_they_were() -> None:
    symbols = np.array([[0, 1, -1, 0, 25]], np.int32)
    classes = classes_of(symbols)
    rates = rates_of(symbols, classes, MACHINES[8], searched=True)
    assert rates.shape == (14, 2, MAGNITUDES) and np.isfinite(rates).all() and (rates > 0).all()
    assert classes.max() < len(rates)
    often = rates_of(np.zeros((100, 100), np.int32), np.zeros((100, 100), np.uint8), MACHINES[8], searched=True)
    assert often[0, 0, 0] < 0.01 < often[0, 0, 1]


@pytest.mark.parametrize("columns", [256, 300])
def test_blocks_of_the_second_moment_are_searched_as_the_whole_that_they_are_part_of(columns: int) -> None:
    x, H, weight = problem(5, columns, 1.0)
    ends = [slice(first, min(first + 128, columns)) for first in range(0, columns, 128)]
    apart = np.zeros_like(H)
    for end in ends:
        apart[end, end] = H[end, end]
    factors = [inverse_factor(H[end, end], 0.003) for end in ends]
    whole = np.zeros_like(H)
    for end, factor in zip(ends, factors, strict=True):
        whole[end, end] = factor
    found, expected = (quantise_rows(x, given, weight, 0.3, 2, states=8) for given in (factors, [whole]))
    assert np.array_equal(found, expected) or cost(x, apart, weight, found) == pytest.approx(
        cost(x, apart, weight, expected), rel=1e-3
    )
    assert cost(x, apart, weight, found) < 0.95 * cost(
        x, apart, weight, quantise_rows(x, [np.eye(columns)], weight, 0.3, 2)
    )
