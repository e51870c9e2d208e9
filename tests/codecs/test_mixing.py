"""The mixing coder: exact for all symbols, the same compiled or not, unmoved by damage, and smaller than the others."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evocompress.codecs import entropy, mixing
from evocompress.codecs.mixing import BitCounter, Decoder, Encoder, Kind, State, Symbols
from evocompress.codecs.mixing_tables import LOG, POWER, PRIORS, SQUASH, STEPS, STRETCH, tables
from evocompress.errors import CodecError, FormatError

LARGEST = (1 << 31) - 1
SYMBOLS = st.one_of(
    st.integers(-3, 3), st.integers(-40, 40), st.integers(-LARGEST, LARGEST), st.sampled_from([LARGEST, -LARGEST, 0])
)
SIGNED = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=24), elements=SYMBOLS)
BYTES = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40), elements=st.integers(0, 255)
)
PERIODS = st.sampled_from([1, 1, 2, 3, 4, 6, 9, 25, 64, 100])
PLANES = st.lists(
    st.one_of(
        st.tuples(SIGNED, st.sampled_from(["weights", "trellis", "trellis-64"]), PERIODS),
        st.tuples(BYTES, st.just("bytes"), PERIODS),
    ),
    max_size=5,
)
Planes = list[tuple[Symbols, Kind, int]]


def fixed_plane(rows: int, columns: int, spread: int) -> Symbols:
    """Symbols from a linear congruential generator: the same on every machine."""
    x, values = 54321, []
    for _ in range(rows * columns):
        x = (x * 1103515245 + 12345) % (1 << 31)
        magnitude = (1024 // ((x >> 8) % 1024 + 1)) * spread // 16
        values.append(magnitude if x >> 30 else -magnitude)
    return np.array(values, np.int32).reshape(rows, columns)


FIXED: Planes = [
    (fixed_plane(5, 36, 8), "trellis", 9),
    (fixed_plane(9, 11, 300), "weights", 1),
    (fixed_plane(1, 40, 8) + 1000, "weights", 1),
    (np.abs(fixed_plane(4, 12, 3)) % 256, "bytes", 1),
    (np.zeros((3, 5), np.int32), "weights", 1),
    (fixed_plane(4, 50, 12), "weights", 25),
    (fixed_plane(1, 50, 2), "trellis", 1),
]
#: The stream of FIXED. It may change only together with the format's version.
PINNED = "27945e6afe427b16"


def encode(planes: Planes) -> bytes:
    encoder = Encoder()
    for symbols, kind, period in planes:
        encoder.plane(symbols, kind, period)
    return encoder.finish()


def same(ours: State, theirs: State) -> bool:
    return (
        ours.memory[4:].tolist() == theirs.memory[4:].tolist()  # registers come before
        and (ours.counters == theirs.counters).all()
        and (ours.byte_counters == theirs.byte_counters).all()
        and all((ours.moments[period] == theirs.moments[period]).all() for period in ours.moments | theirs.moments)
    )


def check(planes: Planes) -> bytes:
    """Encode, decode, count and compare; the stream may be padded."""
    encoder, counter = Encoder(), BitCounter(State())
    for symbols, kind, period in planes:
        before = symbols.copy()
        encoder.plane(symbols, kind, period)
        counter.plane(symbols, kind, period)
        assert (symbols == before).all()
    stream = encoder.finish()
    decoder = Decoder(stream + bytes(3))
    for symbols, kind, period in planes:
        decoded = decoder.plane(symbols.shape, kind, period)
        assert decoded.dtype == np.int32 and (decoded == symbols).all()
    decoder.finish()
    assert same(encoder.state, decoder.state) and same(encoder.state, counter.state)
    assert 8 * len(stream) < counter.bits + 9
    return stream


@settings(deadline=None)
@given(PLANES)
def test_any_planes_come_back(planes: Planes) -> None:
    check(planes)


@pytest.mark.parametrize("kind", ["weights", "trellis"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (300, 1), (1, 300), (2, 9000), (70, 1800)])
@pytest.mark.parametrize("period", [1, 9])
def test_planes_of_all_shapes_come_back(kind: Kind, shape: tuple[int, int], period: int) -> None:
    symbols = np.random.default_rng(1).laplace(0, 2, shape).round().astype(np.int32)
    check([(symbols, kind, period), (symbols[:, ::-1], kind, period)])


@pytest.mark.parametrize("value", [0, 1, -1, 255, LARGEST, -LARGEST])
def test_constant_planes_take_next_to_nothing(value: int) -> None:
    stream = check([(np.full((100, 90), value, np.int32), "weights", 9)])
    assert len(stream) <= 24


def test_a_plane_of_zeros_takes_a_byte() -> None:
    assert len(check([(np.zeros((1000, 1000), np.int32), "trellis", 1)])) <= 1


def test_nothing_takes_nothing() -> None:
    assert check([]) == check([(np.zeros((0, 7), np.int32), "weights", 1)]) == b""


def test_compiled_and_plain_python_write_the_same_pinned_stream() -> None:
    stream = check(FIXED)
    assert hashlib.sha256(stream).hexdigest()[:16] == PINNED
    program = "import warnings; warnings.simplefilter('error')\nimport test_mixing as t\nprint(t.check(t.FIXED).hex())"
    here = os.path.dirname(__file__)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)])}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert bytes.fromhex(result.stdout.strip()) == stream


def test_the_tables_are_the_functions_that_they_are_called_after() -> None:
    t = tables()
    odds = np.arange(-2816, 2817)
    assert np.abs(t[SQUASH + odds] - 65536 / (1 + np.exp(-odds / 256))).max() < 0.5001
    p = (np.arange(4096) + 0.5) / 4096
    inner = slice(40, -40)
    assert np.abs(t[STRETCH : STRETCH + 4096] - 256 * np.log(p / (1 - p)))[inner].max() < 1.5
    x = np.arange(1, 4096)
    assert np.abs(t[LOG + x] - 64 * np.log2(x)).max() < 0.5001
    assert np.abs(t[POWER : POWER + 64] - 65536 * 2 ** (np.arange(64) / 64)).max() < 0.5001
    assert t[STEPS] == 1573 + 31457 and (np.diff(t[STEPS : STEPS + 1024]) <= 0).all()
    assert (np.diff(t[PRIORS : PRIORS + 384]) >= 0).all()


def test_symbols_out_of_range_are_refused() -> None:
    for value, kind in itertools.product([-(1 << 31), 256, -1], ["weights", "bytes"]):
        if kind == "bytes" or value < -LARGEST:
            with pytest.raises(CodecError, match="must lie in"):
                Encoder().plane(np.full((2, 2), value, np.int32), kind)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.binary(max_size=200), PLANES)
def test_any_bytes_decode_to_something(stream: bytes, planes: Planes) -> None:
    decoder = Decoder(stream)
    for symbols, kind, period in planes:
        decoded = decoder.plane(symbols.shape, kind, period)
        low, high = (0, 255) if kind == "bytes" else (-LARGEST, LARGEST)
        assert decoded.size == 0 or (decoded.min() >= low and decoded.max() <= high)


@pytest.mark.parametrize("byte", [0, 1, 85, 170, 254, 255])
def test_constant_streams_decode_to_something(byte: int) -> None:
    decoder = Decoder(bytes([byte]) * 1000)
    for kind, period in (("weights", 9), ("trellis", 1), ("bytes", 1), ("trellis", 25)):
        assert decoder.plane((20, 450), kind, period).shape == (20, 450)  # type: ignore[arg-type]


def test_damaged_streams_decode_to_something_or_are_refused() -> None:
    stream = bytearray(encode(FIXED))
    rng = np.random.default_rng(3)
    for _ in range(200):
        damaged = bytearray(stream)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        decoder = Decoder(bytes(damaged[: rng.integers(1, len(damaged) + 1)]))
        for symbols, kind, period in FIXED:
            assert decoder.plane(symbols.shape, kind, period).shape == symbols.shape


def test_a_stream_that_goes_on_is_refused() -> None:
    decoder = Decoder(encode(FIXED) + b"\1" * 8)
    for symbols, kind, period in FIXED:
        decoder.plane(symbols.shape, kind, period)
    with pytest.raises(FormatError, match="goes on"):
        decoder.finish()


def test_a_counter_starts_from_what_an_encoder_has_learned_and_leaves_it_alone() -> None:
    rng = np.random.default_rng(4)
    first, second = (rng.laplace(0, 0.4, (64, 90)).round().astype(np.int32) for _ in range(2))
    encoder, fresh = Encoder(), BitCounter(State())
    encoder.plane(first, "weights")
    before = encoder.state.copy()
    taught = BitCounter(encoder.state)
    taught.plane(second, "weights")
    fresh.plane(second, "weights")
    assert taught.bits < fresh.bits
    assert same(before, encoder.state)
    length = len(encode([(first, "weights", 1)]))
    assert abs(8 * (len(encode([(first, "weights", 1), (second, "weights", 1)])) - length) - taught.bits) < 20


def entropy_bytes(planes: Planes) -> int:
    encoder = entropy.Encoder()
    for symbols, kind, _ in planes:
        encoder.plane(symbols, kind)
    return len(encoder.finish())


@pytest.mark.parametrize("scale", [0.15, 0.3, 0.8, 3.0, 12.0])
def test_independent_symbols_cost_as_little_as_with_classes(scale: float) -> None:
    symbols = np.random.default_rng(5).laplace(0, scale, (500, 500)).round().astype(np.int32)
    planes: Planes = [(symbols, "weights", 1)]
    assert len(encode(planes)) <= 1.003 * entropy_bytes(planes)


def test_smooth_kernels_with_loud_rows_and_channels_cost_less() -> None:
    rng = np.random.default_rng(6)
    smooth = rng.normal(size=(64, 32, 5, 5))
    kernels = sum(smooth[:, :, i : i + 3, j : j + 3] for i in range(3) for j in range(3)) / 3
    loud = np.exp(0.7 * rng.normal(size=(64, 1, 1, 1))) * np.exp(0.7 * rng.normal(size=(1, 32, 1, 1)))
    planes: Planes = [((kernels * loud).round().astype(np.int32).reshape(64, 288), "weights", 9)]
    assert len(encode(planes)) < 0.85 * entropy_bytes(planes)


def test_what_all_symbols_have_in_common_is_taken_off() -> None:
    rng = np.random.default_rng(7)
    around = rng.laplace(0, 8, (1, 64)).round().astype(np.int32)
    alone, shifted = (len(encode([(plane, "weights", 1)])) for plane in (around, around + 1000))
    assert shifted <= alone + 4


def test_elements_of_several_bytes_profit_from_the_bytes_above() -> None:
    x = np.random.default_rng(8).normal(size=4000).astype(np.float32)
    planes: Planes = [(x.view(np.uint8).reshape(-1, 4).T.astype(np.int32), "bytes", 1)]
    assert len(encode(planes)) < entropy_bytes(planes)


def test_public_names() -> None:
    assert mixing.__all__ == sorted(mixing.__all__)
