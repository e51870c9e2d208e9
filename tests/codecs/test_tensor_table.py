"""The tensor table by itself: what is written is read, each limit is met to the last one, and damage is named."""

from __future__ import annotations

import binascii
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.codecs.budget import Budget
from evocompress.codecs.codec import Codec, Layout, varint
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.dtypes import DTYPES, itemsize
from evocompress.codecs.registry import LOSSLESS, PRIVATE
from evocompress.codecs.tensor_table import (
    Entry,
    MissingStage,
    Row,
    charge_planes,
    charge_tensor,
    check_row,
    encoded_name,
    fingerprint,
    header_limit,
    read_table,
    read_ties,
    tie_places,
    write_table,
)
from evocompress.errors import CodecError, FormatError

#: Side information: of a dead zone its step, of what is lossless the bytes of an element.
STEP, BYTES = varint(8), varint(4)
SHAPE = st.lists(st.integers(0, 9), max_size=8).map(tuple)


def row(name: str, shape: tuple[int, ...] = (2, 3), **changes: Any) -> Row:
    return Row(name, "float32", shape, LOSSLESS, BYTES)._replace(**changes)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Tensors of the dtypes and chains that there are, some tied to an earlier one that is not."""
    made: list[Row] = []
    for number in range(draw(st.integers(0, 7))):
        untied = [place for place, other in enumerate(made) if other.source is None]
        name = f"{draw(st.sampled_from(('', 'w', 'é', '漢 .')))}{number}"
        if draw(st.booleans()) and untied:
            source = draw(st.sampled_from(untied))
            made.append(made[source]._replace(name=name, side=b"", source=source))
        elif draw(st.booleans()):
            made.append(row(name, draw(SHAPE), dtype=draw(st.sampled_from(DTYPES))))
        else:
            shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
            made.append(row(name, shape, codec=Codec((DeadZone(),)), side=STEP))
    return made


@settings(deadline=None, max_examples=40)
@given(rows(), st.booleans())
def test_what_is_written_is_read(made: list[Row], names: bool) -> None:
    tied = any(one.source is not None for one in made)
    for version in (1, 3) if names and not tied else (3,):
        budget = Budget(10**6)
        entries, lost = read_table(write_table(made, version, names=names), version, budget)
        assert lost == (None if names else fingerprint(one.name for one in made))
        assert [entry.name for entry in entries] == [one.name if names else str(n) for n, one in enumerate(made)]
        for entry, one in zip(entries, made, strict=True):
            assert entry[1:5] == one[1:5] and entry.source == one.source
            assert one.source is None or entry.planes == ()
            assert entry.full_shape == one.shape
        assert budget.counted["weights"] >= sum(math.prod(one.shape) for one in made)
        assert budget.output_bytes == sum(math.prod(one.shape) * itemsize(one.dtype) for one in made)


@settings(deadline=None, max_examples=40)
@given(rows(), st.data())
def test_a_table_that_ends_too_soon_or_too_late_is_refused(made: list[Row], data: st.DataObject) -> None:
    table = write_table(made, 3)
    end = data.draw(st.integers(0, len(table) - 1))
    for damaged in (table[:end], table + b"\0"):
        with pytest.raises(FormatError):
            read_table(damaged, 3, Budget(10**6))


@settings(deadline=None, max_examples=40)
@given(rows())
def test_ties_are_differences_of_places(made: list[Row]) -> None:
    sources = {place: one.source for place, one in enumerate(made) if one.source is not None}
    places = tie_places(made)
    assert read_ties(places, len(made)) == sources
    assert all(step > 0 and back > 0 for step, back in places)
    if sources:
        with pytest.raises(FormatError, match="cannot be its source"):
            read_ties(places, max(sources))


@pytest.mark.parametrize("places", [[(1, 2)], [(1, 1), (1, 1)], [(3, 1)], [(0, 1)], [(2, 1), (1, 1)]])
def test_ties_to_what_is_no_source_are_refused(places: list[tuple[int, int]]) -> None:
    with pytest.raises(FormatError, match="cannot be its source"):
        read_ties(places, 3)
    assert read_ties([(1, 1), (1, 2)], 3) == {1: 0, 2: 0}


def test_names_and_shapes_have_limits() -> None:
    check_row("é" * 512, (1,) * 8)
    check_row("", (2**40,))
    with pytest.raises(CodecError, match="names of up to 1024 bytes"):
        check_row("é" * 512 + "x", ())
    with pytest.raises(CodecError, match="up to 8 dimensions"):
        check_row("w", (1,) * 9)
    with pytest.raises(CodecError, match=f"no length may exceed {2**40}"):
        check_row("w", (3, 2**40 + 1))
    with pytest.raises(CodecError, match="NUL"):
        encoded_name("a\0b")
    with pytest.raises(CodecError, match="not Unicode"):
        encoded_name("\ud800")
    assert encoded_name("é") == b"\xc3\xa9"


def test_a_fingerprint_is_twenty_bits_of_the_names_in_their_order() -> None:
    assert fingerprint(["a", "bc"]) == binascii.crc32(b"a\0bc\0") >> 12 < 1 << 20
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])


def test_no_fingerprint_has_more_than_twenty_bits() -> None:
    def nameless(number: int) -> bytes:
        return table(1, 1, LOSSLESS_CHAIN, 0, number, 0, 0, 0, 0, 4)

    assert read_table(nameless(2**20 - 1), 3, Budget(9))[1] == 2**20 - 1
    with pytest.raises(FormatError, match=r"outside \[0, 1048575\]"):
        read_table(nameless(2**20), 3, Budget(9))


def test_a_table_has_a_limit() -> None:
    assert [header_limit(nbytes) for nbytes in (0, 10, 10**5)] == [2**16, 2**16 + 640, 2**22]


def test_what_a_tensor_costs() -> None:
    budget = Budget(100)
    charge_tensor(budget, "w", "float16", (3, 4))
    assert (budget.tensor, budget.counted["weights"], budget.output_bytes) == ("w", 12, 24)
    charge_planes(budget, (3, 4), [])
    charge_planes(budget, (3, 4), [Layout(3, 4)])
    assert (budget.counted["planes"], budget.counted["weights"]) == (0, 12)
    charge_planes(budget, (3, 4), [Layout(3, 4), Layout(2, 5), Layout(1, 1)])
    assert (budget.counted["planes"], budget.counted["weights"]) == (2, 12 + 11)


def table(*parts: int | bytes) -> bytes:
    return b"".join(varint(part) if isinstance(part, int) else part for part in parts)


LOSSLESS_CHAIN = table(1, 3)  # one stage, of number 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(2, 1, LOSSLESS_CHAIN, b"a\0a\0"), "Two tensors have the same name"),
        (table(1, 1, LOSSLESS_CHAIN, b"a"), "name has no end"),
        (table(1, 1, LOSSLESS_CHAIN, b"a" * 1025 + b"\0"), "name has no end"),
        (table(1, 1, LOSSLESS_CHAIN, b"\xff\0"), "not UTF-8"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", len(DTYPES)), f"dtype number {len(DTYPES)}, which"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 2**16), f"dtype number {2**16}, which"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 2**16 + 1), r"outside \[0, 65536\]"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 0, 9), r"outside \[0, 8\]"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 0, 1, -1), rf"outside \[0, {2**40}\]"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 0, 1, 2**40 + 1), rf"outside \[0, {2**40}\]"),
        (table(1, 1, LOSSLESS_CHAIN, b"a\0", 0, 1, 3, 1), r"outside \[0, 0\]"),
        (table(2, 1, LOSSLESS_CHAIN, b"a\0b\0", 0, 0, 1, 3, 1, -4), r"outside \[-3, "),
        (table(1, 2), r"outside \[0, 1\]"),
        (table(2**16 + 1), rf"outside \[0, {2**16}\]"),
        (table(1, 1, 0), r"outside \[1, 8\]"),
        (table(1, 1, 9), r"outside \[1, 8\]"),
        (table(1, 1, 2, 3, 3, b"a\0", 0, 0, 0), "chain of stages that cannot be"),
        (table(1, 1, 1, 60000, b"a\0", 0, 0, 0), "needs codec stage 60000, which this version does not know"),
    ],
)
def test_damage_is_named(content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_table(content, 1, Budget(10**6))


def test_lengths_are_differences_of_the_first_ones() -> None:
    content = table(3, 1, LOSSLESS_CHAIN, b"a\0b\0c\0", 0, 0, 0, 2, 3, 5, 0, 1, -3, 0, 0, 0, 4, 4, 4)
    entries, _ = read_table(content, 1, Budget(10**6))
    assert [entry.shape for entry in entries] == [(3, 5), (), (0,)]
    assert write_table([row(entry.name, entry.shape) for entry in entries], 1) == content
    longest = table(1, 1, LOSSLESS_CHAIN, b"a" * 1024 + b"\0", 0, 0, 0, 4)
    assert read_table(longest, 1, Budget(9))[0][0].name == "a" * 1024


def test_whole_numbers_are_not_lossily_coded_and_side_information_is_short() -> None:
    lossy = row("n", (2, 2), codec=Codec((DeadZone(),)), side=STEP)
    for dtype in ("int64", "bool", "float8_e5m2"):
        with pytest.raises(FormatError, match=f"'n' is of dtype {dtype} but lossily coded"):
            read_table(write_table([lossy._replace(dtype=dtype)], 1), 1, Budget(10**6))
    assert read_table(write_table([lossy], 1), 1, Budget(10**6))[0][0].side == STEP


def test_what_is_missing_is_told() -> None:
    private = min(PRIVATE)
    assert "'w' needs codec stage 77, which" in str(MissingStage(77).error("w"))
    assert str(MissingStage(77).error(None)).startswith("The file needs codec stage 77")
    assert "cannot be used here: broken" in str(MissingStage(private, "x", "broken").error("w"))
    assert "install the package that adds it" in str(MissingStage(private, "no-such-stage").error("w"))
    assert "has another number" in str(MissingStage(private, "deadzone").error("w"))


def test_the_shape_of_a_corner_is_that_of_the_whole() -> None:
    entry = Entry("w", "float32", (2, 3), LOSSLESS, b"", ())
    assert entry.full_shape == (2, 3) and entry._replace(whole=(4, 9)).full_shape == (4, 9)
