"""The fast coder: exact for all symbols, the same compiled or not, unmoved by damage; and its trellis search."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evocompress.codecs import rans, viterbi
from evocompress.codecs.dependent import MACHINES, levels
from evocompress.codecs.entropy import Encoder as SlowEncoder
from evocompress.codecs.rans import BitCounter, Decoder, Encoder, Kind, State, Symbols
from evocompress.codecs.rans_model import Tables
from evocompress.codecs.viterbi import dequantise, trellis_quantise
from evocompress.errors import CodecError, FormatError

LARGEST = (1 << 31) - 1
SYMBOLS = st.one_of(
    st.integers(-3, 3), st.integers(-40, 40), st.integers(-LARGEST, LARGEST), st.sampled_from([LARGEST, -LARGEST, 0])
)
SIGNED = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=24), elements=SYMBOLS)
SHORT = st.integers(0, 255)
BYTES = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40), elements=SHORT)
KINDS: list[Kind] = ["weights", "trellis", "trellis-64", "bytes"]
PLANES = st.lists(
    st.one_of(st.tuples(SIGNED, st.sampled_from(KINDS[:-1])), st.tuples(BYTES, st.just("bytes"))),
    max_size=5,
)


def fixed_plane(rows: int, columns: int, spread: int) -> Symbols:
    """Symbols from a linear congruential generator: the same on every machine."""
    x, values = 12345, []
    for _ in range(rows * columns):
        x = (x * 1103515245 + 12345) % (1 << 31)
        bits = (x >> 8) % 1024
        magnitude = (1024 // (bits + 1)) * spread // 16
        values.append(magnitude if x >> 30 else -magnitude)
    return np.array(values, np.int32).reshape(rows, columns)


FIXED: list[tuple[Symbols, Kind]] = [
    (fixed_plane(13, 37, 8), "trellis"),
    (fixed_plane(30, 11, 300), "weights"),
    (np.abs(fixed_plane(4, 100, 3)) % 256, "bytes"),
    (fixed_plane(1, 200, 2), "trellis"),
]


def encode(planes: list[tuple[Symbols, Kind]]) -> bytes:
    encoder = Encoder()
    for symbols, kind in planes:
        encoder.plane(symbols, kind)
    return encoder.finish()


def same(ours: Tables, theirs: Tables) -> bool:
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in Tables._fields)


def check(planes: list[tuple[Symbols, Kind]]) -> bytes:
    """Encode, decode and compare; the stream may be padded."""
    stream = encode(planes)
    decoder = Decoder(stream + bytes(3))
    for symbols, kind in planes:
        decoded = decoder.plane(symbols.shape, kind)
        assert decoded.dtype == np.int32 and (decoded == symbols).all()
    decoder.finish()
    return stream


@settings(deadline=None)
@given(PLANES)
def test_any_planes_come_back(planes: list[tuple[Symbols, Kind]]) -> None:
    counter = BitCounter(State())
    for symbols, kind in planes:
        before = symbols.copy()
        counter.plane(symbols, kind)
        assert (symbols == before).all()
    assert 8 * len(check(planes)) <= counter.bits * 1.0001 + 64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (0, 5), (5, 0), (3, 30000), (257, 301), (70000, 1)])
def test_any_shape_comes_back_in_any_memory_order(shape: tuple[int, int], kind: Kind) -> None:
    symbols = np.random.default_rng(1).integers(0, 5, shape[::-1]).astype(np.int32).T
    symbols.setflags(write=False)
    check([(symbols, kind)])


@pytest.mark.parametrize("chunk", [1, 100, 5000])
def test_a_stream_may_have_many_chunks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rans, "_CHUNK", chunk)
    monkeypatch.setattr(rans, "_PART", 1 << 10)
    monkeypatch.setattr(rans, "_LARGE", 1 << 12)
    check([(fixed_plane(100, 60, 5), "trellis"), *FIXED, (fixed_plane(100, 60, 3), "weights")])


def test_a_last_row_alone_in_its_chunk_comes_back() -> None:
    check([(np.ones((5, rans._CHUNK // 4), np.int32), "weights"), *FIXED])


def test_a_whole_chunk_comes_back() -> None:
    symbols = np.random.default_rng(2).laplace(0, 0.8, (1100, 1100)).round().astype(np.int32)
    check([(symbols, "trellis"), (symbols[:9], "weights"), (symbols[:300] & 255, "bytes")])


def test_the_stream_is_pinned() -> None:
    digest = hashlib.sha256(encode(FIXED)).hexdigest()
    assert digest == "450a0d049db356189484eb3aab95c4e8f2b098f335a5b0547e8ddc153a4a05dc"


def digest() -> str:
    """Of a stream, and of what the trellis search finds and decodes to."""
    symbols = trellis_quantise(np.linspace(-9, 9, 90).reshape(3, 30) ** 3 / 50, 0.2)
    return hashlib.sha256(check(FIXED) + symbols.tobytes() + dequantise(symbols, 0.1).tobytes()).hexdigest()


def test_plain_python_gives_the_same_bytes() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-W", "error", "-c", "import test_rans as t; print(t.digest())"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest()


@pytest.mark.parametrize("scale", [0.02, 0.3, 0.8, 3.0, 200.0])
def test_as_short_as_the_slower_coder_on_independent_symbols(scale: float) -> None:
    symbols = np.random.default_rng(3).laplace(0, scale, (500, 500)).round().astype(np.int32)
    slow, counter = SlowEncoder(), BitCounter(State())
    slow.plane(symbols, "weights")
    counter.plane(symbols, "weights")
    nbytes = len(encode([(symbols, "weights")]))
    assert nbytes <= 1.003 * len(slow.finish()) + 32
    assert abs(8 * nbytes - counter.bits) <= 0.0001 * counter.bits + 8 * 36


def test_contexts_find_the_rows_and_columns_that_are_loud() -> None:
    rng = np.random.default_rng(4)
    spread = np.exp(rng.normal(0, 1, (256, 1))) * np.exp(rng.normal(0, 1, (1, 576)))
    symbols = (rng.laplace(0, 1, (256, 576)) * spread).round().astype(np.int32)
    shuffled = rng.permutation(symbols.ravel()).reshape(symbols.shape)
    assert len(encode([(symbols, "trellis")])) < 0.9 * len(encode([(shuffled, "trellis")]))


def test_a_counter_and_a_decoder_learn_what_the_encoder_does() -> None:
    start, encoder = State(), Encoder()
    counter = BitCounter(start)
    for symbols, kind in FIXED:
        counter.plane(symbols, kind)
        encoder.plane(symbols, kind)
    decoder = Decoder(encoder.finish())
    for symbols, kind in FIXED:
        decoder.plane(symbols.shape, kind)
    assert same(encoder.state.tables, decoder.state.tables)
    assert same(counter.state.tables, encoder.state.tables)
    assert same(start.tables, State().tables)


def test_a_decoder_says_how_many_bits_the_planes_have_taken() -> None:
    counter, decoder = BitCounter(State()), Decoder(encode(FIXED))
    assert decoder.bits == 0.0
    for symbols, kind in FIXED:
        counter.plane(symbols, kind)
        decoder.plane(symbols.shape, kind)
        assert decoder.bits == pytest.approx(counter.bits, abs=0.01)


@pytest.mark.parametrize(("kind", "symbol"), [("bytes", 256), ("bytes", -1), ("weights", -(1 << 31))])
def test_symbols_out_of_range_are_refused(kind: Kind, symbol: int) -> None:
    with pytest.raises(CodecError, match="must lie in"):
        Encoder().plane(np.array([[symbol]], np.int32), kind)


def decode(stream: bytes, planes: list[tuple[Symbols, Kind]]) -> list[Symbols]:
    decoder = Decoder(stream)
    decoded = [decoder.plane(symbols.shape, kind) for symbols, kind in planes]
    decoder.finish()
    return decoded


def test_every_truncated_stream_is_refused() -> None:
    stream = encode(FIXED)
    for length in range(len(stream)):
        with pytest.raises(FormatError):
            decode(stream[:length], FIXED)


def test_every_stream_that_goes_on_is_refused() -> None:
    with pytest.raises(FormatError, match="goes on"):
        decode(encode(FIXED) + b"\0\0\0\0\1", FIXED)
    with pytest.raises(FormatError, match="goes on"):
        decode(b"\1", [])
    assert decode(b"\0\0", []) == [] and encode([]) == b""


@settings(deadline=None)
@given(st.data())
def test_a_damaged_stream_is_refused_or_decodes_to_some_symbols(data: st.DataObject) -> None:
    stream = bytearray(encode(FIXED))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(bytes(stream), FIXED)
    except FormatError:
        return
    for symbols in decoded:
        assert np.abs(symbols.astype(np.int64)).max() <= LARGEST


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.sampled_from(KINDS), max_size=4))
def test_arbitrary_bytes_are_refused_or_decode_to_some_symbols(stream: bytes, kinds: list[Kind]) -> None:
    try:
        decode(stream, [(np.zeros((300, 300), np.int32), kind) for kind in kinds])
    except FormatError:
        pass


def brute_force(x: npt.NDArray[np.float64], states: int) -> float:
    """Least squared error over all symbols of small magnitude."""
    grid = np.array(list(itertools.product(range(-2, 3), repeat=x.size)), np.int32)
    return float(((levels(grid, MACHINES[states]) - x) ** 2).sum(axis=1).min())


@pytest.mark.parametrize("states", MACHINES)
@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_least_squared_error(seed: int, states: int) -> None:
    x = np.random.default_rng(seed).uniform(-3, 3, (1, 7))
    chosen = trellis_quantise(x, 0.0, states=states)
    assert ((levels(chosen, MACHINES[states]) - x) ** 2).sum() == pytest.approx(brute_force(x[0], states))


def test_larger_machines_make_smaller_errors_in_as_many_bits() -> None:
    """Each doubling gains about .05 dB at high rate (Marcellin and Fischer, 1990); a broken machine gains nothing."""
    x = np.random.default_rng(7).uniform(-40, 40, (100, 300))
    errors = [((levels(trellis_quantise(x, 0.0, states=n), MACHINES[n]) - x) ** 2).mean() for n in sorted(MACHINES)]
    assert all(10 * np.log10(fewer / more) > 0.03 for fewer, more in itertools.pairwise(errors))
    assert 1.0 < 10 * np.log10(1 / 3 / errors[0]) < 1.2  # the eight states' granular gain over steps of 2 is 1.1 dB


def test_the_search_of_any_machine_is_that_of_eight_states_in_registers() -> None:
    x = np.random.default_rng(8).laplace(0, 1.6, (40, 90))
    rates = viterbi._rates(State().tables) * 0.3
    found = np.empty((2, *x.shape), np.int32)
    viterbi._search_rows(x, 1.0, viterbi._classes(x, 1.0), rates, found[0])
    viterbi._search_machine(x, 1.0, viterbi._classes(x, 1.0), rates, viterbi._sources(MACHINES[8]), found[1])
    assert (found[0] == found[1]).all()


def test_a_price_saves_bits_and_the_trellis_beats_rounding() -> None:
    x = np.random.default_rng(5).laplace(0, 1.6, (200, 300))
    results = []
    for price in (0.0, 0.3):
        symbols = trellis_quantise(x, price)
        results.append(
            (8 * len(encode([(symbols, "trellis")])) / x.size, float(((levels(symbols, MACHINES[8]) - x) ** 2).mean()))
        )
    (rate, low_error), (low_rate, high_error) = results
    assert low_rate < rate - 0.1 and low_error < high_error < 1.3 * low_error
    # Shannon's lower bound for a Laplace source is log2(2·e·scale) - log2(2·π·e·error) / 2; rounding is .2 above.
    bound = np.log2(2 * np.e * 1.6) - 0.5 * np.log2(2 * np.pi * np.e * high_error)
    assert low_rate - bound < 0.13


def test_a_search_may_start_from_what_earlier_planes_taught() -> None:
    x = np.random.default_rng(6).laplace(0, 1.6, (20, 30))
    encoder = Encoder()
    encoder.plane(trellis_quantise(x, 0.3), "trellis")
    before = encoder.state.copy()
    assert trellis_quantise(x, 0.3, encoder.state).shape == x.shape
    assert same(encoder.state.tables, before.tables)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_searches_of_little(shape: tuple[int, int]) -> None:
    assert (trellis_quantise(np.zeros(shape), 0.3) == np.zeros(shape, np.int32)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e10])
def test_weights_beyond_all_symbols_are_refused(value: float) -> None:
    with pytest.raises(CodecError, match="finite"):
        trellis_quantise(np.array([[0.0, value]]), 0.3)


@given(hnp.arrays(np.float64, (2, 9), elements=st.floats(-(2.0**31), 2.0**31)), st.floats(0, 10))
@settings(deadline=None)
def test_any_weights_become_symbols_near_them(x: npt.NDArray[np.float64], price: float) -> None:
    symbols = trellis_quantise(x, price)
    error = np.abs(levels(symbols, MACHINES[8]) - x)
    assert error.max() <= 4 + (price * 200) ** 0.5


def test_dequantised_weights_are_the_levels_times_the_step() -> None:
    symbols = fixed_plane(9, 40, 30)
    assert (dequantise(symbols, 0.37, 64) == (levels(symbols, MACHINES[64]) * 0.37).astype(np.float32)).all()
    largest = np.finfo(np.float32).max
    assert dequantise(np.array([[5, -5]], np.int32), 1e38).tolist() == [[largest, -largest]]
