"""The IDX format of the MNIST family: a magic number, the sizes, the bytes."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from evocompress.errors import DataError

__all__ = ["read_idx"]


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


#: Bytes of an array, at most: more than any set of this family has.
_LARGEST = 1 << 30
_GZIP = b"\x1f\x8b"
_DENSEST = 1032  # bytes that one byte of a DEFLATE stream can stand for


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in `path`, which may be compressed by gzip.

    No more than the size that the header declares, and one byte, is read or inflated.

    Raises DataError, naming the file, for another magic number, another element type, or a size that is not what the
    header says, is beyond 2^30 bytes or more than the file can hold.
    """
    try:
        with path.open("rb") as file:
            size, packed = os.fstat(file.fileno()).st_size, file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                return _read(path, file, size)
            with gzip.GzipFile(fileobj=file) as content:
                return _read(path, content, _DENSEST * size)
    except (OSError, EOFError, zlib.error) as failure:
        raise DataError(f"{path}: cannot be read: {failure}; delete it and fetch it again") from failure


def _read(path: Path, content: _Readable, most: int) -> npt.NDArray[np.uint8]:
    """The array in an open file of at most so many bytes."""
    head = content.read(4)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08" or not 1 <= head[3] <= 4:
        raise DataError(f"{path}: starts with {head.hex()}, so it is no IDX file of bytes (000008 and 1 to 4)")
    start = 4 + 4 * head[3]
    lengths = content.read(start - 4)
    if len(lengths) < start - 4:
        raise DataError(
            f"{path}: is {4 + len(lengths)} bytes long, its header alone needs {start}; delete it and fetch it again"
        )
    shape = struct.unpack(f">{head[3]}I", lengths)
    count = math.prod(shape)
    if count > most - start:
        raise DataError(
            f"{path}: is at most {most} bytes long; shape {shape} needs {start + count}; delete it and fetch it again"
        )
    if count > _LARGEST:
        raise DataError(f"{path}: announces {count} bytes by its shape {shape}; at most {_LARGEST} are read")
    data = content.read(count + 1)
    if len(data) != count:
        length = f"{start + len(data)} bytes" if len(data) < count else f"more than {start + count} bytes"
        raise DataError(f"{path}: is {length} long; shape {shape} needs {start + count}; delete it and fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)
