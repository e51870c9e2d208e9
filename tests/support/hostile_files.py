"""Hostile `.evc` files: small ones that ask a reader for much, each in one way; and what a reader may spend on them."""

from __future__ import annotations

import binascii
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from evocompress.codecs.budget import Budget
from evocompress.codecs.codec import varint
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.codecs.deflation import deflate
from evocompress.codecs.planes import kernel_places
from evocompress.codecs.tensor_table import read_table

__all__ = [
    "COSTLY",
    "costly_file",
    "forged",
    "many_alike",
    "many_kernel_sizes",
    "nested_planes",
    "nested_products",
    "numbers",
    "sealed",
    "zeros",
]

DEADZONE, DCT, WAVELET, LOWRANK, SYMMETRY, COORDINATES = 1, 16, 18, 19, 24, 25
_NO_LIMIT = 1 << 62


def sealed(body: bytes) -> bytes:
    """A file of this body, with its checksum."""
    return body + binascii.crc32(body).to_bytes(4, "little")


def numbers(*values: int) -> bytes:
    """Varints."""
    return b"".join(map(varint, values))


def forged(table: bytes, coder: CoderName = "rans", padding: int = 0) -> bytes:
    """A file of this table, whose symbols are all zero; no limit is looked at."""
    encoder = CODERS[coder].encoder()
    entries, _ = read_table(table, 2, Budget(_NO_LIMIT))
    for entry in entries:
        for plane in entry.planes:
            blank = np.zeros((plane.rows, plane.columns), np.int32)
            encoder.plane(blank, plane.kind, kernel_places(entry.shape))
    head = b"EVC\x01" if coder == "classes" else b"EVC\x02" + bytes([CODERS[coder].number])
    return sealed(head + deflate(table) + encoder.finish() + bytes(padding))


def many_alike(
    count: int, shape: Sequence[int], chain: Sequence[int] = (DEADZONE,), side: bytes = numbers(0), dtype: int = 0
) -> bytes:
    """The table of tensors that are alike but for their names."""
    names = b"".join(b"%x\0" % place for place in range(count))
    first = numbers(len(shape), *shape)
    others = numbers(len(shape), 0, *shape[1:]) if shape else numbers(0)
    shapes = first + others * (count - 1)
    return (
        numbers(count, 1, len(chain), *chain)
        + names
        + numbers(dtype) * count
        + shapes
        + numbers(0) * count
        + side * count
    )


def nested_planes(count: int) -> bytes:
    """Single weights, each of 255 planes: seven factorisations, one within the other."""
    side = numbers(0)
    for _ in range(7):
        side = numbers(1) + side + side
    return many_alike(count, (1, 1), (LOWRANK,) * 7 + (DEADZONE,), side)


def nested_products(size: int) -> bytes:
    """A matrix as a product of 64 factors that are all as large as it is, and of rank 1 in the end."""

    def side(depth: int, rows: int, columns: int) -> bytes:
        if depth == 0:
            return numbers(0)
        rank = min(rows, columns) if depth > 1 else 1
        return numbers(rank) + side(depth - 1, rank, columns) + side(depth - 1, rows, rank)

    return many_alike(1, (size, size), (LOWRANK,) * 7 + (DEADZONE,), side(7, size, size))


def many_kernel_sizes(count: int) -> bytes:
    """Kernels of so many sizes, at most 7 261, each of which has other symmetries."""
    sizes = [(h, w) for h in range(1, 1025) for w in range(1, 1025) if 1 < h * w <= 1024][:count]
    shapes = b"".join(numbers(4, int(place == 0), 1, *size) for place, size in enumerate(sizes))
    names = b"".join(b"%x\0" % place for place in range(count))
    head = numbers(count, 1, 2, SYMMETRY, DEADZONE) + names + numbers(0) * count
    return head + shapes + numbers(0) * count + numbers(1, 1, 0, 0) * count


def nested_arrays(count: int, chain: Iterable[int], side: bytes) -> bytes:
    """Small tensors behind seven transforms."""
    return many_alike(count, (2, 2), (*chain, DEADZONE), side)


def zeros(rows: int, columns: int, dtype: int = 0) -> bytes:
    """A matrix of zeros."""
    return many_alike(1, (rows, columns), dtype=dtype)


#: What is dear in each of the files that `costly_file` makes.
COSTLY = ("coordinates", "cosines of one long vector", "planes", "products", "symmetries", "wavelets", "weights")


@functools.cache
def costly_file(kind: str) -> bytes:
    """A file that would cost far more than its size, and which no reader may take; `kind` is one of COSTLY.

    Made once, where it is first needed: it takes up to seconds.
    """
    match kind:
        case "planes":
            return forged(nested_planes(100))
        case "products":
            return forged(nested_products(1500), padding=4000)
        case "symmetries":
            return forged(many_kernel_sizes(500))
        case "wavelets":
            return forged(nested_arrays(3000, (WAVELET,) * 7, numbers(*[0, 8] * 7, 0)), padding=4000)
        case "cosines of one long vector":
            return forged(many_alike(1, (4_194_301,), (DCT,) * 7 + (DEADZONE,), numbers(*[1] * 7, 0)))
        case "coordinates":
            chain = (COORDINATES,) * 7 + (DEADZONE,)
            return forged(many_alike(1, (500, 500), chain, _models(7, 500)), padding=4000)
        case "weights":
            return forged(zeros(4096, 4096), padding=100)
    raise ValueError(f"{kind!r} is none of {COSTLY}")


def _models(depth: int, size: int) -> bytes:
    """Side information of models with one coefficient for each row and column."""
    if depth == 0:
        return numbers(0)
    whole = numbers(1, 0, size, size)
    return whole + _models(depth - 1, size) + _models(depth - 1, size)
