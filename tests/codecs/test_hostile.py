"""Truncated, damaged and hostile files: one exception, soon, and nothing large allocated."""

from __future__ import annotations

import contextlib
import functools
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hostile_files import numbers as v
from hostile_files import sealed

from evocompress.codecs import CODECS, Cost, Record, Writer, inspect, parse_codec, read
from evocompress.codecs.coders import CoderName
from evocompress.codecs.container import parse
from evocompress.codecs.deflation import deflate
from evocompress.codecs.dtypes import DTYPES
from evocompress.codecs.entropy import Encoder
from evocompress.codecs.registry import LOSSLESS as LOSSLESS_CODEC
from evocompress.errors import CodecError, FormatError

pytestmark = pytest.mark.slow

_HANG = 60.0  # seconds of CPU time, of what takes a few hundredths: a loaded machine must not fail this
DEADZONE, CODEBOOK, LOSSLESS, DCT, THRESHOLD, WAVELET, LOWRANK, LINEARCONV = 1, 2, 3, 16, 17, 18, 19, 20


def table(*shape: int, chain: tuple[int, ...] = (DEADZONE,), side: bytes = v(0), dtype: int = 0) -> bytes:
    """A table of one tensor."""
    return v(1, 1, len(chain), *chain) + b"w\0" + v(dtype, len(shape), *shape, 0) + side


def forged(header: bytes, stream: bytes = b"") -> bytes:
    return sealed(b"EVC\x01" + deflate(header) + stream)


#: Coder, and whether with tied tensors and without names.
FORMS: list[tuple[CoderName, bool]] = [("classes", False), ("rans", False), ("mixing", False), ("mixing", True)]
forms = pytest.mark.parametrize("form", FORMS, ids=str)


@functools.cache
def small_file(form: tuple[CoderName, bool] = FORMS[0]) -> bytes:
    """One tensor of every codec."""
    coder, extras = form
    rng, writer = np.random.default_rng(1), Writer(coder, names=not extras)
    for name in sorted(CODECS) if extras else CODECS:
        x = rng.laplace(0, 0.05, (4, 1, 2, 3)).astype(np.float32)
        codec = parse_codec(name)
        x = x[:1] if name == "lossless" else x
        coded = codec.encode(x if name == "lossless" else x.astype(np.float64), Cost(3e-5))
        writer.add(Record(name, "float32", x.shape, codec, coded))
        if extras and name in ("deadzone", "lossless"):
            writer.tie(f"{name} again", name)
    return writer.finish()


@forms
def test_every_truncation_is_refused(form: tuple[CoderName, bool]) -> None:
    data = small_file(form)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length])
    with pytest.raises(FormatError):
        read(data + b"\0")


@forms
def test_every_flipped_bit_is_refused(form: tuple[CoderName, bool]) -> None:
    data = small_file(form)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            parse(bytes(damaged))


@pytest.mark.parametrize("part", range(2))
@forms
def test_damage_behind_the_checksum_never_surprises(form: tuple[CoderName, bool], part: int) -> None:
    """With the checksum made good again the parser and the codecs are on their own; the two parts damage each byte."""
    data = small_file(form)[:-4]
    refused = 0
    for place in range(4 + part, len(data), 2):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (5 * place + 3 * part) % 8
        file = sealed(bytes(damaged))
        begin = time.process_time()
        try:
            tensors = read(file)
        except FormatError:
            refused += 1
        else:
            lossy = [entry.name for entry in parse(file).tensors if entry.codec != LOSSLESS_CODEC]
            assert all(np.isfinite(tensors[name]).all() for name in lossy)
        assert time.process_time() - begin < _HANG
    assert refused > 0


@forms
def test_truncated_streams_behind_the_checksum_never_surprise(form: tuple[CoderName, bool]) -> None:
    data = small_file(form)[:-4]
    for length in range(4, len(data), 5):
        try:
            read(sealed(data[:length]))
        except FormatError:
            pass


def mask_mismatch() -> bytes:
    encoder = Encoder()
    encoder.plane(np.array([[1, 1, 1, 0]], np.int32), "weights")
    for shape in ((1, 5), (3, 1)):
        encoder.plane(np.ones(shape, np.int32), "weights")
    return forged(table(4, 5, chain=(LINEARCONV, DEADZONE), side=v(1, 0, 0, 0)), encoder.finish())


def numbers(dtype: str, *values: int) -> bytes:
    """Three whole numbers, which not every dtype can be."""
    encoder = Encoder()
    encoder.plane(np.array([values], np.int32), "weights")
    return forged(table(3, chain=(LOSSLESS,), side=v(0), dtype=DTYPES.index(dtype)), encoder.finish())


def many_tensors(count: int) -> bytes:
    """Whose table ends one step too soon."""
    names = b"".join(b"%d\0" % i for i in range(count))
    return forged(
        v(count, 1, 1, DEADZONE) + names + v(0) * count + v(1, 5) + v(1, 0) * (count - 1) + v(0) * (2 * count - 1)
    )


HOSTILE = {
    "2^40 weights": forged(table(1 << 40)),
    "a product of 2^80": forged(table(1 << 40, 1 << 40)),
    "2^320 weights": forged(table(*[1 << 40] * 8)),
    "a length beyond 2^40": forged(table((1 << 40) + 1)),
    "a negative length": forged(table(-1)),
    "empty, but for 2^40 rows": forged(table(1 << 40, 0, chain=(LINEARCONV, DEADZONE), side=v(1 << 40, 0, 0, 0))),
    "nine dimensions": forged(table(*[1] * 9)),
    "a deflate bomb": sealed(b"EVC\x01" + zlib.compress(bytes(1 << 26), 1, -15)),
    "a table without end": sealed(b"EVC\x01" + zlib.compress(table(3), 9, -15)[:-3]),
    "no table": sealed(b"EVC\x01abcdef"),
    "something behind the table": forged(table(3) + b"\0"),
    "2^17 tensors": forged(v(1 << 17, 0)),
    "tensors without a table": forged(v(1 << 16, 0)),
    "more chains than tensors": forged(v(1, 2, 1, DEADZONE, 1, DEADZONE) + b"w\0"),
    "twice the same name": forged(v(2, 1, 1, DEADZONE) + b"w\0w\0" + v(0, 0, 1, 3, 1, 0, 0, 0, 0, 0)),
    "a name that is no text": forged(v(1, 1, 1, DEADZONE) + b"\xff\0" + v(0, 1, 3, 0, 0)),
    "a name too long": forged(v(1, 1, 1, DEADZONE) + b"a" * 1025 + b"\0" + v(0, 1, 3, 0, 0)),
    "an unknown stage": forged(table(3, chain=(999,))),
    "an endless chain": forged(table(3, 3, chain=(LOWRANK,) * 8 + (DEADZONE,), side=v(1) * 999)),
    "a chain without quantiser": forged(table(3, chain=(DCT,), side=v(0))),
    "a quantiser amid the chain": forged(table(3, chain=(DEADZONE, DEADZONE))),
    "an empty chain": forged(table(3, chain=())),
    "an unknown dtype": forged(table(3, dtype=len(DTYPES))),
    "small floats coded lossily": forged(table(3, dtype=DTYPES.index("float8_e5m2"))),
    "complex numbers coded lossily": forged(table(3, dtype=DTYPES.index("complex128"))),
    "small floats as whole numbers": numbers("float8_e4m3fn", 1, 0, 1),
    "integers of four bits as whole numbers": numbers("uint4", 1, 0, 1),
    "integers coded lossily": forged(table(3, dtype=DTYPES.index("int32"))),
    "a step out of range": forged(table(3, side=v(8001))),
    "a number that does not end": forged(table(3, side=b"\xff" * 20)),
    "a codebook of 2^40 values": forged(table(3, chain=(CODEBOOK,), side=v(1 << 40, 0, 0))),
    "a codebook whose zero is outside": forged(table(3, chain=(CODEBOOK,), side=v(4, 4, 0))),
    "a rank beyond the matrix": forged(table(4, 5, chain=(LOWRANK, DEADZONE), side=v(5, 0, 0))),
    "factors larger than the matrix": forged(table(2048, 2048, chain=(LOWRANK, DEADZONE), side=v(2048, 0, 0))),
    "factors within factors": forged(
        table(900, 900, chain=(LOWRANK,) * 7 + (DEADZONE,), side=v(*[900] * 7 + [0] * 2) * 64)
    ),
    "an unknown wavelet": forged(table(8, 8, chain=(WAVELET, DEADZONE), side=v(99, 1, 0))),
    "wavelet levels without number": forged(table(8, 8, chain=(WAVELET, DEADZONE), side=v(0, 1 << 30, 0))),
    "an unknown DCT axis": forged(table(8, 8, chain=(DCT, DEADZONE), side=v(2, 0))),
    "no primaries": forged(table(4, 5, chain=(LINEARCONV, DEADZONE), side=v(0, 0, 0))),
    "more primaries than filters": forged(table(4, 5, chain=(LINEARCONV, DEADZONE), side=v(5, 0, 0, 0))),
    "another number of primaries": mask_mismatch(),
    "bytes of nine": forged(table(3, chain=(LOSSLESS,), side=v(9))),
    "integers that do not fit the dtype": numbers("int8", 1, 128, 1),
    "bytes that do not fit the dtype": forged(table(3, chain=(LOSSLESS,), side=v(2))),
    "integers for floats": forged(table(3, chain=(LOSSLESS,), side=v(0)), b"\x12\x34"),
    "a stream that goes on": forged(table(3), bytes(range(1, 40))),
    "many tensors and no more": many_tensors(20_000),
    "magic": b"EVD" + small_file()[3:],
    "an unknown coder": sealed(b"EVC\x02\x77" + small_file()[4:-4]),
    "coder 0 in version 2": sealed(b"EVC\x02\x00" + small_file()[4:-4]),
    "another version": sealed(b"EVC\x05" + small_file()[4:-4]),
    "nothing": b"",
    "text": b"Not a file of this kind, but long enough to be one.",
}


#: What is wrong only with the weights that symbols stand for, which `inspect` does not look at.
OF_VALUES = {
    "another number of primaries",
    "bytes of nine",
    "bytes that do not fit the dtype",
    "integers of four bits as whole numbers",
    "integers that do not fit the dtype",
    "small floats as whole numbers",
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_files_are_refused_soon_and_cheaply(kind: str) -> None:
    check_refusal(HOSTILE[kind], inspected=kind in OF_VALUES)


def check_refusal(data: bytes, *, inspected: bool = False) -> None:
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(FormatError):
            read(data)
        with contextlib.nullcontext() if inspected else pytest.raises(FormatError):
            inspect(data)
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < _HANG


def test_the_largest_file_of_few_bytes_is_bounded() -> None:
    """As many weights as a file of this size may hold: valid, and no larger than it says."""
    weights = np.zeros((2048, 2048), np.int32)
    encoder = Encoder()
    encoder.plane(weights, "weights")
    header = table(2048, 2048)
    assert not read(forged(header, encoder.finish()))["w"].any()
    with pytest.raises(FormatError, match="more weights"):
        read(forged(table(2048, 2200), encoder.finish()))


def test_symbols_at_the_ends_of_their_range_decode_to_finite_weights() -> None:
    largest = (1 << 31) - 1
    encoder = Encoder()
    encoder.plane(np.array([[largest, -largest, 0]], np.int32), "weights")
    for code in (-8000, 0, 7000, 8000):
        x = read(forged(table(3, side=v(code)), encoder.finish()))["w"]
        assert np.isfinite(x).all() and x[0] == -x[1]


def test_codebook_indices_outside_of_it_take_its_ends() -> None:
    encoder = Encoder()
    encoder.plane(np.array([[-3, 3, 4]], np.int32), "weights")
    encoder.plane(np.array([[-1, 0, 1000]], np.int32), "weights")
    x = read(forged(table(3, chain=(CODEBOOK,), side=v(3, 1, 0)), encoder.finish()))["w"]
    assert x.tolist() == [-3.0, 0.0, 4.0]


def test_zeros_behind_the_stream_are_padding() -> None:
    data = small_file()[:-4]
    first, second = read(sealed(data)), read(sealed(data + bytes(1000)))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def record(name: str, shape: tuple[int, ...] = (3,)) -> Record:
    codec = parse_codec("deadzone")
    return Record(name, "float32", shape, codec, codec.encode(np.zeros(shape), Cost(1.0)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record("w"), "twice"),
        (record("a" * 1025), "1024 bytes"),
        (record("a\0b"), "NUL"),
        (record("\ud800"), "Unicode"),
        (record("v", (1,) * 9), "9 dimensions"),
        (record("v", (0, (1 << 40) + 1)), "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_writer_refuses_what_no_reader_would_take(bad: Record, message: str) -> None:
    writer = Writer()
    writer.add(record("w"))
    with pytest.raises(CodecError, match=message):
        writer.add(bad)
    assert list(read(writer.finish())) == ["w"]


@pytest.mark.parametrize(("symbol", "kind"), [(-(1 << 31), "weights"), (-1, "bytes"), (256, "bytes")])
def test_an_encoder_refuses_symbols_out_of_range(symbol: int, kind: str) -> None:
    with pytest.raises(CodecError, match="must lie in"):
        Encoder().plane(np.array([[symbol]], np.int32), kind)  # type: ignore[arg-type]


def test_a_writer_pads_where_a_reader_asks_for_it() -> None:
    writer = Writer()
    writer.add(record("zeros", (3000, 2000)))
    data = writer.finish()
    assert len(data) >= (6_000_000 - (1 << 22)) >> 10
    assert read(data)["zeros"].shape == (3000, 2000)
    writer = Writer()
    for i in range(4000):
        writer.add(record("a" * 1000 + str(i), ()))
    assert len(read(writer.finish())) == 4000
