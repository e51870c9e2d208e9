"""Sensitivities of wide matrices, of whose H only blocks along the diagonal are kept, are those of the whole matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from evocompress.codecs import Sensitivity
from evocompress.codecs.choice import choose
from evocompress.codecs.codec import Cost
from evocompress.codecs.coders import CODERS
from evocompress.codecs.registry import parse_codec
from evocompress.codecs.trellis import Trellis
from evocompress.errors import CodecError

BLOCK = 64


def wide(columns: int, rows: int = 6) -> tuple[Sensitivity, Sensitivity]:
    """In blocks, and as one H with zeros between them."""
    rng = np.random.default_rng(1)
    count = -(-columns // BLOCK)
    blocks, whole = np.zeros((count, BLOCK, BLOCK)), np.zeros((columns, columns))
    for number in range(count):
        size = min(BLOCK, columns - number * BLOCK)
        inputs = rng.normal(size=(200, size)) @ rng.normal(size=(size, size))
        blocks[number, :size, :size] = inputs.T @ inputs
        part = slice(number * BLOCK, number * BLOCK + size)
        whole[part, part] = inputs.T @ inputs
    g = rng.uniform(0.5, 2, rows)
    return Sensitivity(blocks, g, columns), Sensitivity(whole[None], g)


@pytest.mark.parametrize("columns", [128, 150, 180])
def test_blocks_stand_for_the_whole(columns: int) -> None:
    blocks, whole = wide(columns)
    error: npt.NDArray[np.float64] = np.random.default_rng(2).normal(size=(6, columns))
    assert blocks.distortion(error) == pytest.approx(whole.distortion(error))
    assert blocks.scale == pytest.approx(whole.scale) and blocks.scaled(3.0).scale == pytest.approx(3 * whole.scale)
    assert blocks.fits(6, columns) and not blocks.fits(6, BLOCK) and blocks.groups == 1 == whole.groups
    assert blocks.scaled(2.0).columns == columns == blocks.width == whole.width
    size = next(size for size in (9, 10, 32) if columns % size == 0)
    assert np.allclose(blocks.squares(size), whole.squares(size))


@pytest.mark.parametrize("columns", [128, 150])
def test_the_trellis_takes_blocks(columns: int) -> None:
    """The error that is measured by H is nearly that under the whole H, whose mean for the damping is another."""
    x, costs = np.random.default_rng(3).laplace(0, 0.1, (6, columns)), list[float]()
    for sensitivity in wide(columns):
        coded = Trellis().encode(x, Cost(1.0, sensitivity.scale, sensitivity), parse_codec("trellis"))
        decoded = parse_codec("trellis").decode(coded, x.shape)
        costs.append(sensitivity.distortion(decoded - x))
    assert costs[0] == pytest.approx(costs[1], rel=0.1)


def test_a_sample_of_rows_keeps_the_blocks() -> None:
    sensitivity = wide(150, rows=2000)[0]
    x = np.random.default_rng(3).laplace(0, 0.1, (2000, 150))
    candidates = (parse_codec("trellis"), parse_codec("deadzone"))
    codec, _ = choose(candidates, x, Cost(1.0, sensitivity.scale, sensitivity), CODERS["rans"].state())
    assert codec in candidates


@pytest.mark.parametrize("columns", [64, 193, 1000])
def test_blocks_of_other_columns_are_refused(columns: int) -> None:
    with pytest.raises(CodecError, match=f"has not the blocks of {columns} columns"):
        Sensitivity(np.zeros((3, BLOCK, BLOCK)), np.ones(4), columns)
