"""A second decoder of the classes coder's stream in plain Python integers, after codecs/FORMAT.md, sections 6 to 8."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["ClassesDecoder"]

M64 = (1 << 64) - 1
THRESHOLDS = [
    1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 4096, 8192, 16384,
]  # fmt: skip


class RangeDecoder:
    """Section "Range coder" of FORMAT.md."""

    def __init__(self, stream: bytes) -> None:
        stream += bytes(-len(stream) % 4)
        self.words = [int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4)]
        self.next = 0
        self.lower, self.range = 0, M64
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        self.next += 1
        return self.words[self.next - 1] if self.next <= len(self.words) else 0

    def interval(self, edges: Callable[[int], tuple[int, int, int]]) -> int:
        scale = self.range >> 24
        quantile = (self.point - self.lower & M64) // scale
        assert quantile < 1 << 24
        symbol, left, width = edges(quantile)
        self.lower, self.range = self.lower + scale * left & M64, scale * width
        if self.range < 1 << 32:
            self.lower, self.range = self.lower << 32 & M64, self.range << 32
            self.point = (self.point << 32 | self.word()) & M64
        return symbol

    def token(self, counts: list[int]) -> int:
        free, total = (1 << 24) - len(counts), sum(counts)

        def find(quantile: int) -> tuple[int, int, int]:
            seen = 0
            for symbol, count in enumerate(counts):
                left = seen * free // total + symbol
                seen += count
                right = seen * free // total + symbol + 1
                if quantile < right:
                    return symbol, left, right - left
            raise AssertionError

        return self.interval(find)

    def raw(self, bits: int) -> int:
        shift = 24 - bits
        return self.interval(lambda quantile: (quantile >> shift, quantile >> shift << shift, 1 << shift))


def class_of(estimate: int) -> int:
    return sum(estimate >= threshold for threshold in THRESHOLDS)


def priors() -> list[list[int]]:
    one, edges, table = 1 << 40, [0, *THRESHOLDS, 32768], []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mean = max((low + high) * one // 128, one // 512)
        theta = (math.isqrt(one * one + mean * mean) - one) * one // mean
        mass = [one]
        for _ in range(16):
            mass.append(mass[-1] * theta // one)
        tail = mass[15] * theta // max(one - theta, 1)
        total = mass[0] + 2 * (sum(mass[1:16]) + tail)
        row = [1 + 1536 * mass[0] // total]
        for m in range(1, 16):
            row += [1 + 1536 * mass[m] // total] * 2
        left = 2 * tail
        for octave in range(27):
            share = left // 2 if octave < 8 else 0
            row += [1 + 1536 * share // (4 * total)] * 4
            left -= share
        table.append(row)
    return table


def update(counts: list[list[int]], coded: list[tuple[int, int]]) -> None:
    for k, token in coded:
        counts[k][token] += 32
    for k, row in enumerate(counts):
        if sum(row) > 1 << 19:
            counts[k] = [(count + 1) >> 1 for count in row]


class ClassesDecoder:
    """Planes of a stream, as lists of rows."""

    def __init__(self, stream: bytes) -> None:
        self.coder = RangeDecoder(stream)
        self.weights, self.hints = priors(), [[2] * 26]
        self.bytes = [[2] * 256 for _ in range(8)]

    def plane(self, rows: int, width: int, kind: str) -> list[list[int]]:
        plane = [[0] * width for _ in range(rows)]
        (self.bytes_plane if kind == "bytes" else self.weights_plane)(plane, rows, width)
        return plane

    def bytes_plane(self, plane: list[list[int]], rows: int, width: int) -> None:
        for r in range(rows):
            for start in range(0, width, 4096):
                piece = [self.coder.token(self.bytes[r % 8]) for _ in range(min(4096, width - start))]
                plane[r][start : start + 4096] = piece
                update(self.bytes, [(r % 8, value) for value in piece])

    def weights_plane(self, plane: list[list[int]], rows: int, width: int) -> None:
        hint = self.coder.token(self.hints[0])
        update(self.hints, [(0, hint)])
        expected = THRESHOLDS[hint - 1] if hint else 1
        start = 0
        while start < rows:
            stop = min(rows, start + max(1, min(start // 4, (1 << 14) // width)))
            above = [[min(abs(plane[r][c]), 1 << 20) for r in range(start)] for c in range(width)]
            mean = (64 * sum(map(sum, above)) + 64 * expected) // (start * width + 64)
            column = [(64 * sum(above[c]) + 4 * mean) // (start + 4) for c in range(width)]
            for first, stride, reach in ((0, 4, 0), (2, 4, 2), (1, 2, 1)):
                places = range(first, width, stride)
                if not places:
                    continue
                coded = [c for c in range(width) if c % 4 == 0 or (first == 1 and c % 2 == 0)]
                classes = [
                    [self.classify(plane[r], c, column[c], mean, coded, reach, width) for c in places]
                    for r in range(start, stop)
                ]
                self.block(plane, start, places, classes)
            start = stop

    def classify(self, row: list[int], c: int, column: int, mean: int, coded: list[int], reach: int, width: int) -> int:
        if reach == 0:
            return class_of(min(column, (1 << 15) - 1))
        size = [min(abs(value), 1 << 20) for value in row]
        row_mean = (64 * sum(size[k] for k in coded) + 16 * mean) // (len(coded) + 16)
        separable = column * row_mean // max(mean, 1)
        if c + reach < width:
            near = 32 * (size[c - reach] + size[c + reach])
        else:
            near = 32 * size[c - reach] + row_mean // 2
        return class_of(min((3 * separable + near) // 4, (1 << 15) - 1))

    def block(self, plane: list[list[int]], start: int, places: range, classes: list[list[int]]) -> None:
        order = sorted(
            (k, r, i) for r, row in enumerate(classes) for i, k in enumerate(row)
        )  # by class, then in reading order
        tokens = {(r, i): self.coder.token(self.weights[k]) for k, r, i in order}
        update(self.weights, [(k, tokens[r, i]) for k, r, i in order])
        extra = dict.fromkeys(tokens, 0)
        for token in sorted(set(tokens.values())):
            bits, shift = (0 if token < 31 else (token - 31) // 4 + 3), 0
            where = sorted(place for place, t in tokens.items() if t == token)
            while bits:
                piece = min(bits, 15)
                for place in where:
                    extra[place] |= self.coder.raw(piece) << shift
                bits, shift = bits - piece, shift + piece
        for (r, i), token in tokens.items():
            plane[start + r][places[i]] = self.symbol(token, extra[r, i])

    @staticmethod
    def symbol(token: int, extra: int) -> int:
        if token < 31:
            return (token + 1) // 2 if token % 2 else -(token // 2)
        octave, quarter = divmod(token - 31, 4)
        magnitude = ((4 + quarter) << (octave + 2)) + (extra >> 1)
        return -magnitude if extra & 1 else magnitude

    def finish(self) -> None:
        assert self.coder.next >= len(self.coder.words)
