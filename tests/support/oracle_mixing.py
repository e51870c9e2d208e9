"""A second decoder of the mixing coder's stream in plain Python integers, after codecs/FORMAT.md, section 12. Slow."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

__all__ = ["MixingDecoder"]

Rows = list[list[int]]
#: A and B of section 11.7.
MACHINES = {"trellis": (5, 2), "trellis-16": (9, 2), "trellis-32": (18, 4), "trellis-64": (33, 10)}
TOP = (1 << 31) - 1


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def nearest(x: Decimal) -> int:
    return math.floor(x + Decimal("0.5"))


def squash_table() -> list[int]:
    """squash(-x) for x from 0 on."""
    return [nearest(65536 / (1 + (Decimal(x) / 256).exp())) for x in range(2817)]


def stretch_table() -> list[int]:
    table, x = [], -2816
    for i in range(4096):
        while squash(x) < 16 * i + 8:
            x += 1
        table.append(x)
    return table


def prior_tables() -> list[list[int]]:
    tables: list[list[int]] = [[], []]
    for i in range(384):
        m = (LN2 * (Decimal(i) / 16 - 10)).exp()
        theta = ((1 + m * m).sqrt() - 1) / m
        for table, factor in zip(tables, (2, 1), strict=True):
            table.append(clamp(nearest(256 * (factor * theta / (1 - theta)).ln()), -2047, 2047))
    return tables


def squash(x: int) -> int:
    return NEGATIVE[-x] if x <= 0 else 65536 - NEGATIVE[x]


with localcontext() as _context:
    _context.prec = 60
    LN2 = Decimal(2).ln()
    NEGATIVE = squash_table()
    STRETCH = stretch_table()
    LOG = [0, *(nearest(64 * Decimal(i).ln() / LN2) for i in range(1, 4096))]
    POWER = [nearest(65536 * (LN2 * i / 64).exp()) for i in range(64)]
    PRIOR = prior_tables()
RATE = [131072 // (2 * n + 3) for n in range(256)]
STEP = [1573 + math.isqrt(31457**2 // (n + 1)) for n in range(1024)]
ZERO = [29491, 0, 6554, 0, 0, 0, 0, 13107, 6554, 0, 6554, 13107, 13107, 13107]
MORE = [29491, -6554, 0, 0, 0, 0, 0, 6554, 0, 6554, 0, 13107, 13107, 13107]
SIGNS = [65536, 32768, 32768, 6554, 6554, 0, 19661, 6554, 19661, 0]


def log(x: int) -> int:
    octaves = 0
    while x >= 4096:
        x >>= 4
        octaves += 256
    return octaves + LOG[x]


def power(y: int) -> int:
    y = clamp(y, 0, 2047)
    return (POWER[y % 64] << (y >> 6)) >> 16


def coarse(y: int) -> int:
    return clamp((y - 576 + 448) >> 5, 0, 29)


def size(a: int) -> int:
    z = (a + 1) >> 1
    return z if z < 3 else 3 if z < 5 else 4 if z < 9 else 5


class Mixer:
    def __init__(self, weights: list[int]) -> None:
        self.weights, self.age = list(weights), 0
        self.cells = [16 * squash(min(128 * i - 2816, 2816)) for i in range(46)]


class Moments:
    """S and N of section 12.5, and the matrix that 12.7 makes of them."""

    def __init__(self, period: int) -> None:
        self.S, self.N = [[0] * period for _ in range(period)], 0

    def fade(self, most: int) -> None:
        if most < self.N:
            self.S, self.N = [[value * most // self.N for value in row] for row in self.S], most

    def add(self, values: list[int]) -> None:
        for i, value in enumerate(values):
            for j in range(i + 1):
                self.S[i][j] += value * values[j]
        self.N += 1

    def solve(self) -> Rows:
        n, count = len(self.S), max(self.N, 1)
        ridge = 4 * (sum(256 * self.S[i][i] // count for i in range(n)) // n) // count + 1
        L, D = [[0] * n for _ in range(n)], [0] * n
        for j in range(n):
            g = [(L[j][q] * D[q]) >> 16 for q in range(j)]
            d = 256 * self.S[j][j] // count + ridge - sum((L[j][q] * g[q]) >> 16 for q in range(j))
            D[j] = max(d, ridge)
            for i in range(j + 1, n):
                v = 256 * self.S[i][j] // count - sum((L[i][q] * g[q]) >> 16 for q in range(j))
                L[i][j] = clamp((clamp(v, -(1 << 36), 1 << 36) << 16) // D[j], -(1 << 19), 1 << 19)
        return L


class BitDecoder:
    """Sections 12.1 and 12.3."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.width = data, 5, 1 << 40
        self.point = int.from_bytes(data[:5].ljust(5, b"\0"), "big")
        self.plains: dict[tuple[object, ...], list[int]] = {}
        self.counters: dict[tuple[object, ...], list[int]] = {}

    def bit(self, p: int) -> int:
        bound = (self.width >> 16) * p
        if self.point < bound:
            bit, self.width = 1, bound
        else:
            bit = 0
            self.point -= bound
            self.width -= bound
        while self.width < 1 << 32:
            self.width *= 256
            self.point = 256 * self.point + (self.data[self.at] if self.at < len(self.data) else 0)
            self.at += 1
        return bit

    @staticmethod
    def learn(counter: list[int], bit: int, limit: int) -> None:
        counter[1] = min(counter[1] + 1, limit)
        counter[0] = clamp(counter[0] + (((bit << 20) - counter[0]) * RATE[counter[1]] >> 16), 64, (1 << 20) - 64)

    def plain(self, *name: object) -> int:
        counter = self.plains.setdefault(name, [1 << 19, 0])
        bit = self.bit(clamp(counter[0] >> 4, 32, 65504))
        self.learn(counter, bit, 127)
        return bit

    def number(self, *name: object) -> int:
        length = 0
        while length < 32 and self.plain(*name, "a", length):
            length += 1
        v = 1
        if length:
            v = 2 * v + self.plain(*name, "b", length)
        for _ in range(length - 1):
            v = 2 * v + self.bit(32768)
        return v - 1

    def mixed(self, X: list[int], names: list[tuple[object, ...]], prior: int, mixer: Mixer) -> int:
        counters = [self.counters.setdefault(name, [16 * squash(prior), 0]) for name in names]
        X[11:] = [STRETCH[counter[0] >> 8] for counter in counters]
        odds = clamp(sum(w * x for w, x in zip(mixer.weights, X, strict=True)) >> 16, -2815, 2815)
        q = squash(odds)
        k, f = (odds + 2816) >> 7, (odds + 2816) % 128
        r = mixer.cells
        s = (r[k] * (128 - f) + r[k + 1] * f) >> 11
        bit = self.bit(clamp((q + s) >> 1, 1, 65535))
        t = bit << 20
        r[k] += ((t - r[k]) * (128 - f)) >> 14
        r[k + 1] += ((t - r[k + 1]) * f) >> 14
        e = ((bit << 16) - q) * STEP[mixer.age]
        mixer.age = min(mixer.age + 1, 1023)
        mixer.weights = [w + ((e * x + (1 << 27)) >> 28) for w, x in zip(mixer.weights, X, strict=True)]
        for counter in counters:
            self.learn(counter, bit, 255)
        return bit


class Plane:
    """What 12.7 sums up over the rows of a plane, and what it says of the columns of the next row."""

    def __init__(self, rows: int, columns: int, period: int, hint: int) -> None:
        self.rows, self.columns, self.period, self.hint = rows, columns, period, hint
        self.width = math.isqrt(period) if math.isqrt(period) ** 2 == period else period
        self.total, self.column, self.tilt = 0, [0] * columns, [0] * columns
        self.group, self.place = [0] * (columns // period), [0] * period
        self.halves: Rows = []
        self.normals: Rows = []

    def begin_row(self) -> None:
        r, period = len(self.halves), self.period
        mean = max((256 * self.total + 64 * self.hint) // (r * self.columns + 64), 1)
        lm = log(mean)
        lg = [log(256 * x + 8 * mean) - log(r * period + 8) - lm for x in self.group]
        self.mean, self.lm, self.lg, self.lc = mean, lm, lg, list[int]()
        for c in range(self.columns):
            expected = mean
            if period > 1:
                place = log(256 * self.place[c % period] + 8 * mean) - log(r * (self.columns // period) + 8)
                expected = max(power(place + lg[c // period]), 1)
            self.lc.append(log(256 * self.column[c] + 16 * expected) - log(r + 16))
        self.lean = [3 * x // (r + 4) for x in self.tilt]

    def end_row(self, halves: list[int], normals: list[int]) -> None:
        for c, half in enumerate(halves):
            self.total += half
            self.column[c] += half
            self.tilt[c] += normals[c]
            self.group[c // self.period] += half
            self.place[c % self.period] += half
        self.halves.append(halves)
        self.normals.append(normals)


class Place:
    """What 12.8 says of one symbol before it is decoded: inputs, contexts and the scale of normal values."""

    def __init__(self, plane: Plane, halves: list[int]) -> None:
        c, r, mean, lm = len(halves), len(plane.halves), plane.mean, plane.lm
        lc = plane.lc[c]
        lr = log(256 * sum(halves) + 16 * mean) - log(c + 16)
        ls = lc + lr - lm
        scale = max(power(ls), 4)
        a1 = halves[-1] if c else mean >> 8
        a2 = halves[-2] if c >= 2 else a1
        b1 = plane.halves[-1][c] if r else mean >> 8
        b2 = plane.halves[-2][c] if r >= 2 else b1
        la, lb = log((512 * a1 + 256 * a2 + scale) >> 2), log((512 * b1 + 256 * b2 + scale) >> 2)
        if plane.period > 1:
            count, gl = c % plane.period, plane.lg[c // plane.period]
        else:
            count, gl = min(c, 8), lc - lm
        ln = log(256 * sum(halves[c - count :]) + 4 * scale) - log(count + 4)
        self.inputs = [0, 102, *(2 * v for v in (lm - 576, lc - lm, lr - lm, la - ls, lb - ls, ln - ls, gl)), *[0] * 5]
        self.contexts = (
            36 * coarse(ls) + 6 * size(a1) + size(a2),
            30 * coarse(ln) + coarse(ls),
            30 * coarse(gl + lm) + coarse(lr),
        )
        self.le = (12 * ls + 2 * la + 2 * lb) >> 4
        self.inverse = power(2304 - log(power(self.le) + 51))
        self.x = clamp((self.le - 576 + 640) >> 2, 0, 383)


class MixingDecoder(BitDecoder):
    """Planes of a stream, as lists of rows."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.mixers = [Mixer(ZERO if i < 3 else MORE) for i in range(24)]
        self.byte_mixers = [Mixer([0] * 11 + [26214] * 3) for _ in range(8)]
        self.V = [[0] * 10, list(SIGNS)]
        self.moments: dict[int, Moments] = {}

    def plane(self, rows: int, columns: int, kind: str, period: int = 1) -> Rows:
        if rows * columns == 0:
            return [[0] * columns for _ in range(rows)]
        return self.bytes(rows, columns) if kind == "bytes" else self.weights(rows, columns, kind, period)

    def finish(self) -> None:
        assert not self.data[self.at :].strip(b"\0")

    def bytes(self, rows: int, columns: int) -> Rows:
        out = [[0] * columns for _ in range(rows)]
        for i in range(rows):
            m = i % 8
            for c in range(columns):
                left = out[i][c - 1] if c else 0
                other = out[i - 1][c] if i else (out[0][c - 2] if c >= 2 else 0)
                node = 1
                while node < 256:
                    names: list[tuple[object, ...]] = [("byte", 0, 256 * m + node)]
                    for table, byte in enumerate((left, other), 1):
                        names.append(("byte", table, ((256 * m + byte) * 30011 + 257 * node) % 65536))
                    node = 2 * node + self.mixed([0] * 14, names, 0, self.byte_mixers[m])
                out[i][c] = node - 256
        return out

    def head(self, rows: int, trellis: bool) -> tuple[int, int]:
        """Offset and h of section 12.6."""
        offset = 0
        if not trellis and self.plain("flag"):
            negative = self.plain("sign")
            offset = self.number("offset") + 1
            offset = -offset if negative else offset
        node = 1
        for _ in range(6):
            node = 2 * node + self.plain("hint", rows == 1, node)
        return offset, node - 64

    def weights(self, rows: int, columns: int, kind: str, period: int) -> Rows:
        if not 1 <= period <= 64 or columns % period:
            period = 1
        offset, h = self.head(rows, kind in MACHINES)
        if h == 63:
            return [[clamp(offset, -TOP, TOP)] * columns for _ in range(rows)]
        plane = Plane(rows, columns, period, (POWER[32 * (h % 2)] << (h >> 1)) >> 16)
        moments = self.moments.setdefault(period, Moments(period))
        moments.fade(100)
        out = []
        for _ in range(rows):
            symbols = self.row(plane, moments, kind)
            out.append([clamp(symbol + offset, -TOP, TOP) for symbol in symbols])
            moments.fade(1 << 20)
        return out

    def row(self, plane: Plane, moments: Moments, kind: str) -> list[int]:
        period = plane.period
        plane.begin_row()
        L = moments.solve() if period > 1 else []
        halves, normals, errors, symbols = list[int](), list[int](), list[int](), list[int]()
        state, (A, B) = 0, MACHINES.get(kind, (0, 0))
        for c in range(plane.columns):
            k = c % period
            errors = errors if k else []
            quantiser = state & 1 if kind in MACHINES else 2
            place = Place(plane, halves)
            Y = self.sign_inputs(plane, normals, errors, L)
            symbol = self.symbol(place, Y, self.V[period > 1], period > 1, quantiser)
            half = min(2 * abs(symbol) - (quantiser == 1 and symbol != 0), 1 << 18)
            normal = min((half * place.inverse) >> 20, 768)
            normal = normal if symbol > 0 else -normal
            halves.append(half)
            normals.append(normal)
            errors.append(normal - Y[0])
            symbols.append(symbol)
            state = state >> 1 ^ state % 2 * A ^ symbol % 2 * B
            if period > 1 and k == period - 1:
                moments.add(normals[-period:])
        plane.end_row(halves, normals)
        return symbols

    @staticmethod
    def sign_inputs(plane: Plane, normals: list[int], errors: list[int], L: Rows) -> list[int]:
        c, period, width = len(normals), plane.period, plane.width
        k, Y = c % period, [0] * 10
        if period > 1:
            kernel = normals[c - k :]
            i, j = divmod(k, width)

            def at(di: int, dj: int) -> int:
                return kernel[(i + di) * width + j + dj] if i + di >= 0 and 0 <= j + dj < width else 0

            Y[0] = clamp(sum(L[k][q] * errors[q] for q in range(k)) >> 16, -768, 768)
            Y[1:7] = at(0, -1), at(-1, 0), at(0, -2), at(-2, 0), at(-1, -1), at(-1, 1)
            Y[7] = sum(kernel) // max(k, 1)
        else:
            Y[1] = normals[-1] if c else 0
            Y[2] = plane.normals[-1][c] if plane.normals else 0
            Y[3] = normals[-2] if c >= 2 else 0
        Y[8], Y[9] = plane.lean[c], 3 * sum(normals) // (c + 16)
        return Y

    def symbol(self, place: Place, Y: list[int], V: list[int], kernels: bool, quantiser: int) -> int:
        odds = clamp(sum(v * y for v, y in zip(V, Y, strict=True)) >> 16, -2047, 2047)
        X, positive, j = place.inputs, 1, 0
        X[9], X[10] = abs(odds) - 77, max(abs(odds) - 256, 0)
        while j < 18:
            X[0] = prior = PRIOR[min(j, 1)][place.x]
            node = min(j, 7)
            names: list[tuple[object, ...]] = [(t, place.contexts[t], node, quantiser) for t in range(3)]
            if not self.mixed(X, names, prior, self.mixers[3 * node + quantiser]):
                break
            if j == 0:
                p = squash(odds)
                positive = self.bit(p)
                shift = 14 if kernels else 16
                e = (positive << 16) - p
                V[:] = [v + ((e * y + (1 << (shift - 1))) >> shift) for v, y in zip(V, Y, strict=True)]
                X[9] = odds if positive else -odds
                X[10] = max(X[9], 0)
            j += 1
        if j == 18:
            j += self.number("rest", clamp((place.le - 576) >> 6, 0, 31))
        return j if positive else -j
