"""A second reader of whole files in plain Python, after codecs/FORMAT.md, sections 1 to 5, 9 and 13, to the symbols.

It knows stages 1 to 4, 16 and 17, whose planes follow from the shape and the side information alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from oracle_classes import ClassesDecoder
from oracle_mixing import MixingDecoder
from oracle_rans import RansDecoder

__all__ = ["Tensor", "read_bare", "read_symbols"]

Planes = list[list[list[int]]]
Layout = tuple[int, int, str]
DTYPES: Sequence[str] = (
    "float32 float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64 float8_e4m3fn "
    "float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 complex64 complex128 complex32 uint1 "
    "uint2 uint3 uint4 uint5 uint6 uint7 int1 int2 int3 int4 int5 int6 int7".split()
)


class Tensor(NamedTuple):
    """One tensor: the planes of one that is tied are those of its source."""

    name: str
    dtype: str
    shape: list[int]
    planes: Planes


def norm(name: str) -> str:
    return f"{name}.weight\0{name}.bias\0{name}.running_mean\0{name}.running_var\0{name}.num_batches_tracked\0"


DICTIONARY = (
    "word_embeddings.position_embeddings.token_type_embeddings.LayerNorm.encoder.layer.attention.self.query.key.value."
    "output.dense.intermediate.weight_ih_l0\0weight_hh_l0\0bias_ih_l0\0bias_hh_l0\0head.stem.blocks.0.norm1.attn.qkv."
    "proj.norm2.mlp.embed.features.classifier.shortcut.downsample.0.layer4.layer3.layer2."
    f"layer1.0.conv3.weight\0{norm('layer1.0.bn3')}layer1.0.conv2.weight\0{norm('layer1.0.bn2')}"
    f"layer1.0.conv1.weight\0{norm('layer1.0.bn1')}"
    f"linear.weight\0linear.bias\0fc.weight\0fc.bias\0conv1.weight\0{norm('bn1')}"
    "conv1.weight\0conv1.bias\0conv2.weight\0conv2.bias\0conv3.weight\0conv3.bias\0"
    "fc1.weight\0fc1.bias\0fc2.weight\0fc2.bias\0fc3.weight\0fc3.bias\0"
).encode()


class Table:
    """Section 2."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte % 128) << shift
            shift += 7
            if byte < 128:
                return -(value + 1) // 2 if value % 2 else value // 2

    def name(self) -> str:
        end = self.data.index(0, self.at)
        name, self.at = self.data[self.at : end].decode(), end + 1
        return name

    def names(self, version: int, count: int) -> list[str] | None:
        if version == 3 and not self.number():
            self.checksum = self.number()
            return None
        return [self.name() for _ in range(count)]

    def ties(self, version: int) -> dict[int, int]:
        ties: dict[int, int] = {}
        place = 0
        for _ in range(self.number() if version == 3 else 0):
            place += self.number()
            ties[place] = place - self.number()
            assert ties[place] >= 0 and ties[place] not in ties
        return ties

    def shapes(self, count: int) -> list[list[int]]:
        shapes, first = [], 0
        for _ in range(count):
            shape = [self.number() for _ in range(self.number())]
            if shape:
                shape[0] += first
                first = shape[0]
            shapes.append(shape)
        return shapes

    def layouts(self, chain: list[int], shape: list[int], dtype: str) -> list[Layout]:
        """Section 5."""
        kind = "weights"
        own: list[Layout] = []  # planes of the transforms
        for stage in chain:
            if stage == 16:
                self.number()
            elif stage in (1, 4):
                code = self.number()
                if stage == 4:
                    kind = "trellis" if code <= 8000 else f"trellis-{8 * (code - 8000)}"
                    _ = self.number() if code > 8000 else 0
                return own + planes_of(shape, kind)
            elif stage == 2:
                k = self.number()
                if k:
                    _ = self.number(), self.number()
                return own + [(1, k, "weights")] * (k > 0) + planes_of(shape, kind)
            elif stage == 3:
                b = self.number()
                return [(b, math.prod(shape), "bytes")] * (math.prod(shape) > 0) if b else planes_of(shape, kind)
            elif stage == 27:
                rows = shape[0] if len(shape) > 1 else 1
                own = planes_of([rows], "weights") if self.number() else []
            else:
                assert stage == 17
        raise AssertionError(dtype)


class BareTable(Table):
    """Section 13."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bits = "".join(f"{byte:08b}" for byte in data)
        self.order, self.kind, self.place = 0, (0, False), 0
        self.last: dict[tuple[int, bool | None, int], int] = {}

    def u(self, n: int) -> int:
        self.at += n
        return int("0" + self.bits[self.at - n : self.at], 2)

    def g(self, k: int) -> int:
        zeros = self.bits.index("1", self.at) - self.at
        self.at += zeros
        return self.u(zeros + k + 1) - (1 << k)

    def chain(self) -> list[int]:
        stages: list[int] = []
        while not stages or stages[-1] > 4:
            stages.append(self.g(2))
        return stages

    def bare_ties(self) -> dict[int, int]:
        ties: dict[int, int] = {}
        place = 0
        for _ in range(self.g(0) + 1):
            place += self.g(0) + 1
            ties[place] = place - self.g(0) - 1
        return ties

    def corners(self, shapes: list[list[int]]) -> list[list[int]]:
        """Item 5 of version 5."""
        last: dict[int, int] = {}
        corners = [list(shape) for shape in shapes]
        for shape, corner in zip(shapes[::-1], corners[::-1], strict=True):
            for dim in range(min(2, len(shape))):
                n = shape[dim]
                if n < 2:
                    continue
                ranked = sorted(
                    ((m // n if m > n else n // m), m) for m in last if (m % n == 0 if m > n else n % m == 0)
                )
                guesses: list[int] = []
                for guess in [*(math.ceil(last[m] * n / m) for _, m in ranked), n]:
                    if guess not in guesses:
                        guesses.append(guess)
                while guesses and not self.u(1):
                    guesses.pop(0)
                corner[dim] = guesses[0] if guesses else self.u((n - 1).bit_length()) + 1
                last[n] = corner[dim]
        return corners

    def number(self) -> int:
        chain, matrix = self.kind
        code = self.g(self.order)
        expected = self.last.get((chain, None, self.place), 0)
        number = self.last.get((chain, matrix, self.place), expected) + (-(code + 1) // 2 if code % 2 else code // 2)
        self.last[chain, None, self.place] = self.last[chain, matrix, self.place] = number
        self.place += 1
        return number


def signature(name: str, dtype: str, shape: list[int]) -> bytes:
    varints = bytearray()
    for number in (DTYPES.index(dtype), len(shape), *shape):
        rest = 2 * number
        while rest > 127:
            varints.append(rest % 128 + 128)
            rest //= 128
        varints.append(rest)
    return name.encode() + b"\0" + bytes(varints)


def read_bare(data: bytes, template: dict[str, tuple[str, list[int]]]) -> list[Tensor]:
    """All tensors of a bare file, by the dtypes and shapes of a template with at least one."""
    table = BareTable(data[4:-4])
    coder, tied = table.u(3), table.u(1)
    rows = [(name, *template[name]) for name in sorted(template)]
    assert table.u(20) == zlib.crc32(b"".join(signature(*row) for row in rows)) >> 12
    ties = table.bare_ties() if tied else {}
    own = [row for place, row in enumerate(rows) if place not in ties]
    corners = [shape for _, _, shape in own]
    if data[3] == 5:
        corners = table.corners(corners)
    chains = [table.chain() for _ in range(table.g(0) + 1)]
    table.order, width = table.u(3), (len(chains) - 1).bit_length()
    layouts: list[list[Layout]] = []
    for (_, dtype, _), shape in zip(own, corners, strict=True):
        chain = table.u(width)
        table.kind, table.place = (chain, len(shape) > 1), 0
        layouts.append(table.layouts(chains[chain], shape, dtype))
    end = (table.at + 7) // 8
    assert "1" not in table.bits[table.at : 8 * end]
    found = iter(decoded(coder, table.data[end:], corners, layouts))
    tensors: list[Tensor] = []
    for place, row in enumerate(rows):
        tensors.append(Tensor(*row, tensors[ties[place]].planes if place in ties else next(found)))
    return tensors


def planes_of(shape: list[int], kind: str) -> list[Layout]:
    """Section 4."""
    rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))
    if rows * columns == 0:
        return []
    if rows == 1 and columns > 256:
        return [(columns // 256, 256, kind)] + [(1, columns % 256, kind)] * (columns % 256 > 0)
    return [(rows, columns, kind)]


def read_symbols(data: bytes, names: list[str] | None = None) -> list[Tensor]:
    """All tensors of a file, in its order; `names` for one without."""
    assert data[:3] == b"EVC" and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    version = data[3]
    start, coder = (4, 0) if version == 1 else (5, data[4])
    opener = zlib.decompressobj(-15, zdict=DICTIONARY)
    table = Table(opener.decompress(data[start:-4]))
    count = table.number()
    chains = [[table.number() for _ in range(table.number())] for _ in range(table.number())]
    own_names = table.names(version, count)
    if own_names is None:
        own_names = sorted(names) if names is not None else [str(i) for i in range(count)]
        joined = "".join(name + "\0" for name in own_names).encode()
        assert names is None or zlib.crc32(joined) >> 12 == table.checksum
    ties = table.ties(version)
    count -= len(ties)
    dtypes = [DTYPES[table.number()] for _ in range(count)]
    shapes = table.shapes(count)
    kinds = [chains[table.number()] for _ in range(count)]
    layouts = [table.layouts(*row) for row in zip(kinds, shapes, dtypes, strict=True)]
    assert table.at == len(table.data)
    found = iter(decoded(coder, opener.unused_data, shapes, layouts))
    tensors: list[Tensor] = []
    own = iter(zip(dtypes, shapes, strict=True))
    for place, name in enumerate(own_names):
        tied = place in ties
        tensors.append(tensors[ties[place]]._replace(name=name) if tied else Tensor(name, *next(own), next(found)))
    return tensors


def decoded(coder: int, stream: bytes, shapes: list[list[int]], layouts: list[list[Layout]]) -> list[Planes]:
    """The planes of each tensor that is not tied."""
    if coder == 2:
        mixing = MixingDecoder(stream)
        found = [
            [mixing.plane(*layout, math.prod(shape[2:])) for layout in planes]
            for shape, planes in zip(shapes, layouts, strict=True)
        ]
        mixing.finish()
        return found
    decoder = RansDecoder(stream) if coder else ClassesDecoder(stream)
    found = [[decoder.plane(*layout) for layout in planes] for planes in layouts]
    decoder.finish()
    return found
