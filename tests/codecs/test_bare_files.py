"""Bare files, which have neither names nor shapes nor dtypes: whoever reads them brings those of the network."""

from __future__ import annotations

import functools
import time
import tracemalloc
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import pytest
import torch
from hostile_files import sealed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hostile import DEADZONE, LOSSLESS, record

from evocompress.codecs import CODECS, Cost, Record, Writer, inspect, iterate, parse_codec, read
from evocompress.codecs.bits import BitReader, BitWriter, golomb_bits
from evocompress.codecs.codec import varint
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.codecs.container import parse
from evocompress.codecs.dtypes import DTYPES, dtype_named
from evocompress.codecs.registry import LOSSLESS as LOSSLESS_CODEC
from evocompress.codecs.template import Signature, fingerprint_of, template_of
from evocompress.errors import CodecError, FormatError

coders = pytest.mark.parametrize("coder", sorted(CODERS))
_NEVER = 60.0  # seconds of CPU time, of what takes a few hundredths


def filled(writer: Writer, *, tied: bool = True) -> bytes:
    """One tensor of every codec, some of which are there twice, in ascending order of names."""
    rng = np.random.default_rng(1)
    for name in sorted(CODECS):
        x = rng.laplace(0, 0.05, (4, 1, 2, 3)).astype(np.float32)
        codec = parse_codec(name)
        coded = codec.encode(x if name == "lossless" else x.astype(np.float64), Cost(3e-5))
        writer.add(Record(name, "float32", x.shape, codec, coded))
        if tied and name in ("deadzone", "lossless"):
            writer.tie(f"{name} again", name)
    return writer.finish()


@functools.cache
def bare(coder: CoderName = "classes") -> bytes:
    return filled(Writer(coder, names=False, shapes=False))


@functools.cache
def template() -> dict[str, np.ndarray]:
    return read(filled(Writer()))


@coders
@pytest.mark.parametrize("tied", [True, False])
def test_a_bare_file_decodes_to_what_one_with_names_does(coder: CoderName, tied: bool) -> None:
    named = read(filled(Writer(coder), tied=tied))
    data = filled(Writer(coder, names=False, shapes=False), tied=tied)
    assert data[3] == 4 and len(data) < len(filled(Writer(coder, names=False), tied=tied))
    found = read(data, dict(reversed(named.items())))
    assert list(found) == sorted(named)
    for name, array in named.items():
        assert found[name].tobytes() == array.tobytes() and found[name].dtype == array.dtype
    infos, rest = inspect(data, named)
    assert [info.name for info in infos] == list(found)
    assert sum(info.payload_bytes + info.side_bytes for info in infos) + rest == pytest.approx(len(data))


@coders
def test_every_dtype_comes_back(coder: CoderName) -> None:
    rng = np.random.default_rng(2)
    arrays = {}
    writer = Writer(coder, names=False, shapes=False)
    for number, dtype in enumerate(DTYPES):
        kind = dtype_named(dtype)
        arrays[f"w{number:02}"] = x = rng.integers(0, 2, (3, 4, number % 3)).astype(kind)
        writer.add(Record(f"w{number:02}", dtype, x.shape, LOSSLESS_CODEC, LOSSLESS_CODEC.encode(x, Cost(1.0))))
    found = read(writer.finish(), arrays)
    for name, x in arrays.items():
        assert found[name].dtype == x.dtype and found[name].shape == x.shape and found[name].tobytes() == x.tobytes()


def one_chain(codes: list[int]) -> tuple[bytes, dict[str, tuple[tuple[int, ...], str]]]:
    """A file of a tensor of zeros for each scale code, all by the deadzone quantiser, and what reads it."""
    codec, zero = parse_codec("deadzone"), (3,)
    writer = Writer("mixing", names=False, shapes=False)
    coded = codec.encode(np.zeros(zero), Cost(1.0))
    for number, code in enumerate(codes):
        writer.add(Record(f"w{number}", "float32", zero, codec, coded._replace(side=varint(code))))
    return writer.finish(), {f"w{number}": (zero, "float32") for number in range(len(codes))}


@pytest.mark.parametrize(
    ("codes", "table"),
    [
        ([-41] * 8, 3 + 4),  # coder, ties and fingerprint; chains, order of the code, and side information
        ([-40, -41, -42, -43, -44, -45, -46, -47], 3 + 5),
        ([-60, -33, -51, -20, -49, -27, -42, -38], 3 + 9),
    ],
)
def test_the_overhead_of_eight_tensors_is_few_bytes(codes: list[int], table: int) -> None:
    data, tensors = one_chain(codes)
    contents = parse(data, tensors)
    assert contents.table_bytes == table
    assert len(data) - len(contents.stream) == 3 + 1 + table + 4 <= 24
    sides = [entry.side for entry in contents.tensors]
    assert sides == [varint(code) for code in codes]


def test_no_tensors_and_tensors_without_elements() -> None:
    empty = Writer(names=False, shapes=False).finish()
    assert read(empty, {}) == {} and len(empty) == 3 + 1 + 3 + 4
    writer = Writer(names=False, shapes=False)
    writer.add(record("none", (0, 3)))
    writer.add(record("scalar", ()))
    assert [
        x.shape for x in read(writer.finish(), {"none": ((0, 3), "float32"), "scalar": ((), "float32")}).values()
    ] == [
        (0, 3),
        (),
    ]


def test_a_template_is_whatever_has_shapes_and_dtypes() -> None:
    arrays = template()
    expected = [x.tobytes() for x in read(bare(), arrays).values()]
    for names in (
        {name: torch.from_numpy(x) for name, x in arrays.items()},
        {name: torch.empty(x.shape, device="meta") for name, x in arrays.items()},
        {name: (x.shape, x.dtype) for name, x in arrays.items()},
        {name: (list(x.shape), "float32") for name, x in arrays.items()},
        {name: (torch.Size(x.shape), torch.float32) for name, x in arrays.items()},
        {name: (x.shape, np.float32) for name, x in arrays.items()},
    ):
        assert [x.tobytes() for x in read(bare(), names).values()] == expected
        assert [x.tobytes() for _, x in iterate(bare(), names)] == expected
    for kind, name in ((torch.bfloat16, "bfloat16"), (ml_dtypes.bfloat16, "bfloat16"), (torch.uint16, "uint16")):
        assert template_of({"w": ((2,), kind)}) == [Signature("w", name, (2,))]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, "'w' of the network has no shape and dtype"),
        ("text", "no shape and dtype"),
        ((1, 2, 3), "no shape and dtype"),
        (((2,), "float31"), "no shape and dtype"),
        (((2, -1), "float32"), "a length of -1"),
        (((2,), torch.bits8), "dtype torch.bits8"),
        (((2,), "datetime64[s]"), "dtype datetime64"),
        (((1,) * 9, "float32"), "9 dimensions"),
        ((((1 << 40) + 1,), "float32"), "no length may exceed"),
        (torch.nn.parameter.UninitializedParameter(), "no shape and dtype"),
    ],
)
def test_what_is_no_template_is_refused(tensor: object, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        read(bare(), {"w": tensor})


def test_a_network_is_needed_and_must_be_the_one() -> None:
    arrays = template()
    for reader in (read, iterate, inspect):
        with pytest.raises(CodecError, match="The file is bare.*names=model.state_dict"):
            reader(bare())
        with pytest.raises(CodecError, match="names alone do not say"):
            reader(bare(), list(arrays))
    contents = parse(bare())
    assert contents.unread and not contents.tensors and contents.coder.number == 0
    assert contents.lost_names == fingerprint_of(template_of(arrays))
    x = arrays["dct"]
    for changed in (
        {"dct": x.astype(np.float16)},
        {"dct": x.reshape(4, 1, 3, 2)},
        {"dct": x.reshape(4, 6)},
        {"another": x},
    ):
        with pytest.raises(CodecError, match="19 tensors|20 tensors"):
            read(bare(), arrays | changed)
    with pytest.raises(CodecError, match=r"\(2 tensors: dct, lossless\) are not those with which it was packed"):
        read(bare(), {name: arrays[name] for name in ("dct", "lossless")})
    with pytest.raises(CodecError, match=r"\(0 tensors\)"):
        read(bare(), {})
    assert list(read(filled(Writer()), arrays)) == list(arrays), "a file that has names keeps them"
    assert list(read(filled(Writer(names=False)), arrays)) == sorted(arrays)


def test_names_without_shapes_are_refused() -> None:
    with pytest.raises(CodecError, match="give names=False as well"):
        Writer(shapes=False)


@coders
def test_truncated_and_flipped_files_are_refused(coder: CoderName) -> None:
    data, names = bare(coder), template()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:length], names)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            parse(bytes(damaged), names)


@coders
def test_damage_behind_the_checksum_never_surprises(coder: CoderName) -> None:
    body, names = bare(coder)[:-4], template()
    table = 4 + parse(bare(coder), names).table_bytes
    refused = 0
    bits = [*range(8 * 7, 8 * table), *range(8 * table, 8 * len(body), 29)]  # behind the fingerprint
    files = [sealed(body[:length]) for length in range(4, len(body), 3)]
    for bit in bits:
        damaged = bytearray(body)
        damaged[bit // 8] ^= 128 >> bit % 8
        files.append(sealed(bytes(damaged)))
    for file in files:
        begin = time.process_time()
        try:
            tensors = read(file, names)
        except FormatError:
            refused += 1
        else:
            lossy = [entry.name for entry in parse(file, names).tensors if entry.codec != LOSSLESS_CODEC]
            assert all(np.isfinite(tensors[name]).all() for name in lossy)
        assert time.process_time() - begin < _NEVER
    assert refused > 0


#: Tensors without elements, so that no coder needs a stream.
SMALL: Mapping[str, object] = {"a": ((0, 3), "float32"), "b": ((0, 3), "float32"), "c": ((0, 3), "int8")}


def forged(
    *parts: Callable[[BitWriter], None],
    coder: int = 0,
    tied: int = 0,
    names: Mapping[str, object] | None = None,
    version: int = 4,
) -> bytes:
    bits = BitWriter()
    bits.number(coder, 3)
    bits.number(tied, 1)
    bits.number(fingerprint_of(template_of(SMALL if names is None else names)), 20)
    for part in parts:
        part(bits)
    return sealed(b"EVC" + bytes([version]) + bits.finish())


def g(*values: int, order: int = 0) -> Callable[[BitWriter], None]:
    def write(bits: BitWriter) -> None:
        for value in values:
            bits.golomb(value, order)

    return write


def u(value: int, width: int) -> Callable[[BitWriter], None]:
    return lambda bits: bits.number(value, width)


#: Two chains, deadzone and lossless, and an order of 0.
CHAINS = (g(1), g(DEADZONE, LOSSLESS, order=2), u(0, 3))
#: The last tensor keeps its integers.
SOUND = (*CHAINS, u(0, 1), g(0), u(0, 1), g(0), u(1, 1), g(0))

HOSTILE = {
    "an unknown coder": forged(*SOUND, coder=3),
    "the first one tied": forged(g(2, 0, 0), *SOUND, tied=1),
    "tied to what is before the first": forged(g(0, 0, 1), *SOUND, tied=1),
    "tied beyond the last": forged(g(0, 3, 0), *SOUND, tied=1),
    "tied to a tied one": forged(g(1, 0, 0, 0, 0), *SOUND, tied=1),
    "tied to another dtype": forged(g(0, 1, 0), *SOUND, tied=1),
    "more ties than tensors": forged(g(3), *SOUND, tied=1),
    "ties and no tensors": forged(g(0, 0, 0), tied=1, names={}),
    "more chains than tensors": forged(g(3), g(*[DEADZONE] * 4, order=2), u(0, 3)),
    "a chain of nine": forged(g(0), g(*[16] * 8, DEADZONE, order=2), u(0, 3)),
    "a lossless stage behind another": forged(g(0), g(17, LOSSLESS, order=2), u(0, 3)),
    "an unknown stage": forged(g(0), g(999, order=2), u(0, 3)),
    "a stage beyond all": forged(g(0), g((1 << 16) + 1, order=2), u(0, 3)),
    "a chain that is not there": forged(g(2), g(*[LOSSLESS] * 3, order=2), u(0, 3), u(3, 2)),
    "integers coded lossily": forged(*CHAINS, *[u(0, 1), g(0)] * 3),
    "a step out of range": forged(*CHAINS, u(0, 1), g(2 * 8001)),
    "a number that does not end": forged(*CHAINS, u(0, 1), u(0, 200)),
    "a number of 80 bits": forged(*CHAINS, u(0, 1), g((1 << 80) + 1)),
    "no zero bits at the end": forged(*SOUND, u(1, 1)),
    "no table": forged(),
    "nothing at all": sealed(b"EVC\x04"),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_files_are_refused(kind: str) -> None:
    names = {} if kind == "ties and no tensors" else SMALL
    for reader in (read, inspect):
        with pytest.raises(FormatError):
            reader(HOSTILE[kind], names)


def test_the_forged_file_is_sound_without_its_faults() -> None:
    """So that the hostile ones are refused for their fault and no other."""
    for coder in range(3):
        tensors = read(forged(*SOUND, coder=coder), SMALL)
        assert list(tensors) == list(SMALL) and all(x.shape == (0, 3) for x in tensors.values())
    tied = (*CHAINS, u(0, 1), g(0), u(1, 1), g(0))
    assert list(read(forged(g(0, 0, 0), *tied, tied=1), SMALL)) == list(SMALL)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 40, 1 << 40), (2048, 2200), (1 << 40,) * 8])
def test_a_large_network_and_a_small_file_allocate_nothing(shape: tuple[int, ...]) -> None:
    names = {"w": (shape, "float32")}
    data = forged(g(0), g(DEADZONE, order=2), u(0, 3), g(0), names=names)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="more weights"):
            read(data, names)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert read(
        forged(g(0), g(DEADZONE, order=2), u(0, 3), g(0), names={"w": ((9,), "float32")}), {"w": ((9,), "float32")}
    )


def test_a_writer_pads_where_a_reader_asks_for_it() -> None:
    writer = Writer(names=False, shapes=False)
    writer.add(record("v", (2000, 2000)))
    writer.tie("w", "v")
    data = writer.finish()
    assert len(data) >= (8_000_000 - (1 << 22)) >> 10
    assert [x.shape for x in read(data, dict.fromkeys("vw", ((2000, 2000), "float32"))).values()] == [(2000, 2000)] * 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, (1 << 72) - 1), st.integers(0, 7)), max_size=40))
def test_numbers_in_bits_come_back(numbers: list[tuple[int, int]]) -> None:
    writer, total = BitWriter(), 0
    for number, order in numbers:
        writer.golomb(number, order)
        total += golomb_bits(number, order)
    data = writer.finish()
    assert len(data) == -(-total // 8)
    reader = BitReader(b"\xff" + data, 1, 1 + len(data))
    assert [reader.golomb(order, 1 << 72) for _, order in numbers] == [number for number, _ in numbers]
    assert reader.finish() == 1 + len(data)
