"""One suite for every named codec: what holds for all of them, for all shapes and dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from evocompress.codecs import (
    CODECS,
    LOSSLESS,
    Codec,
    Coded,
    Cost,
    Record,
    Writer,
    best,
    inspect,
    parse_codec,
    read,
    try_codec,
)
from evocompress.codecs.codec import SideReader
from evocompress.codecs.entropy import State
from evocompress.errors import CodecError

Array = npt.NDArray[Any]

NAMES = sorted(CODECS)
LOSSY = [name for name in NAMES if name != "lossless"]
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
SHAPES = [
    (), (0,), (1,), (7,), (256,), (300,), (0, 3), (4, 0), (1, 1), (1, 9), (9, 1), (5, 9), (16, 27), (3, 2, 5),
    (2, 0, 3), (8, 3, 3, 3), (4, 1, 5, 5), (2, 3, 2, 2, 3), (1, 1, 1, 1, 1),
]  # fmt: skip


def encode(codec: Codec, x: Array, cost: Cost) -> Coded:
    return codec.encode(x if codec == LOSSLESS else x.astype(np.float64), cost)


def write(codec: Codec, x: Array, cost: Cost) -> bytes:
    writer = Writer()
    writer.add(Record("x", x.dtype.name, x.shape, codec, encode(codec, x, cost)))
    return writer.finish()


def laplace(shape: tuple[int, ...], seed: int = 0, scale: float = 0.05) -> npt.NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).laplace(0, scale, shape))


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_shape_and_dtype_comes_back(name: str, shape: tuple[int, ...]) -> None:
    codec, cost = parse_codec(name), Cost(1e-5)
    for dtype in DTYPES.values():
        x = laplace(shape).astype(dtype)
        data = write(codec, x, cost)
        assert data == write(codec, x.copy(), cost)
        (y,) = read(data).values()
        assert y.shape == shape and y.dtype == x.dtype and np.isfinite(y.astype(np.float64)).all()
        assert same(y, read(data)["x"])
        if name == "lossless":
            assert same(x, y)
        elif name not in ("codebook", "linearconv-lowrank"):
            assert np.abs(y.astype(np.float64) - x.astype(np.float64)).max(initial=0) < 0.05


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_layout_announces_the_planes_that_encode_makes(name: str, shape: tuple[int, ...]) -> None:
    codec = parse_codec(name)
    for scale in (0.0, 0.05, 10.0):
        coded = encode(codec, laplace(shape, scale=scale).astype(np.float32), Cost(1e-4))
        side = SideReader(coded.side)
        layouts = codec.layout(side, shape)
        side.finish()
        assert [(*plane.symbols.shape, plane.kind) for plane in coded.planes] == [tuple(layout) for layout in layouts]
        assert all(plane.symbols.dtype == np.int32 and plane.symbols.size for plane in coded.planes)


def special(kind: str) -> Array:
    base = laplace((12, 18))
    arrays: dict[str, Array] = {
        "zeros": np.zeros((12, 18)),
        "negative zeros": -np.zeros((12, 18)),
        "constant": np.full((12, 18), 0.3),
        "one weight": np.where(np.arange(216).reshape(12, 18) == 100, 1.0, 0.0),
        "equal rows": np.repeat(base[:1], 12, axis=0),
        "denormal": base * 1e-310,
        "tiny": base * 1e-150,
        "huge": base * 1e150,
        "wide": base * np.logspace(-30, 30, 18),
        "Fortran": np.asfortranarray(base),
        "strided": laplace((24, 54))[::2, ::3],
        "reversed": base[::-1, ::-1],
    }
    return arrays[kind]


KINDS = [
    "zeros", "negative zeros", "constant", "one weight", "equal rows", "denormal", "tiny", "huge", "wide",
    "Fortran", "strided", "reversed",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_special_values_stay_finite_and_ordered(name: str, kind: str) -> None:
    x, codec = special(kind), parse_codec(name)
    for weight in (1e-8, 1.0):
        if name == "lossless":
            data = write(codec, x, Cost(weight))
        else:
            trial = try_codec(codec, x, Cost(weight), State())
            writer = Writer()
            writer.add(Record("x", "float64", x.shape, codec, trial.coded))
            data = writer.finish()
        y = read(data)["x"]
        assert y.shape == x.shape and np.isfinite(y).all()
        assert same(np.ascontiguousarray(y), read(data)["x"])
    if kind in ("zeros", "negative zeros", "denormal", "tiny") and name != "lossless":
        assert not y.any() and len(data) < 60
    if name == "lossless":
        assert same(np.ascontiguousarray(x), y)


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_change_the_bytes(name: str) -> None:
    codec, cost = parse_codec(name), Cost(1e-5)
    strided = laplace((24, 54))[::2, ::3]
    plain = np.ascontiguousarray(strided)
    assert write(codec, strided, cost) == write(codec, plain, cost) == write(codec, np.asfortranarray(plain), cost)


@pytest.mark.parametrize("name", LOSSY)
def test_error_shrinks_and_size_grows_as_the_rate_weight_falls(name: str) -> None:
    codec, x = parse_codec(name), laplace((16, 8, 3, 3))
    trials = [try_codec(codec, x, Cost(weight), State()) for weight in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
    distortions = [trial.distortion for trial in trials]
    bits = [trial.bits for trial in trials]
    assert distortions[0] > 0 and distortions == sorted(distortions, reverse=True)
    assert bits == sorted(bits)
    # No codec scores worse than setting everything to zero, but for the few bits that say so.
    assert all(
        t.score < float((x**2).sum()) + w * 400 for t, w in zip(trials, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6), strict=True)
    )


#: Largest relative error (norms) at a negligible λ; a codebook of 256 values stays coarser.
LIMITS = dict.fromkeys(LOSSY, 1e-6) | {"codebook": 2e-2}


@pytest.mark.parametrize("name", LOSSY)
def test_a_negligible_rate_weight_gives_the_weights_back(name: str) -> None:
    x = laplace((16, 8, 3, 3))
    codec = parse_codec(name)
    y = codec.decode(codec.encode(x, Cost(1e-18)), x.shape)
    assert np.linalg.norm(y - x) <= LIMITS[name] * np.linalg.norm(x)


@pytest.mark.parametrize("name", LOSSY)
def test_sensitivity_and_rate_weight_only_count_by_their_ratio(name: str) -> None:
    codec, x = parse_codec(name), laplace((16, 27))
    first, second = codec.encode(x, Cost(2.0**-12)), codec.encode(x, Cost(2.0**-9, scale=8.0))
    assert first.side == second.side
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(first.planes, second.planes, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_counted_bits_are_the_bytes_of_the_file(name: str) -> None:
    codec, x = parse_codec(name), laplace((64, 16, 3, 3)).astype(np.float32)
    data = write(codec, x, Cost(1e-5))
    (info,), rest = inspect(data)
    assert info.payload_bytes + info.side_bytes + rest == pytest.approx(len(data))
    if name != "lossless":
        bits = try_codec(codec, x.astype(np.float64), Cost(1e-5), State()).bits
        assert bits / 8 == pytest.approx(info.payload_bytes + info.side_bytes, rel=0.002, abs=4)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (1000,), (3, 4), (2, 3, 2, 2, 3)], ids=str)
def test_integers_come_back_exactly(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    low, high = (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    kind = np.uint8 if dtype == "bool" else np.dtype(dtype).type
    full = np.asarray(rng.integers(low, high, size=shape, dtype=kind, endpoint=True)).astype(dtype)
    for x in (full, np.full(shape, low, dtype), np.full(shape, high, dtype), np.zeros(shape, dtype)):
        assert same(x, read(write(LOSSLESS, x, Cost(1.0)))["x"])


def test_a_counter_takes_few_bytes() -> None:
    counter = np.array(64_000, np.int64)
    assert len(write(LOSSLESS, counter, Cost(1.0))) < 32


def test_weights_whose_squares_overflow_are_refused() -> None:
    x = np.full((3, 3), np.finfo(np.float64).max)
    with pytest.raises(CodecError, match="overflow"):
        best([parse_codec("deadzone")], x, Cost(1.0), State())


def test_lossless_keeps_the_bits_of_floats() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324], np.float64)
    assert same(x, read(write(LOSSLESS, x, Cost(1.0)))["x"])


@pytest.mark.parametrize(
    "argument", [{"rate_weight": 0.0}, {"rate_weight": float("nan")}, {"rate_weight": 1.0, "scale": -1.0}]
)
def test_a_cost_must_be_positive(argument: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="positive"):
        Cost(**argument)
