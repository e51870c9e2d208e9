"""Exp-Golomb codes: numbers in few bits, small ones in the fewest (Teuhola, 1978); the bits of a bare file's table."""

from __future__ import annotations

from evocompress.errors import FormatError

__all__ = ["BitReader", "BitWriter", "golomb_bits"]

_MAX_ZEROS = 80  # more than the longest number that a varint holds takes


def golomb_bits(number: int, order: int) -> int:
    """How many bits a number takes.

    >>> [golomb_bits(number, 0) for number in (0, 1, 2, 3)], golomb_bits(3, 2)
    ([1, 3, 3, 5], 3)
    """
    return 2 * (number + (1 << order)).bit_length() - order - 1


class BitWriter:
    """Bits one after the other, the highest of each byte first."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def number(self, value: int, width: int) -> None:
        """An unsigned number in `width` bits."""
        if width:
            self._bits.append(f"{value:0{width}b}")

    def golomb(self, value: int, order: int) -> None:
        """A number from 0 on in an Exp-Golomb code of this order."""
        self.number(value + (1 << order), golomb_bits(value, order))

    def finish(self) -> bytes:
        """The bytes; zero bits fill the last one."""
        bits = "".join(self._bits)
        size = -(-len(bits) // 8)
        return int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")


class BitReader:
    """The inverse of `BitWriter`, on the bytes from `start` to `end`."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._at, self._end = data, 8 * start, 8 * end

    def number(self, width: int) -> int:
        """An unsigned number of `width` bits.

        Raises:
            FormatError: There are fewer.
        """
        at, end = self._at, self._at + width
        if end > self._end:
            raise FormatError("The tensor table ends too soon: the file is damaged.")
        self._at = end
        return int.from_bytes(self._data[at >> 3 : (end + 7) >> 3], "big") >> (-end & 7) & ((1 << width) - 1)

    def golomb(self, order: int, high: int) -> int:
        """A number in an Exp-Golomb code of this order, at most `high`.

        Raises:
            FormatError: It is larger, or does not end.
        """
        zeros = 0
        while not self.number(1):
            zeros += 1
            if zeros > _MAX_ZEROS:
                raise FormatError("A number of the tensor table does not end: the file is damaged.")
        value = (1 << (zeros + order) | self.number(zeros + order)) - (1 << order)
        if value > high:
            raise FormatError(f"A number of the tensor table is {value}, more than {high}: the file is damaged.")
        return value

    def finish(self) -> int:
        """The place of the first byte behind; what is left of the last one must be zero.

        Raises:
            FormatError: It is not.
        """
        if self.number(-self._at & 7):
            raise FormatError("The tensor table does not end with zero bits: the file is damaged.")
        return self._at >> 3
