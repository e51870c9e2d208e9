"""Dependent quantisation, and what error feedback gains with a second-order sensitivity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from evocompress.codecs import Cost, Sensitivity, parse_codec, rans, try_codec
from evocompress.codecs.codec import SideReader, varint
from evocompress.codecs.dependent import KINDS, MACHINES, levels
from evocompress.codecs.feedback import inverse_factor, quantise_rows
from evocompress.errors import CodecError, FormatError

Floats = npt.NDArray[np.float64]
TRELLIS = parse_codec("trellis")


def layer(rows: int = 24, columns: int = 36, groups: int = 1, seed: int = 3) -> tuple[Floats, Sensitivity]:
    """Weights, and the sensitivity of inputs that are strongly correlated."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 400, columns)) @ (rng.normal(size=(columns, columns)) / 3 + np.eye(columns))
    return rng.laplace(0, 0.1, (rows, columns)), Sensitivity(inputs.mT @ inputs / 400, rng.uniform(0.2, 2, rows))


@pytest.mark.parametrize("states", MACHINES)
def test_symbols_decode_to_the_nearest_path(states: int) -> None:
    codec, x = parse_codec(f"trellis(states={states})"), np.random.default_rng(0).laplace(0, 1, (6, 400))
    coded = codec.encode(x, Cost(1e-6))
    assert np.abs(TRELLIS.decode(coded, x.shape) - x).max() < 0.02, "a decoder finds the machine in the file"
    assert TRELLIS.layout(SideReader(coded.side), x.shape)[0].kind == KINDS[states]


def test_few_weights_get_the_machine_that_needs_no_name() -> None:
    x = np.random.default_rng(0).laplace(0, 1, (6, 40))
    few, many = (parse_codec(f"trellis(states={states})").encode(x, Cost(1e-2)) for states in (8, 64))
    assert few.side == many.side and np.array_equal(few.planes[0].symbols, many.planes[0].symbols)


@pytest.mark.parametrize("states", [0, 4, 9, 24, 128])
def test_a_machine_that_is_not_there_is_refused(states: int) -> None:
    with pytest.raises(CodecError, match=rf"states is {states}; it must be one of 8, 16, 32, 64\."):
        parse_codec(f"trellis(states={states})")


@pytest.mark.parametrize("code", [8001, 8003, 8009])
def test_a_damaged_machine_is_refused(code: int) -> None:
    with pytest.raises(FormatError, match="damaged"):
        TRELLIS.layout(SideReader(varint(code) + varint(0)), (3, 4))


def test_more_states_make_smaller_errors_of_second_order() -> None:
    x, sensitivity = layer(60, 80)
    cost = Cost(0.02, sensitivity.scale, sensitivity)
    few, many = (try_codec(parse_codec(spec), x, cost, rans.State()) for spec in ("trellis", "trellis(states=64)"))
    assert many.score < 0.99 * few.score


@pytest.mark.parametrize("groups", [1, 4])
def test_error_feedback_beats_squared_error_at_fewer_bits(groups: int) -> None:
    x, sensitivity = layer(groups=groups)
    cost = Cost(0.02, sensitivity.scale, sensitivity)
    aware = try_codec(TRELLIS, x, cost, rans.State())
    flat = [
        parse_codec("trellis").encode(x, Cost(0.02 * factor, sensitivity.scale)) for factor in (0.1, 0.2, 0.5, 1.0, 2.0)
    ]
    for coded in flat:
        counter = rans.BitCounter(rans.State())
        for plane in coded.planes:
            counter.plane(plane.symbols, plane.kind)
        distortion = cost.distortion(TRELLIS.decode(coded, x.shape) - x)
        assert counter.bits > aware.bits or distortion > aware.distortion


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    H = layer()[1].H[0]
    factor = inverse_factor(H, 0.1)
    damped = H + 0.1 * np.trace(H) / len(H) * np.eye(len(H))
    assert np.allclose(factor.T @ factor, np.linalg.inv(damped))
    assert np.array_equal(factor, np.triu(factor))


def test_without_correlations_each_symbol_stands_alone() -> None:
    x = np.random.default_rng(5).normal(0, 3, (4, 30))
    symbols = quantise_rows(x, [inverse_factor(np.eye(30), 1e-6)], np.ones(4), 1e-9, 2)
    assert np.abs(levels(symbols, MACHINES[8]) - x).max() < 2.01


@pytest.mark.parametrize("dead", ["H", "g", "one input"])
def test_a_singular_sensitivity_still_packs(dead: str) -> None:
    x, known = layer()
    H, g = known.H.copy(), known.g.copy()
    if dead == "H":
        H[:] = 0
    elif dead == "g":
        g[:] = 0
    else:
        H[:, 5], H[:, :, 5] = 0, 0
    coded = TRELLIS.encode(x, Cost(1e-3, 1.0, Sensitivity(H, g)))
    assert np.isfinite(TRELLIS.decode(coded, x.shape)).all()


@pytest.mark.parametrize("x", [np.zeros((24, 36)), np.full((24, 36), 0.3), np.full((24, 36), 5e-324)])
def test_constants_and_denormals(x: Floats) -> None:
    sensitivity = layer()[1]
    decoded = TRELLIS.decode(TRELLIS.encode(x, Cost(1e-6, 1.0, sensitivity)), x.shape)
    assert np.abs(decoded - x).max() < 0.05


def test_a_sensitivity_of_another_shape_is_refused() -> None:
    with pytest.raises(CodecError, match=r"\(24, 36\).*\(24, 35\)"):
        TRELLIS.encode(np.ones((24, 35)), Cost(1e-3, 1.0, layer()[1]))


@pytest.mark.parametrize(
    ("H", "g", "match"),
    [
        (np.eye(3), np.ones(2), "shapes"),
        (np.ones((2, 3, 3)), np.ones(3), "divide"),
        (np.full((1, 3, 3), np.nan), np.ones(3), "NaN"),
        (np.ones((1, 3, 3)), -np.ones(3), "negative"),
    ],
)
def test_a_broken_sensitivity_is_refused(H: Floats, g: Floats, match: str) -> None:
    with pytest.raises(CodecError, match=match):
        Sensitivity(H, g)


def test_distortion_is_the_quadratic_form() -> None:
    x, sensitivity = layer(groups=4)
    expected = sum(0.5 * sensitivity.g[o] * x[o] @ sensitivity.H[o // 6] @ x[o] for o in range(24))
    assert sensitivity.distortion(x) == pytest.approx(float(expected))


def test_layout_reads_what_encode_wrote() -> None:
    x = np.random.default_rng(1).normal(size=(3, 4))
    coded = TRELLIS.encode(x, Cost(1e-4))
    assert [(p.rows, p.columns, p.kind) for p in TRELLIS.layout(SideReader(coded.side), x.shape)] == [(3, 4, "trellis")]
