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
from evocompress.codecs.coders import CODERS, Coder, CoderName, PlaneDecoder, PlaneEncoder, coder_numbered, count_bits
from evocompress.codecs.dtypes import DTYPES, dtype_named, to_dtype
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.registry import LOSSLESS, codec_spec, stage_by_number
from evocompress.errors import CodecError, FormatError

__all__ = ["MAGIC", "VERSION", "Contents", "Record", "TensorInfo", "Writer", "inspect", "read", "weight_limit"]

MAGIC = b"EVC"
VERSION = 2
#: Version 1 has no byte for the entropy coder: it is the first one. It is still written where that is the coder.
_FIRST_VERSION = 1
_MAX_TENSORS, _MAX_NAME, _MAX_DIMENSIONS, _MAX_LENGTH, _MAX_STAGES = 1 << 16, 1 << 10, 8, 1 << 40, 8
_MAX_HEADER, _MAX_SIDE = 1 << 22, 1 << 10
_BASE_HEADER, _HEADER_PER_BYTE = 1 << 16, 1 << 6
_BASE_WEIGHTS, _WEIGHTS_PER_BYTE = 1 << 22, 1 << 10

# Common runs of tensor names, the most common last, so that a file need not spell them out.
_NORM = "{0}.weight\0{0}.bias\0{0}.running_mean\0{0}.running_var\0{0}.num_batches_tracked\0"
_DICTIONARY = (
    "word_embeddings.position_embeddings.token_type_embeddings.LayerNorm.encoder.layer.attention.self.query.key.value."
    "output.dense.intermediate.weight_ih_l0\0weight_hh_l0\0bias_ih_l0\0bias_hh_l0\0head.stem.blocks.0.norm1.attn.qkv."
    "proj.norm2.mlp.embed.features.classifier.shortcut.downsample.0.layer4.layer3.layer2."
    + "".join(f"layer1.0.conv{i}.weight\0" + _NORM.format(f"layer1.0.bn{i}") for i in (3, 2, 1))
    + "linear.weight\0linear.bias\0fc.weight\0fc.bias\0conv1.weight\0" + _NORM.format("bn1")
    + "".join(f"{name}.weight\0{name}.bias\0" for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"))
).encode()  # fmt: skip


class Record(NamedTuple):
    """One tensor of a file: its coded form, and all that is needed to decode it."""

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    coded: Coded


class Entry(NamedTuple):
    """One row of a file's tensor table: all that is needed to decode the tensor but its symbols."""

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    side: bytes
    planes: tuple[Layout, ...]


class Contents(NamedTuple):
    """A parsed and validated header: what there is to decode, and the bytes to decode it from."""

    tensors: tuple[Entry, ...]
    stream: bytes
    table_bytes: int
    coder: Coder


class TensorInfo(NamedTuple):
    """What one tensor takes of a file, in bytes.

    `payload_bytes` is its share of the entropy-coded stream, `side_bytes` its side information in the tensor table.
    """

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


def _header_limit(nbytes: int) -> int:
    """How long the inflated tensor table of a file of this size may be."""
    return min(_BASE_HEADER + _HEADER_PER_BYTE * nbytes, _MAX_HEADER)


class Writer:
    """Collects tensors and writes the file; the same tensors in the same order give the same bytes."""

    def __init__(self, coder: CoderName = "classes") -> None:
        self._coder = CODERS[coder]
        self._encoder: PlaneEncoder = self._coder.encoder()
        self._records: list[Record] = []
        self._names: set[str] = set()

    @property
    def state(self) -> Any:
        """The entropy coder's statistics so far: what a trial of the next tensor starts from."""
        return self._encoder.state

    def add(self, record: Record) -> None:
        """Append a tensor.

        Raises:
            CodecError: A name that is too long or there already, or more dimensions than the format has.
        """
        if record.name in self._names:
            raise CodecError(f"Tensor {record.name!r} is there twice.")
        if len(_encoded(record.name)) > _MAX_NAME or len(record.shape) > _MAX_DIMENSIONS:
            raise CodecError(
                f"Tensor {record.name[:80]!r} of {len(record.shape)} dimensions: the format holds names of up to "
                f"{_MAX_NAME} bytes and up to {_MAX_DIMENSIONS} dimensions."
            )
        if max(record.shape, default=0) > _MAX_LENGTH:
            raise CodecError(f"Tensor {record.name!r} has shape {record.shape}; no length may exceed {_MAX_LENGTH}.")
        if len(self._records) == _MAX_TENSORS:
            raise CodecError(f"A file holds at most {_MAX_TENSORS} tensors.")
        for plane in record.coded.planes:
            self._encoder.plane(plane.symbols, plane.kind)
        self._names.add(record.name)
        self._records.append(record)

    def finish(self) -> bytes:
        """The whole file."""
        header = _write_header(self._records)
        if len(header) > _MAX_HEADER:
            raise CodecError(f"The tensor table takes {len(header)} bytes; a file holds one of up to {_MAX_HEADER}.")
        number = self._coder.number
        version = bytes([VERSION, number]) if number else bytes([_FIRST_VERSION])
        body = b"".join([MAGIC, version, _deflate(header), self._encoder.finish()])
        weights = sum(_load(record.shape, [p.symbols.size for p in record.coded.planes]) for record in self._records)
        least = max(
            -(-(weights - _BASE_WEIGHTS) // _WEIGHTS_PER_BYTE), -(-(len(header) - _BASE_HEADER) // _HEADER_PER_BYTE)
        )
        body += bytes(max(least - len(body) - 4, 0))
        return body + binascii.crc32(body).to_bytes(4, "little")


def _load(shape: Shape, planes: Sequence[int]) -> int:
    """What a tensor counts against the limit: its weights, or its symbols where these are more."""
    return max(math.prod(shape), sum(planes))


def _write_header(records: Sequence[Record]) -> bytes:
    """The tensor table, column by column: alike things side by side deflate best."""
    chains = list(dict.fromkeys(tuple(stage.number for stage in record.codec.stages) for record in records))
    parts = [varint(len(records)), varint(len(chains))]
    parts += [varint(len(chain)) + b"".join(map(varint, chain)) for chain in chains]
    parts += [_encoded(record.name) + b"\0" for record in records]
    parts += [varint(DTYPES.index(record.dtype)) for record in records]
    first = 0  # of the tensor before: a bias is as long as its weight, so a difference deflates better
    for shape in (record.shape for record in records):
        lengths = (shape[0] - first, *shape[1:]) if shape else ()
        parts.append(varint(len(shape)) + b"".join(map(varint, lengths)))
        first = shape[0] if shape else first
    places = {chain: place for place, chain in enumerate(chains)}
    parts += [varint(places[tuple(stage.number for stage in record.codec.stages)]) for record in records]
    parts += [record.coded.side for record in records]
    return b"".join(parts)


def _encoded(name: str) -> bytes:
    """A name's bytes; they end at a zero byte in the file, so they hold none."""
    try:
        data = name.encode()
    except UnicodeEncodeError as error:
        raise CodecError(f"Tensor name {name!r} is not Unicode text: {error}.") from error
    if b"\0" in data:
        raise CodecError(f"Tensor name {name!r} contains a NUL character, which ends names in a file; rename it.")
    return data


def _deflate(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_DICTIONARY)
    return squeezer.compress(data) + squeezer.flush()


def _inflate(data: bytes, limit: int) -> tuple[bytes, bytes]:
    """What a deflated table at the start of data holds, and the data behind it."""
    opener = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        header = opener.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"The tensor table is damaged: {error}.") from error
    if len(header) > limit:
        raise FormatError(f"The tensor table is longer than {limit} bytes, more than a file of this size may hold.")
    if not opener.eof:
        raise FormatError("The tensor table has no end: the file is damaged.")
    return header, opener.unused_data


class _HeaderReader(SideReader):
    def name(self) -> str:
        end = self._data.find(b"\0", self.position, self.position + _MAX_NAME + 1)
        if end < 0:
            raise FormatError("A tensor's name has no end: the file is damaged.")
        start, self.position = self.position, end + 1
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError as error:
            raise FormatError("A tensor's name is not UTF-8: the file is damaged.") from error

    def shape(self, first: int) -> Shape:
        rank = self.integer(0, _MAX_DIMENSIONS)
        lengths = [self.integer(-first if place == 0 else 0, _MAX_LENGTH) for place in range(rank)]
        return (lengths[0] + first, *lengths[1:]) if lengths else ()

    def since(self, start: int) -> bytes:
        """What was read from a position on."""
        return self._data[start : self.position]

    def chain(self) -> Codec:
        numbers = [self.integer(0, 1 << 16) for _ in range(self.integer(1, _MAX_STAGES))]
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
    if not _FIRST_VERSION <= data[3] <= VERSION:
        known = f"{_FIRST_VERSION} to {VERSION}"
        raise FormatError(f"The file has format version {data[3]}; this evocompress reads versions {known}.")
    if binascii.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise FormatError("The checksum does not match: the file is truncated or damaged.")
    start = 4 if data[3] == _FIRST_VERSION else 5
    coder = coder_numbered(data[4] if start == 5 else 0)
    if coder is None or (start == 5 and coder.number == 0):
        raise FormatError(f"The file names entropy coder {data[4]}, which this version does not know.")
    table, stream = _inflate(data[start:-4], _header_limit(len(data)))
    header = _HeaderReader(table)
    tensors = _read_table(header, weight_limit(len(data)))
    header.finish()
    return Contents(tensors, stream, len(data) - len(stream) - start - 4, coder)


def _read_table(header: _HeaderReader, limit: int) -> tuple[Entry, ...]:
    places = range(header.integer(0, _MAX_TENSORS))
    chains = [header.chain() for _ in range(header.integer(0, len(places)))]
    names = [header.name() for _ in places]
    if len(set(names)) != len(names):
        raise FormatError("Two tensors have the same name: the file is damaged.")
    dtypes = [DTYPES[header.integer(0, len(DTYPES) - 1)] for _ in places]
    shapes: list[Shape] = []
    first = 0
    for _ in places:
        shapes.append(header.shape(first))
        first = shapes[-1][0] if shapes[-1] else first
    codecs = [chains[header.integer(0, len(chains) - 1)] for _ in places]
    entries, total = [], 0
    for name, dtype, shape, codec in zip(names, dtypes, shapes, codecs, strict=True):
        if total + math.prod(shape) > limit:
            raise FormatError(f"Tensor {name!r} has more weights than its file may hold: damaged or hostile.")
        if dtype_named(dtype).kind not in "fV" and codec != LOSSLESS:
            raise FormatError(f"Tensor {name!r} is of dtype {dtype} but lossily coded: the file is damaged.")
        start = header.position
        planes = codec.layout(header, shape)
        total += _load(shape, [plane.rows * plane.columns for plane in planes])
        if total > limit or header.position - start > _MAX_SIDE:
            raise FormatError(f"Tensor {name!r} announces more than its file may hold: it is damaged or hostile.")
        entries.append(Entry(name, dtype, shape, codec, header.since(start), tuple(planes)))
    return tuple(entries)


def _decode(contents: Contents) -> Iterator[tuple[Entry, list[Symbols], npt.NDArray[Any]]]:
    decoder: PlaneDecoder = contents.coder.decoder(contents.stream)
    for entry in contents.tensors:
        planes = [decoder.plane((layout.rows, layout.columns), layout.kind) for layout in entry.planes]
        yield entry, planes, _tensor(entry, planes)
    decoder.finish()


def _tensor(entry: Entry, planes: Sequence[Symbols]) -> npt.NDArray[Any]:
    """A tensor from its symbols; no writer makes symbols that decode to anything but finite numbers."""
    try:
        with np.errstate(all="ignore"):
            x = entry.codec.decode_from(iter(planes), SideReader(entry.side), entry.shape)
            array = to_dtype(x, entry.dtype, entry.shape)
    except FormatError:
        raise
    except (ValueError, OverflowError) as error:
        raise FormatError(f"Tensor {entry.name!r} cannot be decoded: {error}") from error
    if entry.codec != LOSSLESS and np.isnan(x).any():
        raise FormatError(f"Tensor {entry.name!r} decodes to NaN: the file is damaged.")
    return array


def read(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a file, in its order, in their dtypes and shapes.

    Raises:
        FormatError: Truncated, damaged, of another version, or hostile; nothing large was allocated by then.
    """
    return {entry.name: x for entry, _, x in _decode(parse(data))}


def inspect(data: bytes) -> tuple[list[TensorInfo], int]:
    """What each tensor of a file takes, and the bytes of everything else; together they add up to the file.

    The stream is shared, so a tensor's part of it is its share of the ideal code length.
    """
    contents, bits = parse(data), []
    state = contents.coder.state()
    for entry, planes, _ in _decode(contents):
        counter = count_bits(state)
        for plane, layout in zip(planes, entry.planes, strict=True):
            counter.plane(plane, layout.kind)
        state = counter.state
        bits.append(counter.bits)
    scale = len(contents.stream) / sum(bits) if sum(bits) else 0.0
    # The table is deflated; where much side information is alike, it takes less there than it is long.
    share = min(1.0, contents.table_bytes / max(sum(len(entry.side) for entry in contents.tensors), 1))
    infos = [
        TensorInfo(
            e.name, e.shape, e.dtype, codec_spec(e.codec), math.prod(e.shape), used * scale, int(len(e.side) * share)
        )
        for e, used in zip(contents.tensors, bits, strict=True)
    ]
    taken = sum(info.side_bytes for info in infos) + (len(contents.stream) if scale else 0)
    return infos, len(data) - taken
