"""The `.evc` file: FORMAT.md beside this file is its specification, and this is its only writer and reader.

The reader trusts nothing: it checks length, magic, version and checksum, parses and validates the whole tensor table
(tensor_table.py), bounds what the file may make it allocate, and only then decodes, one tensor after the other.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evocompress.codecs.bare_table import read_bare_head, read_bare_table, write_bare_table
from evocompress.codecs.budget import Budget, padding_for
from evocompress.codecs.codec import Codec, Coded, Shape, SideReader
from evocompress.codecs.coders import CODERS, Coder, CoderName, PlaneDecoder, PlaneEncoder, coder_numbered
from evocompress.codecs.cropping import padded
from evocompress.codecs.deflation import deflate, inflate
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.partial_decoding import decode_in_parts
from evocompress.codecs.planes import kernel_places
from evocompress.codecs.template import template_of
from evocompress.codecs.tensor_table import (
    BASE_HEADER,
    HEADER_PER_BYTE,
    MAX_HEADER,
    MAX_TENSORS,
    Entry,
    Row,
    charge_planes,
    check_row,
    fingerprint,
    header_limit,
    read_table,
    write_table,
)
from evocompress.errors import CodecError, FormatError

__all__ = [
    "MAGIC",
    "NAMES_WITHOUT_SHAPES",
    "VERSION",
    "Contents",
    "Record",
    "Writer",
    "decode_each",
    "file_names",
    "iterate",
    "parse",
    "read",
    "symbols_each",
    "table_start",
]

_BARE = "The file is bare: it holds neither names nor shapes nor dtypes of its tensors"
#: What is wrong with a recipe or a writer that asks for this.
NAMES_WITHOUT_SHAPES = (
    "shapes is False and names is True; a file without shapes has no names either: give names=False as well."
)
MAGIC = b"EVC"
VERSION = 5
#: Version 1 has no byte for the entropy coder: it is the first one. Version 2 has no tied tensors, and always names.
#: Version 4 has neither names nor shapes nor dtypes; version 5 holds corners of tensors, too.
_ANY_SIZE = 1 << 62  # bytes of a file that may cost whatever it does
_FIRST_VERSION, _CODER_VERSION, _TIES_VERSION, _BARE_VERSION = 1, 2, 3, 4


class Record(NamedTuple):
    """One tensor of a file: its coded form, and all that is needed to decode it.

    `whole` is the shape of a tensor of which `shape` is the corner that is coded; all else of it is zero.
    """

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    coded: Coded
    whole: Shape | None = None


class Contents(NamedTuple):
    """A parsed and validated table: what there is to decode, and the bytes to decode it from.

    `lost_names` is None where the file has names, or is bare and was given the network's; else their `fingerprint`, and
    the tensors are called "0", "1", … . A bare file without a network is `unread`: `tensors` is empty, `lost_names` the
    fingerprint of the template that it needs (`fingerprint_of`), and nothing can be decoded. `budget` says what
    decoding will cost.
    """

    tensors: tuple[Entry, ...]
    stream: bytes
    table_bytes: int
    coder: Coder
    lost_names: int | None
    budget: Budget
    unread: bool = False


class Writer:
    """Takes tensors one by one and writes the file; the same tensors in the same order give the same bytes.

    Symbols are coded as they come, so that no more than the file so far is kept. Without `names` the file stores none;
    tensors must then come in ascending order of their names. Without names and `shapes` it is bare: it stores no shapes
    and dtypes either, and whoever reads it must have the network.

    Raises:
        CodecError: Names without shapes.
    """

    def __init__(self, coder: CoderName = "classes", *, names: bool = True, shapes: bool = True) -> None:
        if names and not shapes:
            raise CodecError(NAMES_WITHOUT_SHAPES)
        self._coder = CODERS[coder]
        self._named, self._bare = names, not shapes
        self._encoder: PlaneEncoder = self._coder.encoder()
        self._budget = Budget(_ANY_SIZE)
        self._rows: list[Row] = []
        self._places: dict[str, int] = {}

    @property
    def state(self) -> Any:
        """The entropy coder's statistics so far: what a trial of the next tensor starts from."""
        return self._encoder.state

    def add(self, record: Record) -> None:
        """Append a tensor.

        Raises:
            CodecError: A name that is too long or there already, or more dimensions than the format has; a corner
                in a file that is not bare.
        """
        if record.whole is not None and not self._bare:
            raise CodecError(f"Tensor {record.name!r} is cropped, which only bare files say; code the whole of it.")
        whole = None if record.whole == record.shape else record.whole
        self._check(record.name, whole or record.shape)
        planes, period = record.coded.planes, kernel_places(record.shape)
        for plane in planes:
            self._encoder.plane(plane.symbols, plane.kind, period)
        self._charge(record, whole or record.shape)
        self._append(Row(record.name, record.dtype, record.shape, record.codec, record.coded.side, whole=whole))

    def _charge(self, record: Record, shape: Shape) -> None:
        """Count what a reader will count of a tensor of this whole shape."""
        self._budget.charge("weights", math.prod(shape))
        layouts = record.codec.layout(SideReader(record.coded.side, self._budget), record.shape)
        charge_planes(self._budget, shape, layouts)

    def tie(self, name: str, source: str) -> None:
        """Append a tensor with the dtype, shape and decoded weights of `source`, a tensor that is there already.

        Raises:
            CodecError: There is no such source, or the name is too long or there already.
        """
        if source not in self._places:
            raise CodecError(f"Tensor {name!r} cannot be tied to {source!r}, which was not added before.")
        place = self._places[source]
        row = self._rows[place]
        self._check(name, row.whole or row.shape)
        place = place if row.source is None else row.source
        self._budget.charge("weights", math.prod(row.whole or row.shape))
        self._append(row._replace(name=name, side=b"", source=place))

    def _check(self, name: str, shape: Shape) -> None:
        if name in self._places:
            raise CodecError(f"Tensor {name!r} is there twice.")
        check_row(name, shape)
        if len(self._rows) == MAX_TENSORS:
            raise CodecError(f"A file holds at most {MAX_TENSORS} tensors.")
        if not self._named and self._rows and name < self._rows[-1].name:
            raise CodecError(f"Tensor {name!r} comes after {self._rows[-1].name!r}; without names they must be sorted.")

    def _append(self, row: Row) -> None:
        self._places[row.name] = len(self._rows)
        self._rows.append(row)

    def finish(self) -> bytes:
        """The whole file, of the least version that can say it.

        Raises:
            CodecError: The names take more room than the format has.
        """
        version, table, head = self._head()
        if len(table) > MAX_HEADER:
            raise CodecError(f"The tensor table takes {len(table)} bytes; a file holds one of up to {MAX_HEADER}.")
        body = b"".join([MAGIC, bytes([version]), head, self._encoder.finish()])
        least = max(padding_for(self._budget.counted), -(-(len(table) - BASE_HEADER) // HEADER_PER_BYTE))
        body += bytes(max(least - len(body) - 4, 0))
        return body + binascii.crc32(body).to_bytes(4, "little")

    def _head(self) -> tuple[int, bytes, bytes]:
        """The version, the table, and what the file has of both between the version and the stream."""
        number = self._coder.number
        if self._bare:
            table = write_bare_table(self._rows, number)
            return (VERSION if any(row.whole for row in self._rows) else _BARE_VERSION), table, table
        tied = any(row.source is not None for row in self._rows)
        version = _TIES_VERSION if tied or not self._named else _CODER_VERSION if number else _FIRST_VERSION
        table = write_table(self._rows, version, names=self._named)
        return version, table, (b"" if version == _FIRST_VERSION else bytes([number])) + deflate(table)


def table_start(data: bytes) -> int:
    """The place of the tensor table: behind the magic, the version and what a file of this version has there."""
    return 5 if data[3] in (_CODER_VERSION, _TIES_VERSION) else 4


def parse(
    data: bytes, names: Iterable[str] | Mapping[str, object] | None = None, *, max_output_bytes: int | None = None
) -> Contents:
    """Check a file and read its table; decodes and allocates nothing yet.

    Args:
        data: The file's bytes.
        names: For a bare file, the names of the network's tensors with these, as in `iterate`: the entries have these
            names. Without it such a file stays `unread`. Other files need none, and do not look at it.
        max_output_bytes: Refuse a file whose tensors take more bytes together once they are decoded; None: any that
            the limits of the format let through (`budget`).

    Raises:
        FormatError: Whatever is wrong with the file, or it takes too much.
        CodecError: The file is bare, and was packed with other names, shapes or dtypes, or names come without shapes.
    """
    if len(data) < 10 or data[:3] != MAGIC:
        raise FormatError(f"Not an .evc file: it does not start with {MAGIC!r} and is {len(data)} bytes long.")
    version = data[3]
    if not _FIRST_VERSION <= version <= VERSION:
        versions = f"{_FIRST_VERSION} to {VERSION}"
        raise FormatError(f"The file has format version {version}; this evocompress reads versions {versions}.")
    if binascii.crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "little"):
        raise FormatError("The checksum does not match: the file is truncated or damaged.")
    start, budget = table_start(data), Budget(len(data), max_output_bytes)
    if version >= _BARE_VERSION:
        return _parse_bare(data, start, names, budget)
    coder = _coder(data[4] if version > _FIRST_VERSION else 0)
    if version == _CODER_VERSION and coder.number == 0:
        raise FormatError("The file names entropy coder 0, which files of its version do not name.")
    table, stream = inflate(data[start:-4], header_limit(len(data)))
    tensors, lost_names = read_table(table, version, budget)
    return Contents(tensors, stream, len(data) - len(stream) - start - 4, coder, lost_names, budget)


def _coder(number: int) -> Coder:
    coder = coder_numbered(number)
    if coder is None:
        raise FormatError(f"The file names entropy coder {number}, which this version does not know.")
    return coder


def _parse_bare(
    data: bytes, start: int, names: Iterable[str] | Mapping[str, object] | None, budget: Budget
) -> Contents:
    end = len(data) - 4
    head = read_bare_head(data, start, end)
    coder = _coder(head.coder)
    if names is None:
        return Contents((), b"", 0, coder, head.fingerprint, budget, unread=True)
    if not isinstance(names, Mapping):
        raise CodecError(f"{_BARE}; names alone do not say its shapes and dtypes: give names=model.state_dict().")
    tensors, stop = read_bare_table(data, start, end, template_of(names), budget, cropped=data[3] > _BARE_VERSION)
    return Contents(tensors, data[stop:end], stop - start, coder, None, budget)


def _check_read(contents: Contents) -> None:
    """Refuse a bare file without a network.

    Raises:
        CodecError: It is one.
    """
    if contents.unread:
        raise CodecError(
            f"{_BARE}, so that it can be read only with the network that it is of: give names=model.state_dict(), "
            "or put it into a module by evocompress.load(path, model)."
        )


def symbols_each(contents: Contents) -> Iterator[tuple[Entry, list[Symbols], float]]:
    """Entry, planes and bits of each tensor, in order; a tied tensor has no planes, and takes no bits.

    No weights are made of the symbols. The bits are the ideal length of what the tensor takes of the stream.

    Raises:
        FormatError: The stream is damaged.
        CodecError: The file is bare, and was parsed without a network.
    """
    _check_read(contents)
    decoder: PlaneDecoder = contents.coder.decoder(contents.stream)
    before = decoder.bits
    for entry in contents.tensors:
        period = kernel_places(entry.shape)
        planes = [decoder.plane((layout.rows, layout.columns), layout.kind, period) for layout in entry.planes]
        bits, before = max(decoder.bits - before, 0.0), decoder.bits
        yield entry, planes, bits
        del planes  # they are not needed while the next ones are decoded
    decoder.finish()


def decode_each(contents: Contents) -> Iterator[tuple[Entry, list[Symbols], npt.NDArray[Any]]]:
    """Entry, planes and array of each tensor, in order; a tied tensor has no planes.

    An array that others are tied to is kept until the last of them; each gets an array of its own.

    Raises:
        FormatError: The stream is damaged.
        CodecError: The file is bare, and was parsed without a network.
    """
    last = {entry.source: place for place, entry in enumerate(contents.tensors) if entry.source is not None}
    kept: dict[int, npt.NDArray[Any]] = {}
    place = -1  # counted by hand: what enumerates holds on to the last planes
    for entry, planes, _ in symbols_each(contents):
        place += 1
        if entry.source is not None:
            array = kept.pop(entry.source) if last[entry.source] == place else kept[entry.source].copy()
            yield entry, [], array
            continue
        array = _tensor(entry, planes)
        if place in last:
            kept[place] = array.copy()
        yield entry, planes, array
        del planes, array  # they are not needed while the next one is decoded


def _tensor(entry: Entry, planes: Sequence[Symbols]) -> npt.NDArray[Any]:
    """A tensor from its symbols; no writer makes symbols that decode to anything but finite numbers."""
    try:
        with np.errstate(all="ignore"):
            array = decode_in_parts(entry.codec, planes, entry.side, entry.shape, entry.dtype)
            array = array if entry.whole is None else padded(array, entry.whole)
    except FormatError:
        raise
    except (ValueError, OverflowError) as error:
        raise FormatError(f"Tensor {entry.name!r} cannot be decoded: {error}") from error
    return array


def iterate(
    data: bytes, names: Iterable[str] | Mapping[str, object] | None = None, *, max_output_bytes: int | None = None
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and array of each tensor of a file, in its order, decoded one by one.

    Besides the file no more is held than the work on one tensor, and tensors that later ones are tied to. The arrays
    are the caller's. A file may turn out to be damaged at any tensor, also after the last one: what has come until
    then is to be discarded.

    Args:
        data: The file's bytes.
        names: For a file without names: those of its tensors, in any order; else they are "0", "1", … . A file that
            has names keeps them. A bare file, which has no shapes and dtypes either, needs a mapping from names to
            tensors, arrays or whatever has a shape and a dtype, or to pairs of both: a module's state dict is one.
        max_output_bytes: Refuse a file whose tensors take more bytes together than this, before any is decoded.

    Raises:
        FormatError: Truncated, damaged, of another version, hostile, or beyond `max_output_bytes`.
        CodecError: Names (of a bare file: shapes, dtypes) that are not those with which the file was packed, or none
            for a bare file.
    """
    contents = parse(data, names, max_output_bytes=max_output_bytes)
    _check_read(contents)
    return _named_arrays(contents, iter(file_names(contents, names)))


def _named_arrays(contents: Contents, names: Iterator[str]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for _, _, array in decode_each(contents):  # not through zip, which would hold on to the last array
        yield next(names), array
        del array


def file_names(contents: Contents, names: Iterable[str] | None = None) -> list[str]:
    """What the tensors of a file are called, in its order: its own names, or else these `names`, sorted.

    Raises:
        CodecError: Names that are not those with which the file was packed, or the file is bare and unread.
    """
    _check_read(contents)
    if contents.lost_names is None or names is None:
        return [entry.name for entry in contents.tensors]
    names_sorted = sorted(names)
    if len(names_sorted) != len(contents.tensors) or fingerprint(names_sorted) != contents.lost_names:
        raise CodecError(
            f"The file holds {len(contents.tensors)} tensors that were packed without names; the "
            f"{len(names_sorted)} names given for them ({', '.join(names_sorted[:3])}, …) are not those that they had."
        )
    return names_sorted


def read(
    data: bytes, names: Iterable[str] | Mapping[str, object] | None = None, *, max_output_bytes: int | None = None
) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a file, in its order, in their dtypes and shapes; arguments and errors are those of `iterate`.

    Raises:
        FormatError: Truncated, damaged, of another version, hostile, or beyond `max_output_bytes`; nothing large was
            allocated by then.
        CodecError: Names, or shapes and dtypes, that are not those with which the file was packed, or none for a bare
            file.
    """
    return dict(iterate(data, names, max_output_bytes=max_output_bytes))
