"""The `.evc` file: FORMAT.md beside this file is its specification, and this is its only writer and reader.

The reader trusts nothing: it checks length, magic, version and checksum, parses and validates the whole header, bounds
what the file may make it allocate, and only then decodes.
"""

from __future__ import annotations

import binascii
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Codec, Coded, Layout, Shape, SideReader, varint
from evocompress.codecs.dtypes import DTYPES, dtype_named, to_dtype
from evocompress.codecs.entropy import BitCounter, Decoder, Encoder, State, Symbols
from evocompress.codecs.registry import codec_spec, stage_by_number
from evocompress.errors import CodecError, FormatError

__all__ = ["MAGIC", "VERSION", "Contents", "Record", "TensorInfo", "Writer", "inspect", "read", "weight_limit"]

MAGIC = b"EVC"
VERSION = 1
_MAX_TENSORS, _MAX_NAME, _MAX_DIMENSIONS = 1 << 16, 1 << 10, 8
_MAX_HEADER = 1 << 24
_BASE_WEIGHTS, _WEIGHTS_PER_BYTE = 1 << 22, 1 << 10
_DEFLATE_LIMIT = 1032  # DEFLATE cannot expand further than this (Deutsch, 1996)

# Common pieces of tensor names, the most common last, so that a file need not spell them out.
_DICTIONARY = (
    b"embeddings.LayerNorm.position_embeddings.token_type_embeddings.word_embeddings.encoder.layer.attention.self.query"
    b".key.value.output.dense.intermediate.weight_ih_l0weight_hh_l0bias_ih_l0bias_hh_l0lstm.gru.head.stem.blocks.proj."
    b"qkv.mlp.fc.embed.norm1.norm2.downsample.0.shortcut.features.classifier.num_batches_tracked.running_mean."
    b"running_var.layer3.2.layer2.1.layer1.0.bn1.bn2.bn3.conv3.conv2.conv1.fc3.fc2.fc1.linear.weight.bias"
)


class Record(NamedTuple):
    """One tensor of a file: its coded form, and all that is needed to decode it."""

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    coded: Coded


class Contents(NamedTuple):
    """A parsed and validated header: what there is to decode, and the bytes to decode it from."""

    tensors: tuple[tuple[str, str, Shape, Codec, bytes, tuple[Layout, ...]], ...]
    stream: bytes
    header_bytes: int


class TensorInfo(NamedTuple):
    """What one tensor takes of a file, in bytes; `payload_bytes` is its share of the entropy-coded stream."""

    name: str
    shape: Shape
    dtype: str
    codec: str
    weights: int
    payload_bytes: float
    side_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """8·(payload + side) / weights."""
        return 8 * (self.payload_bytes + self.side_bytes) / max(self.weights, 1)


def weight_limit(nbytes: int) -> int:
    """How many weights a file of this size may hold: 2^22, and 2^10 more for each byte. A writer pads if it must."""
    return _BASE_WEIGHTS + _WEIGHTS_PER_BYTE * nbytes


def _text(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data


class Writer:
    """Collects tensors and writes the file; the same tensors in the same order give the same bytes."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._records: list[Record] = []
        self._names: set[str] = set()

    @property
    def state(self) -> State:
        """The entropy coder's statistics so far: what a trial of the next tensor starts from."""
        return self._encoder.state

    def add(self, record: Record) -> None:
        """Append a tensor.

        Raises:
            CodecError: A name that is too long or there already, or more dimensions than the format has.
        """
        if record.name in self._names:
            raise CodecError(f"Tensor {record.name!r} is there twice.")
        if len(record.name.encode()) > _MAX_NAME or len(record.shape) > _MAX_DIMENSIONS:
            raise CodecError(
                f"Tensor {record.name[:80]!r} of {len(record.shape)} dimensions: the format holds names of up to "
                f"{_MAX_NAME} bytes and up to {_MAX_DIMENSIONS} dimensions."
            )
        if len(self._records) == _MAX_TENSORS:
            raise CodecError(f"A file holds at most {_MAX_TENSORS} tensors.")
        for plane in record.coded.planes:
            self._encoder.plane(plane.symbols, plane.kind)
        self._names.add(record.name)
        self._records.append(record)

    def finish(self) -> bytes:
        """The whole file."""
        header = _write_header(self._records)
        squeezed = _deflate(header)
        body = b"".join(
            [MAGIC, bytes([VERSION]), varint(len(header)), varint(len(squeezed)), squeezed, self._encoder.finish()]
        )
        weights = sum(_load(record.shape, [plane.symbols.size for plane in record.coded.planes]) for record in self._records)
        padding = -(-(weights - _BASE_WEIGHTS) // _WEIGHTS_PER_BYTE) - len(body) - 4
        body += bytes(max(padding, 0))
        return body + binascii.crc32(body).to_bytes(4, "little")


def _load(shape: Shape, planes: Sequence[int]) -> int:
    """What a tensor counts against the limit: its weights, or its symbols where these are more."""
    return max(math.prod(shape), sum(planes))


def _write_header(records: Sequence[Record]) -> bytes:
    """The tensor table, column by column: alike things side by side deflate best."""
    chains = list(dict.fromkeys(tuple(stage.number for stage in record.codec.stages) for record in records))
    parts = [varint(len(records)), varint(len(chains))]
    parts += [varint(len(chain)) + b"".join(map(varint, chain)) for chain in chains]
    parts += [_text(record.name) for record in records]
    parts += [varint(DTYPES.index(record.dtype)) for record in records]
    parts += [varint(len(record.shape)) + b"".join(map(varint, record.shape)) for record in records]
    parts += [varint(chains.index(tuple(stage.number for stage in record.codec.stages))) for record in records]
    parts += [varint(len(record.coded.side)) + record.coded.side for record in records]
    return b"".join(parts)


def _deflate(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_DICTIONARY)
    return squeezer.compress(data) + squeezer.flush()


def _inflate(data: bytes, size: int) -> bytes:
    opener = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        header = opener.decompress(data, size + 1)
    except zlib.error as error:
        raise FormatError(f"The tensor table is damaged: {error}.") from error
    if len(header) != size or not opener.eof or opener.unused_data:
        raise FormatError("The tensor table is not as long as the file says: the file is damaged.")
    return header


class _HeaderReader(SideReader):
    def take(self, count: int) -> bytes:
        if self.position + count > len(self._data):
            raise FormatError("The tensor table ends too soon: the file is damaged.")
        self.position += count
        return self._data[self.position - count : self.position]

    def text(self) -> str:
        try:
            return self.take(self.integer(0, _MAX_NAME)).decode()
        except UnicodeDecodeError as error:
            raise FormatError("A tensor's name is not UTF-8: the file is damaged.") from error

    def chain(self) -> Codec:
        numbers = [self.integer(0, 1 << 16) for _ in range(self.integer(1, 16))]
        stages = [stage_by_number(number) for number in numbers]
        if None in stages:
            raise FormatError(
                f"The file uses codec stage {numbers[stages.index(None)]}, which this version does not know: "
                "it was written by a newer one, or is damaged."
            )
        try:
            return Codec(tuple(stage for stage in stages if stage is not None))
        except CodecError as error:
            raise FormatError(f"The file names a chain of stages that cannot be: {error}") from error


def parse(data: bytes) -> Contents:
    """Check a file and read its header; decodes and allocates nothing yet.

    Raises:
        FormatError: Whatever is wrong with the file.
    """
    if len(data) < 10 or data[:3] != MAGIC:
        raise FormatError(f"Not an .evc file: it does not start with {MAGIC!r} and is {len(data)} bytes long.")
    if data[3] != VERSION:
        raise FormatError(f"The file has format version {data[3]}; this evocompress reads version {VERSION}.")
    if binascii.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise FormatError("The checksum does not match: the file is truncated or damaged.")
    outer = _HeaderReader(data[4:-4])
    size = outer.integer(0, _MAX_HEADER)
    length = outer.integer(0, len(data))
    if size > _DEFLATE_LIMIT * length + 64:
        raise FormatError("The file announces a larger tensor table than it can hold: it is damaged.")
    header = _HeaderReader(_inflate(outer.take(length), size))
    tensors = _read_table(header, weight_limit(len(data)), most=4 * length + 64)
    header.finish()
    stream = data[4 + outer.position : -4]
    return Contents(tensors, stream, len(data) - len(stream))


def _read_table(header: _HeaderReader, limit: int, most: int) -> tuple[Any, ...]:
    # Names differ, so even the most regular table takes more than a quarter of a byte for each tensor.
    places = range(header.integer(0, min(_MAX_TENSORS, most)))
    chains = [header.chain() for _ in range(header.integer(0, len(places)))]
    names = [header.text() for _ in places]
    if len(set(names)) != len(names):
        raise FormatError("Two tensors have the same name: the file is damaged.")
    dtypes = [DTYPES[header.integer(0, len(DTYPES) - 1)] for _ in places]
    shapes = [tuple(header.integer(0, 1 << 40) for _ in range(header.integer(0, _MAX_DIMENSIONS))) for _ in places]
    codecs = [chains[header.integer(0, len(chains) - 1)] for _ in places]
    sides = [header.take(header.integer(0, _MAX_HEADER)) for _ in places]
    total, layouts = 0, []
    for name, dtype, shape, codec, side in zip(names, dtypes, shapes, codecs, sides, strict=True):
        if total + math.prod(shape) > limit:
            raise FormatError(
                f"The file announces more than {limit} weights, more than a file of its size may hold: it is damaged "
                "or hostile."
            )
        reader = SideReader(side)
        planes = codec.layout(reader, shape)
        reader.finish()
        total += _load(shape, [plane.rows * plane.columns for plane in planes])
        if total > limit:
            raise FormatError(f"Tensor {name!r} announces more symbols than its file may hold: damaged or hostile.")
        _check_dtype(name, dtype, codec)
        layouts.append(tuple(planes))
    return tuple(zip(names, dtypes, shapes, codecs, sides, layouts, strict=True))


def _check_dtype(name: str, dtype: str, codec: Codec) -> None:
    if codec.stages[0].id != "lossless" and dtype_named(dtype).kind not in "fV":
        raise FormatError(f"Tensor {name!r} is of dtype {dtype} but lossily coded: the file is damaged.")


def _decode(contents: Contents) -> Iterator[tuple[Any, list[Symbols], npt.NDArray[Any]]]:
    decoder = Decoder(contents.stream)
    for tensor in contents.tensors:
        name, dtype, shape, codec, side, layouts = tensor
        planes = [decoder.plane((layout.rows, layout.columns), layout.kind) for layout in layouts]
        reader = SideReader(side)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                yield tensor, planes, to_dtype(codec.decode_from(iter(planes), reader, shape), dtype, shape)
        except (ValueError, OverflowError, np.linalg.LinAlgError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"Tensor {name!r} cannot be decoded: {error}") from error
    decoder.finish()


def read(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a file, in its order, in their dtypes and shapes.

    Raises:
        FormatError: Truncated, damaged, of another version, or hostile; nothing large was allocated by then.
    """
    return {tensor[0]: x for tensor, _, x in _decode(parse(data))}


def inspect(data: bytes) -> tuple[list[TensorInfo], int]:
    """What each tensor of a file takes, and the bytes of everything else; together they add up to the file.

    The stream is shared, so a tensor's part of it is its share of the ideal code length.
    """
    contents, state, bits = parse(data), State(), []
    for _, planes, _ in _decode(contents):
        counter = BitCounter(state)
        kinds = [layout.kind for layout in contents.tensors[len(bits)][5]]
        for plane, kind in zip(planes, kinds, strict=True):
            counter.plane(plane, kind)
        state = counter.state
        bits.append(counter.bits)
    scale = len(contents.stream) / sum(bits) if sum(bits) else 0.0
    infos = [
        TensorInfo(name, shape, dtype, codec_spec(codec), math.prod(shape), used * scale, len(side))
        for (name, dtype, shape, codec, side, _), used in zip(contents.tensors, bits, strict=True)
    ]
    taken = sum(info.side_bytes for info in infos) + (len(contents.stream) if scale else 0)
    return infos, len(data) - taken
