"""A scale for each row: where rows cost very unevenly it takes fewer bytes, else one byte more."""

from __future__ import annotations

import numpy as np
import pytest

from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import Sensitivity, inspect, parse_codec
from evocompress.codecs.codec import Cost, SideReader, varint
from evocompress.codecs.row_scales import RowScales

RNG = np.random.default_rng(0)
ROWS, COLUMNS = 600, 24
WEIGHTS = RNG.laplace(0, 0.05, (ROWS, COLUMNS))
EVEN = Sensitivity(np.eye(COLUMNS)[None], np.ones(ROWS))
ZIPF = Sensitivity(np.eye(COLUMNS)[None], ROWS / np.arange(1, ROWS + 1) / 6.97, uneven_rows=True)


def packed(sensitivity: Sensitivity, rate_weight: float, rules: tuple[Rule, ...] = ()) -> tuple[int, float, str]:
    """Bytes, cost of the errors, codec."""
    recipe = preset("balanced", rate_weight, rules, calibrated=True)
    data = pack({"tokens": WEIGHTS.astype(np.float32)}, recipe, sensitivities={"tokens": sensitivity})
    error = unpack(data, framework="numpy")["tokens"].astype(np.float64) - WEIGHTS
    return len(data), sensitivity.distortion(error), inspect(data)[0][0].codec


@pytest.mark.parametrize("rate_weight", [1e-4, 1e-3])
def test_uneven_rows_have_steps_of_their_own_and_that_pays(rate_weight: float) -> None:
    one_step = packed(ZIPF, rate_weight, (Rule("tokens", ("trellis",)),))
    by_rows = packed(ZIPF, rate_weight)
    assert (one_step[2].split("(")[0], by_rows[2].split("+")[0]) == ("trellis", "rowscales")
    scores = [cost + rate_weight * 8 * nbytes for nbytes, cost, _ in (by_rows, one_step)]
    assert scores[0] < 0.9 * scores[1]


def test_rows_are_scaled_by_half_octaves_about_the_middle() -> None:
    coded = parse_codec("rowscales+deadzone").encode(WEIGHTS, Cost(1e-4, ZIPF.scale, ZIPF))
    halves = np.concatenate([plane.symbols.ravel() for plane in coded.planes[:-1]])
    wanted = -(np.log2(ZIPF.g) - np.log2(ZIPF.g).mean())
    assert halves.shape == (ROWS,) and np.abs(halves - wanted).max() <= 0.5
    decoded = parse_codec("rowscales+deadzone").decode(coded, WEIGHTS.shape)
    errors = np.sqrt(((decoded - WEIGHTS) ** 2).mean(axis=1))
    common, rare = errors[:20].mean(), errors[-20:].mean()
    assert common < 0.5 * rare


@pytest.mark.parametrize(
    "sensitivity", [None, EVEN, Sensitivity(np.eye(COLUMNS)[None], np.zeros(ROWS), uneven_rows=True)]
)
def test_where_it_would_not_pay_it_costs_one_byte(sensitivity: Sensitivity | None) -> None:
    cost = Cost(1e-4, 1.0, sensitivity)
    plain, coded = parse_codec("trellis").encode(WEIGHTS, cost), parse_codec("rowscales+trellis").encode(WEIGHTS, cost)
    assert coded.side == b"\0" + plain.side
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(coded.planes, plain.planes, strict=True))


def test_ordinary_layers_and_rules_of_ones_own_are_left_alone() -> None:
    assert packed(EVEN, 1e-4)[2].startswith("trellis")
    assert packed(ZIPF, 1e-4, (Rule("tok*", ("deadzone",)),))[2] == "deadzone"


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (4, 0, 2), (), (1,), (7,), (2, 2)])
@pytest.mark.parametrize("flag", [0, 1])
def test_every_shape_that_a_file_may_name(shape: tuple[int, ...], flag: int) -> None:
    codec = parse_codec("rowscales+deadzone")
    side = varint(flag) + varint(0)
    layouts = codec.layout(SideReader(side), shape)
    planes = iter([np.ones((layout.rows, layout.columns), np.int32) for layout in layouts])
    found = codec.decode_from(planes, SideReader(side), shape)
    assert found.shape == shape and np.allclose(found, 2**0.5 if flag else 1.0)


def test_scales_of_a_damaged_file_are_no_surprise() -> None:
    codec, side = parse_codec("rowscales+deadzone"), varint(1) + varint(0)
    planes = iter([np.array([[2**31 - 1, -(2**31)]], np.int32), np.ones((2, 3), np.int32)])
    found = codec.decode_from(planes, SideReader(side), (2, 3))
    assert found[0, 0] > 1e300 and 0 <= found[1, 0] < 1e-300


def test_rows_that_cost_nothing_stay_within_reach() -> None:
    g = ZIPF.g.copy()
    g[-50:] = 0
    sensitivity = Sensitivity(ZIPF.H, g, uneven_rows=True)
    codec = parse_codec("rowscales+deadzone")
    decoded = codec.decode(codec.encode(WEIGHTS, Cost(1e-4, sensitivity.scale, sensitivity)), WEIGHTS.shape)
    assert np.isfinite(decoded).all() and sensitivity.distortion(decoded - WEIGHTS) < 0.1 * sensitivity.distortion(
        WEIGHTS
    )


def test_a_recipe_of_ones_own_uses_it_too() -> None:
    data = pack({"tokens": WEIGHTS.astype(np.float32)}, Recipe(1e-4), sensitivities={"tokens": ZIPF})
    assert inspect(data)[0][0].codec.startswith(RowScales.id)
