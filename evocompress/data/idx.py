"""The IDX format of the MNIST family: a magic number, the sizes, the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evocompress.errors import DataError

__all__ = ["read_idx"]


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in `path`, which may be compressed by gzip.

    Raises DataError, naming the file, for another magic number, another element type, or a size that is not what the
    header says.
    """
    data = _content(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise DataError(f"{path}: starts with {data[:4].hex()}, so it is no IDX file of bytes (000008 and 1 to 4)")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(
            f"{path}: is {len(data)} bytes long, its header alone needs {start}; delete it and fetch it again"
        )
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"{path}: is {len(data)} bytes long; shape {shape} needs {expected}; delete it and fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as failure:
        raise DataError(f"{path}: cannot be read: {failure}; delete it and fetch it again") from failure
