"""Numbers in few bits, against codes written out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.codecs.bits import BitReader, BitWriter, golomb_bits
from evocompress.errors import FormatError


def by_hand(value: int, order: int) -> str:
    """Exp-Golomb: as many zeros as digits come beyond the first and the last `order` ones, then the digits."""
    digits = f"{value + 2**order:b}"
    return "0" * (len(digits) - 1 - order) + digits


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**70), st.integers(0, 7))), st.integers(0, 3))
def test_numbers_are_written_as_by_hand_and_come_back(numbers: list[tuple[int, int]], start: int) -> None:
    bits = BitWriter()
    for value, order in numbers:
        bits.golomb(value, order)
        assert golomb_bits(value, order) == len(by_hand(value, order))
    text = "".join(by_hand(value, order) for value, order in numbers)
    data = bits.finish()
    assert "".join(f"{byte:08b}" for byte in data) == text + "0" * (-len(text) % 8)
    reader = BitReader(b"\xff" * start + data + b"\xff", start, start + len(data))
    assert [reader.golomb(order, value) for value, order in numbers] == [value for value, _ in numbers]
    assert reader.finish() == start + len(data)


def test_the_first_codes() -> None:
    assert [by_hand(value, 0) for value in range(4)] == ["1", "010", "011", "00100"]
    assert [by_hand(value, 2) for value in (0, 3, 4)] == ["100", "111", "01000"]
    bits = BitWriter()
    bits.number(5, 3)
    bits.number(0, 0)
    assert bits.finish() == b"\xa0" and BitWriter().finish() == b""


def test_no_number_is_above_its_limit() -> None:
    data = bytes([0b00100_000])  # 3 at order 0
    assert BitReader(data, 0, 1).golomb(0, 3) == 3
    with pytest.raises(FormatError, match="is 3, more than 2"):
        BitReader(data, 0, 1).golomb(0, 2)


@pytest.mark.parametrize(("zeros", "order"), [(80, 0), (80, 3)])
def test_a_number_has_at_most_eighty_zeros(zeros: int, order: int) -> None:
    bits = BitWriter()
    bits.golomb(value := 2 ** (zeros + order) - 2**order, order)
    assert BitReader(bits.finish(), 0, 99).golomb(order, value) == value
    with pytest.raises(FormatError, match="does not end"):
        BitReader(bytes(99), 0, 99).golomb(order, 2**200)
    bits = BitWriter()
    bits.golomb(2 ** (zeros + 1 + order), order)
    with pytest.raises(FormatError, match="does not end"):
        BitReader(bits.finish(), 0, 99).golomb(order, 2**200)


def test_nothing_is_read_behind_the_end() -> None:
    reader = BitReader(b"\xff\xff", 0, 1)
    assert reader.number(8) == 255
    with pytest.raises(FormatError, match="ends too soon"):
        reader.number(1)
    assert reader.finish() == 1


@pytest.mark.parametrize("read", range(9))
def test_what_is_left_of_the_last_byte_is_zero(read: int) -> None:
    reader = BitReader(bytes([0b1111_1111 << (8 - read) & 255, 7]), 0, 2)
    assert reader.number(read) == 2**read - 1
    assert reader.finish() == (read + 7) // 8
    for bit in range(1, 9 - read) if read else ():
        reader = BitReader(bytes([1 << (bit - 1)]), 0, 1)
        reader.number(read)
        with pytest.raises(FormatError, match="end with zero bits"):
            reader.finish()
