"""The tensor table of an `.evc` file: names, dtypes, shapes, codecs, side information, column by column.

FORMAT.md, sections 2 and 3. The reader validates all of it before anything is decoded.
"""

from __future__ import annotations

import abc
import binascii
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evocompress.codecs.budget import Budget
from evocompress.codecs.codec import Codec, Layout, Shape, SideReader, Stage, varint
from evocompress.codecs.dtypes import DTYPES, is_float, itemsize
from evocompress.codecs.registry import (
    LOSSLESS,
    PRIVATE,
    PRIVATE_NAME,
    STAGES,
    installed_stage,
    stage_by_number,
    stage_header,
)
from evocompress.errors import CodecError, FormatError

__all__ = [
    "BASE_HEADER",
    "HEADER_PER_BYTE",
    "MAX_HEADER",
    "MAX_STAGES",
    "MAX_TENSORS",
    "Entry",
    "MissingStage",
    "Row",
    "TensorReader",
    "charge_planes",
    "charge_tensor",
    "check_row",
    "encoded_name",
    "find_stage",
    "fingerprint",
    "header_limit",
    "read_entry",
    "read_table",
    "read_ties",
    "tie_places",
    "tied_entry",
    "write_table",
]

MAX_TENSORS, MAX_HEADER = 1 << 16, 1 << 22
BASE_HEADER, HEADER_PER_BYTE = 1 << 16, 1 << 6
_MAX_NAME, _MAX_DIMENSIONS, _MAX_LENGTH, MAX_STAGES, _MAX_SIDE = 1 << 10, 8, 1 << 40, 8, 1 << 10
_MAX_DTYPE = 1 << 16


class Row(NamedTuple):
    """One tensor as a writer remembers it: its row of the table, without its symbols.

    `source` is the place of the tensor that it is tied to; `whole` the shape of the network's tensor where the file has
    a corner of it only, whose shape is then `shape`.
    """

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    side: bytes
    source: int | None = None
    whole: Shape | None = None


class Entry(NamedTuple):
    """One tensor as a reader finds it in the table: all that is needed to decode it but its symbols.

    A tied tensor has the codec of its `source`, a place in the table before it, and no planes. `whole` is the shape of
    a tensor that the file has a corner of, of the shape `shape`; all else of it is zero.
    """

    name: str
    dtype: str
    shape: Shape
    codec: Codec
    side: bytes
    planes: tuple[Layout, ...]
    source: int | None = None
    whole: Shape | None = None

    @property
    def full_shape(self) -> Shape:
        """The decoded tensor's shape."""
        return self.shape if self.whole is None else self.whole


def header_limit(nbytes: int) -> int:
    """How long the inflated tensor table of a file of this size may be, in bytes."""
    return min(BASE_HEADER + HEADER_PER_BYTE * nbytes, MAX_HEADER)


def charge_tensor(budget: Budget, name: str, dtype: str, shape: Shape) -> None:
    """Count a tensor that a reader will make, of this whole shape, before anything else is known of it.

    Raises:
        FormatError: The file may not hold it, or the reader wants no more bytes.
    """
    budget.tensor, weights = name, math.prod(shape)
    budget.charge("weights", weights)
    budget.output(weights * itemsize(dtype))


def charge_planes(budget: Budget, shape: Shape, layouts: Sequence[Layout]) -> None:
    """Count the planes of a tensor of this whole shape: those beside the first, and symbols that outnumber weights.

    Raises:
        FormatError: The file may not hold them.
    """
    budget.charge("planes", max(len(layouts) - 1, 0))
    budget.charge("weights", max(sum(plane.rows * plane.columns for plane in layouts) - math.prod(shape), 0))


def encoded_name(name: str) -> bytes:
    """A name's bytes; they end at a zero byte in the file, so they hold none.

    Raises:
        CodecError: A zero byte, or no Unicode text.
    """
    try:
        data = name.encode()
    except UnicodeEncodeError as error:
        raise CodecError(f"Tensor name {name!r} is not Unicode text: {error}.") from error
    if b"\0" in data:
        raise CodecError(f"Tensor name {name!r} contains a NUL character, which ends names in a file; rename it.")
    return data


def fingerprint(names: Iterable[str]) -> int:
    """20 bits by which a file without names knows the names that it had, in ascending order.

    Raises:
        CodecError: One that no file could hold.
    """
    return binascii.crc32(b"".join(encoded_name(name) + b"\0" for name in names)) >> 12


def check_row(name: str, shape: Shape) -> None:
    """Refuse what the table cannot hold.

    Raises:
        CodecError: A name that is too long or no text, more dimensions than the format has, or a length beyond 2^40.
    """
    if len(encoded_name(name)) > _MAX_NAME or len(shape) > _MAX_DIMENSIONS:
        raise CodecError(
            f"Tensor {name[:80]!r} of {len(shape)} dimensions: the format holds names of up to {_MAX_NAME} bytes and "
            f"up to {_MAX_DIMENSIONS} dimensions."
        )
    if max(shape, default=0) > _MAX_LENGTH:
        raise CodecError(f"Tensor {name!r} has shape {shape}; no length may exceed {_MAX_LENGTH}.")


def write_table(rows: Sequence[Row], version: int, *, names: bool = True) -> bytes:
    """The table before it is deflated: alike things stand side by side, which deflates best.

    Without names, or with tied tensors, the version must be 3.
    """
    untied = [row for row in rows if row.source is None]
    chains = list(dict.fromkeys(_chain(row.codec) for row in untied))
    parts = [varint(len(rows)), varint(len(chains)), *chains]
    parts += [varint(int(names))] if version > 2 else []
    parts += [encoded_name(row.name) + b"\0" for row in rows] if names else [varint(fingerprint(r.name for r in rows))]
    parts += [_ties(rows)] if version > 2 else []
    parts += [varint(DTYPES.index(row.dtype)) for row in untied]
    first = 0  # of the tensor before: a bias is as long as its weight, so a difference deflates better
    for shape in (row.shape for row in untied):
        lengths = (shape[0] - first, *shape[1:]) if shape else ()
        parts.append(varint(len(shape)) + b"".join(map(varint, lengths)))
        first = shape[0] if shape else first
    places = {chain: place for place, chain in enumerate(chains)}
    parts += [varint(places[_chain(row.codec)]) for row in untied]
    parts += [row.side for row in untied]
    return b"".join(parts)


def _chain(codec: Codec) -> bytes:
    return varint(len(codec.stages)) + b"".join(map(stage_header, codec.stages))


def _ties(rows: Sequence[Row]) -> bytes:
    """Which tensors are tied, and to which: differences of places."""
    places = tie_places(rows)
    return varint(len(places)) + b"".join(varint(step) + varint(back) for step, back in places)


def tie_places(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Of each tied tensor how many places it lies behind the tied one before, and how many behind its source."""
    tied = [(place, row.source) for place, row in enumerate(rows) if row.source is not None]
    befores = [0, *(place for place, _ in tied)]
    return [(place - before, place - source) for (place, source), before in zip(tied, befores, strict=False)]


def read_ties(places: Iterable[tuple[int, int]], count: int) -> dict[int, int]:
    """Places of tied tensors, of `count` tensors, each with that of its source: the inverse of `tie_places`.

    Raises:
        FormatError: A tensor is not there, or is tied to a tied or a later one.
    """
    ties: dict[int, int] = {}
    place = 0
    for step, back in places:
        place += step
        source = place - back
        if place >= count or source < 0 or source in ties:
            raise FormatError("A tensor is tied to one that cannot be its source: the file is damaged.")
        ties[place] = source
    return ties


class TensorReader(SideReader, abc.ABC):
    """A reader of side information that knows where that of one tensor begins, and what it was.

    What its tensors will cost is charged to the file's `budget`.
    """

    def __init__(self, data: bytes, budget: Budget) -> None:
        super().__init__(data, budget)
        self.of_file = budget

    @abc.abstractmethod
    def taken(self) -> bytes:
        """The side information of the tensor that was read last, as varints; the next one's begins here."""


class _TableReader(TensorReader):
    def __init__(self, data: bytes, budget: Budget) -> None:
        super().__init__(data, budget)
        self._private: dict[tuple[int, str], Stage | MissingStage] = {}
        self._taken = 0

    def name(self) -> str:
        end = self._data.find(b"\0", self.position, self.position + _MAX_NAME + 1)
        if end < 0:
            raise FormatError("A tensor's name has no end: the file is damaged.")
        start, self.position = self.position, end + 1
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError as error:
            raise FormatError("A tensor's name is not UTF-8: the file is damaged.") from error

    def dtype(self) -> str:
        number = self.integer(0, _MAX_DTYPE)
        if number >= len(DTYPES):
            raise FormatError(
                f"The file has a tensor of dtype number {number}, which this version does not know: it was written by "
                "a newer one, or is damaged."
            )
        return DTYPES[number]

    def shape(self, first: int) -> Shape:
        rank = self.integer(0, _MAX_DIMENSIONS)
        lengths = [self.integer(-first if place == 0 else 0, _MAX_LENGTH) for place in range(rank)]
        return (lengths[0] + first, *lengths[1:]) if lengths else ()

    def shapes(self, count: int) -> list[Shape]:
        shapes: list[Shape] = []
        first = 0
        for _ in range(count):
            shapes.append(self.shape(first))
            first = shapes[-1][0] if shapes[-1] else first
        return shapes

    def ties(self, count: int) -> dict[int, int]:
        """Places of tied tensors, each with the place of its source."""
        number = self.integer(0, count)
        return read_ties(((self.integer(1, MAX_TENSORS), self.integer(1, MAX_TENSORS)) for _ in range(number)), count)

    def taken(self) -> bytes:
        start, self._taken = self._taken, self.position
        return self._data[start : self.position]

    def chain(self) -> Codec | MissingStage:
        """A codec, or the first of its stages that this machine does not have."""
        stages = [self.stage() for _ in range(self.integer(1, MAX_STAGES))]
        missing = next((stage for stage in stages if isinstance(stage, MissingStage)), None)
        if missing is not None:
            return missing
        try:
            return Codec(tuple(stage for stage in stages if not isinstance(stage, MissingStage)))
        except CodecError as error:
            raise FormatError(f"The file names a chain of stages that cannot be: {error}") from error

    def stage(self) -> Stage | MissingStage:
        """The next stage of a chain."""
        number = self.integer(0, 1 << 16)
        if number not in PRIVATE:
            return find_stage(number)
        start, end = self.position, self._data.find(b"\0", self.position, self.position + _MAX_NAME + 1)
        name = self._data[start : max(start, end)].decode("ascii", "replace")
        if PRIVATE_NAME.fullmatch(name) is None:
            raise FormatError(f"Stage {number}, which is for private use, has no valid name: the file is damaged.")
        self.position = end + 1
        if (number, name) not in self._private:
            self._private[number, name] = find_stage(number, name)
        return self._private[number, name]


def find_stage(number: int, name: str = "") -> Stage | MissingStage:
    """The stage that a file names: a built-in one by its number, or with a name an installed package's."""
    if not name:
        return stage_by_number(number) or MissingStage(number)
    try:
        return installed_stage(number, name) or MissingStage(number, name)
    except CodecError as error:
        return MissingStage(number, name, str(error))


class MissingStage(NamedTuple):
    """A stage that a file needs and this machine does not have; `failure` is why an installed one cannot be used."""

    number: int
    name: str = ""
    failure: str = ""

    def error(self, tensor: str | None) -> FormatError:
        """What to tell whoever reads the file."""
        subject = "The file" if tensor is None else f"Tensor {tensor!r}"
        if not self.name:
            return FormatError(
                f"{subject} needs codec stage {self.number}, which this version does not know: it was written by a "
                "newer one, or is damaged."
            )
        stage = f"{subject} needs codec stage {self.name!r} (number {self.number}, of the range for private use)"
        if self.failure:
            return FormatError(f"{stage}, which cannot be used here: {self.failure}")
        if self.name in STAGES:
            return FormatError(
                f"{stage}. The stage of this name that is installed has another number: install the version of its "
                "package with which the file was written."
            )
        return FormatError(
            f"{stage}. It was written with a stage of somebody's package: install the package that adds it."
        )


def read_table(table: bytes, version: int, budget: Budget) -> tuple[tuple[Entry, ...], int | None]:
    """The tensors of an inflated table, charged to the file's budget, and the `fingerprint` of names that it lacks.

    Raises:
        FormatError: The table breaks a rule of the format, or needs a stage that is not installed.
    """
    reader = _TableReader(table, budget)
    count = reader.integer(0, MAX_TENSORS)
    chains = [reader.chain() for _ in range(reader.integer(0, count))]
    missing = next((chain for chain in chains if isinstance(chain, MissingStage)), None)
    try:
        columns = _read_columns(reader, version, count, len(chains))
    except FormatError as error:
        # Behind an unknown stage the table may go on in a way that is unknown too.
        raise error if missing is None else missing.error(None) from error
    for name, place in zip(columns.untied, columns.chains, strict=True):
        chain = chains[place]
        if isinstance(chain, MissingStage):
            raise chain.error(name)
    if missing is not None:
        raise missing.error(None)
    codecs = [chain for chain in chains if not isinstance(chain, MissingStage)]
    untied = iter(_read_sides(reader, columns, codecs))
    entries: list[Entry] = []
    for place, name in enumerate(columns.names):
        source = columns.ties.get(place)
        entries.append(next(untied) if source is None else tied_entry(budget, name, entries[source], source))
    reader.finish()
    return tuple(entries), columns.lost


class _Columns(NamedTuple):
    """Columns 3 to 6; `untied` has the names of the tensors that are not tied, and the last three are of these."""

    names: list[str]
    lost: int | None
    ties: dict[int, int]
    untied: list[str]
    dtypes: list[str]
    shapes: list[Shape]
    chains: list[int]


def _read_columns(reader: _TableReader, version: int, count: int, chains: int) -> _Columns:
    named = version < 3 or reader.integer(0, 1) == 1
    lost = None if named else reader.integer(0, (1 << 20) - 1)
    names = [reader.name() if named else str(place) for place in range(count)]
    if len(set(names)) != len(names):
        raise FormatError("Two tensors have the same name: the file is damaged.")
    ties = reader.ties(count) if version > 2 else {}
    untied = [name for place, name in enumerate(names) if place not in ties]
    dtypes = [reader.dtype() for _ in untied]
    shapes = reader.shapes(len(untied))
    return _Columns(names, lost, ties, untied, dtypes, shapes, [reader.integer(0, chains - 1) for _ in untied])


def _read_sides(reader: _TableReader, columns: _Columns, chains: Sequence[Codec]) -> list[Entry]:
    """The tensors that are not tied; stops before they are more than the budget allows."""
    entries = list[Entry]()
    reader.taken()  # what is left of it is side information
    for name, dtype, shape, place in zip(columns.untied, columns.dtypes, columns.shapes, columns.chains, strict=True):
        entries.append(read_entry(reader, name, dtype, shape, chains[place]))
    return entries


def read_entry(
    reader: TensorReader,
    name: str,
    dtype: str,
    shape: Shape,
    codec: Codec,
    *,
    whole: Shape | None = None,
) -> Entry:
    """A tensor that is not tied, whose side information comes next; it is charged to the reader's budget.

    Raises:
        FormatError: That is too small for it, or its codec does not keep this dtype, or the side information is none of
            this codec.
    """
    full_shape = shape if whole is None else whole
    charge_tensor(reader.of_file, name, dtype, full_shape)
    if not is_float(dtype) and codec != LOSSLESS:
        raise FormatError(f"Tensor {name!r} is of dtype {dtype} but lossily coded: the file is damaged.")
    planes = codec.layout(reader, shape)
    charge_planes(reader.of_file, full_shape, planes)
    entry = Entry(name, dtype, shape, codec, reader.taken(), tuple(planes), whole=whole)
    if len(entry.side) > _MAX_SIDE:
        raise FormatError(f"Tensor {name!r} has {len(entry.side)} bytes of side information: it is damaged or hostile.")
    return entry


def tied_entry(budget: Budget, name: str, source: Entry, place: int) -> Entry:
    """A tensor that is tied to the one at this place; it is charged as well, as a reader makes a copy of it.

    Raises:
        FormatError: The budget is too small for it.
    """
    charge_tensor(budget, name, source.dtype, source.full_shape)
    return source._replace(name=name, side=b"", planes=(), source=place)
