"""Bare tensor table: chains and side information alone, in few bits (FORMAT.md, section 13).

Whoever reads it brings names, dtypes and shapes along (template.py). As in tensor_table.py all of it is validated
before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from evocompress.codecs.bits import BitReader, BitWriter, golomb_bits
from evocompress.codecs.budget import Budget
from evocompress.codecs.codec import Codec, SideReader, Stage, varint
from evocompress.codecs.cropping import read_corners, write_corners
from evocompress.codecs.registry import PRIVATE, PRIVATE_NAME, stage_header
from evocompress.codecs.template import Signature, fingerprint_of
from evocompress.codecs.tensor_table import (
    MAX_HEADER,
    MAX_STAGES,
    MAX_TENSORS,
    Entry,
    MissingStage,
    Row,
    TensorReader,
    find_stage,
    read_entry,
    read_ties,
    tie_places,
    tied_entry,
)
from evocompress.errors import CodecError, FormatError

__all__ = ["BareHead", "read_bare_head", "read_bare_table", "write_bare_table"]

_CODER, _FINGERPRINT, _ORDER, _STAGE_ORDER, _MAX_STAGE = 3, 20, 3, 2, 1 << 16
_MAX_STAGE_NAME = 64
_HUGE = 1 << 80  # beyond what any rule of side information allows
#: Chain, whether of two or more dimensions (None: any tensor of the chain), and place in the side information.
_Context: TypeAlias = tuple[int, bool | None, int]


class BareHead(NamedTuple):
    """What a bare file says of itself without a template."""

    coder: int
    tied: bool
    fingerprint: int


class _Predictions:
    """What a number of side information is expected to be: what stood there last, in a tensor like this one."""

    def __init__(self) -> None:
        self._last: dict[_Context, int] = {}

    def at(self, chain: int, matrix: bool, place: int) -> int:
        alike = self._last.get((chain, matrix, place))
        return self._last.get((chain, None, place), 0) if alike is None else alike

    def learn(self, chain: int, matrix: bool, place: int, number: int) -> None:
        self._last[chain, matrix, place] = self._last[chain, None, place] = number


def write_bare_table(rows: Sequence[Row], coder: int) -> bytes:
    """The table of these rows, which come in ascending order of their names, and the number of the entropy coder.

    It has the extents of corners where a row is one of a `whole` tensor: that is what version 5 adds to version 4.
    """
    bits = BitWriter()
    places = tie_places(rows)
    bits.number(coder, _CODER)
    bits.number(bool(places), 1)
    bits.number(fingerprint_of(Signature(r.name, r.dtype, r.whole or r.shape) for r in rows), _FINGERPRINT)
    if not rows:
        return bits.finish()
    if places:
        bits.golomb(len(places) - 1, 0)
    for step, back in places:
        bits.golomb(step - 1, 0)
        bits.golomb(back - 1, 0)
    untied = [row for row in rows if row.source is None]
    if any(row.whole for row in rows):
        write_corners(bits, [row.whole or row.shape for row in untied], [row.shape for row in untied])
    chains: dict[tuple[bytes, ...], int] = {}
    places_of_chains = [chains.setdefault(_chain(row.codec), len(chains)) for row in untied]
    bits.golomb(len(chains) - 1, 0)
    for stage in (stage for chain in chains for stage in chain):
        _write_stage(bits, stage)
    _write_sides(bits, untied, places_of_chains, (len(chains) - 1).bit_length())
    return bits.finish()


def _chain(codec: Codec) -> tuple[bytes, ...]:
    return tuple(map(stage_header, codec.stages))


def _write_stage(bits: BitWriter, header: bytes) -> None:
    reader = SideReader(header)
    bits.golomb(reader.integer(0, _MAX_STAGE), _STAGE_ORDER)
    for byte in header[reader.position :]:
        bits.number(byte, 8)


def _write_sides(bits: BitWriter, rows: Sequence[Row], chains: Sequence[int], width: int) -> None:
    """Chain and side information of each tensor, with the order of the code that takes the fewest bits."""
    predictions, differences = _Predictions(), list[list[int]]()
    for row, chain in zip(rows, chains, strict=True):
        reader, matrix = SideReader(row.side), len(row.shape) > 1
        differences.append([])
        while reader.position < len(row.side):
            place, number = len(differences[-1]), reader.integer(-_HUGE, _HUGE)
            difference = number - predictions.at(chain, matrix, place)
            differences[-1].append(2 * difference if difference >= 0 else -2 * difference - 1)
            predictions.learn(chain, matrix, place, number)
    order = min(
        range(1 << _ORDER), key=lambda order: sum(golomb_bits(n, order) for numbers in differences for n in numbers)
    )
    bits.number(order, _ORDER)
    for chain, numbers in zip(chains, differences, strict=True):
        bits.number(chain, width)
        for number in numbers:
            bits.golomb(number, order)


class _BareReader(TensorReader):
    """Side information out of bits; `begin` says of which chain, and whether of a matrix, the next numbers are."""

    def __init__(self, bits: BitReader, order: int, budget: Budget) -> None:
        super().__init__(b"", budget)
        self._bits, self._order, self._predictions = bits, order, _Predictions()
        self._chain, self._matrix, self._numbers = 0, False, list[int]()

    def begin(self, chain: int, matrix: bool) -> None:
        self._chain, self._matrix, self._numbers = chain, matrix, []

    def integer(self, low: int, high: int) -> int:
        place = len(self._numbers)
        code = self._bits.golomb(self._order, _HUGE)
        difference = -(code + 1 >> 1) if code & 1 else code >> 1
        value = difference + self._predictions.at(self._chain, self._matrix, place)
        if not low <= value <= high:
            raise FormatError(f"A value of the side information is {value}, outside [{low}, {high}]: damaged file.")
        self._predictions.learn(self._chain, self._matrix, place, value)
        self._numbers.append(value)
        return value

    def taken(self) -> bytes:
        return b"".join(map(varint, self._numbers))


def read_bare_head(data: bytes, start: int, end: int) -> BareHead:
    """What the table of a bare file, which begins at `start`, says without a template.

    Raises:
        FormatError: It ends before that.
    """
    return _head(_reader(data, start, end))


def _reader(data: bytes, start: int, end: int) -> BitReader:
    return BitReader(data, start, min(end, start + MAX_HEADER))


def _head(bits: BitReader) -> BareHead:
    return BareHead(bits.number(_CODER), bool(bits.number(1)), bits.number(_FINGERPRINT))


def read_bare_table(
    data: bytes, start: int, end: int, template: Sequence[Signature], budget: Budget, *, cropped: bool
) -> tuple[tuple[Entry, ...], int]:
    """The tensors of a bare file, charged to its budget, and the place where its table ends.

    Args:
        data: The file; its table begins at `start`, and no later than at `end` its stream is over.
        start: See above.
        end: See above.
        template: Of the network, in ascending order of names.
        budget: Of the file.
        cropped: Whether the table has the extents of corners.

    Raises:
        CodecError: The file was packed with another template.
        FormatError: The table breaks a rule of the format, or needs a stage that is not installed.
    """
    bits = _reader(data, start, end)
    head = _head(bits)
    if fingerprint_of(template) != head.fingerprint:
        raise CodecError(
            "The file holds neither names, shapes nor dtypes of tensors, and those of the network that was given "
            f"for it ({len(template)} tensors{_first(template)}) are not those with which it was packed."
        )
    ties, entries = dict[int, int](), list[Entry]()
    if template:
        ties = _ties(bits, template) if head.tied else ties
        entries = _entries(bits, template, ties, budget, cropped=cropped)
    elif head.tied or cropped:
        raise FormatError("A tensor is tied or cropped, and there is none: the file is damaged.")
    return tuple(entries), bits.finish()


def _first(template: Sequence[Signature]) -> str:
    names = ", ".join(signature.name[:80] for signature in template[:3])
    return f": {names}, …" if len(template) > 3 else f": {names}" if names else ""


def _ties(bits: BitReader, template: Sequence[Signature]) -> dict[int, int]:
    number = bits.golomb(0, len(template) - 1) + 1
    places = ((bits.golomb(0, MAX_TENSORS) + 1, bits.golomb(0, MAX_TENSORS) + 1) for _ in range(number))
    ties = read_ties(places, len(template))
    if any(template[place][1:] != template[source][1:] for place, source in ties.items()):
        raise FormatError("A tensor is tied to one of another dtype or shape: the file is damaged.")
    return ties


def _entries(
    bits: BitReader, template: Sequence[Signature], ties: Mapping[int, int], budget: Budget, *, cropped: bool
) -> list[Entry]:
    shapes = [signature.shape for place, signature in enumerate(template) if place not in ties]
    corners = iter(read_corners(bits, shapes) if cropped else shapes)
    chains = [_read_chain(bits) for _ in range(bits.golomb(0, len(template) - len(ties) - 1) + 1)]
    width = (len(chains) - 1).bit_length()
    reader = _BareReader(bits, bits.number(_ORDER), budget)
    entries: list[Entry] = []
    for place, (name, dtype, shape) in enumerate(template):
        if place in ties:
            entries.append(tied_entry(budget, name, entries[ties[place]], ties[place]))
            continue
        chain = bits.number(width)
        if chain >= len(chains):
            raise FormatError(f"Tensor {name!r} has a chain of stages that the file does not have: it is damaged.")
        reader.begin(chain, len(shape) > 1)
        part = next(corners)
        whole = None if part == shape else shape
        entries.append(read_entry(reader, name, dtype, part, chains[chain], whole=whole))
    return entries


def _read_chain(bits: BitReader) -> Codec:
    stages: list[Stage] = []
    while not stages or not stages[-1].terminal:
        if len(stages) == MAX_STAGES:
            raise FormatError(f"The file names a chain of more than {MAX_STAGES} stages: it is damaged.")
        stage = _read_stage(bits)
        if isinstance(stage, MissingStage):
            raise stage.error(None)
        stages.append(stage)
    try:
        return Codec(tuple(stages))
    except CodecError as error:
        raise FormatError(f"The file names a chain of stages that cannot be: {error}") from error


def _read_stage(bits: BitReader) -> Stage | MissingStage:
    number = bits.golomb(_STAGE_ORDER, _MAX_STAGE)
    if number not in PRIVATE:
        return find_stage(number)
    name = bytearray()
    while len(name) <= _MAX_STAGE_NAME and (byte := bits.number(8)):
        name.append(byte)
    text = name.decode("ascii", "replace")
    if PRIVATE_NAME.fullmatch(text) is None:
        raise FormatError(f"Stage {number}, which is for private use, has no valid name: the file is damaged.")
    return find_stage(number, text)
