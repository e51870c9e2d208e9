"""The entropy coder: exact for all symbols, and as short as the statistics allow."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evocompress.codecs.codec import SideReader, varint
from evocompress.codecs.contexts import ALPHABET, CLASSES, DIRECT, extra_bits, magnitude_class, token_base, tokenize
from evocompress.codecs.entropy import (
    BitCounter,
    Decoder,
    Encoder,
    PlainDecoder,
    State,
    Symbols,
    classes_of,
    rate_table,
)
from evocompress.codecs.planes import from_planes, plane_layouts, to_planes
from evocompress.codecs.rounding import rate_optimised
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_codes, scale_value, scale_values
from evocompress.errors import FormatError

LARGEST = (1 << 31) - 1
SYMBOLS = st.one_of(
    st.integers(-3, 3), st.integers(-40, 40), st.integers(-LARGEST, LARGEST), st.sampled_from([LARGEST, -LARGEST, 0])
)
PLANES = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=SYMBOLS, fill=st.just(0))


@settings(deadline=None)
@given(st.integers(-(1 << 62), 1 << 62))
def test_varints_come_back(value: int) -> None:
    reader = SideReader(varint(value))
    assert reader.integer(value, value) == value
    reader.finish()


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_varints_of_any_bytes_are_numbers_or_refused(data: bytes) -> None:
    reader = SideReader(data)
    try:
        value = reader.integer(-(1 << 80), 1 << 80)
    except FormatError:
        assert all(byte > 127 for byte in data[:10])
    else:
        assert reader.position <= len(data) and abs(value) < 1 << 70


def test_side_information_must_be_read_to_its_end() -> None:
    reader = SideReader(varint(1) + varint(2))
    reader.integer(0, 1)
    with pytest.raises(FormatError, match="too long"):
        reader.finish()
    with pytest.raises(FormatError, match="outside"):
        reader.integer(0, 1)


@settings(deadline=None)
@given(st.lists(SYMBOLS, min_size=1, max_size=50))
def test_a_token_and_its_extra_bits_are_the_symbol(values: list[int]) -> None:
    tokens, extra = tokenize(np.array(values, np.int32))
    for value, token, rest in zip(values, tokens.tolist(), extra.tolist(), strict=True):
        assert 0 <= token < ALPHABET and 0 <= rest < 1 << extra_bits(token)
        if abs(value) < DIRECT:
            assert token == 2 * abs(value) - (value > 0)
        else:
            magnitude = token_base(token) + (rest >> 1)
            assert (-magnitude if rest & 1 else magnitude) == value


@settings(deadline=None)
@given(st.lists(st.tuples(PLANES, st.just("weights")), min_size=1, max_size=4))
def test_any_planes_come_back(planes: list[tuple[Symbols, str]]) -> None:
    encoder, counter = Encoder(), BitCounter(State())
    for symbols, _ in planes:
        before = symbols.copy()
        encoder.plane(symbols, "weights")
        counter.plane(symbols, "weights")
        assert (symbols == before).all()
    stream = encoder.finish()
    assert 8 * len(stream) <= counter.bits + 40
    decoder = Decoder(stream)
    for symbols, _ in planes:
        assert (decoder.plane(symbols.shape, "weights") == symbols).all()
    decoder.finish()


@settings(deadline=None)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 255)))
def test_any_bytes_come_back(symbols: Symbols) -> None:
    encoder = Encoder()
    encoder.plane(symbols, "bytes")
    decoder = Decoder(encoder.finish())
    assert (decoder.plane(symbols.shape, "bytes") == symbols).all()
    decoder.finish()


@settings(deadline=None)
@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5), elements=SYMBOLS))
def test_arrays_lie_in_planes_and_come_back(symbols: npt.NDArray[np.int32]) -> None:
    planes = to_planes(symbols)
    assert [(*plane.symbols.shape, plane.kind) for plane in planes] == [tuple(p) for p in plane_layouts(symbols.shape)]
    back = from_planes(iter([plane.symbols for plane in planes]), symbols.shape)
    assert back.shape == symbols.shape and (back == symbols).all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_a_plane_without_symbols_takes_nothing(shape: tuple[int, int]) -> None:
    some, none = np.array([[0, 1, -3], [0, 0, 90]], np.int32), np.zeros(shape, np.int32)
    encoder, shorter = Encoder(), Encoder()
    for symbols in (some, none, some):
        encoder.plane(symbols, "weights")
    for _ in range(2):
        shorter.plane(some, "weights")
    stream = encoder.finish()
    assert stream == shorter.finish()
    for decoder in (Decoder(stream), PlainDecoder(stream)):
        for symbols in (some, none, some):
            assert np.array_equal(decoder.plane(symbols.shape, "weights"), symbols)
        decoder.finish()


def test_long_vectors_are_cut_into_rows() -> None:
    assert [tuple(p) for p in plane_layouts((1000,))] == [(3, 256, "weights"), (1, 232, "weights")]
    x = np.arange(1000, dtype=np.int32)
    assert (from_planes(iter([plane.symbols for plane in to_planes(x)]), x.shape) == x).all()


def test_scales_are_named_to_a_sixteenth_of_an_octave() -> None:
    values = np.logspace(-290, 290, 4001)
    codes = scale_codes(values)
    assert codes.tolist() == [scale_code(value) for value in values]
    assert np.abs(np.log2(scale_values(codes) / values)).max() <= 1 / 16 + 1e-9
    assert scale_values(codes).tolist() == [scale_value(int(code)) for code in codes]
    assert scale_code(5e-324) == MIN_CODE and scale_code(1e308) == MAX_CODE
    assert scale_values(np.array([10**6], np.int64))[0] == scale_value(MAX_CODE)


def adaptive_bits(counts: npt.NDArray[np.int64]) -> float:
    """Bits of a sequence with these counts under the Krichevsky-Trofimov estimator: Dirichlet(1/2) over what occurs."""
    counts = counts[counts > 0]
    if not len(counts):
        return 0.0
    k, n = len(counts), int(counts.sum())
    nats = (
        math.lgamma(n + k / 2) - math.lgamma(k / 2) + k * math.lgamma(0.5) - sum(math.lgamma(c + 0.5) for c in counts)
    )
    return nats / math.log(2)


@pytest.mark.parametrize("scale", [0.15, 0.3, 0.8, 3.0, 12.0, 200.0])
def test_within_half_a_percent_of_the_adaptive_entropy_on_a_million_symbols(scale: float) -> None:
    symbols = np.random.default_rng(7).laplace(0, scale, (1000, 1000)).round().astype(np.int32)
    encoder, counter = Encoder(), BitCounter(State())
    encoder.plane(symbols, "weights")
    counter.plane(symbols, "weights")
    coded = 8 * len(encoder.finish())
    assert abs(coded - counter.bits) < 0.0005 * coded + 64
    # Against one adaptive table over the symbols themselves (they are independent, so that is the ideal) …
    assert coded <= 1.005 * adaptive_bits(np.bincount((symbols - symbols.min()).ravel()))
    # … and against one over the tokens of each context class.
    tokens, _ = tokenize(symbols.ravel())
    table = np.bincount(classes_of(symbols).ravel() * np.int64(ALPHABET) + tokens, minlength=CLASSES * ALPHABET)
    raw = sum(extra_bits(token) * int((tokens == token).sum()) for token in np.unique(tokens))
    assert coded <= 1.005 * (sum(map(adaptive_bits, table.reshape(CLASSES, ALPHABET))) + raw)


def test_contexts_find_the_rows_and_columns_that_are_loud() -> None:
    rng = np.random.default_rng(8)
    spread = np.exp(rng.normal(0, 1, (256, 1))) * np.exp(rng.normal(0, 1, (1, 576)))
    symbols = (rng.laplace(0, 1, (256, 576)) * spread).round().astype(np.int32)
    counter = BitCounter(State())
    counter.plane(symbols, "weights")
    assert counter.bits < 0.9 * adaptive_bits(np.bincount((symbols - symbols.min()).ravel()))


def test_later_tensors_profit_from_earlier_ones() -> None:
    rng = np.random.default_rng(9)
    first, second = (rng.laplace(0, 0.4, (64, 90)).round().astype(np.int32) for _ in range(2))
    fresh, taught = BitCounter(State()), BitCounter(State())
    fresh.plane(second, "weights")
    taught.plane(first, "weights")
    before = taught.bits
    taught.plane(second, "weights")
    assert taught.bits - before < fresh.bits


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (33, 17), (300, 100)])
def test_a_counter_leaves_its_state_as_an_encoder_would(shape: tuple[int, int]) -> None:
    symbols = np.random.default_rng(10).laplace(0, 2, shape).round().astype(np.int32)
    start, encoder = State(), Encoder()
    before = start.weights.table.copy()
    counter = BitCounter(start)
    counter.plane(symbols, "weights")
    encoder.plane(symbols, "weights")
    decoder = Decoder(encoder.finish())
    decoder.plane(shape, "weights")
    for other in (encoder.state, decoder.state):
        assert (counter.state.weights.table == other.weights.table).all()
        assert (counter.state.hints.table == other.hints.table).all()
    assert (start.weights.table == before).all()


def test_classes_rise_with_magnitude() -> None:
    classes = [magnitude_class(total, 64) for total in range(0, 1 << 18, 97)]
    assert classes == sorted(classes) and classes[0] == 0 and classes[-1] == CLASSES - 1


def score(symbols: Symbols, x: npt.NDArray[np.float64], price: float, under: Symbols) -> float:
    rates = rate_table(classes_of(under), under)[classes_of(under), tokenize(symbols)[0]]
    return float(((symbols - x) ** 2 + price * rates).sum())


@pytest.mark.parametrize("price", [0.0, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_optimised_rounding_never_scores_worse_than_nearest(price: float, scale: float) -> None:
    x = np.random.default_rng(11).laplace(0, scale, (64, 64))
    nearest = np.rint(x).astype(np.int32)
    levels = nearest[nearest != 0]
    candidates = np.stack([levels, levels - np.sign(levels), np.zeros_like(levels)])
    error = (candidates - x[nearest != 0]) ** 2
    chosen = rate_optimised(nearest, candidates, error, price, 1)
    assert score(chosen, x, price, nearest) <= score(nearest, x, price, nearest)
    assert (np.abs(chosen) <= np.abs(nearest)).all() and (chosen * nearest >= 0).all()
    if price == 0:
        assert (chosen == nearest).all()
    assert (rate_optimised(nearest, candidates, error, price, 0) == nearest).all()


def test_optimised_rounding_saves_real_bits() -> None:
    x = np.random.default_rng(12).laplace(0, 0.5, (128, 128))
    nearest = np.rint(x).astype(np.int32)
    levels = nearest[nearest != 0]
    candidates = np.stack([levels, levels - np.sign(levels), np.zeros_like(levels)])
    chosen = rate_optimised(nearest, candidates, (candidates - x[nearest != 0]) ** 2, 0.12, 3)
    costs = []
    for symbols in (nearest, chosen):
        counter = BitCounter(State())
        counter.plane(symbols, "weights")
        costs.append(float(((symbols - x) ** 2).sum()) + 0.12 * counter.bits)
    assert costs[1] < 0.97 * costs[0]


def test_a_stream_that_no_encoder_writes_is_refused() -> None:
    with pytest.raises(FormatError):
        decoder = Decoder(b"\xff" * 64)
        decoder.plane((100, 100), "weights")
        decoder.finish()
