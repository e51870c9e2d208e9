"""A second decoder of the rANS coder's stream in plain Python integers, after codecs/FORMAT.md, section 11. Slow."""

from __future__ import annotations

from math import isqrt

__all__ = ["RansDecoder"]

Name = tuple[str, int]
#: A and B of section 11.7.
MACHINES = {"trellis": (5, 2), "trellis-16": (9, 2), "trellis-32": (18, 4), "trellis-64": (33, 10)}
THRESHOLDS = [2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048]


def class_of(estimate: int) -> int:
    return sum(threshold <= min(estimate, 4095) for threshold in THRESHOLDS)


def prior(k: int, odd: int) -> list[int]:
    u, e, d = 2**40, [0, *THRESHOLDS, 4095], 4 if k < 8 else 16
    mean = max((e[k] + e[k + 1]) * u // 128, u // 64)
    theta = (isqrt(u * u + mean * mean) - u) * u // mean
    p = [u]
    for _ in range(32):
        p.append(p[-1] * theta // u)
    m = [(2 - odd) * p[0]] + [2 * p[2 * j - odd] for j in range(1, 17)]
    if odd:
        m[1] = 3 * p[1] // 2
    tail = 2 * sum(m[d:])
    total = m[0] + 2 * sum(m[1:d]) + tail
    counts = [1 + 1536 * m[0] // total]
    for j in range(1, 16):
        counts += [1 + 1536 * m[j] // total if j < d else 0] * 2
    return [*counts, 1 + 1536 * tail // total]


def pace(clock: int) -> int:
    return min(64 + (clock >> 4), 2**15)


class RansDecoder:
    """Planes of a stream, as lists of rows."""

    def __init__(self, stream: bytes) -> None:
        stream = stream.rstrip(b"\0")
        stream += bytes(-len(stream) % 4)
        self.words = [int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4)]
        self.at, self.taken = 0, 0
        self.x: list[int] = []
        self.counts: dict[Name, list[int]] = {("even", k): prior(k, 0) for k in range(22)}
        self.counts |= {("odd", k): prior(k, 1) for k in range(22)} | {("plain", k): prior(k, 0) for k in range(22)}
        self.counts |= {("escape", i): [8] * 139 for i in range(4)} | {("bytes", i): [2] * 256 for i in range(8)}
        self.counts |= {("hints", 0): [2] * 22}
        self.noted = dict.fromkeys(self.counts, -1)
        self.edges: dict[Name, list[int]] = {}
        self.clock, self.left = 0, 64
        self.learn()

    def learn(self) -> None:
        for name, counts in self.counts.items():
            total = sum(counts)
            if total == self.noted[name]:
                continue
            spare = 2**16 - sum(count > 0 for count in counts)
            edges, seen, used = [0], 0, 0
            for count in counts:
                seen, used = seen + count, used + (count > 0)
                edges.append(seen * spare // total + used)
            self.edges[name] = edges
            if total > 2**18:
                counts[:] = [(count + 1) >> 1 for count in counts]
            self.noted[name] = sum(counts)

    def tick(self, symbols: int) -> None:
        self.left -= symbols
        if self.left <= 0:
            self.clock = min(self.clock + pace(self.clock), 2**40)
            self.learn()
            self.left = pace(self.clock)

    def word(self) -> int:
        self.at += 1
        return self.words[self.at - 1] if self.at <= len(self.words) else 0

    def begin(self) -> None:
        if not self.x:
            high, low = self.word(), self.word()
            self.x = [(high & (2**31 - 1)) << 32 | low]
            for _ in range(3 if high >> 31 else 0):
                further, low = self.word(), self.word()
                self.x.append((further & (2**31 - 1)) << 32 | low)

    def end_part(self, *, force: bool = False) -> None:
        if self.taken >= 2**20 or (force and self.x):
            assert all(x == 2**31 for x in self.x)
            self.x, self.taken = [], 0

    def interval(self, lane: int, low: int, width: int) -> None:
        x = self.x[lane]
        x = width * (x >> 16) + x % 2**16 - low
        self.x[lane] = x << 32 | self.word() if x < 2**31 else x
        self.taken += 1

    def token(self, lane: int, name: Name) -> int:
        slot, edges = self.x[lane] % 2**16, self.edges[name]
        token = next(t for t in range(len(edges) - 1) if edges[t] <= slot < edges[t + 1])
        self.interval(lane, edges[token], edges[token + 1] - edges[token])
        self.counts[name][token] += 32
        return token

    def raw(self, lane: int, bits: int) -> int:
        value = self.x[lane] % 2**16 >> (16 - bits)
        self.interval(lane, value << (16 - bits), 1 << (16 - bits))
        return value

    def symbol(self, lane: int, name: Name) -> int:
        token = self.token(lane, name)
        if token == 31:
            token = self.token(lane, ("escape", name[1] // 6))
            if token >= 31:
                e, j = 4 + (token - 31) // 4, (token - 31) % 4
                rest, got = 0, 0
                while got < e - 1:
                    bits = min(15, e - 1 - got)
                    rest |= self.raw(lane, bits) << got
                    got += bits
                magnitude = ((4 + j) << (e - 2)) + (rest >> 1)
                return -magnitude if rest & 1 else magnitude
        return (token + 1) // 2 if token % 2 else -(token // 2)

    def plane(self, rows: int, columns: int, kind: str) -> list[list[int]]:
        out = [[0] * columns for _ in range(rows)]
        if rows * columns:
            (self.bytes if kind == "bytes" else self.weights)(out, rows, columns, kind)
        return out

    def bytes(self, out: list[list[int]], rows: int, columns: int, _: str) -> None:
        for r in range(rows):
            for c in range(columns):
                self.begin()
                out[r][c] = self.token(0, ("bytes", r % 8))
                self.tick(1)
                if (c + 1) % 2**18 == 0 or c + 1 == columns:
                    self.end_part()

    def weights(self, out: list[list[int]], rows: int, columns: int, kind: str) -> None:
        lanes, sums, x = 4 if rows * columns >= 2**16 else 1, [0] * columns, 0
        part = max(2**18 // (4 * columns), 1) * 4
        for r in range(0, rows, lanes):
            self.begin()
            if r == 0:
                hint = self.token(0, ("hints", 0))
                x = THRESHOLDS[hint - 1] if hint else 1
            self.group(out, r, min(lanes, rows - r), x, sums, MACHINES.get(kind))
            if (r + lanes) % part == 0 or r + lanes >= rows:
                self.end_part()

    def group(
        self, out: list[list[int]], r: int, n: int, x: int, sums: list[int], trellis: tuple[int, int] | None
    ) -> None:
        width = len(sums)
        mean = max((64 * sum(sums) + 64 * x) // (r * width + 64), 1)
        scale = 2**44 // ((r + 4) * mean)
        share = [min(((64 * total + 4 * mean) * scale) >> 24, 2**26) for total in sums]
        factor = [(share[c] * (2**30 // (c + 16))) >> 14 for c in range(width)]
        known, recent, earlier, state = [16 * mean] * n, [mean] * n, [mean] * n, [0] * n
        for c in range(width):
            for i in range(n):
                k = class_of((27 * (known[i] * factor[c] >> 36) + 3 * recent[i] + 2 * earlier[i]) >> 5)
                odd = state[i] & 1
                q = self.symbol(i, (("odd" if odd else "even") if trellis else "plain", k))
                out[r + i][c] = q
                level = min(2 * abs(q) - (1 if odd and q else 0), 1023)
                earlier[i], recent[i] = recent[i], 64 * level
                known[i] += 64 * level
                sums[c] += level
                if trellis:
                    state[i] = state[i] >> 1 ^ odd * trellis[0] ^ q % 2 * trellis[1]
            self.tick(n)

    def finish(self) -> None:
        self.end_part(force=True)
        assert self.at >= len(self.words)
