"""Conformance checks of codecs: what holds for every chain of stages, for all shapes, dtypes and odd values.

They are plain functions that raise AssertionError, for tests of stages of one's own as of those that are built in:

>>> from evocompress.codecs.conformance import CHECKS
>>> for check in CHECKS[:1]:
...     check("dct+deadzone")
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from evocompress.codecs.choice import try_codec
from evocompress.codecs.codec import Codec, Coded, Cost, SideReader
from evocompress.codecs.container import Record, Writer, parse, read
from evocompress.codecs.entropy import State
from evocompress.codecs.inspection import inspect
from evocompress.codecs.registry import LOSSLESS, codec_spec, parse_codec
from evocompress.errors import FormatError

__all__ = [
    "CHECKS",
    "DTYPES",
    "SHAPES",
    "check_bare",
    "check_bits",
    "check_damage",
    "check_layout",
    "check_memory_layout",
    "check_negligible_rate_weight",
    "check_rate_weights",
    "check_ratio",
    "check_shapes_and_dtypes",
    "check_spec",
    "check_special_values",
    "encoded",
    "laplace",
    "same",
    "special_values",
    "written",
]

Array = npt.NDArray[Any]

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
SHAPES: Sequence[tuple[int, ...]] = (
    (), (0,), (1,), (7,), (256,), (300,), (0, 3), (4, 0), (1, 1), (1, 9), (9, 1), (5, 9), (16, 27), (3, 2, 5),
    (2, 0, 3), (8, 3, 3, 3), (4, 1, 5, 5), (2, 3, 2, 2, 3), (1, 1, 1, 1, 1),
)  # fmt: skip


def laplace(shape: tuple[int, ...], seed: int = 0, scale: float = 0.05) -> npt.NDArray[np.float64]:
    """Weights as trained networks have them: Laplace distributed."""
    return np.asarray(np.random.default_rng(seed).laplace(0, scale, shape))


def encoded(codec: Codec, x: Array, cost: Cost) -> Coded:
    """An array as the codec takes it: in its own dtype where the codec is lossless, else in float64."""
    return codec.encode(x if codec == LOSSLESS else x.astype(np.float64), cost)


def written(codec: Codec, x: Array, cost: Cost) -> bytes:
    """A file with one tensor "x"."""
    writer = Writer()
    writer.add(Record("x", x.dtype.name, x.shape, codec, encoded(codec, x, cost)))
    return writer.finish()


def same(a: Array, b: Array) -> bool:
    """Whether two arrays are the same in dtype, shape and bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check_spec(spec: str) -> None:
    """The codec's text gives the codec back."""
    codec = parse_codec(spec)
    assert parse_codec(codec_spec(codec)) == codec and isinstance(hash(codec), int)


def check_shapes_and_dtypes(spec: str, shapes: Sequence[tuple[int, ...]] = SHAPES, *, tolerance: float = 0.05) -> None:
    """Every shape and dtype comes back, finite and within a tolerance; a file is written and read the same twice."""
    codec, cost = parse_codec(spec), Cost(1e-5)
    for shape in shapes:
        for dtype in DTYPES.values():
            x = laplace(shape).astype(dtype)
            data = written(codec, x, cost)
            assert data == written(codec, x.copy(), cost), (shape, dtype)
            (y,) = read(data).values()
            assert y.shape == shape and y.dtype == x.dtype and np.isfinite(y.astype(np.float64)).all(), (shape, dtype)
            assert same(y, read(data)["x"]), (shape, dtype)
            if codec == LOSSLESS:
                assert same(x, y), (shape, dtype)
            assert np.abs(y.astype(np.float64) - x.astype(np.float64)).max(initial=0) < tolerance, (shape, dtype)


def check_layout(spec: str, shapes: Sequence[tuple[int, ...]] = SHAPES) -> None:
    """`layout` announces just the planes that `encode` makes, and reads all of the side information."""
    codec = parse_codec(spec)
    for shape in shapes:
        for scale in (0.0, 0.05, 10.0):
            coded = encoded(codec, laplace(shape, scale=scale).astype(np.float32), Cost(1e-4))
            side = SideReader(coded.side)
            layouts = codec.layout(side, shape)
            side.finish()
            made = [(*plane.symbols.shape, plane.kind) for plane in coded.planes]
            assert made == [tuple(layout) for layout in layouts], (shape, scale)
            assert all(plane.symbols.dtype == np.int32 and plane.symbols.size for plane in coded.planes), shape


def special_values() -> dict[str, Array]:
    """Arrays (12, 18) that are odd in one way each."""
    base = laplace((12, 18))
    return {
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


def check_special_values(spec: str) -> None:
    """Odd values stay finite and in their order; where there is nothing to code hardly any byte is written."""
    codec = parse_codec(spec)
    for kind, x in special_values().items():
        for weight in (1e-8, 1.0):
            if codec == LOSSLESS:
                data = written(codec, x, Cost(weight))
            else:
                writer = Writer()
                trial = try_codec(codec, x, Cost(weight), State())
                writer.add(Record("x", "float64", x.shape, codec, trial.coded))
                data = writer.finish()
            y = read(data)["x"]
            assert y.shape == x.shape and np.isfinite(y).all(), kind
            assert same(np.ascontiguousarray(y), read(data)["x"]), kind
        if codec == LOSSLESS:
            assert same(np.ascontiguousarray(x), y), kind
        elif kind in ("zeros", "negative zeros", "denormal", "tiny"):
            assert not y.any() and len(data) < 60 + len(spec), kind


def check_memory_layout(spec: str) -> None:
    """How an array lies in memory does not change the bytes."""
    codec, cost = parse_codec(spec), Cost(1e-5)
    strided = laplace((24, 54))[::2, ::3]
    plain = np.ascontiguousarray(strided)
    data = written(codec, plain, cost)
    assert written(codec, strided, cost) == data == written(codec, np.asfortranarray(plain), cost)


def check_rate_weights(spec: str) -> None:
    """Lossy codecs: the error shrinks and the size grows as the rate weight falls; all zeros are never much better."""
    codec, x = parse_codec(spec), laplace((16, 8, 3, 3))
    if codec == LOSSLESS:
        return
    weights = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    trials = [try_codec(codec, x, Cost(weight), State()) for weight in weights]
    distortions, bits = [trial.distortion for trial in trials], [trial.bits for trial in trials]
    assert distortions[0] > 0 and distortions == sorted(distortions, reverse=True), distortions
    assert bits == sorted(bits), bits
    for trial, weight in zip(trials, weights, strict=True):
        assert trial.score < float((x**2).sum()) + weight * 400, weight  # but for the few bits that say so


def check_negligible_rate_weight(spec: str, *, tolerance: float = 1e-6) -> None:
    """Lossy codecs: where bytes cost next to nothing the weights come back, up to a relative error (of norms)."""
    codec, x = parse_codec(spec), laplace((16, 8, 3, 3))
    if codec != LOSSLESS:
        y = codec.decode(codec.encode(x, Cost(1e-18)), x.shape)
        assert np.linalg.norm(y - x) <= tolerance * np.linalg.norm(x)


def check_ratio(spec: str) -> None:
    """Lossy codecs: sensitivity and rate weight count by their ratio alone."""
    codec, x = parse_codec(spec), laplace((16, 27))
    if codec == LOSSLESS:
        return
    first, second = codec.encode(x, Cost(2.0**-12)), codec.encode(x, Cost(2.0**-9, scale=8.0))
    assert first.side == second.side
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(first.planes, second.planes, strict=True))


def check_bits(spec: str) -> None:
    """The bits that are counted are the bytes of the file."""
    codec, x = parse_codec(spec), laplace((64, 16, 3, 3)).astype(np.float32)
    data = written(codec, x, Cost(1e-5))
    (info,), rest = inspect(data)
    tensor_bytes = info.payload_bytes + info.side_bytes
    assert abs(tensor_bytes + rest - len(data)) < 1e-6 * len(data)
    if codec != LOSSLESS:
        bits = try_codec(codec, x.astype(np.float64), Cost(1e-5), State()).bits
        assert abs(bits / 8 - tensor_bytes) <= max(4, 0.002 * tensor_bytes), (bits / 8, tensor_bytes)


def check_damage(spec: str) -> None:
    """Truncated files are refused; damage behind the checksum raises `FormatError` or decodes to finite numbers."""
    codec = parse_codec(spec)
    data = written(codec, laplace((4, 1, 2, 3)).astype(np.float32), Cost(3e-5))
    for length in range(len(data)):
        assert _refused(data[:length]), length
    for place in range(4, len(data) - 4):
        for bit in (0, 3, 6):
            damaged = bytearray(data[:-4])
            damaged[place] ^= 1 << bit
            _refused(bytes(damaged) + binascii.crc32(damaged).to_bytes(4, "little"))


def check_bare(spec: str) -> None:
    """A bare file, which has side information in another form and no shapes, decodes to the same as one with all."""
    codec = parse_codec(spec)
    for shape in ((), (300,), (16, 27), (8, 3, 3, 3)):
        x, writer = laplace(shape).astype(np.float32), Writer(names=False, shapes=False)
        for name in ("a", "b"):
            writer.add(Record(name, "float32", shape, codec, encoded(codec, x, Cost(1e-5))))
        expected = read(written(codec, x, Cost(1e-5)))["x"]
        assert all(same(y, expected) for y in read(writer.finish(), {"a": x, "b": x}).values()), shape


def _refused(data: bytes) -> bool:
    try:
        tensors = read(data)
    except FormatError:
        return True
    lossy = [entry.name for entry in parse(data).tensors if entry.codec != LOSSLESS]
    assert all(np.isfinite(tensors[name].astype(np.float64)).all() for name in lossy)
    return False


#: All checks; each takes the text of a codec.
CHECKS: Sequence[Callable[[str], None]] = (
    check_spec,
    check_shapes_and_dtypes,
    check_layout,
    check_special_values,
    check_memory_layout,
    check_rate_weights,
    check_negligible_rate_weight,
    check_ratio,
    check_bits,
    check_damage,
    check_bare,
)
